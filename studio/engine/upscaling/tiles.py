"""An image through an upscaling network, tile by tile.

Knows: how far tiles overlap so that no seam shows, what to do where memory or the number format
does not suffice.
Does not know: files, the size that somebody wants (enlarge.py).

A tile is given as many pixels around it as the network looks at, and what it makes of them is cut
off: so the tiles together are what the whole image would give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from studio.core.generation.geometry import Box
from studio.engine.models.devices import Device, catch_out_of_memory
from studio.engine.upscaling.loader import Upscaler
from studio.errors import BadFile, OutOfMemory

# The side of a tile without its margin: with it, the largest usual network (ESRGAN ×4) holds about
# 1 GiB in float32 on a CPU.
TILE_SIDE_PX = {"cpu": 128, "cuda": 256, "xpu": 256, "mps": 192}
MIN_TILE_SIDE_PX = 32
TileCallback = Callable[[int, int], None]  # tiles done, tiles in all


class Overflow(Exception):
    """A number was too large for the number format."""


def upscale_image(
    upscaler: Upscaler,
    image: Image.Image,
    device: Device,
    on_tile: TileCallback = lambda _done, _total: None,
    tile_side: int = 0,
) -> Image.Image:
    """Enlarge an image as many times as the network does.

    Args:
        upscaler: On the device.
        image: Of mode RGB.
        device: Where to compute.
        on_tile: Called before each tile and after the last; what it raises ends everything.
        tile_side: Pixels of the image; 0 chooses for the device.

    Raises:
        OutOfMemory: Not even the smallest tile fits.
        BadFile: The network makes numbers that are no colours.
    """
    pixels = _to_pixels(image, upscaler)
    side = tile_side or TILE_SIDE_PX[device.kind]
    dtype = upscaler.dtype
    while True:
        with catch_out_of_memory() as memory:
            try:
                with _use_dtype(upscaler, dtype):
                    enlarged = _upscale_tiles(upscaler, pixels, device, dtype, (side, on_tile))
                break
            except Overflow:
                if dtype == torch.float32:
                    raise BadFile(
                        "The upscaler gives values that are not colours; copy its file again."
                    ) from None
                # All of it again: a picture is never half in the one format and half in the other.
                dtype = torch.float32
        if memory.is_full:
            device.empty_cache()
            if side <= MIN_TILE_SIDE_PX:
                raise OutOfMemory(
                    f"{device.title} does not have enough memory to enlarge {side} × {side} "
                    "pixels at once. Choose a smaller upscaler, or close other programs."
                )
            side = max(MIN_TILE_SIDE_PX, side // 2)
    size = image.width * upscaler.scale, image.height * upscaler.scale
    return Image.fromarray(enlarged).crop((0, 0, *size)).convert("RGB")


def plan_tiles(
    width: int, height: int, side: int, reach: int, multiple: int
) -> Iterator[tuple[Box, Box]]:
    """Yield the box of each tile, and the box that the network is shown for it.

    Args:
        width: Of the image in pixels; a multiple of `multiple`, as is the height.
        height: Of the image.
        side: The longest side of a tile.
        reach: How far the network looks.
        multiple: All boxes begin and end at multiples of it.
    """
    reach = -(-reach // multiple) * multiple
    rows = _split_evenly(height, side, multiple)
    columns = _split_evenly(width, side, multiple)
    for top, bottom in rows:
        for left, right in columns:
            shown = (
                max(0, left - reach),
                max(0, top - reach),
                min(width, right + reach),
                min(height, bottom + reach),
            )
            yield (left, top, right, bottom), shown


def _split_evenly(length: int, side: int, multiple: int) -> list[tuple[int, int]]:
    units = length // multiple
    count = max(1, -(-length // max(side, multiple)))
    edges = [multiple * (units * number // count) for number in range(count + 1)]
    return [(start, stop) for start, stop in pairwise(edges) if stop > start]


@contextmanager
def _use_dtype(upscaler: Upscaler, dtype: torch.dtype) -> Iterator[None]:
    """Have the network in another number format until the block is left."""
    if dtype == upscaler.dtype:
        yield
        return
    upscaler.network.to(dtype)
    try:
        yield
    finally:
        upscaler.network.to(upscaler.dtype)


@torch.inference_mode()
def _upscale_tiles(
    upscaler: Upscaler,
    pixels: Tensor,
    device: Device,
    dtype: torch.dtype,
    tiling: tuple[int, TileCallback],
) -> np.ndarray:
    """Return the enlarged pixels, uint8, (height, width) or (height, width, 3)."""
    side, on_tile = tiling
    _, channels, height, width = pixels.shape
    scale = upscaler.scale
    canvas = np.empty((height * scale, width * scale, channels), np.uint8)
    tiles = list(plan_tiles(width, height, side, upscaler.reach_px, upscaler.multiple))
    for number, (box, shown) in enumerate(tiles):
        on_tile(number, len(tiles))
        tile = pixels[:, :, shown[1] : shown[3], shown[0] : shown[2]]
        enlarged = upscaler.network(tile.to(device.torch_device, dtype))[0].float()
        if not torch.isfinite(enlarged).all():
            raise Overflow
        left, top, right, bottom = (scale * edge for edge in box)
        inner = enlarged[
            :,
            top - scale * shown[1] : bottom - scale * shown[1],
            left - scale * shown[0] : right - scale * shown[0],
        ]
        colours = inner.clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
        canvas[top:bottom, left:right] = colours.permute(1, 2, 0).numpy()
    on_tile(len(tiles), len(tiles))
    return canvas[..., 0] if channels == 1 else canvas


def _to_pixels(image: Image.Image, upscaler: Upscaler) -> Tensor:
    """Return an image as (1, channels, h, w) from 0 to 1, its sides filled up to a multiple.

    The last row and column are repeated: mirroring, as Real-ESRGAN does, cannot fill up an image
    of one pixel.
    """
    mode = "L" if upscaler.channels == 1 else "RGB"
    array = np.array(image.convert(mode), np.float32) / 255
    pixels = torch.from_numpy(array.reshape(image.height, image.width, upscaler.channels))
    pixels = pixels.permute(2, 0, 1)[None]
    multiple = upscaler.multiple
    margin = (0, -image.width % multiple, 0, -image.height % multiple)
    return functional.pad(pixels, margin, mode="replicate") if any(margin) else pixels
