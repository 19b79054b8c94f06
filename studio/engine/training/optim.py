"""Optimizers: from the settings to one that steps, and its memory as plain tensors.

Knows: AdamW (arXiv:1711.05101), its 8-bit form (bitsandbytes, if it is installed), Adafactor (arXiv:1804.04235) at a given rate or
finding its own; rates of two groups. Does not know: what is trained, where its memory is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from transformers.optimization import Adafactor

from studio.core.training.config import RELATIVE, TrainingConfig
from studio.core.training.steps import lr_at
from studio.engine.models.devices import Device
from studio.errors import BadFile, InvalidSpec

FUSED = ("cuda", "cpu", "mps")


def make(
    config: TrainingConfig,
    groups: tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]],
    device: Device,
) -> Any:
    """The optimizer for the U-Net's and the text encoders' weights. Raises InvalidSpec for one that cannot be had here."""
    given = [
        {"params": weights, "lr": rate, "usual": rate}
        for weights, rate in zip(groups, config.rates)
        if weights
    ]
    adam = {"betas": config.betas, "eps": config.eps or 1e-8, "weight_decay": config.decay}
    if config.optimizer == "AdamW":
        return torch.optim.AdamW(given, **adam, fused=device.kind in FUSED)  # type: ignore[arg-type]
    if config.optimizer == "AdamW 8-bit":
        check(config, device)
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(given, **adam)
    return Adafactor(
        given,
        lr=None,
        scale_parameter=config.scaled,
        relative_step=config.optimizer == RELATIVE,
        warmup_init=False,
        weight_decay=config.decay,
    )


def check(config: TrainingConfig, device: Device) -> None:
    """Raise InvalidSpec for an optimizer that cannot be had here."""
    if config.optimizer != "AdamW 8-bit":
        return
    if device.kind != "cuda":
        raise InvalidSpec(
            [f"Optimizer: AdamW 8-bit runs on CUDA only, and this is {device.title}; choose AdamW."]
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise InvalidSpec(
            [
                "Optimizer: AdamW 8-bit needs the package bitsandbytes, which is not installed "
                "(pip install bitsandbytes); or choose AdamW."
            ]
        ) from None


def set_rates(optimizer: Any, config: TrainingConfig, step: int, total: int) -> None:
    """Before a step, counted from 0: the groups' rates by the schedule. Adafactor's relative step finds its own."""
    if config.optimizer == RELATIVE:
        return
    for group in optimizer.param_groups:
        group["lr"] = group["usual"] * lr_at(config, step, total)


def rate(optimizer: Any) -> float:
    """The first group's rate as of the last step; with a relative step that of its first layer. It waits for the device."""
    group = optimizer.param_groups[0]
    if group.get("relative_step"):
        known = optimizer.state.get(group["params"][0], {})
        return (
            float(
                max(group["eps"][1], float(known["RMS"])) * min(1e-2, 1 / math.sqrt(known["step"]))
            )
            if known
            else 0.0
        )
    return float(group["lr"])


def bytes_of(config: TrainingConfig, weights: int) -> int:
    """What gradients and the optimizer's memory of so many float32 weights take."""
    memory = {"AdamW": 8, "AdamW 8-bit": 2}.get(
        config.optimizer, 1
    )  # Adafactor keeps rows and columns
    return weights * (4 + memory)


def memory(optimizer: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Its memory: tensors by names, and plain numbers."""
    tensors, numbers = {}, {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}|{name}"] = value
            else:
                numbers[f"{index}|{name}"] = value
    return tensors, numbers


def remember(
    optimizer: Any, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]
) -> None:
    """Give it its memory back. Raises BadFile if it is another optimizer's."""
    state: dict[int, dict[str, Any]] = {}
    try:
        for name, value in [*tensors.items(), *numbers.items()]:
            index, _, what = name.partition("|")
            state.setdefault(int(index), {})[what] = value
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )
    except (KeyError, ValueError, RuntimeError) as error:
        raise BadFile(
            f"The checkpoint's optimizer is not the one of the settings ({error!s:.100})."
        ) from None
