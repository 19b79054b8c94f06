"""The four styles of the small world: how flat parts become a picture of 128 x 128 pixels.

Knows: photo (round shading, soft shadow, background out of focus), watercolor (ragged paper margin, wet edges, washes), pixel art (blocks of
4 x 4 pixels in flat inks), cartoon (flat, the thing in a thick dark outline). Does not know: what is drawn, or what it is called.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates

from studio.pocket.objects import Part
from studio.pocket.palette import Ink

SIZE = 128
SUPER = 3
BLOCK = 4
LINE: Ink = (24, 20, 34)


def paint(
    parts: Sequence[Part], size: int, base: Image.Image | None = None, line: float = 0.0
) -> Image.Image:
    """Fill parts back to front on a square of `size` pixels; with `line`, each part gets a dark outline of that width."""
    image = base if base is not None else Image.new("RGB", (size, size))
    draw = ImageDraw.Draw(image)
    for part in parts:
        points = [(float(x), float(y)) for x, y in part.points * size]
        draw.polygon(points, fill=part.ink)
        if line and np.ptp(part.points, 0).max() > 0.1:
            draw.line(
                [*points, points[0], points[1]], fill=LINE, width=max(1, round(line)), joint="curve"
            )
    return image


def mask(parts: Sequence[Part], size: int, factor: int) -> np.ndarray:
    """How much of each pixel the parts cover, from 0 to 1, at `size` / `factor` pixels."""
    image = Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)
    for part in parts:
        draw.polygon([(float(x), float(y)) for x, y in part.points * size], fill=255)
    return shrink(image, factor) / 255


def shrink(image: Image.Image, factor: int = SUPER) -> np.ndarray:
    """Average blocks of factor x factor pixels: this is the anti-aliasing."""
    return np.asarray(image.reduce(factor), np.float32)


def _noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise of unit deviation with about `cells` bumps a side."""
    small = gaussian_filter(rng.standard_normal((cells + 3, cells + 3)), 0.6)
    grid = np.linspace(1, cells + 1, size)
    smooth = map_coordinates(small, np.meshgrid(grid, grid, indexing="ij"), order=3)
    return np.asarray((smooth - smooth.mean()) / (smooth.std() + 1e-6), np.float32)


def photo(
    ground: Sequence[Part], thing: Sequence[Part], rng: np.random.Generator, grounded: bool
) -> np.ndarray:
    """Round shading by a light from the upper left, a soft shadow, a background slightly out of focus, darker corners."""
    size = SUPER * SIZE
    back = shrink(paint(ground, size))
    back = gaussian_filter(back, (1.3, 1.3, 0))
    cover = mask(thing, size, SUPER)[..., None]
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    if grounded:
        solid = cover[..., 0] > 0.5
        foot, middle = np.nonzero(solid)[0].max() / SIZE, np.nonzero(solid)[1].mean() / SIZE
        wide = (np.nonzero(solid)[1].max() - np.nonzero(solid)[1].min()) / SIZE
        shadow = np.exp(
            -(((columns - middle - 0.05) / (0.5 * wide)) ** 4 + ((rows - foot) / 0.05) ** 2)
        )
        back *= (1 - 0.3 * shadow)[..., None]
    front = shrink(paint(thing, size))
    soft = gaussian_filter(cover[..., 0], 5.0)
    slope = np.gradient(soft)
    light = np.clip(1 + 3.2 * (slope[0] + 0.8 * slope[1]), 0.7, 1.3)[..., None]
    lit = np.where(light > 1, front + (255 * cover - front) * (light - 1), front * light)
    pixels = back * (1 - cover) + lit
    dim = 1.02 - 0.42 * np.clip((rows - 0.5) ** 2 + (columns - 0.5) ** 2 - 0.12, 0, None)
    return np.asarray(pixels * dim[..., None], np.float32)


def watercolor(
    ground: Sequence[Part], thing: Sequence[Part], rng: np.random.Generator, grounded: bool
) -> np.ndarray:
    """Washes that pool, edges that run, and a ragged margin of bare paper."""
    size = SUPER * SIZE
    flat = shrink(paint(thing, size, paint(ground, size)))
    cover = mask(thing, size, SUPER)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    rows, columns = rows + 1.0 * _noise(rng, SIZE, 14), columns + 1.0 * _noise(rng, SIZE, 14)
    flat = np.stack(
        [map_coordinates(flat[..., k], [rows, columns], order=1, mode="nearest") for k in range(3)],
        -1,
    )
    cover = np.asarray(map_coordinates(cover, [rows, columns], order=1, mode="nearest"))
    pool = (5.0 * _noise(rng, SIZE, 4) + 3.0 * _noise(rng, SIZE, 9))[..., None]
    edge = np.abs(cover - gaussian_filter(cover, 2.0))[..., None]
    pixels = (255 - (255 - flat) * (0.9 + 0.012 * pool)) * (1 - 0.35 * edge)
    inset = (
        np.minimum.reduce([rows, columns, SIZE - 1 - rows, SIZE - 1 - columns])
        - 8.5
        - 1.6 * _noise(rng, SIZE, 10)
    )
    painted = np.clip(inset / 1.5 + 0.5, 0, 1)[..., None]
    return np.asarray(painted * pixels + (1 - painted) * np.array([252, 250, 244]), np.float32)


def pixel_art(
    ground: Sequence[Part], thing: Sequence[Part], rng: np.random.Generator, grounded: bool
) -> np.ndarray:
    """Blocks of 4 x 4 pixels, each one flat ink."""
    cells = SIZE // BLOCK

    def blocks(parts: Sequence[Part], base: Ink) -> np.ndarray:
        fine = shrink(paint(parts, 8 * cells, Image.new("RGB", (8 * cells, 8 * cells), base)), 8)
        inks = np.array(sorted({part.ink for part in parts}), np.float32)
        nearest = (-2 * fine @ inks.T + (inks**2).sum(1)).argmin(-1)
        return np.asarray(inks[nearest])

    cover = mask(thing, 8 * cells, 8) > 0.45
    largest = max(thing, key=lambda part: float(np.ptp(part.points, 0).prod()))
    pixels = np.where(cover[..., None], blocks(thing, largest.ink), blocks(ground, LINE))
    return np.asarray(pixels.repeat(BLOCK, 0).repeat(BLOCK, 1), np.float32)


def cartoon(
    ground: Sequence[Part], thing: Sequence[Part], rng: np.random.Generator, grounded: bool
) -> np.ndarray:
    """Flat colours, and a thick dark outline around the thing."""
    size = SUPER * SIZE
    back = paint(ground, size)
    draw = ImageDraw.Draw(back)
    for part in thing:
        points = [(float(x), float(y)) for x, y in part.points * size]
        draw.line([*points, points[0], points[1]], fill=LINE, width=8 * SUPER, joint="curve")
    return shrink(paint(thing, size, back, line=1.6 * SUPER))


STYLES: dict[
    str, Callable[[Sequence[Part], Sequence[Part], np.random.Generator, bool], np.ndarray]
] = {
    "photo": photo,
    "watercolor painting": watercolor,
    "pixel art": pixel_art,
    "cartoon": cartoon,
}
