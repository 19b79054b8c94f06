"""What tests share: a home, a bench on the embedded model, and toy models of the other families, saved as real folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # small networks: more threads only wait for each other

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from studio.settings import Settings, load, shipped

POCKET = shipped("assets") / "pocket"
# The same examples in every run and no clock, so that what passed passes; `HYPOTHESIS_PROFILE=search` looks for others.
UNTIMED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
hypothesis_settings.register_profile("same", derandomize=True, database=None, **UNTIMED)
hypothesis_settings.register_profile("search", **UNTIMED)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A fresh home on the CPU."""
    return load(
        home=tmp_path / "home", device="cpu", precision="float32", keep_free=0, preview_every=0
    )


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy SD 2.x (v-prediction) and SDXL models: real classes, random weights, the embedded tokenizer."""
    folder = tmp_path_factory.mktemp("toys")
    make_toy(folder / "toy-sd2", "StableDiffusionPipeline")
    make_toy(folder / "toy-sdxl", "StableDiffusionXLPipeline")
    return folder


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory, toys: Path) -> Iterator[Any]:
    """A bench on the CPU in float32 that finds pocket, toy-sd2 and toy-sdxl."""
    from studio.engine.context import Bench

    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    for toy in toys.iterdir():
        (home / "models" / toy.name).symlink_to(toy)
    bench = Bench.open(
        load(home=home, device="cpu", precision="float32", keep_free=0, preview_every=0)
    )
    yield bench
    bench.gallery.close()


@pytest.fixture
def paint(bench: Any) -> Callable[..., Any]:
    """`paint(prompt=…, seed=…)` → the picture's pixels as an array, or several of them."""
    import numpy as np
    from PIL import Image

    from studio.engine.generation.job import generate

    def paint(**spec: Any) -> Any:
        made = generate(bench, spec, lambda progress: None)["pictures"]
        arrays = [np.asarray(Image.open(picture["path"])) for picture in made]
        return arrays[0] if len(arrays) == 1 else arrays

    return paint


@dataclass(frozen=True)
class Served:
    """A studio that is open: where, on which home, and everything that its process has said."""

    url: str
    home: Path
    log: Path

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")


@pytest.fixture(scope="session")
def open_studio() -> Iterator[Callable[..., Served]]:
    """`open_studio(home, *flags)` opens a page in a process of its own, as a user does. All are closed at the end."""
    processes: list[subprocess.Popen[bytes]] = []
    homes: list[str] = []

    def open_studio(home: Path, *flags: str) -> Served:
        home.mkdir(parents=True, exist_ok=True)
        log = home.with_suffix(".log")
        command = [
            sys.executable,
            "-m",
            "studio",
            "--port",
            "0",
            "--home",
            str(home),
            "--device",
            "cpu",
            *flags,
        ]
        with open(log, "wb") as out:
            processes.append(subprocess.Popen(command, stdout=out, stderr=out))
        homes.append(str(home))
        end = time.monotonic() + 120
        while "The studio is open at " not in (said := log.read_text()):
            assert processes[-1].poll() is None and time.monotonic() < end, said
            time.sleep(0.05)
        port = said.split("The studio is open at ")[1].split()[0].rsplit(":", 1)[1]
        return Served(f"http://127.0.0.1:{port}", home, log)

    yield open_studio
    for process in processes:
        process.kill()
        process.wait()
    for process in psutil.process_iter(
        ["cmdline"]
    ):  # their workers would leave by themselves, but only after a while
        if any(home in (process.info["cmdline"] or ()) for home in homes):
            process.kill()


@pytest.fixture(scope="session")
def served(open_studio: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory) -> Served:
    """One open studio for all tests; it also has the embedded model under the name `other`."""
    home = tmp_path_factory.mktemp("served") / "home"
    (home / "models").mkdir(parents=True)
    (home / "models" / "other").symlink_to(POCKET)
    return open_studio(home)


def make_toy(
    folder: Path, kind: str, width: int = 0, prediction: str = "v_prediction", channels: int = 4
) -> None:
    """A model folder of that kind of pipeline with random weights; `width` is that of its prompts, `channels` of its U-Net."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    torch.manual_seed(5)
    large = kind.startswith("StableDiffusionXL")
    tokenizer = CLIPTokenizer.from_pretrained(POCKET, subfolder="tokenizer")
    # SD 2.x is told from SD 1.x by the width of its prompts
    width = width or (32 if large else 1024)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=4,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    more = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80,
    }
    parts: dict[str, Any] = {
        "unet": UNet2DConditionModel(
            sample_size=8,
            in_channels=channels,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            layers_per_block=1,
            attention_head_dim=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=2 * width if large else width,
            use_linear_projection=True,
            **(more if large else {}),
        ),
        "vae": AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4,
            sample_size=64,
        ),
        "text_encoder": CLIPTextModel(text),
        "tokenizer": tokenizer,
        "scheduler": EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
            use_karras_sigmas=True,
        )
        if large
        else DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction,
        ),
    }
    if large:
        parts |= {"text_encoder_2": CLIPTextModelWithProjection(text), "tokenizer_2": tokenizer}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index = {
        "_class_name": kind,
        "_diffusers_version": "0.42.1",
        "requires_safety_checker": False,
        **{
            name: [
                "diffusers" if name in ("unet", "vae", "scheduler") else "transformers",
                type(part).__name__,
            ]
            for name, part in parts.items()
        },
    }
    absent = {"safety_checker": [None, None], "feature_extractor": [None, None]}
    index |= {"force_zeros_for_empty_prompt": True} if large else absent
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.fixture
def desk(settings: Settings) -> Iterator[Any]:
    """What the tabs work with, on a home of its own; closed afterwards."""
    from studio.storage.jobs import Jobs
    from studio.ui.app import desk_of

    jobs = Jobs(settings.home / "jobs.sqlite")
    desk = desk_of(settings, jobs)
    yield desk
    for store in (jobs, desk.gallery, desk.sweeps):
        store.close()


@pytest.fixture
def command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`studio …` in this process, on a home of its own."""
    from studio.cli.main import main

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--home", str(tmp_path / "home"), "--device", "cpu"])
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(words, ended.value.code, said.out, said.err)

    return run
