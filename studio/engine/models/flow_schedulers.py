"""Schedulers of models that follow a flow: from a solver's name to a diffusers scheduler.

Knows: the classes that end at no noise along a flow, and the arguments that they need for it. Does
not know: the loop, families; which names fit is in core/families.

As in schedulers.py a scheduler is always built from the model's own config. Its noise levels are
shifted as that says: by a constant, or by the image's size.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import diffusers

from studio.core.catalog import NoiseSchedule, Scheduler
from studio.engine.models.private_diffusers import copy_scheduler
from studio.engine.models.schedulers import (
    SIGMA_FLAGS,
    build_prototype,
    explain_scheduler_config,
)

# Keys of a scheduler_config.json that say how the noise levels are shifted.
SHIFT_CONFIG_KEYS = (
    "num_train_timesteps",
    "shift",
    "use_dynamic_shifting",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "shift_terminal",
    "time_shift_type",
)
_FLOW_SOLVER = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


@dataclass(frozen=True)
class FlowSchedulerSpec:
    """A diffusers class, the config it needs, and whether it is told its noise levels."""

    class_name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    takes_sigmas: bool = True


FLOW_SCHEDULER_SPECS: dict[Scheduler, FlowSchedulerSpec] = {
    "Euler": FlowSchedulerSpec("FlowMatchEulerDiscreteScheduler"),
    "Euler a": FlowSchedulerSpec("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    "Heun": FlowSchedulerSpec("FlowMatchHeunDiscreteScheduler", takes_sigmas=False),
    "LCM": FlowSchedulerSpec("FlowMatchLCMScheduler"),
    "DPM++ 2M": FlowSchedulerSpec(
        "DPMSolverMultistepScheduler",
        _FLOW_SOLVER | {"algorithm_type": "dpmsolver++"},
        takes_sigmas=False,
    ),
    "DPM++ 2M SDE": FlowSchedulerSpec(
        "DPMSolverMultistepScheduler",
        _FLOW_SOLVER | {"algorithm_type": "sde-dpmsolver++"},
        takes_sigmas=False,
    ),
    # bh1 ends in NaN.
    "UniPC": FlowSchedulerSpec(
        "UniPCMultistepScheduler", _FLOW_SOLVER | {"solver_type": "bh2"}, takes_sigmas=False
    ),
}


def build_flow_scheduler(
    scheduler: Scheduler,
    noise_schedule: NoiseSchedule,
    scheduler_config: Mapping[str, Any],
    steps: int,
    *,
    num_tokens: int,
    sigmas: Sequence[float] | None = None,
) -> Any:
    """Build a scheduler with its timesteps set, from much noise to none.

    Args:
        scheduler: One that fits a flow.
        noise_schedule: One that the family allows for it.
        scheduler_config: The model's own scheduler_config.json, unchanged.
        steps: Number of steps.
        num_tokens: Of the image; some configs shift the noise levels by it.
        sigmas: Noise levels before the shift, one for each step; None for the scheduler's own.

    Returns:
        A diffusers scheduler that shares no state with any other.

    Raises:
        BadFile: It does not take what the model's config says.
    """
    spec = FLOW_SCHEDULER_SPECS[scheduler]
    parameters = inspect.signature(getattr(diffusers, spec.class_name).__init__).parameters
    config: dict[str, Any] = {
        key: scheduler_config[key]
        for key in SHIFT_CONFIG_KEYS
        if key in scheduler_config and key in parameters
    }
    config |= spec.config
    if "flow_shift" in parameters:
        config["flow_shift"] = scheduler_config.get("shift", 1.0)
    if noise_schedule in SIGMA_FLAGS:
        config[SIGMA_FLAGS[noise_schedule]] = True
    instance = copy_scheduler(build_prototype(spec.class_name, json.dumps(config, sort_keys=True)))
    kwargs: dict[str, Any] = {}
    with explain_scheduler_config():
        if spec.takes_sigmas and "mu" in inspect.signature(instance.set_timesteps).parameters:
            kwargs["mu"] = _compute_mu(scheduler_config, num_tokens)
        if spec.takes_sigmas and sigmas is not None:
            instance.set_timesteps(sigmas=list(sigmas), **kwargs)
        else:
            instance.set_timesteps(steps, **kwargs)
    if hasattr(instance, "set_begin_index"):
        instance.set_begin_index(0)
    return instance


def _compute_mu(scheduler_config: Mapping[str, Any], num_tokens: int) -> float:
    """Return the shift by an image's size, as FLUX.1's pipeline in diffusers computes it."""
    base_tokens = scheduler_config.get("base_image_seq_len", 256)
    max_tokens = scheduler_config.get("max_image_seq_len", 4096)
    base_shift = scheduler_config.get("base_shift", 0.5)
    max_shift = scheduler_config.get("max_shift", 1.15)
    slope = (max_shift - base_shift) / (max_tokens - base_tokens)
    return float(num_tokens * slope + (base_shift - slope * base_tokens))
