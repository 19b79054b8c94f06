"""What every kind of adapter has in common: it says what it adds to the output of one layer.

Knows: the layers that adapters are on, and how one is run with other weights.
Does not know: the kinds (one file each), which are on and how strongly (adapted_layer.py, lora.py).

For every kind the effect of a file on a layer is a change of its weights, and what a layer gives is
linear in its weights. So weight w means: output + w · (effect − output), with the difference
computed from the layer as it was. Several add up, and rows of one call may have different weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch.nn import functional

from studio.storage.models.adapter_layers import Layer

NORMS = (torch.nn.GroupNorm, torch.nn.LayerNorm)


class AdapterModule(torch.nn.Module):
    """What one file adds to the output of one layer.

    Its tensors are parameters, so that a kind can be trained as it is used.
    """

    # Whether `forward` needs what the layer gives without adapters.
    reads_output: ClassVar[bool] = False
    # While it is trained: leaves channels out at random, of what is of the rank (LoRA), or of what
    # is added (LoHa, LoKr).
    rank_dropout: Callable[[torch.Tensor], torch.Tensor] | None = None

    def __init__(self, layer: Layer, tensors: Mapping[str, torch.Tensor], base: Any) -> None:
        """Take the tensors of a file.

        Args:
            layer: What the file's header says of them.
            tensors: By role, in float32.
            base: The network's own layer.
        """
        super().__init__()
        self.is_neutral = False  # what `has_no_effect` said before it was moved
        self.alpha = layer.alpha
        self.divisor = math.sqrt(layer.rank) if layer.use_rslora else float(layer.rank)
        self.weight_shape = tuple(base.weight.shape)
        for role, tensor in tensors.items():
            setattr(self, role, torch.nn.Parameter(tensor, requires_grad=False))

    @classmethod
    def fits(cls, layer: Layer, base: Any) -> bool:
        """Whether the shapes of a network's layer and of a file's are the same."""
        if isinstance(base, NORMS):
            return False
        shape = layer.shape
        out_features, *input_shape = base.weight.shape
        if set(input_shape[1:]) <= {1}:  # a 1 × 1 convolution is as good as a linear layer
            input_shape = input_shape[:1]
        if shape.is_flat:
            input_shape = [math.prod(input_shape)]
        return (out_features, *input_shape) == (shape.out_features, *shape.input_shape)

    def get_factor(self, weight: float) -> float:
        """Return what `forward`'s result is multiplied by at this weight."""
        return weight * self.alpha / self.divisor if self.divisor else weight

    def has_no_effect(self) -> bool:
        """Whether it changes nothing, whatever its weight: the alpha or one factor is 0."""
        return self.get_factor(1.0) == 0 or any(not bool(p.any()) for p in self.parameters())

    def prepare(self, base: Any) -> None:
        """Compute what depends on the layer's own weights, once they are on one device."""

    def compute_delta_weight(self) -> torch.Tensor:
        """Return the change of the layer's weights at factor 1, in their shape."""
        raise NotImplementedError

    def drop_rank(self, channels: torch.Tensor) -> torch.Tensor:
        """Return channels with some left out while it is trained so, else as they are."""
        return channels if self.rank_dropout is None else self.rank_dropout(channels)

    def forward(self, x: torch.Tensor, output: torch.Tensor, base: Any) -> torch.Tensor:
        """Return what is added to a layer's output, at factor 1.

        Args:
            x: What the layer takes.
            output: What the layer gives without adapters; only for those that `reads_output`.
            base: The network's own layer.
        """
        raise NotImplementedError

    def add_rows(
        self,
        result: torch.Tensor,
        x: torch.Tensor,
        output: torch.Tensor,
        base: Any,
        *,
        factors: torch.Tensor,
    ) -> torch.Tensor:
        """Return a layer's result plus this adapter's part, with a factor for each row.

        Args:
            result: The sum until now; it may be changed in place unless `reads_output`.
            x: What the layer takes.
            output: What the layer gives without adapters.
            base: The network's own layer.
            factors: (rows,), on the device and in the number format of the result.
        """
        return result + self(x, output, base) * spread_rows(factors, result)


def spread_rows(factors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return factors (rows,) in a shape that multiplies each row of activations of any rank.

    (A tensor shaped for one rank would be broadcast wrongly over another without an error.)
    """
    return factors.view(-1, *(1,) * (rows.ndim - 1))


def run_with_weight(base: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Run a layer with other weights and without its bias."""
    if isinstance(base, torch.nn.Conv2d):
        return functional.conv2d(x, weight, None, base.stride, base.padding, base.dilation)
    return functional.linear(x, weight)


def without_bias(base: Any, output: torch.Tensor) -> torch.Tensor:
    """Return what a layer's weights give, without its bias."""
    if base.bias is None:
        return output
    return output - spread_channels(base.bias.to(output), output)


def spread_channels(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return one value per channel in a shape that multiplies activations.

    Args:
        values: (channels,).
        like: (…, channels), or (n, channels, rows, columns) of a convolution.
    """
    return values.view(-1, 1, 1) if like.ndim == 4 else values


def contract_tucker(core: torch.Tensor, side_a: torch.Tensor, side_b: torch.Tensor) -> torch.Tensor:
    """Return the kernel (out, in, height, width) of a Tucker decomposition.

    Args:
        core: (rank of a, rank of b, height, width).
        side_a: (rank of a, out).
        side_b: (rank of b, in).
    """
    return torch.einsum("ijhw,ip,jr->prhw", core, side_a, side_b)
