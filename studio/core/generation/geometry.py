"""Sizes and boxes of work on an image: how many steps run, which size, which crop, which tiles.

Knows: sizes and boxes in pixels. Does not know: pixels themselves (imaging/canvas.py), files,
models.

A size is (width, height); a box is (left, top, right, bottom), right and bottom just outside.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

Size = tuple[int, int]
Box = tuple[int, int, int, int]
ResizeMode = Literal["stretch", "crop", "fill"]
MaskedContent = Literal["original", "fill", "latent noise", "latent nothing"]
InpaintArea = Literal["whole picture", "only masked"]
ExtendFill = Literal["edge", "mirror", "noise", "colour"]
HiresResize = Literal["latent", "pixel"]
Task = Literal["txt2img", "img2img", "inpaint", "outpaint"]

CHOICE_NAMES = [
    name
    for kind in (ResizeMode, MaskedContent, InpaintArea, ExtendFill, HiresResize)
    for name in get_args(kind)
]
SIZE_MULTIPLE_PX = 8  # of widths and heights
MIN_SIDE_PX = 64  # of a first pass
MAX_SIDE_PX = 2048
MAX_UNTILED_SIDE_PX = 4096  # that a second pass paints in one piece
# Of an image that comes out; the same as of one that comes in.
MAX_IMAGE_SIDE_PX = 16_384
MAX_IMAGE_PIXELS = 64_000_000
STRENGTH_UNITS = 10_000  # strengths that are worked out have four digits


def count_effective_steps(steps: int, strength: float) -> int:
    """Return how many steps run on an image that is noised by `strength`, as diffusers counts them.

    Args:
        steps: Steps from pure noise.
        strength: 0 to 1.
    """
    return min(int(steps * strength), steps)


def find_strength(steps: int, running_steps: int) -> float:
    """Return a strength of four digits at which so many steps run, all of them at most.

    Args:
        steps: Steps from pure noise.
        running_steps: 0 or more.
    """
    running_steps = min(running_steps, steps)
    units = math.ceil(running_steps * STRENGTH_UNITS / steps)
    if count_effective_steps(steps, units / STRENGTH_UNITS) < running_steps:
        units += 1  # 50 steps at 0.58 are 28, as 28.999… is cut off
    return units / STRENGTH_UNITS


def resolve_size(requested_size: tuple[int | None, int | None], reference_size: Size) -> Size:
    """Return a size that can be painted, each side a multiple of 8.

    Args:
        requested_size: (width, height) in pixels, as far as they are given.
        reference_size: The size whose shape fills in what is None.
    """
    width, height = requested_size
    if width and height:
        return width, height
    reference_width, reference_height = reference_size
    if width:
        scale = width / reference_width
    elif height:
        scale = height / reference_height
    else:
        scale = min(1.0, MAX_SIDE_PX / max(reference_size))
    return (
        width or _round_to_valid_side(reference_width * scale),
        height or _round_to_valid_side(reference_height * scale),
    )


def upscale_size(size: Size, scale: float) -> Size:
    """Return the size of a second pass, each side rounded to a multiple of 8."""
    width, height = size
    return _round_to_multiple(width * scale), _round_to_multiple(height * scale)


def compute_crop_box(mask_box: Box, padding: int, image_size: Size, target_size: Size) -> Box:
    """Return what is cut out of an image to repaint only its masked part.

    A1111's rule, with the roundings of diffusers' VaeImageProcessor.get_crop_region.

    Args:
        mask_box: The box around the mask.
        padding: Pixels to add on each side.
        image_size: The size of the image.
        target_size: The size at which the part is painted.

    Returns:
        The padded box, widened to the shape of `target_size` and kept inside the image; it has
        another shape where the image is too narrow.
    """
    image_width, image_height = image_size
    left = max(mask_box[0] - padding, 0)
    top = max(mask_box[1] - padding, 0)
    right = min(mask_box[2] + padding, image_width)
    bottom = min(mask_box[3] + padding, image_height)
    width = right - left
    height = bottom - top
    ratio = target_size[0] / target_size[1]
    if width / height > ratio:
        top, bottom = _grow_span(top, bottom, int(width / ratio - height), image_height)
    else:
        left, right = _grow_span(left, right, int(height * ratio - width), image_width)
    return left, top, right, bottom


def split_into_tiles(size: Size, tile_size: int, overlap: int) -> list[Box]:
    """Return equal tiles that cover a size, row by row.

    Args:
        size: What is covered.
        tile_size: The longest side of a tile in pixels, a multiple of 8.
        overlap: By how many pixels at least each reaches into the next.

    Returns:
        Boxes whose corners are multiples of 8 where the size is one.
    """
    width, height = size
    columns = _split_length(width, tile_size, overlap)
    rows = _split_length(height, tile_size, overlap)
    return [(left, top, right, bottom) for top, bottom in rows for left, right in columns]


def _round_to_multiple(length: float) -> int:
    return round(length / SIZE_MULTIPLE_PX) * SIZE_MULTIPLE_PX


def _round_to_valid_side(side: float) -> int:
    return max(MIN_SIDE_PX, min(MAX_SIDE_PX, _round_to_multiple(side)))


def _grow_span(start: int, stop: int, growth: int, limit: int) -> tuple[int, int]:
    """Grow a span on both sides, push it back inside 0 … limit, cut it where that is not enough."""
    start -= growth // 2
    stop += growth - growth // 2
    if stop >= limit:
        start -= stop - limit
        stop = limit
    if start < 0:
        stop -= start
        start = 0
    return start, min(stop, limit)


def _split_length(length: int, tile_size: int, overlap: int) -> list[tuple[int, int]]:
    if length <= tile_size:
        return [(0, length)]
    num_tiles = math.ceil((length - overlap) / (tile_size - overlap))
    spare = length - tile_size
    starts = [_round_to_multiple(index * spare / (num_tiles - 1)) for index in range(num_tiles)]
    return [(start, start + tile_size) for start in starts]
