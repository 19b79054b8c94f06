"""Aspect buckets: the size an image is trained at, how it gets there, and the number of batches.

Knows: the rules of kohya's sd-scripts (v0.10), to the pixel.
Does not know: images, torch; it imports nothing of the studio, so that anything may count steps
with it.

All sizes are (width, height) in pixels. An image is resized so that it covers its bucket, and the
rest is cropped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

Size = tuple[int, int]


@dataclass(frozen=True)
class BucketFit:
    """How an image gets its size: resized to `resized_size`, then cropped to `bucket`."""

    bucket: Size
    resized_size: Size

    @property
    def cropped_pixels(self) -> Size:
        """Pixels that the crop removes, across and down."""
        width, height = self.resized_size
        return width - self.bucket[0], height - self.bucket[1]

    @property
    def center_offset(self) -> Size:
        """Left and top of a crop in the middle of the resized image."""
        across, down = self.cropped_pixels
        return across // 2, down // 2


@dataclass(frozen=True)
class Buckets:
    """The sizes for images of about the area of `resolution`.

    With `no_upscale` images are never enlarged: the size follows from the image itself, and
    `min_side` and `max_side` have no effect. Without `enabled` there is one size for all.
    """

    resolution: Size
    min_side: int = 256
    max_side: int = 2048
    step: int = 64
    no_upscale: bool = False
    enabled: bool = True

    @cached_property
    def sizes(self) -> tuple[Size, ...]:
        """All sizes that an image may get; without meaning for `no_upscale`."""
        if not self.enabled:
            return (self.resolution,)
        sizes = list_bucket_sizes(self.resolution, self.min_side, self.max_side, self.step)
        return tuple(sizes)

    def fit(self, width: int, height: int) -> BucketFit | None:
        """Return the bucket of an image; None if it is too small or too narrow for any."""
        if self.enabled and self.no_upscale:
            area = self.resolution[0] * self.resolution[1]
            return _fit_without_upscale(width, height, area, self.step)
        return _fit_nearest_ratio(width, height, self.sizes)


def list_bucket_sizes(
    resolution: Size, min_side: int = 256, max_side: int = 2048, step: int = 64
) -> list[Size]:
    """List the bucket sizes: for each width the largest height, and the same turned.

    Args:
        resolution: Its area is the largest of a bucket.
        min_side: The shortest side in pixels.
        max_side: The longest side in pixels.
        step: Sides are multiples of it.

    Returns:
        The sizes, sorted.
    """
    area = resolution[0] * resolution[1]
    square = int(math.sqrt(area) // step) * step
    sizes = {(square, square)}
    for width in range(min_side, max_side + 1, step):
        height = min(max_side, area // width // step * step)
        if height >= min_side:
            sizes |= {(width, height), (height, width)}
    return sorted(size for size in sizes if min(size) > 0)


def count_batches(sample_buckets: Iterable[Size], batch_size: int) -> dict[Size, int]:
    """Count the batches of an epoch in each bucket; the last one of a bucket may be smaller.

    Args:
        sample_buckets: The bucket of every sample, repeats included.
        batch_size: Samples in a batch.
    """
    sample_counts = Counter(sample_buckets)
    return {size: math.ceil(count / batch_size) for size, count in sorted(sample_counts.items())}


def _fit_nearest_ratio(width: int, height: int, sizes: Sequence[Size]) -> BucketFit | None:
    """Fit the first size of nearest aspect ratio; an image that has one of the sizes keeps it."""
    if not sizes:
        return None
    ratio = width / height
    bucket = (width, height)
    if bucket not in sizes:
        bucket = min(sizes, key=lambda size: abs(size[0] / size[1] - ratio))
    is_wider = ratio > bucket[0] / bucket[1]
    scale = bucket[1] / height if is_wider else bucket[0] / width
    return BucketFit(bucket, (int(width * scale + 0.5), int(height * scale + 0.5)))


def _fit_without_upscale(width: int, height: int, area: int, step: int) -> BucketFit | None:
    """Shrink an image if its area is too large; the bucket is its size in whole steps."""
    resized_size: Size | None = (width, height)
    if width * height > area:
        resized_size = _shrink_to_area(width / height, area, step)
    if resized_size is None:
        return None
    bucket = (resized_size[0] // step * step, resized_size[1] // step * step)
    return BucketFit(bucket, resized_size) if min(bucket) > 0 else None


def _shrink_to_area(ratio: float, area: int, step: int) -> Size | None:
    """Return a size of about that area with one side in whole steps; None if it is too narrow.

    It is the side with which both sides in whole steps come nearer to the ratio.
    """
    exact_width = math.sqrt(area * ratio)
    width = _round_down_to_step(exact_width, step)
    height = _round_down_to_step(area / exact_width, step)
    if not width or not height:
        return None
    height_for_width = _round_down_to_step(width / ratio, step)
    width_for_height = _round_down_to_step(height * ratio, step)
    width_error = abs(width / height_for_width - ratio) if height_for_width else math.inf
    height_error = abs(width_for_height / height - ratio)
    if width_error < height_error:
        return width, int(width / ratio + 0.5)
    return int(height * ratio + 0.5), height


def _round_down_to_step(value: float, step: int) -> int:
    return int(value + 0.5) // step * step
