"""OFT (arXiv:2306.07280) and BOFT (arXiv:2311.06243): the weights are turned, not added to.

Knows: kohya's and LyCORIS' blocks, which turn what a layer gives (one stage, or several of a
butterfly), with a constraint and a rescaling; peft's OFT, which turns what a linear layer takes.
Does not know: names in files (storage/models/adapter_kinds.py); the OFT of peft on convolutions
with a kernel, and its BOFT, which are left out and refused.

The rotations are computed once in float32, in Cayley's form R = (I + Q)(I − Q)⁻¹ of Q = B − Bᵀ.
"""

from __future__ import annotations

import math
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


class OFT(AdapterModule):
    """Rotations of blocks of channels, given by skew-symmetric matrices."""

    reads_output = True
    rescale: torch.nn.Parameter
    turns: torch.Tensor
    excess: torch.Tensor

    def __init__(self, layer: Layer, tensors: Mapping[str, torch.Tensor], base: Any) -> None:
        """Take the tensors of a file and compute the rotations."""
        super().__init__(layer, tensors, base)
        self.is_of_peft = "oft_R" in tensors
        self.is_butterfly = not self.is_of_peft and tensors["oft_blocks"].ndim == 4
        if self.is_of_peft:
            rotations = _rotate_by_series(tensors["oft_R"], layer.neumann_terms)
        else:
            limit = layer.alpha * base.weight.shape[0]
            rotations = _rotate_by_cayley(tensors["oft_blocks"], limit)
        if not self.is_butterfly:  # these multiply from the other side
            rotations = rotations.transpose(-2, -1)[None]
        # R − I, (stages, blocks, size, size): row n of a block changes channel n of what comes out
        self.register_buffer("turns", rotations - torch.eye(rotations.shape[-1]), persistent=False)
        if "rescale" in tensors:
            excess = tensors["rescale"].flatten() - 1
            self.register_buffer("excess", excess, persistent=False)

    @classmethod
    def fits(cls, layer: Layer, base: Any) -> bool:
        """Whether the channels are as many as those of the blocks."""
        if isinstance(base, NORMS):
            return False
        if "oft_R" not in layer.tensors:
            return layer.shape.out_features == base.weight.shape[0]
        return layer.shape.input_shape == base.weight.shape[1:2] and base.weight[0, 0].numel() == 1

    def get_factor(self, weight: float) -> float:
        """Return the weight: the alpha is a limit of the rotation."""
        return weight

    def has_no_effect(self) -> bool:
        """Whether nothing is turned or rescaled."""
        turns = any(bool(p.any()) for name, p in self.named_parameters() if name != "rescale")
        return not turns and not ("rescale" in self._parameters and bool((self.rescale != 1).any()))

    def forward(self, x: torch.Tensor, output: torch.Tensor, base: Any) -> torch.Tensor:
        """Return W'(x) − W(x)."""
        if self.is_of_peft:
            return base(x + self._turn(x)) - output
        plain = without_bias(base, output)
        change = self._turn(plain)
        if "rescale" in self._parameters:
            excess = spread_channels(self.excess, output)
            change = change + (plain + change) * excess
        return change

    def _turn(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what rotations change of channels, the last axis or a convolution's second."""
        channels = rows.movedim(1, -1) if rows.ndim == 4 else rows
        change = torch.zeros_like(channels)
        size = self.turns.shape[-1]
        for stage, turn in enumerate(self.turns):
            # Of a butterfly, stage i turns together what lies 2^i · size / 2 apart.
            stride = size // 2 << stage
            turned = channels + change
            if self.is_butterfly:
                turned = _swap(turned, 2, stride)
            blocks = turned.unflatten(-1, (-1, size))
            turned = torch.einsum("bij,...bj->...bi", turn, blocks).flatten(-2)
            if self.is_butterfly:
                turned = _swap(turned, stride, 2)
            change = change + turned
        return change.movedim(-1, 1) if rows.ndim == 4 else change


def _swap(channels: torch.Tensor, groups: int, count: int) -> torch.Tensor:
    """Reorder channels (…, n · groups · count) to (…, n · count · groups)."""
    return channels.unflatten(-1, (-1, groups, count)).transpose(-2, -1).flatten(-3)


def _rotate_by_cayley(blocks: torch.Tensor, limit: float) -> torch.Tensor:
    """Return (I + Q)(I − Q)⁻¹ of blocks (…, size, size).

    Args:
        blocks: Q = blocks − blocksᵀ.
        limit: The largest norm of all Q together; 0 for none.
    """
    skew = blocks - blocks.transpose(-2, -1)
    if limit > 0:
        norm = torch.linalg.vector_norm(skew) + 1e-8
        if float(norm) > limit:
            skew = skew * (limit / norm)
    identity = torch.eye(skew.shape[-1])
    return (identity + skew) @ torch.linalg.inv(identity - skew)


def _rotate_by_series(elements: torch.Tensor, num_terms: int) -> torch.Tensor:
    """Return peft's rotations (blocks, size, size): (I − Q)(I + Q)⁻¹, or the series for it.

    Args:
        elements: (blocks, size · (size − 1) / 2), what stands above the diagonal of Q.
        num_terms: I + 2 Q + 2 Q² + … + Qⁿ⁻¹, as peft cuts it; 0 for the exact inverse.
    """
    size = (1 + math.isqrt(1 + 8 * elements.shape[1])) // 2
    skew = torch.zeros(elements.shape[0], size, size)
    rows, columns = torch.triu_indices(size, size, 1)
    skew[:, rows, columns] = elements
    skew = skew - skew.transpose(-2, -1)
    identity = torch.eye(size).expand_as(skew)
    if num_terms == 0:
        return torch.linalg.solve(identity + skew, identity - skew, left=False)
    rotations, power = identity.clone(), identity
    for term in range(1, num_terms):
        power = power @ skew
        rotations += power if term == num_terms - 1 and term > 2 else 2 * power
    return rotations
