"""Working on a picture is, bit for bit, what stock diffusers pipelines do with it, where both can do the same.

The reference side is built from the model's folder and imports nothing of the studio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import diffusers
import numpy as np
import pytest
from PIL import Image

from studio.core.base import validate
from studio.core.catalog import SCHEDULERS
from studio.core.sweeps.spec import SweepSpec
from studio.engine.context import WorkerContext
from studio.engine.sweeps.denoise_strip import render_denoise_strip
from studio.engine.sweeps.job import run_sweep
from studio.settings import load
from support.models import POCKET, make_toy
from support.painting import made
from support.stock import (
    SEED,
    SIZE,
    called,
    pipe_of,
    scene,
    square,
    with_scheduler,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
ALL = ("DDIM", "Euler", "Heun", "PLMS", "LCM")  # these also at strength 1
# of each sort one here or there: one step, ancestral, second order, multistep, with noise of its own
IMG2IMG = ("Euler a", "PLMS", "DPM++ 2M", "DPM++ SDE", "LCM")
INPAINTING = ("Euler", "Heun", "DDIM", "LCM")
# of each sort of model one
QUICK_MODELS = (("nine", "Euler a"), ("nine-xl", "DDIM"), ("xl", "Heun"))


def quick_first(quick: tuple[str, ...]) -> list[Any]:
    """All schedulers, those that are not quick as slow tests."""
    return [
        name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in SCHEDULERS
    ]


@pytest.fixture(scope="module")
def work(bench: WorkerContext) -> Callable[..., np.ndarray]:
    """`work(picture, mask, **spec)` → the picture's pixels."""
    return partial(made, bench)


@pytest.fixture(scope="module")
def stock() -> dict[str, Any]:
    return {
        kind: pipe_of(kind, POCKET, "Euler")
        for kind in ("StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline")
    }


@pytest.mark.parametrize("name", quick_first(IMG2IMG))
def test_img2img_is_bitwise_the_stock_call(
    stock: dict[str, Any], work: Callable[..., np.ndarray], name: str
) -> None:
    pipe = with_scheduler(stock["StableDiffusionImg2ImgPipeline"], POCKET, name)
    for strength in (0.5, 1.0) if name in ALL else (0.5,):
        ours = work(scene(), scheduler=name, strength=strength)
        assert np.array_equal(ours, called(pipe, name, image=scene(), strength=strength)), strength


@pytest.mark.parametrize("name", quick_first(INPAINTING))
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
    ours = work(scene(), scheduler=name, noise_schedule=schedule, strength=0.6)
    assert np.array_equal(ours, called(pipe, name, image=scene(), strength=0.6))


# ---- SDXL, and models made for inpainting -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerContext]:
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
    bench = WorkerContext.open(settings)
    yield bench
    bench.home.gallery.close()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (model, name)
        if (model, name) in QUICK_MODELS
        else pytest.param(model, name, marks=pytest.mark.slow)
        for model in ("nine", "nine-xl", "xl")
        for name in ("Euler a", "Heun", "DDIM")
    ],
)
def test_other_models_are_bitwise_too(others: WorkerContext, model: str, name: str) -> None:
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


@pytest.mark.parametrize("model", ["nine", pytest.param("nine-xl", marks=pytest.mark.slow)])
def test_a_model_made_for_inpainting_does_what_others_do(others: WorkerContext, model: str) -> None:
    """Without a mask, too: from noise and from a picture, in a second pass, in a fast sweep, step by step on a strip."""
    size = {"width": SIZE, "height": SIZE}
    plain, second = (
        made(others, None, model=model, **size, **more) for more in ({}, {"hires_scale": 2.0})
    )
    assert plain.shape == (SIZE, SIZE, 3)
    assert second.shape == (2 * SIZE, 2 * SIZE, 3)
    near, far = (
        made(others, scene(), model=model, scheduler="Euler", strength=strength)
        for strength in (0.3, 1.0)
    )
    assert near.shape == far.shape == (SIZE, SIZE, 3)
    assert not np.array_equal(near, far)
    base = {
        "model": model,
        "seed": SEED,
        "scheduler": "Euler",
        "noise_schedule": "Model default",
        **size,
    }
    cells = validate(
        SweepSpec, {"base": base, "axes": [{"field": "steps", "values": "2, 3"}], "fast": True}
    )
    told = run_sweep(others, {"sweep": others.home.sweeps.save(cells, "me")}, lambda progress: None)
    assert (told["made"], told["failed"], told["calls"]) == (2, 0, 3)
    sheet = render_denoise_strip(
        others, {"request": base | {"steps": 2}, "every": 1}, lambda progress: None
    )
    assert Image.open(sheet["pictures"][0]["path"]).width > 3 * SIZE
