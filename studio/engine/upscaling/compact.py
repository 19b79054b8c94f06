"""SRVGG-compact: the small upscaler of Real-ESRGAN, convolutions in a row at the image's own size.

Knows: its layers by the numbers in its state dict (`body.0.weight` …).
Does not know: files, how its sizes are read from shapes (storage/models/upscaler_shapes.py), tiles,
other kinds of networks.

Source: SRVGGNetCompact of Real-ESRGAN, BSD-3-Clause.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from studio.storage.models.upscaler_shapes import KERNEL


class CompactNetwork(nn.Module):
    """Convolutions with a PReLU after each but the last, then pixels out of channels.

    Args:
        channels: Channels of the image, in and out.
        features: Channels between.
        num_convs: Convolutions between the first and the last.
        scale: How many times larger the result is.
    """

    multiple = 1

    def __init__(self, channels: int, features: int, num_convs: int, scale: int) -> None:
        super().__init__()
        self.channels = channels
        self.scale = scale
        layers: list[nn.Module] = []
        in_channels = channels
        for _ in range(num_convs + 1):
            layers += [nn.Conv2d(in_channels, features, KERNEL, 1, 1), nn.PReLU(features)]
            in_channels = features
        layers.append(nn.Conv2d(features, channels * scale**2, KERNEL, 1, 1))
        self.body = nn.Sequential(*layers)
        # A pixel of the result depends on pixels of the image up to this far away.
        self.reach_px = num_convs + 2

    def forward(self, image: Tensor) -> Tensor:
        """Map (n, channels, h, w) from 0 to 1 to (n, channels, h * scale, w * scale)."""
        detail = functional.pixel_shuffle(self.body(image), self.scale)
        return detail + functional.interpolate(image, scale_factor=self.scale, mode="nearest")
