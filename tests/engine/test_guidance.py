"""Guidance is that of stock pipelines: rescaled, switched off, and as an input of distilled models."""

from __future__ import annotations

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
from studio.engine.models.families.unet import DOWN_RESIDUALS, MID_RESIDUAL
from studio.engine.models.prompt_encoding import encode_prompts
from studio.settings import load
from studio.storage.jobs import Progress
from support.models import POCKET, make_toy
from support.painting import made
from support.stock import PROMPT, SEED, SIZE, STEPS, called, pipe_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
SIDES = {"width": SIZE, "height": SIZE}


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerContext]:
    """A home with a model whose U-Net takes the guidance as an input, as SD 1.x by LCM does."""
    settings = load(home=tmp_path_factory.mktemp("home"), device="cpu", keep_free=0)
    folder = settings.models / "lcm"
    make_toy(folder, "StableDiffusionPipeline", 32, "epsilon")
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    torch.manual_seed(3)
    unet = diffusers.UNet2DConditionModel.from_config(unet.config, time_cond_proj_dim=32)
    with torch.no_grad():  # made of zeros it would say nothing
        unet.time_embedding.cond_proj.weight.normal_(0, 0.5)
    unet.save_pretrained(folder / "unet")
    context = WorkerContext.open(settings)
    yield context
    context.home.gallery.close()


@pytest.mark.parametrize(
    ("model", "rescale"),
    [
        ("pocket", 0.7),
        ("toy-sdxl", 1.0),
        *(
            pytest.param(model, rescale, marks=pytest.mark.slow)
            for model, rescale in (
                *(("pocket", 0.0), ("pocket", 1.0), ("toy-sdxl", 0.0), ("toy-sdxl", 0.7)),
            )
        ),
    ],
)
def test_rescale_is_bitwise_stock(
    bench: WorkerContext, toys: Path, model: str, rescale: float
) -> None:
    folder = POCKET if model == "pocket" else toys / model
    pipe = pipe_of(f"StableDiffusion{'XL' * (model != 'pocket')}Pipeline", folder, "Euler")
    ours = made(bench, None, model=model, scheduler="Euler", guidance_rescale=rescale, **SIDES)
    theirs = called(pipe, "Euler", guidance_rescale=rescale, **SIDES)
    assert np.array_equal(ours, theirs)


def test_all_below_1_is_off(bench: WorkerContext) -> None:
    images = [made(bench, None, guidance=guidance, **SIDES) for guidance in (0, 0.5, 1, 1.5)]
    assert np.array_equal(images[0], images[2])
    assert np.array_equal(images[1], images[2])
    assert not np.array_equal(images[3], images[2])


@pytest.mark.parametrize("guidance", [1.0, pytest.param(2.0, marks=pytest.mark.slow), 8.0])
def test_a_distilled_model_is_bitwise_stock(distilled: WorkerContext, guidance: float) -> None:
    pipe = pipe_of("StableDiffusionPipeline", distilled.settings.models / "lcm", "LCM")
    ours = made(distilled, None, model="lcm", scheduler="LCM", guidance=guidance, **SIDES)
    assert np.array_equal(ours, called(pipe, "LCM", guidance_scale=guidance, **SIDES))


def test_a_distilled_model_takes_one_row_a_call(distilled: WorkerContext) -> None:
    """Its steps are counted so, too."""
    seen: list[Progress] = []
    spec = {"model": "lcm", "scheduler": "LCM", "noise_schedule": "Model default", "steps": 4}
    generate(distilled, spec | SIDES | {"guidance": 3}, seen.append)
    painting = [progress.step for progress in seen if progress.message == "Generating"]
    assert max(painting) == 4
    assert set(range(5)) <= set(painting)


def test_guidance_as_an_input_differs_from_row_to_row(distilled: WorkerContext) -> None:
    requests = [
        GenerationRequest(
            model="lcm",
            prompt=PROMPT,
            scheduler="LCM",
            noise_schedule="Model default",
            steps=STEPS,
            seed=SEED,
            guidance=guidance,
        ).resolve(SIZE, SEED)
        for guidance in (1.0, 3.0, 8.0)
    ]
    from support.painting import together

    with distilled.pipelines.borrow(*requests) as model:
        batched = together(model, *requests)
        for request, latents in zip(requests, batched, strict=True):
            (alone,) = together(model, request)
            assert float((latents - alone).norm() / alone.norm()) < 1e-5


def test_rows_can_carry_controls(bench: WorkerContext) -> None:
    """What a ControlNet adds is added to its row alone, as stock U-Nets add it."""
    request = GenerationRequest(prompt=PROMPT, model="pocket")
    with bench.pipelines.borrow(request) as model, torch.no_grad():
        unet = model.denoiser
        prompt = encode_prompts(model, request).positives[0].get(0)
        generator = torch.Generator().manual_seed(4)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        latents = [draw(1, 4, 8, 8) for _ in range(2)]
        widths = unet.config.block_out_channels
        shapes = [(widths[0], 8)]
        for level, width in enumerate(widths):
            side = 8 >> level
            shapes += [(width, side)] * unet.config.layers_per_block
            if level < len(widths) - 1:
                shapes.append((width, side // 2))
        downs = [tuple(draw(1, width, side, side) for width, side in shapes) for _ in range(2)]
        mids = [draw(1, widths[-1], side, side) for _ in range(2)]
        rows = [
            {**prompt, DOWN_RESIDUALS: down, MID_RESIDUAL: mid}
            for down, mid in zip(downs, mids, strict=True)
        ]
        timestep = torch.tensor([500.0])
        ours = model.predict(latents, [timestep] * 2, model.stack_rows(rows))
        for index, one in enumerate(ours):
            expected = unet(
                latents[index],
                timestep,
                prompt["prompt_embeds"],
                down_block_additional_residuals=downs[index],
                mid_block_additional_residual=mids[index],
                return_dict=False,
            )[0]
            plain = unet(latents[index], timestep, prompt["prompt_embeds"], return_dict=False)[0]
            assert float((one - expected).norm() / expected.norm()) < 1e-5
            assert float((one - plain).norm() / plain.norm()) > 1e-2
        other_rows = [{**prompt}, rows[0]]
        assert model.get_row_key(other_rows[0]) != model.get_row_key(other_rows[1])


def test_an_image_says_its_rescale(bench: WorkerContext) -> None:
    spec: dict[str, Any] = {"steps": 1, "seed": 3, "guidance_rescale": 0.35, **SIDES}
    path = generate(bench, spec, lambda progress: None)["pictures"][0]["path"]
    assert "CFG rescale: 0.35" in Image.open(path).info["parameters"]
