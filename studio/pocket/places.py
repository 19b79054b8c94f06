"""The places of the small world as flat polygons, back to front (coordinates 0 to 1, y down).

Knows: what makes each place unmistakable (its emblem stands at the side away from the thing) and
the hues of the three times of day.
Does not know: the thing in front, styles, captions.

Everything near the thing keeps to the tone's lightness; see palette.py.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from studio.pocket.objects import Polygon, make_ellipse, make_outline
from studio.pocket.palette import RGB, compute_ground_colour, lch_to_rgb

# time of day -> hue and chroma of the sky
SKY_LCH_BY_TIME: dict[str, tuple[float, float]] = {
    "day": (245.0, 17.0),
    "sunset": (40.0, 24.0),
    "dusk": (318.0, 15.0),
}
# Polygons reach this far beyond the image, so that no style shows their edge.
LOW = -0.02
HIGH = 1.02
SNOW_COLOUR = lch_to_rgb(98, 1, 250)


@dataclass(frozen=True)
class Backdrop:
    """What a place is built from.

    Attributes:
        tone: One of palette.GROUND_TONES.
        sky: Hue and chroma of the sky.
        horizon: Height of the horizon, 0 (top) to 1.
        free_side: The side without the thing: -1 left, 1 right.
    """

    tone: str
    sky: tuple[float, float]
    horizon: float
    free_side: int

    def get_ground_colour(self, hue: float, chroma: float, lift: float = 0.0) -> RGB:
        """Return a colour of these surroundings; `lift` runs from -1 (dark) to 1 (light)."""
        return compute_ground_colour(self.tone, hue, chroma, lift)

    def get_emblem_colour(self, lightness: float, chroma: float, hue: float) -> RGB:
        """Return an emblem's colour, which may be darker than the ground; deep tones darken it."""
        return lch_to_rgb(lightness if self.tone == "pale" else lightness - 14, chroma, hue)

    def get_edge_x(self, inset: float) -> float:
        """Return the x that lies `inset` from the free side's edge."""
        return inset if self.free_side < 0 else 1 - inset


def make_rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Return a rectangle's corners (4, 2)."""
    return make_outline((left, top), (right, top), (right, bottom), (left, bottom))


def make_triangle(x: float, top: float, half_width: float, bottom: float) -> np.ndarray:
    """Return the corners (3, 2) of a triangle that points up, its tip at (x, top)."""
    return make_outline((x - half_width, bottom), (x, top), (x + half_width, bottom))


def make_hill(
    top: float, amplitude: float, waves: float, phase: float, bottom: float = HIGH
) -> np.ndarray:
    """Return ground whose upper edge is a wave, as corners (n, 2)."""
    x = np.linspace(LOW, HIGH, 48)
    edge = np.stack([x, top + amplitude * np.sin(waves * x * 2 * math.pi + phase)], 1)
    return np.concatenate([edge, [[HIGH, bottom], [LOW, bottom]]])


def _sample_phase(rng: np.random.Generator) -> float:
    return float(rng.uniform(0, 6))


def _build_sky(backdrop: Backdrop) -> Polygon:
    hue, chroma = backdrop.sky
    return Polygon(
        make_rectangle(LOW, LOW, HIGH, HIGH), backdrop.get_ground_colour(hue, chroma, 0.2)
    )


def _build_night_sky(backdrop: Backdrop, rng: np.random.Generator) -> list[Polygon]:
    dark = lch_to_rgb(8, 30, 290 + float(rng.uniform(-12, 8)))
    parts = [Polygon(make_rectangle(LOW, LOW, HIGH, HIGH), dark)]
    star_x = rng.uniform(0.03, 0.97, 11)
    star_y = rng.permutation(11) / 11 + 0.05
    star_colour = lch_to_rgb(95, 20, 95)
    for x, y in zip(star_x.tolist(), star_y.tolist(), strict=True):
        radius = float(rng.uniform(0.024, 0.036))
        corners = []
        for k in range(8):
            r = radius if k % 2 == 0 else 0.32 * radius
            angle = k * math.pi / 4
            corners.append((x + r * math.sin(angle), y + r * math.cos(angle)))
        parts.append(Polygon(make_outline(*corners), star_colour))
    return parts


def _build_snow(backdrop: Backdrop, rng: np.random.Generator) -> list[Polygon]:
    horizon = backdrop.horizon
    rock = backdrop.get_ground_colour(270, 20, -0.9)
    parts = [_build_sky(backdrop)]
    for inset in (0.15, 0.8):
        x = backdrop.get_edge_x(inset) + float(rng.uniform(-0.05, 0.05))
        peak = horizon - float(rng.uniform(0.2, 0.28))
        cap_height = 0.4 * (horizon - peak)
        parts += [
            Polygon(make_triangle(x, peak, 0.3, horizon + 0.01), rock),
            Polygon(make_triangle(x, peak, 0.4 * 0.3, peak + cap_height), SNOW_COLOUR),
        ]
    ground = make_hill(horizon, 0.012, 1, _sample_phase(rng))
    parts.append(Polygon(ground, backdrop.get_ground_colour(255, 5, 1.3)))
    for inset, size in ((0.1, 1.0), (0.24, 0.72)):
        foot = horizon + 0.1 + 0.1 * size + float(rng.uniform(-0.02, 0.02))
        parts += _build_fir(backdrop, backdrop.get_edge_x(inset), foot, size)
    return parts


def _build_fir(backdrop: Backdrop, x: float, foot: float, size: float) -> list[Polygon]:
    """Return three tiers of branches, each with snow on it."""
    green = backdrop.get_emblem_colour(48, 28, 170)
    parts = []
    for tier in range(3):
        top = foot - size * (0.38 - 0.1 * tier)
        half_width = size * (0.055 + 0.02 * tier)
        parts += [
            Polygon(make_triangle(x, top, half_width, top + 0.17 * size), green),
            Polygon(make_triangle(x, top, 0.45 * half_width, top + 0.075 * size), SNOW_COLOUR),
        ]
    return parts


def _build_lake(backdrop: Backdrop, rng: np.random.Generator) -> list[Polygon]:
    horizon = backdrop.horizon
    far_shore = make_hill(horizon - 0.09, 0.045, 1.2, _sample_phase(rng))
    parts = [
        _build_sky(backdrop),
        Polygon(far_shore, backdrop.get_ground_colour(150, 30, -1.0)),
        Polygon(
            make_rectangle(LOW, horizon, HIGH, HIGH), backdrop.get_ground_colour(240, 30, -0.7)
        ),
    ]
    glint = backdrop.get_ground_colour(235, 12, 1.1)
    for row in range(5):
        x = float(rng.uniform(0, 0.85))
        y = horizon + 0.05 + 0.065 * row
        width = float(rng.uniform(0.12, 0.22))
        parts.append(Polygon(make_rectangle(x, y, x + width, y + 0.016), glint))
    near_shore = make_hill(0.93, 0.02, 0.8, _sample_phase(rng))
    parts.append(Polygon(near_shore, backdrop.get_ground_colour(130, 44, -0.6)))
    stalk_colour = backdrop.get_emblem_colour(52, 40, 130)
    head_colour = backdrop.get_emblem_colour(40, 30, 55)
    for k in range(4):
        x = backdrop.get_edge_x(0.05 + 0.06 * k)
        top = float(rng.uniform(0.58, 0.7))
        parts += [
            Polygon(make_rectangle(x - 0.011, top, x + 0.011, 0.97), stalk_colour),
            Polygon(make_ellipse(x, top, 0.022, 0.06), head_colour),
        ]
    return parts


def _build_desert(backdrop: Backdrop, rng: np.random.Generator) -> list[Polygon]:
    parts = [_build_sky(backdrop)]
    for row, (lift, hue) in enumerate(((-0.9, 60), (-0.2, 72), (0.4, 80))):
        top = backdrop.horizon + 0.13 * row - 0.02
        dune = make_hill(top, 0.035, 0.9 + 0.25 * row, _sample_phase(rng))
        parts.append(Polygon(dune, backdrop.get_ground_colour(hue, 34, lift)))
    foot = backdrop.horizon + float(rng.uniform(0.22, 0.28))
    return parts + _build_cactus(backdrop, backdrop.get_edge_x(0.13), foot)


def _build_cactus(backdrop: Backdrop, x: float, foot: float) -> list[Polygon]:
    green = backdrop.get_emblem_colour(50, 42, 150)
    outlines = (
        make_rectangle(x - 0.035, foot - 0.42, x + 0.035, foot),
        make_ellipse(x, foot - 0.42, 0.035, 0.035),
        make_rectangle(x - 0.1, foot - 0.23, x + 0.1, foot - 0.175),
        make_rectangle(x - 0.115, foot - 0.32, x - 0.07, foot - 0.175),
        make_rectangle(x + 0.07, foot - 0.29, x + 0.115, foot - 0.175),
    )
    return [Polygon(points, green) for points in outlines]


def _build_flower_field(backdrop: Backdrop, rng: np.random.Generator) -> list[Polygon]:
    meadow = make_hill(backdrop.horizon, 0.012, 1, _sample_phase(rng))
    parts = [
        _build_sky(backdrop),
        Polygon(meadow, backdrop.get_ground_colour(128, 46, -0.4)),
    ]
    bloom_hues = ((15.0, 50.0), (95.0, 60.0), (320.0, 45.0), (55.0, 60.0))  # hue, chroma
    bloom_lightness = {"pale": 72, "deep": 66, "night": 40}[backdrop.tone]
    centre_colour = lch_to_rgb(95, 30, 95)
    for row, count in enumerate((6, 5, 4)):
        row_y = backdrop.horizon + 0.07 + 0.145 * row
        size = 0.024 + 0.009 * row
        for k in range(count):
            x = (k + 0.5 + float(rng.uniform(-0.25, 0.25))) / count
            hue, chroma = bloom_hues[int(rng.integers(4))]
            bloom_colour = lch_to_rgb(bloom_lightness, chroma, hue)
            y = row_y + float(rng.uniform(-0.02, 0.02))
            parts += [
                Polygon(make_ellipse(x, y, 1.25 * size, size), bloom_colour),
                Polygon(make_ellipse(x, y, 0.45 * size, 0.4 * size), centre_colour),
            ]
    return parts


def _build_floor(backdrop: Backdrop, rng: np.random.Generator) -> list[Polygon]:
    hue, chroma = [(20.0, 10.0), (110.0, 12.0), (250.0, 10.0)][int(rng.integers(3))]
    top = backdrop.horizon + 0.03
    x = backdrop.get_edge_x(0.15)
    wall = backdrop.get_ground_colour(hue, chroma, 0.4)
    frame = backdrop.get_emblem_colour(50, 30, 60)
    canvas = backdrop.get_ground_colour(hue + 150, 24, -0.4)
    boards = backdrop.get_ground_colour(66, 36, -0.5)
    parts = [
        Polygon(make_rectangle(LOW, LOW, HIGH, HIGH), wall),
        Polygon(make_rectangle(x - 0.11, 0.1, x + 0.11, 0.36), frame),
        Polygon(make_rectangle(x - 0.075, 0.135, x + 0.075, 0.325), canvas),
        Polygon(make_rectangle(LOW, top, HIGH, HIGH), boards),
    ]
    seam_colour = lch_to_rgb(74, 36, 64)
    if backdrop.tone != "pale":
        seam_colour = backdrop.get_ground_colour(60, 36, -1.0)
    vanishing_x = 0.5 + float(rng.uniform(-0.05, 0.05))
    for k in range(-5, 6):
        near = vanishing_x + 0.28 * (k + 0.5)
        far = vanishing_x + 0.14 * (k + 0.5)
        seam = make_outline(
            (far - 0.004, top), (far + 0.004, top), (near + 0.012, HIGH), (near - 0.012, HIGH)
        )
        parts.append(Polygon(seam, seam_colour))
    skirting = make_rectangle(LOW, top - 0.035, HIGH, top)
    return [*parts, Polygon(skirting, backdrop.get_emblem_colour(62, 34, 62))]


def _build_beach(backdrop: Backdrop, rng: np.random.Generator) -> list[Polygon]:
    shore = backdrop.horizon + 0.11
    sea = make_rectangle(LOW, backdrop.horizon - 0.04, HIGH, shore + 0.05)
    surf = make_hill(shore - 0.02, 0.012, 2, _sample_phase(rng))
    sand = make_hill(shore + 0.015, 0.012, 2, _sample_phase(rng))
    foam = lch_to_rgb(98, 2, 220) if backdrop.tone == "pale" else lch_to_rgb(80, 6, 220)
    parts = [
        _build_sky(backdrop),
        Polygon(sea, backdrop.get_ground_colour(228, 34, -1.0)),
        Polygon(surf, foam),
        Polygon(sand, backdrop.get_ground_colour(84, 32, 0.3)),
    ]
    top = backdrop.horizon - float(rng.uniform(0.1, 0.14))
    return parts + _build_parasol(backdrop, backdrop.get_edge_x(0.17), top)


def _build_parasol(backdrop: Backdrop, x: float, top: float) -> list[Polygon]:
    """Return a pole and six slices in two colours."""
    pole = make_rectangle(x - 0.012, top, x + 0.012, backdrop.horizon + 0.3)
    parts = [Polygon(pole, backdrop.get_emblem_colour(45, 20, 60))]
    colours = (backdrop.get_emblem_colour(55, 62, 30), lch_to_rgb(96, 3, 90))
    angles = np.linspace(math.pi, 2 * math.pi, 25)
    rim = np.stack([x + 0.2 * np.cos(angles), top + 0.06 + 0.17 * np.sin(angles)], 1)
    for k in range(6):
        arc = rim[4 * k : 4 * k + 5]
        inner = [[x + 0.2 * (k - 2.5) / 3, top + 0.06]]
        tip = [[x, top - 0.11]]
        parts.append(Polygon(np.concatenate([arc, inner, tip]), colours[k % 2]))
    return parts


def _build_city(backdrop: Backdrop, rng: np.random.Generator) -> list[Polygon]:
    street = backdrop.horizon + 0.17
    parts = [_build_sky(backdrop)]
    left = -0.03
    heights = rng.permutation(np.array([0.62, 0.44, 0.56, 0.36, 0.5, 0.58]))
    for k, height in enumerate(heights):
        width = float(rng.uniform(0.17, 0.22))
        top = street - float(height)
        facade = backdrop.get_ground_colour((262, 30, 300)[k % 3], 12, (-1.0, -0.4)[k % 2])
        parts.append(Polygon(make_rectangle(left, top, left + width, street), facade))
        num_floors = int((height - 0.06) / 0.1)
        parts += _build_windows(backdrop, left, top, width=width, num_floors=num_floors)
        left += width + 0.005
    asphalt = make_rectangle(LOW, street, HIGH, HIGH)
    kerb = make_rectangle(LOW, street, HIGH, street + 0.03)
    parts += [
        Polygon(asphalt, backdrop.get_ground_colour(270, 5, -0.8)),
        Polygon(kerb, backdrop.get_ground_colour(270, 3, 0.9)),
    ]
    for k in range(4):
        x = 0.02 + 0.27 * k + float(rng.uniform(-0.02, 0.02))
        dash = make_rectangle(x, street + 0.15, x + 0.13, street + 0.18)
        parts.append(Polygon(dash, lch_to_rgb(98, 3, 90)))
    return parts


def _build_windows(
    backdrop: Backdrop, left: float, top: float, *, width: float, num_floors: int
) -> list[Polygon]:
    """Return two windows on each floor of a house."""
    pane_colour = lch_to_rgb(68, 40, 92)
    if backdrop.tone == "pale":
        pane_colour = backdrop.get_emblem_colour(76, 30, 250)
    parts = []
    for row in range(num_floors):
        y = top + 0.05 + 0.1 * row
        for column in (0.28, 0.72):
            x = left + column * width
            pane = make_rectangle(x - 0.024, y, x + 0.024, y + 0.05)
            parts.append(Polygon(pane, pane_colour))
    return parts


PLACE_BUILDERS: dict[str, Callable[[Backdrop, np.random.Generator], list[Polygon]]] = {
    "in the night sky": _build_night_sky,
    "in a snowy landscape": _build_snow,
    "by a lake": _build_lake,
    "in a desert": _build_desert,
    "in a flower field": _build_flower_field,
    "on a wooden floor": _build_floor,
    "on a beach": _build_beach,
    "in a city": _build_city,
}
