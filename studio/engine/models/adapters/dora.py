"""DoRA (arXiv:2402.09353): the changed weights are brought to magnitudes that the file holds.

Knows: W' = m · (W + ΔW) / ‖W + ΔW‖, with one norm for each output (the paper, peft, LyCORIS) or for
each input (LyCORIS until 2024), on top of LoRA, LoCon, LoHa and LoKr.
Does not know: what ΔW is (low_rank.py, loha.py, lokr.py).

W' − W is never multiplied out. With c = m / ‖W + ΔW‖ it is (c − 1) · Wx + c · ΔWx along the
outputs, and W((c − 1) · x) + ΔW(c · x) along the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from studio.engine.models.adapters.adapter_module import (
    AdapterModule,
    spread_channels,
    without_bias,
)
from studio.storage.models.adapter_kinds import MAGNITUDES
from studio.storage.models.adapter_layers import Layer


class DoRA(AdapterModule):
    """Magnitudes around an adapter of another kind."""

    reads_output = True
    magnitude: torch.nn.Parameter
    scale: torch.Tensor
    excess: torch.Tensor

    def __init__(
        self,
        layer: Layer,
        tensors: Mapping[str, torch.Tensor],
        base: Any,
        direction_class: type[AdapterModule],
    ) -> None:
        """Take the tensors of a file.

        Args:
            layer: What the file's header says of them.
            tensors: By role, in float32.
            base: The network's own layer.
            direction_class: Of the kind that changes the direction of the weights.
        """
        others = {role: tensor for role, tensor in tensors.items() if role not in MAGNITUDES}
        magnitude = next(tensors[role] for role in MAGNITUDES if role in tensors)
        super().__init__(layer, {"magnitude": magnitude.flatten()}, base)
        self.direction = direction_class(layer, others, base)
        self.axis = layer.shape.magnitude_axis
        # c and c − 1, which half precision would lose of a c near 1
        self.register_buffer("scale", torch.ones_like(self.magnitude), persistent=False)
        self.register_buffer("excess", torch.zeros_like(self.magnitude), persistent=False)

    @classmethod
    def fits(cls, layer: Layer, base: Any) -> bool:
        """Whether there is one magnitude for each output, or for each input."""
        return layer.shape.num_magnitudes == base.weight.shape[layer.shape.magnitude_axis]

    def get_factor(self, weight: float) -> float:
        """Return the weight: the alpha is within the norm."""
        return weight

    def has_no_effect(self) -> bool:
        """Magnitudes change the layer also where the product is 0."""
        return False

    def prepare(self, base: Any) -> None:
        """Compute m / ‖W + ΔW‖ in float32, taken as a constant until the tensors change."""
        self.scale = self.magnitude.float() / self.compute_norm(base)
        self.excess = self.scale - 1

    @torch.no_grad()
    def compute_norm(self, base: Any) -> torch.Tensor:
        """Return ‖W + ΔW‖ along the axis, in float32 whatever is computed around it.

        It has no gradient: the paper (4.3) and peft take it for a constant in the backward pass.
        """
        with torch.autocast(base.weight.device.type, enabled=False):
            delta = self.direction.compute_delta_weight().float() * self.direction.get_factor(1.0)
            weight = base.weight.detach().to(delta) + delta
            axes = [axis for axis in range(weight.ndim) if axis != self.axis]
            norm = torch.linalg.vector_norm(weight, dim=axes)
        return norm.clamp(min=torch.finfo(norm.dtype).tiny)  # a row of zeros stays one

    def compute_delta_weight(self) -> torch.Tensor:
        """Not of use: nothing is put on top of a DoRA."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor, output: torch.Tensor, base: Any) -> torch.Tensor:
        """Return W'(x) − W(x)."""
        factor = self.direction.get_factor(1.0)
        scale, excess = self.scale, self.excess
        if self.magnitude.requires_grad:  # it is trained: both change with every step
            scale = self.magnitude / self.compute_norm(base)
            scale, excess = scale.to(output.dtype), (scale - 1).to(output.dtype)
        if self.axis == 0:
            change = self.direction(x, output, base) * factor
            change = change * spread_channels(scale, output)
            return without_bias(base, output) * spread_channels(excess, output) + change
        scaled = x + x * spread_channels(excess, x)
        return base(scaled) - output + self.direction(scaled, output, base) * factor
