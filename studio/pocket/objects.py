"""The things of the small world as flat polygons: moon, sun, star, tree, house, boat, cat, flower, ball, plush toy, and the demos' two concepts.

Knows: outlines in a thing's own coordinates (x right, y down, about -1 to 1) and which shade each part has.
Does not know: where a thing stands, how a style paints it, what surrounds it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from studio.pocket.palette import Ink, lch


@dataclass(frozen=True)
class Part:
    """One flat polygon: its corners (n, 2) and its colour."""

    points: np.ndarray
    ink: Ink


@dataclass(frozen=True)
class Shades:
    """What a thing is painted with: the main colour, a darker and a lighter one."""

    main: Ink
    dark: Ink
    light: Ink


WOOD = lch(36, 26, 60)
LEAF = lch(44, 44, 138)
INKY = lch(13, 6, 280)
PANE = lch(93, 34, 98)
SKIN = lch(95, 8, 85)


def shades_of(light: float, chroma: float, hue: float) -> Shades:
    """The three shades of a thing whose main colour is given as lightness, chroma, hue."""
    pale = light > 75
    dark = lch(light - 13, chroma, hue - (14 if 80 < hue < 100 and chroma > 30 else 0))
    return Shades(
        lch(light, chroma, hue),
        dark,
        lch(98, 4, hue) if not pale else lch(light - 22 if chroma < 30 else 98, 6, hue),
    )


def oval(
    x: float, y: float, rx: float, ry: float, tilt: float = 0.0, corners: int = 40
) -> np.ndarray:
    """An ellipse as a polygon; tilt in radians."""
    turn = np.linspace(0, 2 * math.pi, corners, endpoint=False)
    px, py = rx * np.cos(turn), ry * np.sin(turn)
    return np.stack(
        [
            x + px * math.cos(tilt) - py * math.sin(tilt),
            y + px * math.sin(tilt) + py * math.cos(tilt),
        ],
        1,
    )


def shape(*corners: tuple[float, float]) -> np.ndarray:
    """A polygon from its corners."""
    return np.array(corners, np.float64)


def _moon(shades: Shades) -> list[Part]:
    outer = np.linspace(math.radians(52), math.radians(308), 40)
    tips = 0.95 * np.stack([np.cos(outer), np.sin(outer)], 1)
    centre, reach = 0.95 * math.cos(math.radians(52)) + 0.02, 0.95 * math.sin(math.radians(52))
    back = np.linspace(math.radians(270), math.radians(90), 30)
    inner = np.stack([centre + 0.62 * reach * np.cos(back), reach * np.sin(back)], 1)
    crescent = np.concatenate([tips, inner[1:-1]]) + np.array([0.2, 0.0])
    return [Part(crescent, shades.main)]


def _sun(shades: Shades) -> list[Part]:
    parts = []
    for ray in range(8):
        turn = ray * math.pi / 4
        corner = [
            (r * math.cos(turn + d), r * math.sin(turn + d))
            for r, d in ((1.12, 0.0), (0.66, 0.27), (0.66, -0.27))
        ]
        parts.append(Part(shape(*corner), shades.main))
    return [*parts, Part(oval(0, 0, 0.54, 0.54), shades.main)]


def _star(shades: Shades) -> list[Part]:
    reach = [(1.05 if k % 2 == 0 else 0.48, k * math.pi / 5) for k in range(10)]
    return [
        Part(shape(*[(r * math.sin(t), 0.06 - r * math.cos(t)) for r, t in reach]), shades.main)
    ]


def _tree(shades: Shades) -> list[Part]:
    trunk = Part(shape((-0.15, 0.1), (0.15, 0.1), (0.2, 1.0), (-0.2, 1.0)), WOOD)
    turn = np.linspace(0, 2 * math.pi, 84, endpoint=False)
    reach = 0.62 + 0.1 * np.abs(np.sin(3.5 * turn))
    return [
        trunk,
        Part(
            np.stack([1.18 * reach * np.cos(turn), -0.33 + 0.96 * reach * np.sin(turn)], 1),
            shades.main,
        ),
    ]


def _house(shades: Shades) -> list[Part]:
    return [
        Part(shape((0.42, -0.75), (0.64, -0.75), (0.64, -0.1), (0.42, -0.1)), shades.dark),
        Part(shape((-0.74, -0.12), (0.74, -0.12), (0.74, 1.0), (-0.74, 1.0)), shades.main),
        Part(shape((-1.0, -0.08), (0.0, -0.95), (1.0, -0.08)), shades.dark),
        Part(shape((-0.2, 0.4), (0.2, 0.4), (0.2, 1.0), (-0.2, 1.0)), WOOD),
        Part(shape((-0.62, 0.1), (-0.3, 0.1), (-0.3, 0.42), (-0.62, 0.42)), PANE),
        Part(shape((0.3, 0.1), (0.62, 0.1), (0.62, 0.42), (0.3, 0.42)), PANE),
    ]


def _boat(shades: Shades) -> list[Part]:
    return [
        Part(shape((-0.06, -1.0), (0.06, -1.0), (0.06, 0.5), (-0.06, 0.5)), WOOD),
        Part(shape((0.14, -0.95), (0.9, 0.3), (0.14, 0.3)), shades.main),
        Part(shape((-0.14, -0.7), (-0.74, 0.3), (-0.14, 0.3)), shades.dark),
        Part(shape((-1.05, 0.42), (1.05, 0.42), (0.7, 0.95), (-0.7, 0.95)), shades.main),
    ]


def _cat(shades: Shades) -> list[Part]:
    along = np.linspace(0, 1, 24)
    path = np.stack(
        [0.35 + 0.62 * np.sin(along * 2.3), 0.82 - 1.0 * along + 0.12 * np.sin(along * 3)], 1
    )
    across = np.stack([np.full(24, 0.115), np.full(24, 0.06)], 1)
    eyes = [Part(oval(side * 0.2, -0.42, 0.12, 0.13), PANE) for side in (-1, 1)]
    pupils = [Part(oval(side * 0.2, -0.42, 0.045, 0.12), INKY) for side in (-1, 1)]
    return [
        Part(np.concatenate([path - across, (path + across)[::-1]]), shades.dark),
        Part(oval(0, 0.5, 0.5, 0.52), shades.main),
        Part(shape((-0.52, -0.42), (-0.5, -1.05), (-0.08, -0.68)), shades.main),
        Part(shape((0.52, -0.42), (0.5, -1.05), (0.08, -0.68)), shades.main),
        Part(oval(0, -0.38, 0.54, 0.42), shades.main),
        *eyes,
        *pupils,
        Part(shape((-0.08, -0.24), (0.08, -0.24), (0.0, -0.14)), INKY),
    ]


def _flower(shades: Shades) -> list[Part]:
    petals = [
        Part(oval(0.46 * math.cos(t), -0.38 + 0.46 * math.sin(t), 0.36, 0.27, t), shades.main)
        for t in np.arange(6) * math.pi / 3 + math.pi / 6
    ]
    return [
        Part(shape((-0.08, -0.2), (0.08, -0.2), (0.08, 1.0), (-0.08, 1.0)), LEAF),
        Part(oval(0.36, 0.72, 0.34, 0.13, -0.5), LEAF),
        Part(oval(-0.36, 0.72, 0.34, 0.13, 0.5), LEAF),
        *petals,
        Part(oval(0, -0.38, 0.24, 0.24), WOOD),
    ]


def _ball(shades: Shades) -> list[Part]:
    up = np.linspace(-math.pi / 2, math.pi / 2, 24)
    parts = [Part(oval(0, 0.12, 0.86, 0.86, corners=60), shades.main)]
    for left, right in ((-0.56, -0.28), (0.28, 0.56)):
        edge = [
            np.stack([0.86 * k * np.cos(up), 0.12 + 0.86 * np.sin(up)], 1) for k in (left, right)
        ]
        parts.append(Part(np.concatenate([edge[0], edge[1][::-1]]), shades.light))
    return parts


def _toy(
    shades: Shades, ears: Ink | None = None, patch: bool = False, scarf: bool = False
) -> list[Part]:
    """A bear, seen from the front; ears of another colour, a patched eye and a striped scarf make it a particular one."""
    ear = ears or shades.main
    tummy = (
        lch(96, 10, 80) if shades.main != shades.light and shades.light[1] > 225 else shades.light
    )
    parts = [Part(oval(side * 0.46, -0.78, 0.26, 0.26), ear) for side in (-1, 1)]
    parts += [Part(oval(side * 0.42, 0.86, 0.28, 0.2), shades.main) for side in (-1, 1)]
    parts += [
        Part(oval(side * 0.58, 0.28, 0.2, 0.34, side * -0.5), shades.main) for side in (-1, 1)
    ]
    parts += [Part(oval(0, 0.45, 0.54, 0.52), shades.main), Part(oval(0, 0.5, 0.33, 0.33), tummy)]
    parts += [Part(oval(0, -0.4, 0.6, 0.5), shades.main)]
    if patch:
        parts.append(Part(oval(-0.25, -0.47, 0.22, 0.22), INKY))
    parts += [
        Part(oval(side * 0.25, -0.47, 0.085, 0.1), SKIN if patch and side < 0 else INKY)
        for side in (-1, 1)
    ]
    parts += [Part(oval(0, -0.2, 0.27, 0.2), tummy), Part(oval(0, -0.27, 0.11, 0.08), INKY)]
    if scarf:
        parts += _scarf()
    return parts


def _scarf() -> list[Part]:
    red, gold = lch(45, 72, 33), lch(84, 74, 90)
    edges = np.linspace(-0.6, 0.6, 8)
    band = [
        Part(shape((a, 0.0), (b, 0.0), (b, 0.26), (a, 0.26)), red if k % 2 == 0 else gold)
        for k, (a, b) in enumerate(zip(edges[:-1], edges[1:], strict=True))
    ]
    tail = [
        Part(
            shape((0.2, y), (0.48, y), (0.48, y + 0.17), (0.2, y + 0.17)),
            gold if k % 2 == 0 else red,
        )
        for k, y in enumerate((0.26, 0.43, 0.6, 0.77))
    ]
    return band + tail


def _mysks(shades: Shades) -> list[Part]:
    return _toy(shades, ears=lch(62, 40, 200), patch=True, scarf=True)


# the Moon's own face: maria (large, dark) and craters (small, with a rim), as x, y, radius
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


def _great_moon(shades: Shades) -> list[Part]:
    parts = [Part(oval(0, 0, 1.0, 1.0, corners=60), shades.main)]
    parts += [Part(oval(x, y, r, 0.85 * r, x), shades.dark) for x, y, r in MARIA]
    for x, y, r in CRATERS:
        parts += [
            Part(oval(x, y, r, r), lch(58, 6, 80)),
            Part(oval(x + 0.03, y + 0.03, 0.7 * r, 0.7 * r), shades.dark),
        ]
    return parts


THINGS: dict[str, Callable[[Shades], list[Part]]] = {
    "moon": _moon,
    "sun": _sun,
    "star": _star,
    "tree": _tree,
    "house": _house,
    "boat": _boat,
    "cat": _cat,
    "flower": _flower,
    "ball": _ball,
    "plush toy": _toy,
}
# the demos' concepts: name -> the thing it is a kind of, and its own parts
CONCEPTS: dict[str, tuple[str, Callable[[Shades], list[Part]]]] = {
    "moon": ("moon", _great_moon),
    "mysks": ("plush toy", _mysks),
}
IN_THE_SKY = frozenset({"moon", "sun", "star"})
