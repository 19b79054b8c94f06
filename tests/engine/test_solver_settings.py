"""What solvers take beside the steps is what a stock diffusers scheduler does with it, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from diffusers.schedulers import AysSchedules

from studio.core.families.registry import FAMILIES
from studio.core.generation.family_rules import find_family_faults
from studio.core.generation.request import GenerationRequest
from studio.engine.context import WorkerContext
from studio.engine.models import noise_levels
from studio.engine.models.noise_levels import LevelRange, compute_noise_levels
from studio.engine.models.schedulers import build_scheduler
from studio.errors import InvalidSpec
from support.models import POCKET
from support.painting import made
from support.sentences import refused
from support.stock import SIZE, STEPS, TRAINED, called, with_scheduler

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning:torchsde"
)
SIDES = {"width": SIZE, "height": SIZE}
CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture(scope="module")
def pipe() -> Any:
    made_pipe = diffusers.StableDiffusionPipeline.from_pretrained(POCKET, dtype=torch.float32)
    made_pipe.set_progress_bar_config(disable=True)
    return made_pipe


@pytest.mark.parametrize(
    ("scheduler", "eta"), [("DDIM", 0.6), pytest.param("TCD", 0.8, marks=pytest.mark.slow)]
)
def test_eta(bench: WorkerContext, pipe: Any, scheduler: str, eta: float) -> None:
    with_scheduler(pipe, Path(POCKET), scheduler)
    ours = made(bench, None, scheduler=scheduler, noise_schedule="Model default", eta=eta, **SIDES)
    assert np.array_equal(ours, called(pipe, scheduler, eta=eta, **SIDES))


@pytest.mark.parametrize(
    ("scheduler", "settings", "step"),
    [
        (
            "Euler",
            {"s_churn": 3.0, "s_noise": 1.02, "s_tmin": 0.5, "s_tmax": 20.0},
            {"s_churn": 3.0, "s_noise": 1.02, "s_tmin": 0.5, "s_tmax": 20.0},
        ),
        pytest.param("Euler", {"s_churn": 3.0}, {"s_churn": 3.0}, marks=pytest.mark.slow),
        ("DPM++ SDE", {"s_noise": 0.9}, {"s_noise": 0.9}),
    ],
)
def test_churn(
    bench: WorkerContext,
    pipe: Any,
    scheduler: str,
    settings: dict[str, float],
    step: dict[str, float],
) -> None:
    with_scheduler(pipe, Path(POCKET), scheduler, "Karras")
    stock_step = pipe.scheduler.step

    def step_with_settings(*args: Any, **kwargs: Any) -> Any:
        return stock_step(*args, **kwargs, **step)

    # The pipeline asks the signature which keywords a step takes.
    step_with_settings.__signature__ = __import__("inspect").signature(stock_step)  # type: ignore[attr-defined]
    pipe.scheduler.step = step_with_settings
    ours = made(bench, None, scheduler=scheduler, noise_schedule="Karras", **settings, **SIDES)
    assert np.array_equal(ours, called(pipe, scheduler, **SIDES))


@pytest.mark.parametrize("schedule", ["Karras", "Exponential"])
def test_a_range_of_levels_is_that_of_the_class(schedule: str) -> None:
    """Euler's own config has the two ends; rho is the class's 7 there."""
    stock = diffusers.EulerDiscreteScheduler(
        **CONFIG,
        timestep_spacing="linspace",
        sigma_min=0.1,
        sigma_max=10.0,
        **{f"use_{schedule.lower()}_sigmas": True},
    )
    stock.set_timesteps(6)
    ours = build_scheduler(
        "Euler", schedule, CONFIG, 6, 0, level_range=LevelRange(lowest=0.1, highest=10.0)
    )
    assert np.allclose(ours.sigmas, stock.sigmas, rtol=1e-5)
    assert np.allclose(ours.timesteps, stock.timesteps, rtol=1e-4)


def test_karras_by_the_papers_formula() -> None:
    """Equation 5 of arXiv:2206.00364, step by step."""
    levels = compute_noise_levels("Karras", 5, TRAINED, (), LevelRange(0.1, 10.0, 3.0))
    expected = [(10 ** (1 / 3) + i / 4 * (0.1 ** (1 / 3) - 10 ** (1 / 3))) ** 3 for i in range(5)]
    assert np.allclose(levels, [*expected, 0.0])


def test_levels_of_align_your_steps_are_the_authors() -> None:
    for name, published in (
        ("sd1", "StableDiffusionTimesteps"),
        ("sdxl", "StableDiffusionXLTimesteps"),
    ):
        levels = FAMILIES[name].optimized_levels
        at_ten = noise_levels.interpolate_log_linear(levels, 11)
        assert np.allclose(at_ten, levels)
        nearest = [int(np.abs(np.log(TRAINED) - np.log(level)).argmin()) for level in levels]
        assert np.abs(np.subtract(nearest[:10], AysSchedules[published])).max() <= 3
    twenty = noise_levels.interpolate_log_linear(FAMILIES["sd1"].optimized_levels, 21)
    assert np.allclose(twenty[::2], FAMILIES["sd1"].optimized_levels)
    assert np.allclose(twenty[1::2], np.sqrt(twenty[:-1:2] * twenty[2::2]))


@pytest.mark.parametrize("steps", [2, 3, 10, 25])
def test_linear_quadratic_is_its_authors(steps: int) -> None:
    shares = noise_levels.compute_linear_quadratic_shares(steps)
    assert np.allclose(shares[:-1], linear_quadratic_schedule(steps, 0.025))
    assert shares[-1] == 0
    assert noise_levels.compute_linear_quadratic_shares(1).tolist() == [1, 0]


def test_two_steps_on_one_timestep_are_refused() -> None:
    with refused(InvalidSpec, "Steps"):
        build_scheduler("DPM++ 2M", "Align Your Steps", CONFIG, 150, 0)
    assert len(build_scheduler("DPM++ 2M", "Align Your Steps", CONFIG, STEPS, 0).timesteps) == STEPS


def test_a_flow_has_no_churn() -> None:
    flow = FAMILIES["z-image"]
    churned = GenerationRequest(scheduler="Euler", s_churn=3, noise_schedule="Karras", rho=5)
    assert [fault.split(":")[0] for fault in find_family_faults(churned, flow)] == ["Churn", "Rho"]
    assert find_family_faults(churned, FAMILIES["sd1"]) == []
    assert find_family_faults(GenerationRequest(scheduler="Euler"), flow) == []
