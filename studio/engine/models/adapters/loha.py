"""LoHa (FedPara, arXiv:2108.06098): the change is the elementwise product of two of low rank.

Knows: ΔW = (w1_a · w1_b) ⊙ (w2_a · w2_b) · alpha / rank, with kernels between
(Tucker) or not.
Does not know: names in files (storage/models/adapter_kinds.py), magnitudes (dora.py).

ΔW is multiplied out in every call and never kept: it is as large as the layer's own weights, and
for a picture's tokens the product costs little beside what is done with it.
"""

from __future__ import annotations

from typing import Any

import torch

from studio.engine.models.adapters.adapter_module import (
    AdapterModule,
    contract_tucker,
    run_with_weight,
)


class LoHa(AdapterModule):
    """Two pairs of matrices."""

    hada_w1_a: torch.nn.Parameter  # (out, rank), or (rank, out) beside a kernel
    hada_w1_b: torch.nn.Parameter  # (rank, in · height · width), or (rank, in) beside a kernel
    hada_w2_a: torch.nn.Parameter
    hada_w2_b: torch.nn.Parameter
    hada_t1: torch.nn.Parameter  # (rank, rank, height, width), if there are kernels
    hada_t2: torch.nn.Parameter

    def compute_delta_weight(self) -> torch.Tensor:
        """Return the product in the shape of the layer's weights."""
        if hasattr(self, "hada_t1"):
            first = contract_tucker(self.hada_t1, self.hada_w1_a, self.hada_w1_b)
            second = contract_tucker(self.hada_t2, self.hada_w2_a, self.hada_w2_b)
        else:
            first = self.hada_w1_a @ self.hada_w1_b
            second = self.hada_w2_a @ self.hada_w2_b
        return (first * second).view(self.weight_shape)

    def forward(self, x: torch.Tensor, output: torch.Tensor, base: Any) -> torch.Tensor:
        """Return ΔW(x)."""
        return run_with_weight(base, x, self.compute_delta_weight())
