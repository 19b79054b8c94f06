"""Full differences: new weights and biases minus old ones, of layers and of norms.

Knows: LyCORIS' full algorithm (`diff`, `diff_b`), its norms (`w_norm`, `b_norm`), and ComfyUI's
files, which have `diff` for both. Does not know: names in files (storage/models/adapter_kinds.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from studio.engine.models.adapters.adapter_module import (
    NORMS,
    AdapterModule,
    run_with_weight,
    spread_channels,
)
from studio.storage.models.adapter_layers import Layer


class Difference(AdapterModule):
    """A change of the weights, of the bias, or of both."""

    def __init__(self, layer: Layer, tensors: Mapping[str, torch.Tensor], base: Any) -> None:
        """Take the tensors of a file."""
        weight = tensors.get("diff", tensors.get("w_norm"))
        bias = tensors.get("diff_b", tensors.get("b_norm"))
        named = {}
        if weight is not None:
            named["weight"] = weight.reshape(base.weight.shape)
        if bias is not None:
            named["bias"] = bias
        super().__init__(layer, named, base)

    @classmethod
    def fits(cls, layer: Layer, base: Any) -> bool:
        """Whether the shapes are the same; a bias alone fits any layer of its width."""
        has_weight = bool({"diff", "w_norm"} & layer.tensors.keys())
        if isinstance(base, NORMS) and has_weight:
            return tuple(base.weight.shape) == (layer.shape.out_features,) and (
                not layer.shape.input_shape
            )
        if not has_weight:
            return base.weight.shape[0] == layer.shape.out_features
        return super().fits(layer, base)

    def get_factor(self, weight: float) -> float:
        """Return the weight; there is no alpha."""
        return weight

    def has_no_effect(self) -> bool:
        """Whether all of it is 0."""
        return not any(bool(p.any()) for p in self.parameters())

    def forward(self, x: torch.Tensor, output: torch.Tensor, base: Any) -> torch.Tensor:
        """Return the change of what the layer gives."""
        weight, bias = self._parameters.get("weight"), self._parameters.get("bias")
        if weight is None:
            assert bias is not None  # it has one of the two
            return spread_channels(bias, output).expand_as(output)
        if isinstance(base, torch.nn.GroupNorm):
            return functional.group_norm(x, base.num_groups, weight, bias, base.eps)
        if isinstance(base, torch.nn.LayerNorm):
            return functional.layer_norm(x, base.normalized_shape, weight, bias, base.eps)
        change = run_with_weight(base, x, weight)
        return change if bias is None else change + spread_channels(bias, change)
