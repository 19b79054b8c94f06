"""LoKr (LyCORIS, arXiv:2309.14859): the change is a Kronecker product, w1 ⊗ w2 · alpha / rank.

Knows: factors that are whole, of low rank, or with a kernel between (Tucker).
Does not know: names in files (storage/models/adapter_kinds.py), magnitudes (dora.py).

The product is never multiplied out: (w1 ⊗ w2)(x) is w2 on each part of the channels, and then w1
across the parts, which takes a fraction of the layer's own operations and no memory.
"""

from __future__ import annotations

from typing import Any

import torch

from studio.engine.models.adapters.adapter_module import (
    AdapterModule,
    contract_tucker,
    run_with_weight,
)


class LoKr(AdapterModule):
    """Two factors, each whole (`lokr_w1`) or of two matrices (`lokr_w1_a`, `lokr_w1_b`)."""

    def compute_delta_weight(self) -> torch.Tensor:
        """Return the Kronecker product in the shape of the layer's weights."""
        first, second = self._compute_factors()
        first = first.view(*first.shape, *(1,) * (second.ndim - 2))
        return torch.kron(first, second.contiguous()).view(self.weight_shape)

    def forward(self, x: torch.Tensor, output: torch.Tensor, base: Any) -> torch.Tensor:
        """Return (w1 ⊗ w2)(x)."""
        first, second = self._compute_factors()
        parts = first.shape[1]
        if isinstance(base, torch.nn.Conv2d):
            columns, width = second.shape[1], x.shape[0]
            hidden = x.reshape(width * parts, columns, *x.shape[2:])
            hidden = run_with_weight(base, hidden, second)
            # (rows, parts, channels of w2 · height · width)
            mixed = first @ hidden.reshape(width, parts, -1)
            return self.drop_rank(mixed.reshape(width, -1, *hidden.shape[2:]))
        hidden = run_with_weight(base, x.unflatten(-1, (parts, -1)), second)
        return self.drop_rank((first @ hidden).flatten(-2))

    def _compute_factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return w1 (l, m) and w2 (k, n), (k, n, height, width); the layer is (l·k, m·n, …)."""
        parameters: dict[str, torch.Tensor] = dict(self.named_parameters())
        first = parameters.get("lokr_w1")
        if first is None:
            first = parameters["lokr_w1_a"] @ parameters["lokr_w1_b"]
        second = parameters.get("lokr_w2")
        if second is None:
            side_a, side_b = parameters["lokr_w2_a"], parameters["lokr_w2_b"]
            core = parameters.get("lokr_t2")
            second = side_a @ side_b if core is None else contract_tucker(core, side_a, side_b)
        _, in_features, *kernel = self.weight_shape
        return first, second.view(second.shape[0], in_features // first.shape[1], *kernel)
