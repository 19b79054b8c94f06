"""The private parts of peft that we use, under names of our own.

Knows: how a LoRA layer of peft 0.21 stores which adapters are on, and that torch calls an
instance's own `forward` before its class's.
Does not know: which adapters there are, what replaces a layer's forward pass.

peft's public `set_adapter` also visits the parameters of all adapters to set `requires_grad`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def set_active_adapters(layer: Any, names: Sequence[str]) -> None:
    """Switch on exactly these adapters of a LoRA layer; read back by `layer.active_adapters`.

    Args:
        layer: A `peft.tuners.lora.LoraLayer`.
        names: Those that its `forward` adds, in this order; with none it only calls the base layer.
    """
    layer._active_adapter = list(names)


def set_forward(layer: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace the forward pass of this layer alone."""
    layer.forward = function


def reset_forward(layer: Any) -> None:
    """Undo `set_forward`; a layer that was never changed is left alone."""
    layer.__dict__.pop("forward", None)
