"""Working on a picture is, bit for bit, what stock diffusers pipelines do with it, where both can do the same.

The reference side is built from the model's folder and imports nothing of the studio.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from conftest import POCKET, make_toy
from PIL import Image
from test_schedulers import ETA, STOCK

from studio.core.base import check
from studio.core.catalog import SCHEDULERS
from studio.core.sweeps.spec import SweepSpec
from studio.engine.context import Bench
from studio.engine.generation.job import generate
from studio.engine.sweeps.denoise_strip import strip
from studio.engine.sweeps.job import run_sweep
from studio.settings import load

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
SEED, SIZE, STEPS, PROMPT = 7, 64, 4, "a red boat by a lake"
ALL = ("DDIM", "Euler", "Heun", "PLMS", "LCM")  # these also at strength 1


def scene(size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    """Smooth colours with a dark square in them."""
    y, x = np.mgrid[: size[1], : size[0]]
    rgb = np.stack([x * 255 / size[0], y * 255 / size[1], 128 + 100 * np.sin(x / 9)], -1).astype(
        np.uint8
    )
    rgb[size[1] // 4 : size[1] // 2, size[0] // 4 : size[0] // 2] = 30
    return Image.fromarray(rgb)


def square(
    size: tuple[int, int] = (SIZE, SIZE), box: tuple[int, int, int, int] = (16, 24, 48, 56)
) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def pipe_of(kind: str, model: Path, name: str, schedule: str = "As shipped") -> Any:
    made = getattr(diffusers, kind).from_pretrained(model, dtype=torch.float32)
    made.set_progress_bar_config(disable=True)
    return with_scheduler(made, model, name, schedule)


def with_scheduler(pipe: Any, model: Path, name: str, schedule: str = "As shipped") -> Any:
    scheduler, always, ladders = STOCK[name]
    shipped = json.loads((model / "scheduler" / "scheduler_config.json").read_text())
    spacing = {key: shipped[key] for key in ("timestep_spacing", "steps_offset") if key in shipped}
    own = {**always, **(spacing if schedule == "As shipped" else ladders[schedule])}
    keep = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    pipe.scheduler = getattr(diffusers, scheduler)(
        **{key: shipped[key] for key in keep if key in shipped}, **own
    )
    return pipe


def called(pipe: Any, name: str, **more: Any) -> np.ndarray:
    told = {"num_inference_steps": STEPS, "guidance_scale": 6.0, "eta": ETA.get(name, 0.0)} | more
    return np.asarray(pipe(PROMPT, generator=torch.Generator().manual_seed(SEED), **told).images[0])


def made(
    bench: Bench, picture: Image.Image | None, mask: Image.Image | None = None, /, **spec: Any
) -> np.ndarray:
    """The pixels that the studio makes of them."""
    inputs = bench.library.inputs
    given = {"image": inputs.add(picture).sha256} if picture else {}
    given |= {"mask": inputs.add_mask(mask).sha256} if mask else {}
    told = (
        {"prompt": PROMPT, "seed": SEED, "steps": STEPS, "guidance": 6, "schedule": "As shipped"}
        | given
        | spec
    )
    return np.asarray(
        Image.open(generate(bench, told, lambda progress: None)["pictures"][0]["path"])
    )


@pytest.fixture(scope="module")
def work(bench: Bench) -> Callable[..., np.ndarray]:
    """`work(picture, mask, **spec)` → the picture's pixels."""
    return partial(made, bench)


@pytest.fixture(scope="module")
def stock() -> dict[str, Any]:
    return {
        kind: pipe_of(kind, POCKET, "Euler")
        for kind in ("StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline")
    }


@pytest.mark.parametrize("name", SCHEDULERS)
def test_img2img_is_bitwise_the_stock_call(
    stock: dict[str, Any], work: Callable[..., np.ndarray], name: str
) -> None:
    pipe = with_scheduler(stock["StableDiffusionImg2ImgPipeline"], POCKET, name)
    for strength in (0.5, 1.0) if name in ALL else (0.5,):
        ours = work(scene(), scheduler=name, strength=strength)
        assert np.array_equal(ours, called(pipe, name, image=scene(), strength=strength)), strength


@pytest.mark.parametrize("name", SCHEDULERS)
def test_inpainting_is_bitwise_the_stock_call(
    stock: dict[str, Any], work: Callable[..., np.ndarray], name: str
) -> None:
    """Inside the mask; outside ours is the picture itself, while the stock call's went through the autoencoder."""
    pipe, inside = (
        with_scheduler(stock["StableDiffusionInpaintPipeline"], POCKET, name),
        np.asarray(square()) > 0,
    )
    for strength in (0.8, 1.0) if name in ALL else (0.8,):
        ours = work(scene(), square(), scheduler=name, strength=strength, mask_blur=0)
        theirs = called(
            pipe,
            name,
            image=scene(),
            mask_image=square(),
            strength=strength,
            height=SIZE,
            width=SIZE,
        )
        assert np.array_equal(ours[inside], theirs[inside]), strength
        assert np.array_equal(ours[~inside], np.asarray(scene())[~inside])


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("Euler", "Karras"), ("DPM++ 2M", "Simple"), ("Heun", "Exponential"), ("PLMS", "Uniform")],
)
def test_other_ladders(
    stock: dict[str, Any], work: Callable[..., np.ndarray], name: str, schedule: str
) -> None:
    pipe = with_scheduler(stock["StableDiffusionImg2ImgPipeline"], POCKET, name, schedule)
    ours = work(scene(), scheduler=name, schedule=schedule, strength=0.6)
    assert np.array_equal(ours, called(pipe, name, image=scene(), strength=0.6))


# ---- SDXL, and models made for inpainting -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench with toy models: SDXL, and inpainting ones of SD 1.x and SDXL."""
    settings = load(
        home=tmp_path_factory.mktemp("others"),
        device="cpu",
        precision="float32",
        keep_free=0,
        preview_every=0,
    )
    make_toy(settings.models / "xl", "StableDiffusionXLPipeline")
    make_toy(settings.models / "nine", "StableDiffusionInpaintPipeline", 48, "epsilon", channels=9)
    make_toy(settings.models / "nine-xl", "StableDiffusionXLInpaintPipeline", channels=9)
    bench = Bench.open(settings)
    yield bench
    bench.gallery.close()


@pytest.mark.parametrize("name", ["Euler a", "Heun", "DDIM"])
@pytest.mark.parametrize("model", ["nine", "nine-xl", "xl"])
def test_other_models_are_bitwise_too(others: Bench, model: str, name: str) -> None:
    folder, inside = others.settings.models / model, np.asarray(square()) > 0
    kind = (
        "StableDiffusionInpaintPipeline" if model == "nine" else "StableDiffusionXLInpaintPipeline"
    )
    pipe = pipe_of(kind, folder, name)
    for strength in (0.7, 1.0):
        ours = made(
            others, scene(), square(), model=model, scheduler=name, strength=strength, mask_blur=0
        )
        theirs = called(
            pipe,
            name,
            image=scene(),
            mask_image=square(),
            strength=strength,
            height=SIZE,
            width=SIZE,
        )
        assert np.array_equal(ours[inside], theirs[inside]), strength
        assert np.array_equal(ours[~inside], np.asarray(scene())[~inside])
    if model == "xl":
        pipe = with_scheduler(
            diffusers.StableDiffusionXLImg2ImgPipeline.from_pipe(pipe), folder, name
        )
        pipe.set_progress_bar_config(disable=True)
        assert np.array_equal(
            made(others, scene(), model=model, scheduler=name, strength=0.6),
            called(pipe, name, image=scene(), strength=0.6),
        )
    else:  # a model made for inpainting paints without a mask as if all were masked
        white = Image.new("L", (SIZE, SIZE), 255)
        full = called(
            pipe, name, image=scene(), mask_image=white, strength=1.0, height=SIZE, width=SIZE
        )
        assert np.array_equal(
            made(others, None, model=model, scheduler=name, width=SIZE, height=SIZE), full
        )


@pytest.mark.parametrize("model", ["nine", "nine-xl"])
def test_a_model_made_for_inpainting_does_what_others_do(others: Bench, model: str) -> None:
    """Without a mask, too: from noise and from a picture, in a second pass, in a fast sweep, step by step on a strip."""
    size = {"width": SIZE, "height": SIZE}
    plain, second = (
        made(others, None, model=model, **size, **more) for more in ({}, {"hires_scale": 2.0})
    )
    assert plain.shape == (SIZE, SIZE, 3) and second.shape == (2 * SIZE, 2 * SIZE, 3)
    near, far = (
        made(others, scene(), model=model, scheduler="Euler", strength=strength)
        for strength in (0.3, 1.0)
    )
    assert near.shape == far.shape == (SIZE, SIZE, 3) and not np.array_equal(near, far)
    base = {"model": model, "seed": SEED, "scheduler": "Euler", "schedule": "As shipped", **size}
    cells = check(
        SweepSpec, {"base": base, "axes": [{"field": "steps", "values": "2, 3"}], "fast": True}
    )
    told = run_sweep(others, {"sweep": others.sweeps.add(cells, "me")}, lambda progress: None)
    assert (told["made"], told["failed"], told["calls"]) == (2, 0, 3)
    sheet = strip(others, {"request": base | {"steps": 2}, "every": 1}, lambda progress: None)
    assert Image.open(sheet["pictures"][0]["path"]).width > 3 * SIZE
