"""SRVGG-compact: the small upscaler of Real-ESRGAN, convolutions in a row at the image's own size.

Knows: its layers by the numbers in its state dict (`body.0.weight` …); channels, width, depth and
scale from their shapes.
Does not know: files, tiles, other kinds of networks.

Source: SRVGGNetCompact of Real-ESRGAN, BSD-3-Clause.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from studio.errors import BadFile

Shape = tuple[int, ...]
KERNEL = 3


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

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Shape]) -> CompactNetwork:
        """Return the network, untrained, that tensors of these names and shapes belong to.

        Raises BadFile where the first and the last one do not go together.
        """
        first = shapes["body.0.weight"]
        last_index = max(int(name.split(".")[1]) for name in shapes)
        last = shapes.get(f"body.{last_index}.weight", ())
        # Two tensors for each convolution, one for each activation between them.
        num_tensors = 2 * (last_index // 2 + 1) + last_index // 2
        is_chain = last_index >= 2 and last_index % 2 == 0 and len(shapes) == num_tensors
        if not is_chain or len(first) != 4 or len(last) != 4:
            raise BadFile("its layers are not those of a compact upscaler.")
        channels = first[1]
        scale = math.isqrt(last[0] // channels) if channels else 0
        if channels not in (1, 3) or scale < 1 or last[0] != channels * scale**2:
            raise BadFile(
                f"it makes {last[0]} channels out of {channels}, which is no enlarged image."
            )
        return cls(channels, first[0], last_index // 2 - 1, scale)
