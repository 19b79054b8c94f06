"""SRVGG-compact: the small upscaler of Real-ESRGAN, convolutions in a row at the image's own size.

Knows: its layers by the numbers in its state dict (`body.0.weight` …), its scale and its width from
the shapes.
Does not know: files, tiles, other kinds of networks.

Source: SRVGGNetCompact of Real-ESRGAN (realesrgan/archs/srvgg_arch.py), BSD-3-Clause.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor, nn
from torch.nn import functional

KERNEL = 3


class CompactNetwork(nn.Module):
    """Convolutions with an activation after each but the last, then pixels out of channels.

    Args:
        channels: Channels of the image, in and out.
        features: Channels between.
        num_convs: Convolutions between the first and the last.
        scale: How many times larger the result is.
        prelu: Whether the activations are PReLU (as published); else leaky ReLU with slope 0.1,
            which has no parameters.
    """

    def __init__(
        self, channels: int, features: int, num_convs: int, scale: int, prelu: bool = True
    ) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = []
        in_channels = channels
        for _ in range(num_convs + 1):
            layers.append(nn.Conv2d(in_channels, features, KERNEL, 1, KERNEL // 2))
            layers.append(nn.PReLU(features) if prelu else nn.LeakyReLU(0.1))
            in_channels = features
        layers.append(nn.Conv2d(features, channels * scale**2, KERNEL, 1, KERNEL // 2))
        self.body = nn.Sequential(*layers)
        # A pixel of the result depends on pixels up to this far away.
        self.reach_px = (num_convs + 2) * (KERNEL // 2)

    def forward(self, image: Tensor) -> Tensor:
        """Map (n, channels, h, w) from 0 to 1 to (n, channels, h * scale, w * scale)."""
        detail = functional.pixel_shuffle(self.body(image), self.scale)
        return detail + functional.interpolate(image, scale_factor=self.scale, mode="nearest")
