"""Optimizers: from the settings to one that steps, and its state as plain tensors.

Knows: AdamW (arXiv:1711.05101), its 8-bit form (bitsandbytes, if it is installed), Adafactor
(arXiv:1804.04235) at a given rate or with a relative step; the rates of two parameter groups.
Does not know: what is trained, where the state is stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from transformers.optimization import Adafactor

from studio.core.training.config import ADAFACTOR_RELATIVE_STEP, TrainingConfig
from studio.core.training.steps import compute_lr_factor
from studio.engine.models.devices import Device
from studio.errors import BadFile, InvalidSpec

FUSED_DEVICES = ("cuda", "cpu", "mps")
GRADIENT_BYTES_PER_WEIGHT = 4
# AdamW keeps two float32 moments, its 8-bit form two bytes; Adafactor only rows and columns.
STATE_BYTES_PER_WEIGHT = {"AdamW": 8, "AdamW 8-bit": 2}


def build_optimizer(
    config: TrainingConfig,
    groups: tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]],
    device: Device,
) -> Any:
    """Build the optimizer for the weights of the U-Net and of the text encoders.

    Raises:
        InvalidSpec: If the optimizer is not available on this device.
    """
    param_groups: list[dict[str, Any]] = []
    for weights, rate in zip(groups, config.learning_rates):
        if weights:
            param_groups.append({"params": weights, "lr": rate, "base_lr": rate})
    adam_settings: dict[str, Any] = {
        "betas": config.betas,
        "eps": config.eps or 1e-8,
        "weight_decay": config.effective_weight_decay,
    }
    if config.optimizer == "AdamW":
        fused = device.kind in FUSED_DEVICES
        return torch.optim.AdamW(param_groups, **adam_settings, fused=fused)
    if config.optimizer == "AdamW 8-bit":
        check_optimizer(config, device)
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(param_groups, **adam_settings)
    return Adafactor(
        param_groups,
        lr=None,
        scale_parameter=config.effective_scale_parameter,
        relative_step=config.optimizer == ADAFACTOR_RELATIVE_STEP,
        warmup_init=False,
        weight_decay=config.effective_weight_decay,
    )


def check_optimizer(config: TrainingConfig, device: Device) -> None:
    """Raise InvalidSpec for an optimizer that is not available on this device."""
    if config.optimizer != "AdamW 8-bit":
        return
    if device.kind != "cuda":
        raise InvalidSpec(
            [f"Optimizer: AdamW 8-bit runs only on CUDA, not on {device.title}; choose AdamW."]
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise InvalidSpec(
            [
                "Optimizer: AdamW 8-bit requires the package bitsandbytes, which is not installed; "
                "run pip install bitsandbytes, or choose AdamW."
            ]
        ) from None


def set_learning_rates(optimizer: Any, config: TrainingConfig, step: int, total: int) -> None:
    """Set the groups' rates before a step, counted from 0, by the schedule.

    Adafactor with a relative step finds its own rate and is left alone.
    """
    if config.optimizer == ADAFACTOR_RELATIVE_STEP:
        return
    factor = compute_lr_factor(config, step, total)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def get_learning_rate(optimizer: Any) -> float:
    """Return the first group's rate of the last step; it waits for the device.

    With a relative step it is the rate of the group's first layer.
    """
    group = optimizer.param_groups[0]
    if not group.get("relative_step"):
        return float(group["lr"])
    state = optimizer.state.get(group["params"][0], {})
    if not state:
        return 0.0
    scale = max(group["eps"][1], float(state["RMS"]))
    return float(scale * min(1e-2, 1 / math.sqrt(state["step"])))


def estimate_bytes(config: TrainingConfig, num_weights: int) -> int:
    """Return the bytes that gradients and optimizer state of `num_weights` float32 weights take."""
    state_bytes = STATE_BYTES_PER_WEIGHT.get(config.optimizer, 1)
    return num_weights * (GRADIENT_BYTES_PER_WEIGHT + state_bytes)


def get_state(optimizer: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the optimizer's state as tensors by name and plain numbers by name."""
    tensors, scalars = {}, {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}|{name}"] = value
            else:
                scalars[f"{index}|{name}"] = value
    return tensors, scalars


def load_state(
    optimizer: Any, tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, Any]
) -> None:
    """Restore the optimizer's state. Raises BadFile if it is another optimizer's."""
    state: dict[int, dict[str, Any]] = {}
    try:
        for key, value in [*tensors.items(), *scalars.items()]:
            index, _, name = key.partition("|")
            state.setdefault(int(index), {})[name] = value
        param_groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": param_groups})
    except (KeyError, ValueError, RuntimeError) as error:
        raise BadFile(
            f"The checkpoint's optimizer does not match the settings ({error!s:.100})."
        ) from None
