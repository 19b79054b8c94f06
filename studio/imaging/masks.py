"""Masks from how they are drawn to how they are used, and which part of the image is painted.

Knows: Pillow images and arrays; A1111's ways (a Gaussian blur of 2·int(2.5·blur + 0.5) + 1 pixels,
painting only the masked area). The engine paints by it, the page shows by it. Does not know: files,
models, torch. Nothing here changes its arguments.

Masks are images of mode L, as large as the image (after extending): 255 is repainted, 0 stays.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from studio.core.generation.geometry import Box, Size, compute_crop_box
from studio.core.generation.request import GenerationRequest

MASK_THRESHOLD = 128  # from here on a grey of a mask counts as white


def build_mask(
    request: GenerationRequest, size: Size, drawn_mask: Image.Image | None = None
) -> Image.Image:
    """Build the mask of a request that repaints a part of an image.

    Args:
        request: an inpainting or outpainting request.
        size: (width, height) of the input image in pixels.
        drawn_mask: what was drawn over the image; not needed for outpainting, whose mask is the
            added area.
    """
    if request.task == "outpaint":
        return build_outpaint_mask(size, request.extension, request.seam_blur)
    assert drawn_mask
    return prepare_mask(drawn_mask, request.invert_mask, request.mask_grow, request.mask_blur)


def compute_inpaint_box(request: GenerationRequest, mask: Image.Image) -> Box | None:
    """Return the part of the image that is painted for a mask; None where nothing is masked.

    Args:
        request: resolved, so that width and height are set.
        mask: as `build_mask` returns it.
    """
    if request.inpaint_area == "whole picture":
        return 0, 0, *mask.size
    masked_box = mask.getbbox()
    assert request.width
    assert request.height
    if masked_box is None:
        return None
    canvas_size = (request.width, request.height)
    return compute_crop_box(masked_box, request.mask_padding, mask.size, canvas_size)


def prepare_mask(
    mask: Image.Image, invert: bool = False, grow: int = 0, blur: int = 0
) -> Image.Image:
    """Turn a drawn mask into the one that is used.

    Args:
        mask: of any mode; from grey 128 on a pixel counts as masked.
        invert: mask what was not drawn over instead.
        grow: pixels by which the masked area grows; it shrinks below 0.
        blur: standard deviation in pixels of the Gaussian that softens its edge.
    """
    is_masked = np.asarray(mask.convert("L")) >= MASK_THRESHOLD
    if invert:
        is_masked = ~is_masked
    if not is_masked.any():
        return Image.new("L", mask.size)
    # only this far from the masked area anything changes
    reach = abs(grow) + int(2.5 * blur + 0.5) + 1
    rows = np.flatnonzero(is_masked.any(1))
    columns = np.flatnonzero(is_masked.any(0))
    part = (_padded_range(rows, reach), _padded_range(columns, reach))
    values = np.zeros(is_masked.shape, np.uint8)
    values[part] = _blur_mask(_grow_mask(is_masked[part], grow), blur)
    return Image.fromarray(values)


def build_outpaint_mask(size: Size, sides: tuple[int, int, int, int], blur: int) -> Image.Image:
    """Build the mask of an extended image: the added area is white, its seam fades into the image.

    Args:
        size: (width, height) of the image before it is extended, in pixels.
        sides: pixels that are added on the left, top, right and bottom.
        blur: standard deviation in pixels of the Gaussian that softens the seam.
    """
    left, top, right, bottom = sides
    extended_size = (size[0] + left + right, size[1] + top + bottom)
    added_area = Image.new("L", extended_size, 255)
    added_area.paste(0, (left, top, left + size[0], top + size[1]))
    mask = prepare_mask(added_area, grow=int(2.5 * blur + 0.5), blur=blur)
    mask.paste(255, (0, 0, *extended_size), added_area)
    return mask


def _padded_range(indices: np.ndarray, reach: int) -> slice:
    """Return the range from the first index to the last, and `reach` more on either side."""
    return slice(max(0, indices[0] - reach), indices[-1] + reach + 1)


def _grow_mask(is_masked: np.ndarray, pixels: int) -> np.ndarray:
    """Grow an area in all directions, or shrink it; beyond the image it goes on as at the edge."""
    if pixels > 0:
        return np.asarray(ndimage.distance_transform_edt(~is_masked) <= pixels)
    if pixels < 0 and not is_masked.all():
        return np.asarray(ndimage.distance_transform_edt(is_masked) > -pixels)
    return is_masked


def _blur_mask(is_masked: np.ndarray, blur: int) -> np.ndarray:
    """Return an area as greys from 0 to 255 (uint8), its edge blurred."""
    values = is_masked.astype(np.float32) * 255
    if blur:
        values = ndimage.gaussian_filter(values, blur, mode="mirror", radius=int(2.5 * blur + 0.5))
    return np.rint(values).astype(np.uint8)
