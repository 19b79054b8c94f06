"""Pixels before and after painting: resizing, crops that are pasted back, extended images, tiles.

Knows: Pillow images and arrays. Does not know: how a drawn mask is prepared (imaging/masks.py),
torch, models, requests, files. Nothing here changes its arguments.

Masks are images of mode L, as large as the image: 255 is repainted, 0 stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image

from studio.core.generation.geometry import SIZE_MULTIPLE_PX, Box, ExtendFill, ResizeMode, Size
from studio.imaging.masks import MASK_THRESHOLD

LANCZOS = Image.Resampling.LANCZOS
_NUMPY_PAD_MODES = {"edge": "edge", "mirror": "symmetric"}


def resize_image(image: Image.Image, size: Size, mode: ResizeMode) -> Image.Image:
    """Resize an image to exactly (width, height).

    Args:
        image: of any mode.
        size: (width, height) in pixels.
        mode: "stretch" distorts, "crop" cuts it to shape around the middle, "fill" keeps all of
            it and draws out its edges to fill the rest.
    """
    if mode == "fill":
        return Window.fit((0, 0, *image.size), size).crop(image)
    if mode == "stretch":
        return image.resize(size, LANCZOS)
    scale = max(size[0] / image.width, size[1] / image.height)
    margin_x = (image.width - size[0] / scale) / 2
    margin_y = (image.height - size[1] / scale) / 2
    crop_box = (margin_x, margin_y, image.width - margin_x, image.height - margin_y)
    return image.resize(size, LANCZOS, box=crop_box)


@dataclass(frozen=True)
class Window:
    """A part of an image and how it is painted.

    `box` is cut out and scaled into `inner_box` of a canvas of `canvas_size` pixels.
    """

    box: Box
    canvas_size: Size
    inner_box: Box

    @classmethod
    def fit(cls, box: Box, canvas_size: Size) -> Window:
        """Fit all of `box` into the middle of a canvas, in its own aspect ratio.

        Where only rounding keeps it from filling the canvas, it fills it.
        """
        width = box[2] - box[0]
        height = box[3] - box[1]
        scale = min(canvas_size[0] / width, canvas_size[1] / height)
        inner_width = _round_side(width * scale, canvas_size[0])
        inner_height = _round_side(height * scale, canvas_size[1])
        x = (canvas_size[0] - inner_width) // 2
        y = (canvas_size[1] - inner_height) // 2
        return cls(box, canvas_size, (x, y, x + inner_width, y + inner_height))

    def crop(self, image: Image.Image) -> Image.Image:
        """Cut the part out of an image as it is painted, its edges drawn out to fill the canvas."""
        left, top, right, bottom = self.inner_box
        inner_size = (right - left, bottom - top)
        part = image.crop(self.box)
        if part.size != inner_size:
            part = part.resize(inner_size, LANCZOS)
        margins = (left, top, self.canvas_size[0] - right, self.canvas_size[1] - bottom)
        if not any(margins):
            return part
        return extend_image(part, margins, "edge")

    def resize_back(self, painted_image: Image.Image) -> Image.Image:
        """Return what was painted at the size that it has in the image."""
        size = (self.box[2] - self.box[0], self.box[3] - self.box[1])
        if self.inner_box != (0, 0, *size):
            return painted_image.resize(size, LANCZOS, box=self.inner_box)
        if painted_image.size != size:
            return painted_image.crop(self.inner_box)
        return painted_image


def composite_window(
    image: Image.Image, painted_image: Image.Image, mask: Image.Image, window: Window
) -> Image.Image:
    """Paste what was painted in a window into an image, through the mask.

    Args:
        image: the image before painting.
        painted_image: the canvas of the window, painted.
        mask: mode L, as large as `image`; where it is 0, pixels stay exactly what they were.
        window: where the canvas belongs.
    """
    composite = image.copy()
    composite.paste(window.resize_back(painted_image), window.box[:2], mask.crop(window.box))
    return composite


def extend_image(
    image: Image.Image,
    sides: tuple[int, int, int, int],
    fill: ExtendFill,
    colour: str = "#808080",
    seed: int = 0,
) -> Image.Image:
    """Add pixels on the sides of an image.

    Args:
        image: RGB, or L for "edge" and "mirror".
        sides: pixels to add on the left, top, right and bottom.
        fill: "edge" repeats the outermost pixels, "mirror" reflects the image, "noise" and
            "colour" cover the new area.
        colour: of the new area where `fill` is "colour".
        seed: of the noise where `fill` is "noise".
    """
    left, top, right, bottom = sides
    if fill in _NUMPY_PAD_MODES:
        channel_padding = () if image.mode == "L" else ((0, 0),)
        padding = ((top, bottom), (left, right), *channel_padding)
        pad_mode = _NUMPY_PAD_MODES[fill]
        padded = np.pad(np.asarray(image), padding, mode=pad_mode)  # type: ignore[call-overload]
        return Image.fromarray(padded)
    width = image.width + left + right
    height = image.height + top + bottom
    if fill == "noise":
        noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        extended = Image.fromarray(noise)
    else:
        extended = Image.new("RGB", (width, height), colour)
    extended.paste(image, (left, top))
    return extended


def fill_masked(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Replace what is masked by colours from around it.

    They are averages over ever larger squares, until one reaches unmasked pixels (pull-push;
    Gortler et al., The Lumigraph, 1996).
    """
    weight = 1 - np.asarray(mask, np.float32)[..., None] / 255
    colours = _pull_push_fill(np.asarray(image, np.float32), weight)
    return Image.fromarray(np.rint(colours).clip(0, 255).astype(np.uint8))


def downscale_mask(mask: Image.Image, vae_scale_factor: int) -> np.ndarray:
    """Scale a mask to the latents' grid.

    Args:
        mask: mode L; its sides are multiples of `vae_scale_factor`.
        vae_scale_factor: image pixels per latent pixel and side.

    Returns:
        (height / factor, width / factor), float32: 1 where any of a latent's pixels is at least
        half masked, else 0.
    """
    is_masked = np.asarray(mask) >= MASK_THRESHOLD
    height, width = is_masked.shape
    factor = vae_scale_factor
    blocks = is_masked.reshape(height // factor, factor, width // factor, factor)
    return blocks.any((1, 3)).astype(np.float32)  # type: ignore[return-value]


def blend_tiles(size: Size, tiles: Sequence[tuple[Box, Image.Image]]) -> Image.Image:
    """Put overlapping tiles together.

    Every tile is faded in over the one on its left, then every row over the one above.

    Args:
        size: (width, height) of the result in pixels.
        tiles: (box in the result, RGB image of its size), row by row from the top, each row from
            the left.
    """
    canvas = Image.new("RGB", size)
    bottom = 0
    for top, row_tiles in groupby(tiles, lambda tile: tile[0][1]):
        row = list(row_tiles)
        strip = Image.new("RGB", (size[0], row[0][1].height))
        right = 0
        for box, image in row:
            strip.paste(image, (box[0], 0), _fade_mask(image.size, right - box[0], 0))
            right = box[2]
        canvas.paste(strip, (0, top), _fade_mask(strip.size, 0, bottom - top))
        bottom = top + strip.height
    return canvas


def _round_side(length: float, canvas_length: int) -> int:
    side = max(1, round(length))
    if canvas_length - side < SIZE_MULTIPLE_PX:
        return canvas_length
    return side


def _fade_mask(size: Size, left_fade: int, top_fade: int) -> Image.Image:
    """Return a white mask that grows from black over so many pixels on the left and at the top."""
    width, height = size
    fade = np.full((height, width), 255.0)
    fade[:, : max(0, left_fade)] *= _ramp(left_fade)
    fade[: max(0, top_fade)] *= _ramp(top_fade)[:, None]
    return Image.fromarray(np.rint(fade).astype(np.uint8))


def _ramp(length: int) -> np.ndarray:
    """Return `length` numbers that rise evenly from 0 to 1; none for a negative length."""
    return (np.arange(max(0, length)) + 0.5) / max(1, length)


def _pull_push_fill(colours: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fill in colours (height, width, 3) where their weight (height, width, 1) is below 1.

    They come from the image at half the size, which is filled in the same way.
    """
    height, width, _ = colours.shape
    if min(height, width) < 2 or bool((weight == 1).all()):
        total_weight = weight.sum()
        if total_weight:
            mean = (colours * weight).sum((0, 1)) / total_weight
        else:
            mean = np.full(3, 127.5, np.float32)
        return weight * colours + (1 - weight) * mean  # type: ignore[no-any-return]
    even_padding = ((0, height % 2), (0, width % 2), (0, 0))
    padded_weight = np.pad(weight, even_padding)
    padded_colours = np.pad(colours * weight, even_padding)
    blocks = (padded_weight.shape[0] // 2, 2, padded_weight.shape[1] // 2, 2, -1)
    half_weight = padded_weight.reshape(blocks).sum((1, 3))
    half_colours = padded_colours.reshape(blocks).sum((1, 3))
    half = _pull_push_fill(half_colours / np.maximum(half_weight, 1e-6), np.minimum(half_weight, 1))
    channels = []
    for k in range(3):
        channel = Image.fromarray(half[..., k])
        channels.append(np.asarray(channel.resize((width, height), Image.Resampling.BILINEAR)))
    return weight * colours + (1 - weight) * np.stack(channels, -1)  # type: ignore[no-any-return]
