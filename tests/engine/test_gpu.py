"""On CUDA: the same picture as a stock pipeline on the same device, and nearly that of the CPU. Run with `-m gpu`."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from studio.core.generation.request import GenerationRequest
from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.engine.generation.philox import Philox
from studio.settings import load
from support import lora_makers as makers
from support.models import POCKET

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CASES = [
    ("Euler", "Uniform", "EulerDiscreteScheduler", {"timestep_spacing": "linspace"}),
    ("Euler a", "Uniform", "EulerAncestralDiscreteScheduler", {"timestep_spacing": "linspace"}),
    (
        "DPM++ 2M",
        "Karras",
        "DPMSolverMultistepScheduler",
        {"timestep_spacing": "linspace", "use_karras_sigmas": True},
    ),
    ("DDIM", "Model default", "DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    (
        "UniPC",
        "Simple",
        "UniPCMultistepScheduler",
        {
            "timestep_spacing": "trailing",
            "solver_type": "bh1",
            "solver_order": 3,
            "final_sigmas_type": "sigma_min",
        },
    ),
]


@pytest.fixture(scope="module", params=["float32", "float16", "bfloat16"])
def cuda(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerContext]:
    home = tmp_path_factory.mktemp("cuda")
    bench = WorkerContext.open(
        load(home=home, device="cuda", precision=request.param, preview_every=2)
    )
    yield bench
    bench.pipelines.unload("pocket")
    del bench
    gc.collect()  # a manager and its cache hold each other
    torch.cuda.empty_cache()


def pixels(bench: WorkerContext, **spec: Any) -> np.ndarray:
    made = generate(
        bench,
        {"prompt": "a red boat by a lake", "seed": 7, "steps": 8, "guidance": 6, **spec},
        lambda progress: None,
    )
    return np.asarray(Image.open(made["pictures"][0]["path"]), float)


@pytest.mark.parametrize(("name", "schedule", "kind", "settings"), CASES)
def test_the_stock_picture(
    cuda: WorkerContext, name: str, schedule: str, kind: str, settings: dict[str, Any]
) -> None:
    """Bitwise in float32; in half precision the autoencoder's format is ours, so nearly."""
    dtype = cuda.pipelines.device.dtype
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(POCKET, dtype=dtype).to("cuda")
    pipe.vae.to(cuda.pipelines.device.vae_dtype)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config, **settings)
    latents = pipe(
        "a red boat by a lake",
        num_inference_steps=8,
        guidance_scale=6.0,
        height=128,
        width=128,
        output_type="latent",
        generator=torch.Generator().manual_seed(7),
    ).images
    with torch.no_grad():
        image = pipe.vae.decode(latents.to(pipe.vae.dtype) / pipe.vae.config.scaling_factor).sample
    reference = pipe.image_processor.postprocess(image, output_type="np")[0] * 255
    apart = np.abs(pixels(cuda, scheduler=name, noise_schedule=schedule) - reference.round()).mean()
    print(f"{dtype} {name} {schedule}: {apart:.4f} of 255 apart")
    assert apart < (0.01 if dtype == torch.float32 else 4)


def test_memory_is_measured_and_given_back(cuda: WorkerContext) -> None:
    pixels(cuda)  # libraries take their workspaces, and keep them
    assert cuda.pipelines.unload("pocket")
    before = torch.cuda.memory_allocated()
    pixels(cuda)
    with cuda.pipelines.borrow(GenerationRequest()) as parts:
        assert {
            p.device.type
            for module in (parts.denoiser, parts.vae, *parts.text_encoders)
            for p in module.parameters()
        } == {"cuda"}
        (held,) = cuda.pipelines.loaded
        assert held["bytes"] <= torch.cuda.memory_allocated() - before
    del parts
    assert cuda.pipelines.unload("pocket")
    assert torch.cuda.memory_allocated() - before < held["bytes"] / 10


@pytest.mark.parametrize("scheduler", ["Euler", "Euler a", "DPM++ SDE", "DPM++ 2M SDE"])
def test_the_cpu_agrees(cuda: WorkerContext, tmp_path: Path, scheduler: str) -> None:
    """Also where a sampler adds noise: it is drawn on the CPU unless a request says otherwise."""
    if cuda.pipelines.device.dtype != torch.float32:
        pytest.skip("the CPU runs in float32")
    there = WorkerContext.open(load(home=tmp_path, device="cpu", precision="float32", keep_free=0))
    apart = np.abs(pixels(cuda, scheduler=scheduler) - pixels(there, scheduler=scheduler)).mean()
    print(f"{scheduler}: {apart:.4f} of 255 apart")
    assert apart < 3


def test_work_on_pictures(cuda: WorkerContext, tmp_path: Path) -> None:
    """img2img, inpainting, outpainting and a second pass run there, leave what is not masked, and nearly agree with the CPU."""
    there = WorkerContext.open(load(home=tmp_path, device="cpu", precision="float32", keep_free=0))
    picture = Image.radial_gradient("L").resize((128, 128)).convert("RGB")
    mask = Image.new("L", (128, 128))
    mask.paste(255, (32, 32, 96, 96))
    for bench in (cuda, there):
        given = {"image": bench.home.library.inputs.add(picture).sha256}
        masked = given | {"mask": bench.home.library.inputs.add_mask(mask).sha256, "mask_blur": 0}
    works: list[dict[str, Any]] = [
        given,
        masked,
        {**masked, "inpaint_area": "only masked"},
        {**given, "extend_left": 64},
        {"hires_scale": 1.5},
        {"hires_scale": 1.5, "hires_resize": "latent"},
    ]
    for scheduler in ("Euler", "DDIM", "Heun", "UniPC", "PLMS"):
        for work in works:
            spec = {**work, "scheduler": scheduler, "noise_schedule": "Model default"}
            ours = pixels(cuda, **spec)
            if "mask" in work:
                assert np.array_equal(ours[:32], np.asarray(picture, float)[:32])
            if cuda.pipelines.device.dtype == torch.float32:
                assert np.abs(ours - pixels(there, **spec)).mean() < 3, spec


@pytest.mark.parametrize("memory", ["low", "lowest"])
def test_what_saves_memory_takes_no_more_than_it_says(tmp_path: Path, memory: str) -> None:
    """The peak that torch measures beside its libraries' workspaces; layer by layer it is the same picture."""
    spec = {"prompt": "a red boat", "seed": 7, "steps": 4, "width": 512, "height": 512}
    settings = {"home": tmp_path, "device": "cuda", "precision": "float16", "keep_free": 0}
    pictures, peaks = {}, {}
    for name in ("auto", memory):
        bench = WorkerContext.open(load(**settings, memory=name))
        generate(bench, spec, lambda progress: None)  # libraries take their workspaces
        bench.pipelines.unload("pocket")
        gc.collect()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        made = generate(bench, spec, lambda progress: None)
        pictures[name] = np.asarray(Image.open(made["pictures"][0]["path"]))
        peaks[name] = torch.cuda.max_memory_allocated() - before
        plan = bench.pipelines.plan_memory(GenerationRequest(**spec))
        print(
            f"{name}: {plan.title}, {peaks[name] / 2**20:.1f} of {plan.peak_bytes / 2**20:.1f} MiB"
        )
        assert peaks[name] <= plan.peak_bytes
        bench.pipelines.evict_idle()
        bench.home.gallery.close()
        del bench
        gc.collect()
        torch.cuda.empty_cache()
    assert peaks[memory] < peaks["auto"]
    assert np.array_equal(pictures["auto"], pictures[memory]) == (memory == "lowest")


def test_loras_on_what_waits_beside_the_card(tmp_path: Path) -> None:
    """Each plan's picture with a LoRA on text encoders and denoiser; layer by layer it is the whole model's."""
    (tmp_path / "loras").mkdir()
    made = makers.add(makers.stock(POCKET))
    makers.kohya(tmp_path / "loras" / "both.safetensors", made, 2)
    spec = {"prompt": "a red boat", "seed": 7, "steps": 4, "loras": ["both:0.6"]}
    pictures = {}
    for memory in ("auto", "low", "lowest"):
        settings = load(
            home=tmp_path, device="cuda", precision="float32", keep_free=0, memory=memory
        )
        bench = WorkerContext.open(settings)
        result = generate(bench, spec, lambda progress: None)
        pictures[memory] = np.asarray(Image.open(result["pictures"][0]["path"]), float)
        bench.pipelines.evict_idle()
        bench.home.gallery.close()
    assert np.array_equal(pictures["auto"], pictures["lowest"])
    assert 0 < np.abs(pictures["auto"] - pictures["low"]).mean() < 60


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_nv_makes_the_cards_own_numbers(seed: int) -> None:
    """Draw by draw, up to the latents of 1024 × 1024 pixels."""
    generator = torch.Generator("cuda").manual_seed(seed)
    stream = Philox(seed)
    for shape in ((1, 4, 8, 8), (1, 4, 64, 96), (1, 4, 128, 128)):
        card = torch.randn(shape, generator=generator, device="cuda").cpu().numpy()
        assert np.allclose(stream.randn(shape), card, rtol=0, atol=1e-5)


def test_noise_from_the_card_is_nvs(cuda: WorkerContext) -> None:
    spec = {"prompt": "a red boat", "steps": 4, "seed": 3, "scheduler": "Euler a"}
    pictures = [
        np.asarray(
            Image.open(
                generate(cuda, spec | {"noise_source": source}, print)["pictures"][0]["path"]
            )
        )
        for source in ("GPU", "NV", "CPU")
    ]
    card, nv, cpu = (picture.astype(int) for picture in pictures)
    assert np.abs(card - nv).mean() < 2
    assert np.abs(card - cpu).mean() > 5
