"""APG and CFG-Zero* are diffusers' own guiders; guidance may be a part of the steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from diffusers.guiders.classifier_free_zero_star_guidance import cfg_zero_star_scale
from PIL import Image

from studio.core.generation import rules
from studio.core.generation.request import GenerationRequest
from studio.engine.context import WorkerContext
from studio.engine.generation.guidance import ClassifierFreeGuidance
from studio.engine.generation.job import generate
from studio.errors import InvalidSpec
from support.painting import made
from support.sentences import refused
from support.stock import SIZE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
SIDES = {"width": SIZE, "height": SIZE}
PAIRS = [
    (torch.randn(1, 4, 6, 6, generator=g), torch.randn(1, 4, 6, 6, generator=g))
    for g in (torch.Generator().manual_seed(seed) for seed in range(3))
]


IMAGE = {"image": "0" * 64}


def guide(num_skipped_calls: int = 0, **values: Any) -> ClassifierFreeGuidance:
    request = GenerationRequest(**values).resolve(64, 0)
    return ClassifierFreeGuidance(request, num_skipped_calls=num_skipped_calls)


@pytest.mark.parametrize("momentum", [0.0, -0.5])
@pytest.mark.parametrize("threshold", [0.0, 2.5, 15.0])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_apg_is_the_papers(eta: float, threshold: float, momentum: float) -> None:
    guidance = guide(
        guidance=6,
        guidance_method="APG",
        apg_eta=eta,
        apg_threshold=threshold,
        apg_momentum=momentum,
    )
    buffer = MomentumBuffer(momentum)
    for step, (negative, positive) in enumerate(PAIRS):
        theirs = normalized_guidance(
            positive, negative, 5.0, buffer, eta, threshold, use_original_formulation=True
        )
        assert torch.allclose(
            guidance.combine(negative, (positive,), (1.0,), step), theirs, atol=1e-5
        )


def test_all_that_apg_takes_away_given_back_is_cfg() -> None:
    negative, positive = PAIRS[0]
    guidance = guide(guidance_method="APG", apg_eta=1, apg_threshold=0)
    apg = guidance.combine(negative, (positive,), (1.0,), 0)
    assert torch.allclose(apg, negative + 7 * (positive - negative), atol=1e-5)


def test_cfg_zero_star_is_the_papers() -> None:
    guidance = guide(guidance=4, guidance_method="CFG-Zero*", guidance_zero_steps=1)
    assert not guidance.combine(PAIRS[0][0], PAIRS[0][1:], (1.0,), 0).any()
    for negative, positive in PAIRS:
        scale = cfg_zero_star_scale(positive.flatten(1), negative.flatten(1)).view(-1, 1, 1, 1)
        theirs = scale * negative + 4 * (positive - scale * negative)
        assert torch.allclose(guidance.combine(negative, (positive,), (1.0,), 1), theirs, atol=1e-5)


def test_nothing_is_zeroed_in_an_image_that_is_repainted() -> None:
    """Zero steps are for a denoiser that sees noise alone; a pass that begins later has none."""
    values = {"guidance_method": "CFG-Zero*", "guidance_zero_steps": 9}
    guidance = guide(2, **values)
    assert guidance.combine(PAIRS[0][0], PAIRS[0][1:], (1.0,), 2).any()
    repainted = GenerationRequest(**values, **IMAGE)
    assert "guidance_zero_steps" in repainted.inactive_fields
    with refused(InvalidSpec, "Zero steps"):
        repainted.reject_inactive(["guidance_zero_steps"])
    for noise_alone in ({}, IMAGE | {"strength": 1}, {"hires_scale": 2, "hires_strength": 1}):
        assert (
            "guidance_zero_steps" not in GenerationRequest(**values, **noise_alone).inactive_fields
        )


QUICK_TASKS = {"txt2img": "Heun", "img2img": "PLMS", "inpaint": "Euler", "hires": "Heun"}


@pytest.mark.parametrize(
    ("task", "scheduler"),
    [
        pytest.param(task, name, marks=() if name == quick else pytest.mark.slow)
        for task, quick in QUICK_TASKS.items()
        for name in ("Euler", "Heun", "PLMS")
    ],
)
def test_a_part_of_the_steps_is_guided(bench: WorkerContext, scheduler: str, task: str) -> None:
    """The rows that the denoiser gets are those that the estimate counts, of the steps that run."""
    spec = {
        "scheduler": scheduler,
        "steps": 8,
        "guidance_start": 0.25,
        "guidance_end": 0.75,
        **SIDES,
    }
    picture = Image.new("RGB", (SIZE, SIZE), "red")
    if task in ("img2img", "inpaint"):  # none of the first six steps runs
        inputs = bench.home.library.inputs
        spec |= {"image": inputs.add(picture).sha256, "steps": 16, "strength": 0.5}
        if task == "inpaint":
            spec["mask"] = inputs.add_mask(Image.new("L", picture.size, 255)).sha256
    if task == "hires":
        spec |= {"steps": 4, "hires_scale": 1.5, "hires_steps": 16, "hires_strength": 0.5}
    rows: list[int] = []
    with bench.pipelines.borrow(GenerationRequest()) as model:
        hook = model.denoiser.register_forward_pre_hook(
            lambda module, args: rows.append(len(args[0]))
        )
        try:
            generate(bench, spec, lambda progress: None)
        finally:
            hook.remove()
    assert set(rows) == {1, 2}
    assert rows[0] == rows[-1] == 1
    request = GenerationRequest(**spec)
    assert sum(rows) == rules.count_unet_rows(request, (SIZE, SIZE))
    always = request.model_copy(update={"guidance_start": 0.0, "guidance_end": 1.0})
    assert sum(rows) < rules.count_unet_rows(always, (SIZE, SIZE))
    last = rows[-8:]
    assert last.count(2) >= 4  # half of the steps, with Heun of the calls


def test_a_share_is_of_whole_steps() -> None:
    """In binary 0.7 of 90 is a little less than 63."""
    request = GenerationRequest(guidance_end=0.7)
    guided = [step for step in range(90) if request.is_guided_at(step, 90)]
    assert guided == list(range(63))
    late = GenerationRequest(guidance_start=0.29)
    assert [step for step in range(100) if late.is_guided_at(step, 100)] == list(range(29, 100))


@pytest.mark.slow
def test_unguided_steps_are_those_of_guidance_1(bench: WorkerContext) -> None:
    """The negative prompt changes nothing where it is not asked."""
    hardly = {"guidance_end": 0.2, **SIDES, "steps": 4}  # less than one step
    assert np.array_equal(made(bench, None, **hardly), made(bench, None, guidance=1, **hardly))
    early = made(bench, None, guidance_end=0.5, **SIDES)
    assert not np.array_equal(early, made(bench, None, **SIDES))
    assert not np.array_equal(early, made(bench, None, guidance=1, **SIDES))


def test_guidance_that_ends_before_it_begins_is_refused() -> None:
    with refused(InvalidSpec, "CFG end"):
        GenerationRequest(guidance_start=0.5, guidance_end=0.5)
