"""Pixels before and after painting: resizing, what is cut out and put back, new area around a picture, tiles.

Knows: Pillow pictures and arrays. Does not know: how a mask comes to be used (imaging/masks.py), torch, models, requests, files.
Nothing here changes what it is given.

Masks are pictures of mode L, as large as the picture: 255 is repainted, 0 stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image

from studio.core.generation.geometry import UNIT, Box, ExtendFill, ResizeMode, Size
from studio.imaging.masks import HALF

LANCZOS = Image.Resampling.LANCZOS
_PADS = {"edge": "edge", "mirror": "symmetric"}


def resized(image: Image.Image, size: Size, mode: ResizeMode) -> Image.Image:
    """At another size: pulled into shape, cut to it around the middle, or whole with its edges drawn out to fill the rest."""
    if mode == "fill":
        return Window.of((0, 0, *image.size), size).cut(image)
    if mode == "stretch":
        return image.resize(size, LANCZOS)
    scale = max(size[0] / image.width, size[1] / image.height)
    left, top = (image.width - size[0] / scale) / 2, (image.height - size[1] / scale) / 2
    return image.resize(size, LANCZOS, box=(left, top, image.width - left, image.height - top))


@dataclass(frozen=True)
class Window:
    """A part of a picture and how it is painted: `box` cut out, scaled into `inner` of a canvas of size `paint`."""

    box: Box
    paint: Size
    inner: Box

    @classmethod
    def of(cls, box: Box, paint: Size) -> Window:
        """Whole, in its own shape and in the middle; if only rounding keeps it from filling the canvas, it fills it."""
        width, height = box[2] - box[0], box[3] - box[1]
        scale = min(paint[0] / width, paint[1] / height)
        inside = [max(1, round(length * scale)) for length in (width, height)]
        inside = [most if most - length < UNIT else length for length, most in zip(inside, paint)]
        left, top = (paint[0] - inside[0]) // 2, (paint[1] - inside[1]) // 2
        return cls(box, paint, (left, top, left + inside[0], top + inside[1]))

    def cut(self, image: Image.Image) -> Image.Image:
        """The part as it is painted; beside it its edges are drawn out."""
        part = image.crop(self.box)
        size = self.inner[2] - self.inner[0], self.inner[3] - self.inner[1]
        part = part if part.size == size else part.resize(size, LANCZOS)
        around = (
            self.inner[0],
            self.inner[1],
            self.paint[0] - self.inner[2],
            self.paint[1] - self.inner[3],
        )
        return extended(part, around, "edge") if any(around) else part

    def back(self, painted: Image.Image) -> Image.Image:
        """What was painted at the size it had in the picture."""
        size = self.box[2] - self.box[0], self.box[3] - self.box[1]
        if self.inner == (0, 0, *size):
            return painted if painted.size == size else painted.crop(self.inner)
        return painted.resize(size, LANCZOS, box=self.inner)


def composed(
    picture: Image.Image, painted: Image.Image, mask: Image.Image, window: Window
) -> Image.Image:
    """The picture with what was painted in the window, through the mask. Where that is black, pixels stay what they were."""
    out = picture.copy()
    out.paste(window.back(painted), window.box[:2], mask.crop(window.box))
    return out


def extended(
    image: Image.Image,
    sides: tuple[int, int, int, int],
    fill: ExtendFill,
    colour: str = "#808080",
    seed: int = 0,
) -> Image.Image:
    """With more pixels on its sides (left, top, right, bottom), filled in one of four ways; noise comes from `seed`."""
    left, top, right, bottom = sides
    if fill in _PADS:
        depth = ((0, 0),) * (image.mode != "L")
        return Image.fromarray(
            np.pad(np.asarray(image), ((top, bottom), (left, right), *depth), mode=_PADS[fill])  # type: ignore[call-overload]
        )
    size = image.width + left + right, image.height + top + bottom
    if fill == "noise":
        out = Image.fromarray(
            np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        )
    else:
        out = Image.new("RGB", size, colour)
    out.paste(image, (left, top))
    return out


def filled(image: Image.Image, mask: Image.Image) -> Image.Image:
    """What is masked replaced by colours from around: averages over ever larger squares, until one reaches the unmasked."""
    weight = 1 - np.asarray(mask, np.float32)[..., None] / 255
    return Image.fromarray(
        np.rint(_drawn_in(np.asarray(image, np.float32), weight)).clip(0, 255).astype(np.uint8)
    )


def for_latents(mask: Image.Image, scale: int) -> np.ndarray:
    """(height / scale, width / scale) of 0 and 1: 1 where any of a latent's pixels is at least half masked."""
    hard = np.asarray(mask) >= HALF
    height, width = hard.shape
    return (
        hard.reshape(height // scale, scale, width // scale, scale).any((1, 3)).astype(np.float32)  # type: ignore[return-value]
    )


def joined(size: Size, tiles: Sequence[tuple[Box, Image.Image]]) -> Image.Image:
    """Tiles in rows put together: every tile is faded in over the one on its left, then every row over the one above."""
    out = Image.new("RGB", size)
    bottom = 0
    for top, row in groupby(tiles, lambda tile: tile[0][1]):
        whole, right = None, 0
        for box, image in row:
            whole = whole or Image.new("RGB", (size[0], image.height))
            whole.paste(image, (box[0], 0), _faded(image.size, right - box[0], 0))
            right = box[2]
        assert whole
        out.paste(whole, (0, top), _faded(whole.size, 0, bottom - top))
        bottom = top + whole.height
    return out


def _faded(size: Size, left: int, top: int) -> Image.Image:
    """White, growing from black over so many pixels on the left and above."""
    fade = np.full((size[1], size[0]), 255.0)
    fade[:, : max(0, left)] *= (np.arange(max(0, left)) + 0.5) / max(1, left)
    fade[: max(0, top)] *= ((np.arange(max(0, top)) + 0.5) / max(1, top))[:, None]
    return Image.fromarray(np.rint(fade).astype(np.uint8))


def _drawn_in(colours: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Colours (height, width, 3) where they have weight; elsewhere those of the half as large picture, drawn in the same way."""
    height, width, _ = colours.shape
    if min(height, width) < 2 or bool((weight == 1).all()):
        known = weight.sum()
        mean = (colours * weight).sum((0, 1)) / known if known else np.full(3, 127.5, np.float32)
        return weight * colours + (1 - weight) * mean  # type: ignore[no-any-return]
    even = ((0, height % 2), (0, width % 2), (0, 0))
    shares = np.pad(weight, even)
    parts = np.pad(colours * weight, even)
    halves = (shares.shape[0] // 2, 2, shares.shape[1] // 2, 2, -1)
    share, part = shares.reshape(halves).sum((1, 3)), parts.reshape(halves).sum((1, 3))
    small = _drawn_in(part / np.maximum(share, 1e-6), np.minimum(share, 1))
    channels = [
        np.asarray(
            Image.fromarray(small[..., k]).resize((width, height), Image.Resampling.BILINEAR)
        )
        for k in range(3)
    ]
    return weight * colours + (1 - weight) * np.stack(channels, -1)  # type: ignore[no-any-return]
