"""(IA)³ (arXiv:2205.05638): one number for each channel that a layer gives or takes.

Knows: LyCORIS' numbers, which are added to 1 and leave the bias alone, and peft's, which multiply
what the layer gives together with its bias.
Does not know: names in files (storage/models/adapter_kinds.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from studio.engine.models.adapters.adapter_module import (
    NORMS,
    AdapterModule,
    spread_channels,
    without_bias,
)
from studio.storage.models.adapter_layers import Layer


class IA3(AdapterModule):
    """The numbers, as what they change: 0 changes nothing."""

    reads_output = True
    change: torch.nn.Parameter

    def __init__(self, layer: Layer, tensors: Mapping[str, torch.Tensor], base: Any) -> None:
        """Take the tensors of a file."""
        change = tensors["ia3_l"] - 1 if "ia3_l" in tensors else tensors["weight"]
        super().__init__(layer, {"change": change.flatten()}, base)
        self.is_of_peft = "ia3_l" in tensors
        self.on_input = layer.on_input

    @classmethod
    def fits(cls, layer: Layer, base: Any) -> bool:
        """Whether there are as many channels as numbers."""
        if isinstance(base, NORMS):
            return False
        if layer.on_input:
            return layer.shape.input_shape == base.weight.shape[1:2]
        return layer.shape.out_features == base.weight.shape[0]

    def get_factor(self, weight: float) -> float:
        """Return the weight; there is no alpha."""
        return weight

    def forward(self, x: torch.Tensor, output: torch.Tensor, base: Any) -> torch.Tensor:
        """Return W'(x) − W(x)."""
        if self.on_input:
            return base(x + x * spread_channels(self.change, x)) - output
        scaled = output if self.is_of_peft else without_bias(base, output)
        return scaled * spread_channels(self.change, output)
