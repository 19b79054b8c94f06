"""Schedulers: from a name and a ladder to a diffusers scheduler, ready to run.

Knows: the classes behind core/catalog.py and the arguments that make them do what their name says.
Does not know: the loop that steps them (generation/trajectory.py).

Always built from the config as the model ships it, and only from what that says about the model: built from a scheduler
in use, or from a config with a solver's settings in it, one picture's settings would leak into the next (Karras stays on).
`timestep_spacing` is always given: the configs of SD 1.5 and SDXL make two different ladders of one name. Sources:
diffusers 0.42 and A1111's k-diffusion ladders, compared number by number.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import diffusers
import numpy as np

from studio.core.catalog import Schedule, Scheduler
from studio.errors import InvalidSpec

# What a scheduler_config.json says of the model itself; the rest is its author's choice of solver.
OF_THE_MODEL = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
    "timestep_spacing",
    "steps_offset",
    "original_inference_steps",
)
SHAPES: dict[Schedule, str] = {
    "Karras": "use_karras_sigmas",
    "Exponential": "use_exponential_sigmas",
    "Beta": "use_beta_sigmas",
}


@dataclass(frozen=True)
class Recipe:
    """A diffusers class, what it always needs, and where its Uniform and SGM Uniform differ from the rest's."""

    kind: str
    always: Mapping[str, Any] = field(default_factory=dict)
    uniform: Mapping[str, Any] = field(default_factory=lambda: {"timestep_spacing": "linspace"})
    rounded: bool = False  # Uniform has to be given as timesteps: its linspace is SGM Uniform
    continuous: bool = False  # SGM Uniform is given as timesteps; otherwise it is its linspace


# These two step down by 1000 // steps, whatever the ladder says, so that only a ladder of that step fits: A1111's own.
_LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
RECIPES: dict[Scheduler, Recipe] = {
    "Euler": Recipe("EulerDiscreteScheduler", continuous=True),
    "Euler a": Recipe("EulerAncestralDiscreteScheduler"),
    "Heun": Recipe("HeunDiscreteScheduler"),
    "LMS": Recipe("LMSDiscreteScheduler"),
    "DPM2": Recipe("KDPM2DiscreteScheduler"),
    "DPM2 a": Recipe("KDPM2AncestralDiscreteScheduler"),
    "DPM++ 2M": Recipe(
        "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}, rounded=True
    ),
    "DPM++ 2M SDE": Recipe(
        "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, rounded=True
    ),
    "DPM++ SDE": Recipe("DPMSolverSDEScheduler"),
    "DDIM": Recipe("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}, _LEADING),
    "DDPM": Recipe("DDPMScheduler", {"clip_sample": False}),
    "PLMS": Recipe("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False}, _LEADING),
    # bh1 with the default final_sigmas_type "zero" is not a number
    "UniPC": Recipe(
        "UniPCMultistepScheduler",
        {"solver_type": "bh1", "solver_order": 3, "final_sigmas_type": "sigma_min"},
    ),
    "DEIS": Recipe("DEISMultistepScheduler"),
    "LCM": Recipe("LCMScheduler", {"set_alpha_to_one": False}),
    "TCD": Recipe("TCDScheduler", {"set_alpha_to_one": False}),
    "SA-Solver": Recipe("SASolverScheduler"),
}


def _fresh(kind: str, settings: str) -> Any:
    """A new scheduler. diffusers makes a ladder of all 1000 steps for each, which takes DPM2 half a second: here once."""
    first = _first(kind, settings)
    made = copy.copy(first)
    made.__dict__ = {
        name: value
        if name == "_internal_dict"
        else copy.deepcopy(value)  # its settings, which are frozen
        for name, value in vars(first).items()
    }
    return made


@lru_cache(maxsize=64)
def _first(kind: str, settings: str) -> Any:
    return getattr(diffusers, kind)(**json.loads(settings))


def build(
    scheduler: Scheduler, schedule: Schedule, shipped: Mapping[str, Any], steps: int, seed: int
) -> Any:
    """A scheduler with its ladder of `steps` set, all the noise it makes itself drawn from `seed`.

    `shipped` is the model's scheduler_config.json as it came; the pair has to be one of core/catalog.py. Its timesteps stay
    on the CPU: a lookup with a timestep on the device would wait for the device. Raises InvalidSpec for steps it cannot do.
    """
    recipe = RECIPES[scheduler]
    kind = getattr(diffusers, recipe.kind)
    takes = inspect.signature(kind.__init__).parameters
    settings = {
        name: shipped[name] for name in OF_THE_MODEL if name in shipped and name in takes
    } | dict(recipe.always)
    if schedule == "Uniform":
        settings |= recipe.uniform
    elif schedule != "As shipped":
        settings["timestep_spacing"] = "trailing" if schedule == "Simple" else "linspace"
    if schedule in SHAPES:
        settings[SHAPES[schedule]] = True
    made = _fresh(recipe.kind, json.dumps(settings, sort_keys=True))
    if "noise_sampler_seed" in takes:  # it takes no generator and would draw from the global state
        made.noise_sampler_seed = seed
    most = made.config.get("original_inference_steps", steps)
    if steps > most:
        raise InvalidSpec(
            [f"Steps: {scheduler} can take {most} at most (not {steps}); it is made for 4 to 8."]
        )
    last = made.config.num_train_timesteps - 1
    if schedule == "Uniform" and recipe.rounded:
        made.set_timesteps(timesteps=np.linspace(last, 0, steps).round().astype(int).tolist())
    elif schedule == "SGM Uniform" and recipe.continuous:
        made.set_timesteps(timesteps=np.linspace(last, 0, steps + 1)[:-1].tolist())
    else:
        made.set_timesteps(steps)
    if hasattr(made, "set_begin_index"):
        made.set_begin_index(
            0
        )  # otherwise a ladder that begins with the same timestep twice loses a step
    return made
