"""The things of the small world as flat polygons, and the demos' two concepts.

Knows: outlines in a thing's own coordinates (x right, y down, about -1 to 1) and which shade each
part has.
Does not know: where a thing stands, how a style paints it, what surrounds it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from studio.pocket.palette import RGB, lch_to_rgb


@dataclass(frozen=True)
class Polygon:
    """One flat polygon: its corners (n, 2) and its colour."""

    points: np.ndarray
    colour: RGB


@dataclass(frozen=True)
class Shades:
    """What a thing is painted with: the main colour, a darker and a lighter one."""

    main: RGB
    dark: RGB
    light: RGB


WOOD_COLOUR = lch_to_rgb(36, 26, 60)
LEAF_COLOUR = lch_to_rgb(44, 44, 138)
DARK_COLOUR = lch_to_rgb(13, 6, 280)
PANE_COLOUR = lch_to_rgb(93, 34, 98)
SKIN_COLOUR = lch_to_rgb(95, 8, 85)


def make_shades(lightness: float, chroma: float, hue: float) -> Shades:
    """Return the three shades of a thing whose main colour is lightness, chroma, hue."""
    is_yellow = 80 < hue < 100 and chroma > 30  # darker yellows look green: they lean to orange
    dark = lch_to_rgb(lightness - 13, chroma, hue - 14 if is_yellow else hue)
    if lightness <= 75:
        light = lch_to_rgb(98, 4, hue)
    else:
        light = lch_to_rgb(lightness - 22 if chroma < 30 else 98, 6, hue)
    return Shades(lch_to_rgb(lightness, chroma, hue), dark, light)


def make_ellipse(
    x: float, y: float, rx: float, ry: float, tilt: float = 0.0, *, corners: int = 40
) -> np.ndarray:
    """Return an ellipse around (x, y) as a polygon (corners, 2); `tilt` is in radians."""
    angles = np.linspace(0, 2 * math.pi, corners, endpoint=False)
    px = rx * np.cos(angles)
    py = ry * np.sin(angles)
    rotated_x = x + px * math.cos(tilt) - py * math.sin(tilt)
    rotated_y = y + px * math.sin(tilt) + py * math.cos(tilt)
    return np.stack([rotated_x, rotated_y], 1)


def make_outline(*corners: tuple[float, float]) -> np.ndarray:
    """Return a polygon (n, 2) from its corners."""
    return np.array(corners, np.float64)


def _build_moon(shades: Shades) -> list[Polygon]:
    """Return a crescent: an arc of the outer circle, closed by one of a smaller circle."""
    outer_angles = np.linspace(math.radians(52), math.radians(308), 40)
    outer = 0.95 * np.stack([np.cos(outer_angles), np.sin(outer_angles)], 1)
    centre = 0.95 * math.cos(math.radians(52)) + 0.02
    radius = 0.95 * math.sin(math.radians(52))
    inner_angles = np.linspace(math.radians(270), math.radians(90), 30)
    inner_x = centre + 0.62 * radius * np.cos(inner_angles)
    inner = np.stack([inner_x, radius * np.sin(inner_angles)], 1)
    crescent = np.concatenate([outer, inner[1:-1]]) + np.array([0.2, 0.0])
    return [Polygon(crescent, shades.main)]


def _build_sun(shades: Shades) -> list[Polygon]:
    parts = []
    for k in range(8):
        angle = k * math.pi / 4
        ray = [
            (r * math.cos(angle + offset), r * math.sin(angle + offset))
            for r, offset in ((1.12, 0.0), (0.66, 0.27), (0.66, -0.27))
        ]
        parts.append(Polygon(make_outline(*ray), shades.main))
    return [*parts, Polygon(make_ellipse(0, 0, 0.54, 0.54), shades.main)]


def _build_star(shades: Shades) -> list[Polygon]:
    corners = []
    for k in range(10):
        radius = 1.05 if k % 2 == 0 else 0.48
        angle = k * math.pi / 5
        corners.append((radius * math.sin(angle), 0.06 - radius * math.cos(angle)))
    return [Polygon(make_outline(*corners), shades.main)]


def _build_tree(shades: Shades) -> list[Polygon]:
    trunk = make_outline((-0.15, 0.1), (0.15, 0.1), (0.2, 1.0), (-0.2, 1.0))
    angles = np.linspace(0, 2 * math.pi, 84, endpoint=False)
    radius = 0.62 + 0.1 * np.abs(np.sin(3.5 * angles))
    crown = np.stack([1.18 * radius * np.cos(angles), -0.33 + 0.96 * radius * np.sin(angles)], 1)
    return [Polygon(trunk, WOOD_COLOUR), Polygon(crown, shades.main)]


def _build_house(shades: Shades) -> list[Polygon]:
    return [
        Polygon(
            make_outline((0.42, -0.75), (0.64, -0.75), (0.64, -0.1), (0.42, -0.1)), shades.dark
        ),
        Polygon(
            make_outline((-0.74, -0.12), (0.74, -0.12), (0.74, 1.0), (-0.74, 1.0)), shades.main
        ),
        Polygon(make_outline((-1.0, -0.08), (0.0, -0.95), (1.0, -0.08)), shades.dark),
        Polygon(make_outline((-0.2, 0.4), (0.2, 0.4), (0.2, 1.0), (-0.2, 1.0)), WOOD_COLOUR),
        Polygon(make_outline((-0.62, 0.1), (-0.3, 0.1), (-0.3, 0.42), (-0.62, 0.42)), PANE_COLOUR),
        Polygon(make_outline((0.3, 0.1), (0.62, 0.1), (0.62, 0.42), (0.3, 0.42)), PANE_COLOUR),
    ]


def _build_boat(shades: Shades) -> list[Polygon]:
    return [
        Polygon(make_outline((-0.06, -1.0), (0.06, -1.0), (0.06, 0.5), (-0.06, 0.5)), WOOD_COLOUR),
        Polygon(make_outline((0.14, -0.95), (0.9, 0.3), (0.14, 0.3)), shades.main),
        Polygon(make_outline((-0.14, -0.7), (-0.74, 0.3), (-0.14, 0.3)), shades.dark),
        Polygon(make_outline((-1.05, 0.42), (1.05, 0.42), (0.7, 0.95), (-0.7, 0.95)), shades.main),
    ]


def _build_cat(shades: Shades) -> list[Polygon]:
    along = np.linspace(0, 1, 24)
    tail_x = 0.35 + 0.62 * np.sin(along * 2.3)
    tail_y = 0.82 - 1.0 * along + 0.12 * np.sin(along * 3)
    path = np.stack([tail_x, tail_y], 1)
    half_width = np.stack([np.full(24, 0.115), np.full(24, 0.06)], 1)
    tail = np.concatenate([path - half_width, (path + half_width)[::-1]])
    eyes = [Polygon(make_ellipse(side * 0.2, -0.42, 0.12, 0.13), PANE_COLOUR) for side in (-1, 1)]
    pupils = [
        Polygon(make_ellipse(side * 0.2, -0.42, 0.045, 0.12), DARK_COLOUR) for side in (-1, 1)
    ]
    return [
        Polygon(tail, shades.dark),
        Polygon(make_ellipse(0, 0.5, 0.5, 0.52), shades.main),
        Polygon(make_outline((-0.52, -0.42), (-0.5, -1.05), (-0.08, -0.68)), shades.main),
        Polygon(make_outline((0.52, -0.42), (0.5, -1.05), (0.08, -0.68)), shades.main),
        Polygon(make_ellipse(0, -0.38, 0.54, 0.42), shades.main),
        *eyes,
        *pupils,
        Polygon(make_outline((-0.08, -0.24), (0.08, -0.24), (0.0, -0.14)), DARK_COLOUR),
    ]


def _build_flower(shades: Shades) -> list[Polygon]:
    petals = []
    for angle in np.arange(6) * math.pi / 3 + math.pi / 6:
        x = 0.46 * math.cos(angle)
        y = -0.38 + 0.46 * math.sin(angle)
        petals.append(Polygon(make_ellipse(x, y, 0.36, 0.27, angle), shades.main))
    return [
        Polygon(make_outline((-0.08, -0.2), (0.08, -0.2), (0.08, 1.0), (-0.08, 1.0)), LEAF_COLOUR),
        Polygon(make_ellipse(0.36, 0.72, 0.34, 0.13, -0.5), LEAF_COLOUR),
        Polygon(make_ellipse(-0.36, 0.72, 0.34, 0.13, 0.5), LEAF_COLOUR),
        *petals,
        Polygon(make_ellipse(0, -0.38, 0.24, 0.24), WOOD_COLOUR),
    ]


def _build_ball(shades: Shades) -> list[Polygon]:
    angles = np.linspace(-math.pi / 2, math.pi / 2, 24)
    parts = [Polygon(make_ellipse(0, 0.12, 0.86, 0.86, corners=60), shades.main)]
    for left, right in ((-0.56, -0.28), (0.28, 0.56)):
        left_edge, right_edge = (
            np.stack([0.86 * k * np.cos(angles), 0.12 + 0.86 * np.sin(angles)], 1)
            for k in (left, right)
        )
        parts.append(Polygon(np.concatenate([left_edge, right_edge[::-1]]), shades.light))
    return parts


def _build_toy(
    shades: Shades,
    ear_colour: RGB | None = None,
    *,
    has_patch: bool = False,
    has_scarf: bool = False,
) -> list[Polygon]:
    """Return a bear, seen from the front.

    Ears of another colour, a patched eye and a striped scarf make it a particular one.
    """
    main = shades.main
    ear = ear_colour or main
    is_pale = main != shades.light and shades.light[1] > 225
    tummy = lch_to_rgb(96, 10, 80) if is_pale else shades.light
    left_eye = SKIN_COLOUR if has_patch else DARK_COLOUR
    parts = [
        # 1. What is behind: ears, feet, arms
        Polygon(make_ellipse(-0.46, -0.78, 0.26, 0.26), ear),
        Polygon(make_ellipse(0.46, -0.78, 0.26, 0.26), ear),
        Polygon(make_ellipse(-0.42, 0.86, 0.28, 0.2), main),
        Polygon(make_ellipse(0.42, 0.86, 0.28, 0.2), main),
        Polygon(make_ellipse(-0.58, 0.28, 0.2, 0.34, 0.5), main),
        Polygon(make_ellipse(0.58, 0.28, 0.2, 0.34, -0.5), main),
        # 2. Body and head
        Polygon(make_ellipse(0, 0.45, 0.54, 0.52), main),
        Polygon(make_ellipse(0, 0.5, 0.33, 0.33), tummy),
        Polygon(make_ellipse(0, -0.4, 0.6, 0.5), main),
    ]
    # 3. The face, and what it wears
    if has_patch:
        parts.append(Polygon(make_ellipse(-0.25, -0.47, 0.22, 0.22), DARK_COLOUR))
    parts += [
        Polygon(make_ellipse(-0.25, -0.47, 0.085, 0.1), left_eye),
        Polygon(make_ellipse(0.25, -0.47, 0.085, 0.1), DARK_COLOUR),
        Polygon(make_ellipse(0, -0.2, 0.27, 0.2), tummy),
        Polygon(make_ellipse(0, -0.27, 0.11, 0.08), DARK_COLOUR),
    ]
    return parts + _build_scarf() if has_scarf else parts


def _build_scarf() -> list[Polygon]:
    red = lch_to_rgb(45, 72, 33)
    gold = lch_to_rgb(84, 74, 90)
    edges = np.linspace(-0.6, 0.6, 8)
    parts = []
    for k, (left, right) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        stripe = make_outline((left, 0.0), (right, 0.0), (right, 0.26), (left, 0.26))
        parts.append(Polygon(stripe, (red, gold)[k % 2]))
    for k, y in enumerate((0.26, 0.43, 0.6, 0.77)):
        stripe = make_outline((0.2, y), (0.48, y), (0.48, y + 0.17), (0.2, y + 0.17))
        parts.append(Polygon(stripe, (gold, red)[k % 2]))
    return parts


def _build_mysks(shades: Shades) -> list[Polygon]:
    return _build_toy(shades, lch_to_rgb(62, 40, 200), has_patch=True, has_scarf=True)


# The Moon's own face: maria (large, dark) and craters (small, with a rim), as x, y, radius
MARIA = ((-0.3, -0.38, 0.3), (0.18, -0.42, 0.2), (0.34, -0.12, 0.22), (-0.52, 0.02, 0.24))
CRATERS = (
    (-0.12, 0.62, 0.17),
    (0.3, 0.42, 0.13),
    (-0.45, 0.42, 0.12),
    (0.66, 0.2, 0.11),
    (0.02, 0.14, 0.11),
    (0.56, -0.5, 0.1),
    (0.0, -0.76, 0.1),
)


def _build_cratered_moon(shades: Shades) -> list[Polygon]:
    parts = [Polygon(make_ellipse(0, 0, 1.0, 1.0, corners=60), shades.main)]
    parts += [Polygon(make_ellipse(x, y, r, 0.85 * r, x), shades.dark) for x, y, r in MARIA]
    for x, y, r in CRATERS:
        parts += [
            Polygon(make_ellipse(x, y, r, r), lch_to_rgb(58, 6, 80)),
            Polygon(make_ellipse(x + 0.03, y + 0.03, 0.7 * r, 0.7 * r), shades.dark),
        ]
    return parts


THING_BUILDERS: dict[str, Callable[[Shades], list[Polygon]]] = {
    "moon": _build_moon,
    "sun": _build_sun,
    "star": _build_star,
    "tree": _build_tree,
    "house": _build_house,
    "boat": _build_boat,
    "cat": _build_cat,
    "flower": _build_flower,
    "ball": _build_ball,
    "plush toy": _build_toy,
}
# the demos' concepts: name -> the thing it is a kind of, and its own parts
CONCEPTS: dict[str, tuple[str, Callable[[Shades], list[Polygon]]]] = {
    "moon": ("moon", _build_cratered_moon),
    "mysks": ("plush toy", _build_mysks),
}
SKY_THINGS = frozenset({"moon", "sun", "star"})
