"""The upscaler between two passes: the stock pipeline on the picture that the formula enlarges, counted by the file's content, named as A1111 names it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from studio.core.base import validate
from studio.core.generation import infotext
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import SweepSpec, plan_sweep
from studio.engine.context import WorkerContext
from studio.errors import BadFile, InvalidSpec, ModelNotFound
from support import upscalers
from support.benches import open_bench
from support.models import POCKET
from support.painting import made
from support.pickles import read_pickles_here
from support.sentences import refused
from support.stock import PROMPT, SEED, called, pipe_of, scene

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
TENSORS = upscalers.compact(2)
LARGER: dict[str, Any] = {
    "scheduler": "Euler",
    "steps": 4,
    "guidance": 6,
    "seed": SEED,
    "noise_schedule": "Model default",
    "prompt": PROMPT,
    "strength": 0,
    "hires_scale": 2,
    "hires_strength": 0.5,
}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WorkerContext]:
    (tmp_path / "home").mkdir()
    bench = open_bench(tmp_path / "home")
    upscalers.write(bench.settings.upscalers / "RealESRGAN_x2plus.safetensors", TENSORS)
    yield bench
    bench.home.close()


def enlarge(image: Image.Image) -> Image.Image:
    """The formula, on the tensors of the file."""
    x = y = torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)[None] / 255
    for number in range(9):
        weight = TENSORS[f"body.{number}.weight"]
        if weight.ndim == 1:
            y = F.prelu(y, weight)
        else:
            y = F.conv2d(y, weight, TENSORS[f"body.{number}.bias"], padding=1)
    y = F.pixel_shuffle(y, 2) + F.interpolate(x, scale_factor=2, mode="nearest")
    return Image.fromarray(
        y[0].clamp(0, 1).mul(255).round().permute(1, 2, 0).to(torch.uint8).numpy()
    )


@pytest.mark.slow
def test_it_is_the_stock_pipeline_on_what_the_network_makes(bench: WorkerContext) -> None:
    second = pipe_of("StableDiffusionImg2ImgPipeline", POCKET, "Euler")
    larger = enlarge(scene())
    ours = made(bench, scene(), **LARGER, hires_upscaler="R-ESRGAN 2x+")
    expected = called(second, "Euler", image=larger, strength=0.5, num_inference_steps=4)
    assert np.array_equal(ours, expected)
    assert not np.array_equal(ours, made(bench, scene(), **LARGER))
    tiled = made(
        bench,
        scene(),
        **LARGER,
        hires_upscaler="RealESRGAN_x2plus",
        hires_tile=96,
        hires_overlap=32,
    )
    corner = called(
        second, "Euler", image=larger.crop((0, 0, 96, 96)), strength=0.5, num_inference_steps=4
    )
    assert np.array_equal(tiled[:32, :32], corner[:32, :32])


def test_it_counts_by_content_where_it_changes_something(bench: WorkerContext) -> None:
    def digest(**values: Any) -> str:
        request = GenerationRequest(width=64, height=64, seed=1, **values).resolve(64, 0)
        return request.digest(bench.pipelines.content_hashes(request))

    twice = {"hires_scale": 2.0}
    folder = bench.settings.upscalers
    plain, named = digest(**twice), digest(**twice, hires_upscaler="RealESRGAN_x2plus")
    assert plain != named
    assert digest(**twice, hires_upscaler="Lanczos") == plain
    assert digest(**twice, hires_upscaler="Nearest") not in (plain, named)
    assert digest(hires_upscaler="RealESRGAN_x2plus") == digest()
    latent = {**twice, "hires_resize": "latent"}
    assert digest(**latent, hires_upscaler="RealESRGAN_x2plus") == digest(**latent)
    (folder / "RealESRGAN_x2plus.safetensors").rename(folder / "other.safetensors")
    assert digest(**twice, hires_upscaler="other") == named
    upscalers.write(folder / "other.safetensors", upscalers.compact(2, seed=9))
    assert digest(**twice, hires_upscaler="other") != named


def test_a_pickle_paints_what_the_same_numbers_do(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_pickles_here(monkeypatch)
    expected = made(bench, scene(), **LARGER, hires_upscaler="RealESRGAN_x2plus")
    folder = bench.settings.upscalers
    torch.save({"params_ema": TENSORS}, folder / "pick.pth")
    assert np.array_equal(made(bench, scene(), **LARGER, hires_upscaler="pick"), expected)
    (folder / "bad.pth").write_bytes(b"\x80\x02.")
    request = GenerationRequest(hires_scale=2, hires_upscaler="bad")
    bench.home.library.check_request(request)
    with refused(BadFile), bench.pipelines.borrow(request):
        pass  # before anything is painted
    with refused(BadFile):
        bench.home.library.check_request(request)
    assert "bad" not in bench.home.library.upscalers.list_names()


@pytest.mark.smoke
def test_one_that_is_not_there_is_refused_by_name(bench: WorkerContext) -> None:
    request = GenerationRequest(hires_scale=2, hires_upscaler="4x-UltraSharp")
    with refused(ModelNotFound):
        bench.home.library.check_request(request)
    bench.home.library.check_request(GenerationRequest(hires_upscaler="4x-UltraSharp"))
    with refused(InvalidSpec, "Hires upscaler"):
        validate(GenerationRequest, {"hires_upscaler": "Latent (bicubic)"})


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("RealESRGAN_x4plus", "R-ESRGAN 4x+"),
        ("4x-UltraSharp", "4x-UltraSharp"),
        ("a1111/4x-UltraSharp", "4x-UltraSharp"),
        ("Nearest", "Nearest"),
        ("", "Lanczos"),
    ],
)
def test_the_text_has_a1111s_name(name: str, written: str) -> None:
    request = GenerationRequest(
        width=64, height=64, seed=1, hires_scale=2, hires_upscaler=name
    ).resolve(64, 0)
    text = infotext.format_infotext(request)
    assert f"Hires upscaler: {written}," in text
    values = infotext.parse_infotext(text).values
    assert values.get("hires_upscaler", "") == name.rpartition("/")[2]
    assert values["hires_resize"] == "pixel"


@pytest.mark.smoke
def test_an_axis_of_a_sweep_asks_for_each(bench: WorkerContext) -> None:
    spec = validate(
        SweepSpec,
        {
            "base": {"width": 64, "height": 64, "seed": 1, "hires_scale": 2},
            "axes": [{"field": "hires_upscaler", "values": ["Nearest", "RealESRGAN_x2plus"]}],
        },
    )
    plan = plan_sweep(spec)
    names = {request.active_upscaler for request in plan.distinct_requests}
    assert names == {"Nearest", "RealESRGAN_x2plus"}
