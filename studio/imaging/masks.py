"""A mask from how it was drawn to how it is used, and which part of its picture is painted for it.

Knows: Pillow pictures and arrays; A1111's ways (Gaussian blur of 2·int(2.5·blur + 0.5) + 1 pixels, only the masked area). The
engine paints by it, the page shows by it. Does not know: files, models, torch. Nothing here changes what it is given.

Masks are pictures of mode L, as large as the picture (with what is added to it): 255 is repainted, 0 stays.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from studio.core.generation.geometry import Box, Size, box
from studio.core.generation.request import GenerationRequest

HALF = 128  # from here on a grey of a mask counts as white


def used(request: GenerationRequest, size: Size, drawn: Image.Image | None = None) -> Image.Image:
    """The mask of a request that repaints a part of a picture of `size`: the `drawn` one as it is used, or that of the new area."""
    if request.task == "outpaint":
        return new_area(size, request.extension, request.seam_blur)
    assert drawn
    return prepared(drawn, request.invert_mask, request.mask_grow, request.mask_blur)


def painted_box(request: GenerationRequest, mask: Image.Image) -> Box | None:
    """What of the picture a resolved request paints for a mask as it is used; None where nothing is masked."""
    if request.inpaint_area == "whole picture":
        return 0, 0, *mask.size
    around = mask.getbbox()
    assert request.width
    assert request.height
    return (
        box(around, request.mask_padding, mask.size, (request.width, request.height))
        if around
        else None
    )


def prepared(mask: Image.Image, invert: bool = False, grow: int = 0, blur: int = 0) -> Image.Image:
    """A mask as it is used: black or white, inverted, larger or smaller by `grow` pixels, its edge blurred."""
    white = np.asarray(mask.convert("L")) >= HALF
    white = ~white if invert else white
    if not white.any():
        return Image.new("L", mask.size)
    reach = abs(grow) + int(2.5 * blur + 0.5) + 1
    rows, columns = (np.flatnonzero(white.any(axis)) for axis in (1, 0))
    part = (
        slice(max(0, rows[0] - reach), rows[-1] + reach + 1),
        slice(max(0, columns[0] - reach), columns[-1] + reach + 1),
    )
    soft = _blurred(_grown(white[part], grow), blur)  # only there anything changes
    whole = np.zeros(white.shape, np.uint8)
    whole[part] = soft
    return Image.fromarray(whole)


def new_area(size: Size, sides: tuple[int, int, int, int], blur: int) -> Image.Image:
    """The mask of what `sides` added to a picture of `size`: all of that is white, and its seam goes softly into the picture."""
    left, top, right, bottom = sides
    inside = (left, top, left + size[0], top + size[1])
    whole = (size[0] + left + right, size[1] + top + bottom)
    hard = Image.new("L", whole, 255)
    hard.paste(0, inside)
    soft = prepared(hard, grow=int(2.5 * blur + 0.5), blur=blur)
    soft.paste(255, (0, 0, *whole), hard)
    return soft


def _grown(white: np.ndarray, by: int) -> np.ndarray:
    """By so many pixels in all directions; below 0 smaller. Beyond the picture's edge it goes on as at the edge."""
    if by > 0:
        return np.asarray(ndimage.distance_transform_edt(~white) <= by)
    return (
        np.asarray(ndimage.distance_transform_edt(white) > -by)
        if by < 0 and not white.all()
        else white
    )


def _blurred(white: np.ndarray, blur: int) -> np.ndarray:
    """0 … 255."""
    values = white.astype(np.float32) * 255
    if blur:
        values = ndimage.gaussian_filter(values, blur, mode="mirror", radius=int(2.5 * blur + 0.5))
    return np.rint(values).astype(np.uint8)
