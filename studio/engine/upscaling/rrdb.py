"""ESRGAN's generator (RRDB): dense blocks at the image's size, then each step twice as large.

Knows: its layers under today's names (`conv_first`, `body.0.rdb1.conv1` …); Real-ESRGAN's networks
that make ×2 and ×1 of the same layers by folding pixels into channels first. Does not know: the
older names that files have, how sizes are read from shapes (storage/models/upscaler_header.py,
upscaler_shapes.py), files, tiles, other kinds of networks.

Sources: RRDBNet of BasicSR (Apache-2.0), and RRDB_Net of ESRGAN's
first release, whose layers are numbered (`model.1.sub.0.RDB1.conv1.0`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from studio.storage.models.upscaler_shapes import NUM_DENSE_CONVS

SLOPE = 0.2  # of the leaky ReLUs
RESIDUAL_SCALE = 0.2


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees what all before it made."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for index in range(1, NUM_DENSE_CONVS + 1):
            in_channels = features + (index - 1) * growth
            out_channels = features if index == NUM_DENSE_CONVS else growth
            setattr(self, f"conv{index}", nn.Conv2d(in_channels, out_channels, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, features, h, w) to the same shape."""
        maps = [x]
        for index in range(1, NUM_DENSE_CONVS):
            conv = getattr(self, f"conv{index}")
            maps.append(functional.leaky_relu(conv(torch.cat(maps, 1)), SLOPE))
        last: Tensor = getattr(self, f"conv{NUM_DENSE_CONVS}")(torch.cat(maps, 1))
        return last * RESIDUAL_SCALE + x


class ResidualDenseBlocks(nn.Module):
    """Three dense blocks, and a little of what they add."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(features, growth)
        self.rdb2 = DenseBlock(features, growth)
        self.rdb3 = DenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, features, h, w) to the same shape."""
        added: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return added * RESIDUAL_SCALE + x


class RrdbNetwork(nn.Module):
    """The whole generator.

    Args:
        channels: Channels of the image, in and out.
        features: Channels between.
        growth: Channels that each convolution of a dense block adds.
        num_blocks: How many times three dense blocks.
        num_doublings: How many times the features are made twice as large.
        fold: Side of the squares of pixels that become channels before anything else.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        growth: int,
        num_blocks: int,
        *,
        num_doublings: int,
        fold: int,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.num_doublings = num_doublings
        self.multiple = fold
        self.scale = 2**num_doublings // fold
        self.conv_first = nn.Conv2d(channels * fold**2, features, 3, 1, 1)
        blocks = [ResidualDenseBlocks(features, growth) for _ in range(num_blocks)]
        self.body = nn.Sequential(*blocks)
        self.conv_body = nn.Conv2d(features, features, 3, 1, 1)
        for index in range(1, num_doublings + 1):
            setattr(self, f"conv_up{index}", nn.Conv2d(features, features, 3, 1, 1))
        self.conv_hr = nn.Conv2d(features, features, 3, 1, 1)
        self.conv_last = nn.Conv2d(features, channels, 3, 1, 1)
        # In theory; what is further than about 32 pixels away hardly counts.
        self.reach_px = fold * (15 * num_blocks + 2 + 4)

    def forward(self, image: Tensor) -> Tensor:
        """Map (n, channels, h, w) from 0 to 1 to (n, channels, h * scale, w * scale).

        Height and width have to be multiples of `multiple`.
        """
        x = functional.pixel_unshuffle(image, self.multiple) if self.multiple > 1 else image
        features = self.conv_first(x)
        features = features + self.conv_body(self.body(features))
        for index in range(1, self.num_doublings + 1):
            larger = functional.interpolate(features, scale_factor=2, mode="nearest")
            features = functional.leaky_relu(getattr(self, f"conv_up{index}")(larger), SLOPE)
        last: Tensor = self.conv_last(functional.leaky_relu(self.conv_hr(features), SLOPE))
        return last
