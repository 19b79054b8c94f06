"""Schedulers: from a solver's name and a noise schedule to a diffusers scheduler, ready to run.

Knows: the classes behind core/catalog.py and the arguments that make them do what their name says.
Does not know: the loop that steps them (generation/trajectory.py).

A scheduler is always built from the model's own config, and only from the keys that describe the
model: built from a scheduler in use, or from a config with a solver's settings in it, one image's
settings would leak into the next (Karras stays on). `timestep_spacing` is always set: the configs
of SD 1.5 and SDXL make two different schedules of one name. Sources: diffusers 0.42 and A1111's
k-diffusion schedules, compared number by number.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from studio.core.catalog import LEVEL_SCHEDULES, NoiseSchedule, Scheduler
from studio.core.families.family import SD1_OPTIMIZED_LEVELS
from studio.engine.models.noise_levels import MODEL_RANGE, LevelRange, compute_noise_levels
from studio.engine.models.private_diffusers import copy_scheduler
from studio.errors import BadFile, InvalidSpec, StudioError

# The keys of a scheduler_config.json that describe the model; the rest is a choice of solver.
MODEL_CONFIG_KEYS = (
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
ZERO_SNR_KEY = "rescale_betas_zero_snr"  # whether the last timestep is nothing but noise
MIN_ALPHA_CUMPROD = 2**-24  # of the last timestep, then; as in diffusers' EulerDiscreteScheduler
SIGMA_FLAGS: dict[NoiseSchedule, str] = {
    "Karras": "use_karras_sigmas",
    "Exponential": "use_exponential_sigmas",
    "Beta": "use_beta_sigmas",
}


@dataclass(frozen=True)
class SchedulerSpec:
    """A diffusers class, the config it always needs, and how it makes Uniform and SGM Uniform."""

    class_name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    uniform_config: Mapping[str, Any] = field(
        default_factory=lambda: {"timestep_spacing": "linspace"}
    )
    # Set Uniform as explicit timesteps: this class's linspace is SGM Uniform.
    uniform_as_timesteps: bool = False
    # Set SGM Uniform as explicit timesteps; otherwise it is the class's linspace.
    sgm_uniform_as_timesteps: bool = False


# DDIM and PLMS step down by 1000 // steps, whatever the schedule says, so that only a schedule of
# that spacing fits: A1111's own.
_LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
SCHEDULER_SPECS: dict[Scheduler, SchedulerSpec] = {
    "Euler": SchedulerSpec("EulerDiscreteScheduler", sgm_uniform_as_timesteps=True),
    "Euler a": SchedulerSpec("EulerAncestralDiscreteScheduler"),
    "Heun": SchedulerSpec("HeunDiscreteScheduler"),
    "LMS": SchedulerSpec("LMSDiscreteScheduler"),
    "DPM2": SchedulerSpec("KDPM2DiscreteScheduler"),
    "DPM2 a": SchedulerSpec("KDPM2AncestralDiscreteScheduler"),
    "DPM++ 2M": SchedulerSpec(
        "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}, uniform_as_timesteps=True
    ),
    "DPM++ 2M SDE": SchedulerSpec(
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++"},
        uniform_as_timesteps=True,
    ),
    "DPM++ 2M SDE Heun": SchedulerSpec(
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
        uniform_as_timesteps=True,
    ),
    "DPM++ 3M": SchedulerSpec(
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 3},
        uniform_as_timesteps=True,
    ),
    # Without lower orders at the end a last step of second order would divide by a level of 0.
    "DPM++ 2S": SchedulerSpec(
        "DPMSolverSinglestepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "lower_order_final": True},
    ),
    "DPM++ SDE": SchedulerSpec("DPMSolverSDEScheduler"),
    "DDIM": SchedulerSpec(
        "DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}, _LEADING
    ),
    "DDPM": SchedulerSpec("DDPMScheduler", {"clip_sample": False}),
    "PLMS": SchedulerSpec(
        "PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False}, _LEADING
    ),
    # With the default final_sigmas_type "zero" bh1 ends in NaN.
    "UniPC": SchedulerSpec(
        "UniPCMultistepScheduler",
        {"solver_type": "bh1", "solver_order": 3, "final_sigmas_type": "sigma_min"},
    ),
    "DEIS": SchedulerSpec("DEISMultistepScheduler"),
    "LCM": SchedulerSpec("LCMScheduler", {"set_alpha_to_one": False}),
    "TCD": SchedulerSpec("TCDScheduler", {"set_alpha_to_one": False}),
    "SA-Solver": SchedulerSpec("SASolverScheduler"),
}


@lru_cache(maxsize=64)
def build_prototype(class_name: str, config_json: str) -> Any:
    """Build a scheduler once, to be copied: diffusers sets up all 1000 steps for each new one.

    That takes DPM2 half a second.

    Raises:
        BadFile: The class does not take what the model's scheduler_config.json says.
    """
    with explain_scheduler_config():
        return getattr(diffusers, class_name)(**json.loads(config_json))


@contextmanager
def explain_scheduler_config() -> Iterator[None]:
    """Turn what diffusers raises for odd values of a model's config into BadFile."""
    try:
        yield
    except StudioError:
        raise
    except Exception as error:
        raise BadFile(
            "The model's scheduler/scheduler_config.json has values the sampler does not accept "
            f"({type(error).__name__}: {error!s:.120}). Copy that file again."
        ) from error


def build_scheduler(
    scheduler: Scheduler,
    noise_schedule: NoiseSchedule,
    scheduler_config: Mapping[str, Any],
    steps: int,
    seed: int,
    *,
    optimized_levels: Sequence[float] = SD1_OPTIMIZED_LEVELS,
    level_range: LevelRange = MODEL_RANGE,
) -> Any:
    """Build a scheduler with its timesteps set.

    Its timesteps stay on the CPU: a lookup with a timestep on the device would wait for the device.

    Args:
        scheduler: The solver's name in core/catalog.py.
        noise_schedule: One that the catalog allows for it.
        scheduler_config: The model's own scheduler_config.json, unchanged.
        steps: Number of steps.
        seed: Source of all the noise that the scheduler draws without a generator.
        optimized_levels: The model family's, for Align Your Steps.
        level_range: For Euler on Karras or Exponential.

    Returns:
        A diffusers scheduler that shares no state with any other.

    Raises:
        InvalidSpec: The scheduler cannot take so many steps, or not on this schedule.
        BadFile: It does not take what the model's config says.
    """
    spec = SCHEDULER_SPECS[scheduler]
    scheduler_class = getattr(diffusers, spec.class_name)
    parameters = inspect.signature(scheduler_class.__init__).parameters
    is_told_levels = noise_schedule in LEVEL_SCHEDULES or level_range != MODEL_RANGE
    config = _build_config(spec, noise_schedule, scheduler_config, parameters)
    if is_told_levels:
        config.pop(SIGMA_FLAGS.get(noise_schedule, ""), None)
    prototype = build_prototype(spec.class_name, json.dumps(config, sort_keys=True))
    instance = copy_scheduler(prototype)
    if "noise_sampler_seed" in parameters:
        # It takes no generator and would draw from the global state.
        instance.noise_sampler_seed = seed
    max_steps = instance.config.get("original_inference_steps", steps)
    if steps > max_steps:
        raise InvalidSpec(
            [
                f"Steps: must be {max_steps} or less with {scheduler}, which is made for 4 to 8 "
                f"(you entered {steps})."
            ]
        )
    with explain_scheduler_config():
        if is_told_levels:
            alphas_cumprod = instance.alphas_cumprod.double()
            trained_levels = ((1 - alphas_cumprod) / alphas_cumprod).sqrt().numpy()
            levels = compute_noise_levels(
                noise_schedule, steps, trained_levels, optimized_levels, level_range
            )
            _set_levels(instance, levels, trained_levels)
        else:
            _set_timesteps(instance, spec, noise_schedule, steps)
    timesteps = instance.timesteps.tolist()
    needs_whole_timesteps = is_told_levels and scheduler not in ("Euler", "Heun")
    if needs_whole_timesteps and len(set(timesteps)) < len(timesteps):
        raise InvalidSpec(
            [
                f"Steps: {steps} are too many for {scheduler} with {noise_schedule}, because two "
                "would be the same; use fewer, or Euler."
            ]
        )
    if not all(math.isfinite(timestep) for timestep in timesteps):
        raise InvalidSpec(
            [
                f"Schedule: {scheduler} with {noise_schedule} gives no noise levels for this "
                "model; choose another schedule."
            ]
        )
    if hasattr(instance, "set_begin_index"):
        # Otherwise a schedule that begins with the same timestep twice loses a step.
        instance.set_begin_index(0)
    return instance


def _set_timesteps(
    instance: Any, spec: SchedulerSpec, noise_schedule: NoiseSchedule, steps: int
) -> None:
    last_timestep = instance.config.num_train_timesteps - 1
    if noise_schedule == "Uniform" and spec.uniform_as_timesteps:
        timesteps = np.linspace(last_timestep, 0, steps).round().astype(int)
        instance.set_timesteps(timesteps=timesteps.tolist())
    elif noise_schedule == "SGM Uniform" and spec.sgm_uniform_as_timesteps:
        timesteps = np.linspace(last_timestep, 0, steps + 1)[:-1]
        instance.set_timesteps(timesteps=timesteps.tolist())
    else:
        instance.set_timesteps(steps)


def _set_levels(instance: Any, levels: np.ndarray, trained_levels: np.ndarray) -> None:
    """Tell a scheduler its noise levels, in the way its class takes them."""
    if "sigmas" in inspect.signature(instance.set_timesteps).parameters:
        instance.set_timesteps(sigmas=levels.tolist())
        return
    timesteps = np.interp(levels[:-1], trained_levels, np.arange(len(trained_levels)))
    if isinstance(instance, diffusers.DPMSolverMultistepScheduler):
        # It knows whole timesteps: the nearest by the level's logarithm.
        distances = np.abs(np.log(levels[:-1, None]) - np.log(trained_levels[None]))
        timesteps = distances.argmin(1)
    instance.set_timesteps(timesteps=timesteps.tolist())


def _build_config(
    spec: SchedulerSpec,
    noise_schedule: NoiseSchedule,
    scheduler_config: Mapping[str, Any],
    parameters: Container[str],
) -> dict[str, Any]:
    """Return what the scheduler's class, which takes these parameters, is built with."""
    config = {
        key: scheduler_config[key]
        for key in MODEL_CONFIG_KEYS
        if key in scheduler_config and key in parameters
    }
    if scheduler_config.get(ZERO_SNR_KEY) and ZERO_SNR_KEY not in parameters:
        config["trained_betas"] = _compute_zero_snr_betas(config)
    config |= spec.config
    if noise_schedule == "Uniform":
        config |= spec.uniform_config
    elif noise_schedule == "Simple":
        config["timestep_spacing"] = "trailing"
    elif noise_schedule == "DDIM":
        config |= _LEADING
    elif noise_schedule != "Model default":
        config["timestep_spacing"] = "linspace"
    if noise_schedule == "KL Optimal" and "final_sigmas_type" in parameters:
        config["final_sigmas_type"] = "sigma_min"  # as its formula ends
    if noise_schedule in SIGMA_FLAGS:
        config[SIGMA_FLAGS[noise_schedule]] = True
    return {key: value for key, value in config.items() if key in parameters}


def _compute_zero_snr_betas(config: Mapping[str, Any]) -> list[float]:
    """Return betas that end in nothing but noise (arXiv:2305.08891), for classes without the flag.

    The last alpha is as small as in those that have it: from 0 all sigmas would be infinite.
    """
    with explain_scheduler_config():
        betas = diffusers.DDIMScheduler(**config).betas
    alphas_cumprod = torch.cumprod(1 - rescale_zero_terminal_snr(betas).double(), 0)
    alphas_cumprod[-1] = MIN_ALPHA_CUMPROD
    previous = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1]])
    zero_snr_betas: list[float] = (1 - alphas_cumprod / previous).tolist()
    return zero_snr_betas
