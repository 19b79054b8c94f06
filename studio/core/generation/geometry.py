"""Working on a picture, in plain numbers: how many steps run, how large is painted, which box, which tiles.

Knows: sizes and boxes in pixels. Does not know: pixels themselves (imaging/canvas.py), files, models.

A size is (width, height); a box is (left, top, right, bottom), the right and the bottom just outside.
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

NAMES = [
    name
    for kind in (ResizeMode, MaskedContent, InpaintArea, ExtendFill, HiresResize)
    for name in get_args(kind)
]
UNIT = 8  # pixels: what widths and heights are multiples of
LEAST, MOST = 64, 2048  # pixels a side that are painted at first
MOST_WHOLE = 4096  # pixels a side that a second pass paints in one piece
MOST_SIDE, MOST_PIXELS = (
    16_384,
    64_000_000,
)  # of a picture that comes out; the same as of one that comes in


def steps_run(steps: int, strength: float) -> int:
    """How many of the steps are left to run on a picture that is noised by `strength`, 0 to 1 (as diffusers counts them)."""
    return min(int(steps * strength), steps)


def paint_size(wanted: tuple[int | None, int | None], own: Size) -> Size:
    """A width and height that can be painted; what is left open follows from the size `own`, each side to the nearest unit."""
    width, height = wanted
    if width and height:
        return width, height
    scale = width / own[0] if width else height / own[1] if height else min(1.0, MOST / max(own))
    return width or _painted(own[0] * scale), height or _painted(own[1] * scale)


def enlarged(size: Size, scale: float) -> Size:
    """The size of a second pass, each side to the nearest unit."""
    return round(size[0] * scale / UNIT) * UNIT, round(size[1] * scale / UNIT) * UNIT


def box(mask: Box, padding: int, picture: Size, paint: Size) -> Box:
    """What is cut out of a picture to repaint only what is masked: `mask` with `padding` on each side, widened to the shape of
    `paint`, kept inside the picture (so that it has another shape where the picture is too narrow).

    A1111's rule, with the roundings of diffusers' VaeImageProcessor.get_crop_region.
    """
    left, right = max(mask[0] - padding, 0), min(mask[2] + padding, picture[0])
    top, bottom = max(mask[1] - padding, 0), min(mask[3] + padding, picture[1])
    ratio = paint[0] / paint[1]
    if (right - left) / (bottom - top) > ratio:
        top, bottom = _widened(
            top, bottom, int((right - left) / ratio - (bottom - top)), picture[1]
        )
    else:
        left, right = _widened(
            left, right, int((bottom - top) * ratio - (right - left)), picture[0]
        )
    return left, top, right, bottom


def tiles(size: Size, side: int, overlap: int) -> list[Box]:
    """Equal tiles of at most `side` that cover a size, each `overlap` or more into the next; row by row. Multiples of the unit."""
    across, down = (_spans(length, side, overlap) for length in size)
    return [(left, top, right, bottom) for top, bottom in down for left, right in across]


def _painted(length: float) -> int:
    return max(LEAST, min(MOST, round(length / UNIT) * UNIT))


def _widened(first: int, last: int, more: int, most: int) -> tuple[int, int]:
    """A span made longer on both sides, pushed back inside 0 … most, and cut where that does not suffice."""
    first, last = first - more // 2, last + more - more // 2
    if last >= most:
        first, last = first - (last - most), most
    if first < 0:
        first, last = 0, last - first
    return first, min(last, most)


def _spans(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    if length <= side:
        return [(0, length)]
    many = math.ceil((length - overlap) / (side - overlap))
    starts = [round(k * (length - side) / (many - 1) / UNIT) * UNIT for k in range(many)]
    return [(start, start + side) for start in starts]
