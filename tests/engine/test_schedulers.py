"""Every scheduler on every ladder paints, bit for bit, what a stock diffusers pipeline paints.

The reference side is a stock pipeline with a scheduler from the table below; it imports nothing of the studio.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from studio.core.catalog import SCHEDULERS, Scheduler
from studio.engine.models import schedulers
from studio.engine.models.schedulers import build_scheduler
from studio.errors import InvalidSpec
from support.models import POCKET
from support.sentences import refused
from support.stock import ETA, STOCK

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning:torchsde"
)
STEPS, SEED, SIZE = 3, 7, 64
PROMPT = "a red boat by a lake"
# One step, ancestral, second order (deterministic, with a tree of noise), multistep, of few steps.
ONE_OF_EACH_SORT = (
    *("Euler", "Euler a", "DDIM", "DDPM", "Heun", "DPM++ SDE", "DPM++ 2M SDE"),
    *("PLMS", "UniPC", "SA-Solver", "LCM"),
)
PAIRS = [(name, schedule) for name, info in SCHEDULERS.items() for schedule in info.noise_schedules]


@pytest.fixture(scope="module")
def stock() -> Any:
    """Called without a progress bar; its scheduler is replaced by each test."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(POCKET, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def reference(pipe: Any, name: str, schedule: str) -> np.ndarray:
    kind, always, ladders = STOCK[name]
    shipped = json.loads((POCKET / "scheduler" / "scheduler_config.json").read_text())
    settings = {**always, **ladders[schedule]}
    steps: dict[str, Any] = {"num_inference_steps": STEPS}
    for told in ("timesteps", "sigmas"):
        if told in settings:
            steps = {told: settings.pop(told)}
            settings = {"timestep_spacing": "linspace", **settings}
    pipe.scheduler = getattr(diffusers, kind).from_config(shipped, **settings)
    image = pipe(
        PROMPT,
        height=SIZE,
        width=SIZE,
        guidance_scale=6.0,
        generator=torch.Generator().manual_seed(SEED),
        eta=ETA.get(name, 0.0),
        **steps,
    ).images[0]
    return np.asarray(image)


def test_the_tables_agree() -> None:
    assert {
        (name, schedule) for name, (_, _, ladders) in STOCK.items() for schedule in ladders
    } == set(PAIRS), "each scheduler of core/catalog.py has its stock class in support/stock.py"


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        pytest.param(*pair, marks=pytest.mark.smoke)
        if pair == ("DPM++ 2M", "Karras")
        else pair
        if pair in (*((name, "Model default") for name in ONE_OF_EACH_SORT), ("Euler", "Karras"))
        else pytest.param(*pair, marks=pytest.mark.slow)
        for pair in PAIRS
    ],
)
def test_bitwise_the_stock_call(
    stock: Any, paint: Callable[..., Any], name: str, schedule: str
) -> None:
    ours = paint(
        prompt=PROMPT,
        seed=SEED,
        steps=STEPS,
        width=SIZE,
        height=SIZE,
        guidance=6,
        scheduler=name,
        noise_schedule=schedule,
    )
    assert np.array_equal(ours, reference(stock, name, schedule))
    assert ours.std() > 5  # not one colour


QUICKLY_BUILT = ("Euler", "DPM++ 2M", "UniPC", "Heun", "DDIM")


def ladder(name: Any, schedule: Any, steps: int) -> Any:
    return build_scheduler(
        name,
        schedule,
        json.loads((POCKET / "scheduler" / "scheduler_config.json").read_text()),
        steps,
        1,
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICKLY_BUILT else pytest.mark.slow)
        for name in SCHEDULERS
    ],
)
def test_ladders_differ(name: Scheduler) -> None:
    """No noise schedule falls back to another; DDIM's spacing is what this model ships."""
    made = []
    for schedule in SCHEDULERS[name].noise_schedules:
        scheduler = ladder(name, schedule, 6)
        levels = getattr(scheduler, "sigmas", scheduler.timesteps)
        made.append((*levels.tolist(), *scheduler.timesteps.tolist()))
    has_shipped_spacing = "DDIM" in SCHEDULERS[name].noise_schedules or name in ("DDIM", "PLMS")
    assert len(set(made)) == len(made) - has_shipped_spacing


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param([pair for pair in PAIRS if pair[1] == "Model default"], id="some"),
        pytest.param(PAIRS, id="all", marks=pytest.mark.slow),
    ],
)
def test_few_and_many_steps_are_numbers(pairs: list[tuple[Any, Any]]) -> None:
    for name, schedule in pairs:
        for steps in (1, 3):
            scheduler = ladder(name, schedule, steps)
            latents = torch.ones(1, 4, 8, 8) * scheduler.init_noise_sigma
            for timestep in scheduler.timesteps:
                asked = scheduler.scale_model_input(latents, timestep)
                latents = scheduler.step(0.9 * asked, timestep, latents, return_dict=False)[0]
            assert torch.isfinite(latents).all(), (name, schedule, steps)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(list(SCHEDULERS)[::3], id="some"),
        pytest.param(list(SCHEDULERS), id="all", marks=pytest.mark.slow),
    ],
)
def test_one_that_was_used_leaves_nothing_to_the_next(names: list[Scheduler]) -> None:
    """They are copies of one: bit for bit what a class newly made is, also after another was run to its end."""
    for name, schedule in ((name, "Model default") for name in names):
        used = ladder(name, schedule, 3)
        latents = torch.ones(1, 4, 8, 8) * used.init_noise_sigma
        for timestep in used.timesteps:
            latents = used.step(
                0.9 * used.scale_model_input(latents, timestep),
                timestep,
                latents,
                return_dict=False,
            )[0]
        again = ladder(name, schedule, 4)
        schedulers.build_prototype.cache_clear()
        new = ladder(name, schedule, 4)
        assert vars(again).keys() == vars(new).keys()
        assert again.config == new.config
        for key, value in vars(new).items():
            same = (
                torch.allclose(value, getattr(again, key), 0, 0, equal_nan=True)
                if isinstance(value, torch.Tensor)
                else (
                    key.startswith("_")
                    or callable(value)
                    or repr(value) == repr(getattr(again, key))
                )
            )
            assert same, (name, schedule, key)


def test_too_many_steps_are_refused() -> None:
    for name in ("LCM", "TCD"):
        with refused(InvalidSpec) as caught:
            ladder(name, "Model default", 51)
        assert "50" in str(caught.value)


def test_a_shipped_solver_does_not_leak() -> None:
    """A model that ships Karras and another solver's settings gets neither unless they are asked for."""
    shipped = {
        "_class_name": "DPMSolverMultistepScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "use_karras_sigmas": True,
        "algorithm_type": "sde-dpmsolver++",
        "solver_order": 3,
        "final_sigmas_type": "sigma_min",
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    }
    made = build_scheduler("DPM++ 2M", "Model default", shipped, 5, 1)
    kept = made.config
    assert (kept.use_karras_sigmas, kept.algorithm_type, kept.solver_order) == (
        False,
        "dpmsolver++",
        2,
    )
    assert kept.final_sigmas_type == "zero"
    assert (kept.prediction_type, kept.timestep_spacing) == ("v_prediction", "trailing")
    assert (
        build_scheduler("DPM++ 2M", "Exponential", shipped, 5, 1).config.use_karras_sigmas is False
    )
