"""Aspect buckets: which size a picture is trained at, how it gets there, and how many batches that makes.

Knows: the rules of kohya's sd-scripts (v0.10), to the pixel. Does not know: pictures, torch; it imports nothing of the studio, so
that anybody may count steps with it.

All sizes are (width, height). A picture is resized so that it covers its bucket, and what stands over is cropped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

Size = tuple[int, int]


@dataclass(frozen=True)
class Fit:
    """Where a picture goes: resized to `resized`, then cropped to `bucket`."""

    bucket: Size
    resized: Size

    @property
    def spare(self) -> Size:
        """Pixels that the crop takes away, across and down."""
        return self.resized[0] - self.bucket[0], self.resized[1] - self.bucket[1]

    @property
    def centre(self) -> Size:
        """The crop's left and top in the middle of the resized picture."""
        return self.spare[0] // 2, self.spare[1] // 2


@dataclass(frozen=True)
class Buckets:
    """The sizes there are for pictures of about `resolution`.

    With `no_upscale` pictures are never enlarged: the size follows from the picture itself, and `least` and `most` have no effect.
    Without `enabled` there is one size for all.
    """

    resolution: Size
    least: int = 256
    most: int = 2048
    step: int = 64
    no_upscale: bool = False
    enabled: bool = True

    @cached_property
    def table(self) -> tuple[Size, ...]:
        """All sizes that a picture may be given; without meaning for `no_upscale`."""
        return (
            tuple(table(self.resolution, self.least, self.most, self.step))
            if self.enabled
            else (self.resolution,)
        )

    def fit(self, width: int, height: int) -> Fit | None:
        """The bucket of a picture. None if it is too small or too narrow for any."""
        if self.enabled and self.no_upscale:
            return _shrunk(width, height, self.resolution[0] * self.resolution[1], self.step)
        return _covering(width, height, self.table)


def table(resolution: Size, least: int = 256, most: int = 2048, step: int = 64) -> list[Size]:
    """Sizes with sides in steps and an area up to that of `resolution`, sorted: for each width the largest height."""
    area = resolution[0] * resolution[1]
    square = int(math.sqrt(area) // step) * step
    sizes = {(square, square)}
    for width in range(least, most + 1, step):
        height = min(most, area // width // step * step)
        if height >= least:
            sizes |= {(width, height), (height, width)}
    return sorted(size for size in sizes if min(size) > 0)


def batches(of_samples: Iterable[Size], batch: int) -> dict[Size, int]:
    """Batches an epoch in each bucket, given every sample's bucket; the last one of a bucket may be smaller."""
    return {size: -(-count // batch) for size, count in sorted(Counter(of_samples).items())}


def _covering(width: int, height: int, sizes: Sequence[Size]) -> Fit | None:
    """The size of nearest aspect ratio, the first of equals; a picture that has one of the sizes keeps it."""
    if not sizes:
        return None
    ratio = width / height
    bucket = (
        (width, height)
        if (width, height) in sizes
        else min(sizes, key=lambda size: abs(size[0] / size[1] - ratio))
    )
    scale = bucket[1] / height if ratio > bucket[0] / bucket[1] else bucket[0] / width
    return Fit(bucket, (int(width * scale + 0.5), int(height * scale + 0.5)))


def _shrunk(width: int, height: int, area: int, step: int) -> Fit | None:
    """Made smaller if its area is too large, never larger; the bucket is what is left in whole steps."""
    resized = (width, height)
    if width * height > area:
        ratio = width / height
        wide, high = (
            _floored(math.sqrt(area * ratio), step),
            _floored(area / math.sqrt(area * ratio), step),
        )
        # One side is brought to a whole step: the one after which both in whole steps come nearer to the picture's ratio.
        high_by_wide, wide_by_high = _floored(wide / ratio, step), _floored(high * ratio, step)
        if not (wide and high):
            return None
        error_wide = abs(wide / high_by_wide - ratio) if high_by_wide else math.inf
        error_high = abs(wide_by_high / high - ratio)
        resized = (
            (wide, int(wide / ratio + 0.5))
            if error_wide < error_high
            else (int(high * ratio + 0.5), high)
        )
    bucket = (resized[0] - resized[0] % step, resized[1] - resized[1] % step)
    return Fit(bucket, resized) if min(bucket) > 0 else None


def _floored(value: float, step: int) -> int:
    whole = int(value + 0.5)
    return whole - whole % step
