"""LoRA (arXiv:2106.09685) and LoCon: a change of low rank, up · down · alpha / rank.

Knows: pairs on linear layers and on convolutions, and the kernel between them (Tucker).
Does not know: names in files (storage/models/adapter_kinds.py), magnitudes (dora.py).

The arithmetic is peft's in its order, and so bit for bit that of diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from studio.engine.models.adapters.adapter_module import (
    AdapterModule,
    contract_tucker,
    run_with_weight,
    spread_rows,
)
from studio.storage.models.adapter_layers import Layer


class LowRank(AdapterModule):
    """Two matrices, or two 1 × 1 convolutions with a kernel in the first or between them."""

    down: torch.nn.Parameter  # (rank, in), (rank, in, height, width)
    up: torch.nn.Parameter  # (out, rank), (out, rank, 1, 1)
    mid: torch.nn.Parameter  # (rank, rank, height, width), if it is there

    def __init__(self, layer: Layer, tensors: Mapping[str, torch.Tensor], base: Any) -> None:
        """Take the tensors of a file; a matrix may stand for a 1 × 1 convolution, and back."""
        out_features, in_features, *kernel = base.weight.shape
        one = (1,) * len(kernel)
        down, up = tensors["down"], tensors["up"]
        down_kernel = one if "mid" in tensors else kernel
        shaped = {
            "down": down.reshape(down.shape[0], in_features, *down_kernel),
            "up": up.reshape(out_features, up.shape[1], *one),
        }
        if "mid" in tensors:
            shaped["mid"] = tensors["mid"]
        super().__init__(layer, shaped, base)
        self.has_mid = "mid" in tensors

    @classmethod
    def fits(cls, layer: Layer, base: Any) -> bool:
        """Also, a kernel between the matrices has to be one of a convolution."""
        is_fitting = super().fits(layer, base)
        return is_fitting and ("mid" not in layer.tensors or isinstance(base, torch.nn.Conv2d))

    def compute_delta_weight(self) -> torch.Tensor:
        """Return up · down in the shape of the layer's weights."""
        up, down = self.up.flatten(1), self.down.flatten(1)
        if self.has_mid:
            return contract_tucker(self.mid, up.T, down)
        return (up @ down).view(self.weight_shape)

    def forward(self, x: torch.Tensor, output: torch.Tensor, base: Any) -> torch.Tensor:
        """Return up(down(x))."""
        return self._raise_rank(self.drop_rank(self._lower_rank(x, base)))

    def add_rows(
        self,
        result: torch.Tensor,
        x: torch.Tensor,
        output: torch.Tensor,
        base: Any,
        *,
        factors: torch.Tensor,
    ) -> torch.Tensor:
        """Add to the result in place; the factors scale the small activations in the middle.

        These are two passes over the output fewer for each layer. It rounds differently, which
        rows in one call do anyway.
        """
        hidden = self._lower_rank(x, base)
        hidden = hidden * spread_rows(factors, hidden)
        if self.up.ndim == 2:
            result.view(-1, result.shape[-1]).addmm_(hidden.flatten(0, -2), self.up.t())
        else:
            result += self._raise_rank(hidden)
        return result

    def _lower_rank(self, x: torch.Tensor, base: Any) -> torch.Tensor:
        if not self.has_mid:
            return run_with_weight(base, x, self.down)
        return run_with_weight(base, functional.conv2d(x, self.down), self.mid)

    def _raise_rank(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.up.ndim == 2:
            return functional.linear(hidden, self.up)
        return functional.conv2d(hidden, self.up)
