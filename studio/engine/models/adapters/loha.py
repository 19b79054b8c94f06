"""LoHa (FedPara, arXiv:2108.06098): the change is the elementwise product of two of low rank.

Knows: ΔW = (w1_a · w1_b) ⊙ (w2_a · w2_b) · alpha / rank, with kernels between (Tucker) or not.
Does not know: names in files (storage/models/adapter_kinds.py), magnitudes (dora.py).

ΔW is never kept: it is as large as the layer's own weights. It is also a change of rank rank²,
which is run as two thin layers while that is less work (on 1,280 channels up to rank 17, a tenth
of the layer's own time at rank 4); above, it is multiplied out in every call, which for a picture's
tokens costs little beside what is done with it (measured on 2 cores: 0 to 30 % of the layer).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

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

    @property
    def is_thin(self) -> bool:
        """Whether two layers of rank² between them are at most half the work of one."""
        out_features, inputs = self.weight_shape[0], math.prod(self.weight_shape[1:])
        rank = self.hada_w1_b.shape[0] * self.hada_w2_b.shape[0]
        has_kernels = "hada_t1" in self._parameters
        return not has_kernels and 2 * rank * (out_features + inputs) <= out_features * inputs

    def compute_delta_weight(self) -> torch.Tensor:
        """Return the product in the shape of the layer's weights."""
        if "hada_t1" in self._parameters:
            first = contract_tucker(self.hada_t1, self.hada_w1_a, self.hada_w1_b)
            second = contract_tucker(self.hada_t2, self.hada_w2_a, self.hada_w2_b)
        else:
            first = self.hada_w1_a @ self.hada_w1_b
            second = self.hada_w2_a @ self.hada_w2_b
        return (first * second).view(self.weight_shape)

    def forward(self, x: torch.Tensor, output: torch.Tensor, base: Any) -> torch.Tensor:
        """Return ΔW(x)."""
        if not self.is_thin:
            return self.drop_rank(run_with_weight(base, x, self.compute_delta_weight()))
        # Every product of a column of w1_a with one of w2_a, and of rows of w1_b and w2_b.
        up = (self.hada_w1_a[:, :, None] * self.hada_w2_a[:, None, :]).flatten(1)
        down = (self.hada_w1_b[:, None, :] * self.hada_w2_b[None, :, :]).flatten(0, 1)
        hidden = run_with_weight(base, x, down.view(-1, *self.weight_shape[1:]))
        if hidden.ndim == 4:
            return self.drop_rank(functional.conv2d(hidden, up[:, :, None, None]))
        return self.drop_rank(functional.linear(hidden, up))
