"""The places of the small world as flat polygons, back to front, in coordinates of the picture (0 to 1, y down).

Knows: what makes each place unmistakable (its emblem stands at the side away from the thing) and the hues of the three times of day.
Does not know: the thing in front, styles, captions. Everything near the thing keeps to the tone's lightness; see `palette`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from studio.pocket.objects import Part, oval, shape
from studio.pocket.palette import Ink, ground_ink, lch

# time of day -> hue and chroma of the sky
TIMES: dict[str, tuple[float, float]] = {
    "day": (245.0, 17.0),
    "sunset": (40.0, 24.0),
    "dusk": (318.0, 15.0),
}


@dataclass(frozen=True)
class Setting:
    """What a place needs to know: its tone, the sky of the hour, the horizon's height and the side that is free (-1 left, 1 right)."""

    tone: str
    sky: tuple[float, float]
    horizon: float
    free: int

    def ink(self, hue: float, chroma: float, lift: float = 0.0) -> Ink:
        """A colour of this setting; lift from -1 (dark) to 1 (light)."""
        return ground_ink(self.tone, hue, chroma, lift)

    def mark(self, light: float, chroma: float, hue: float) -> Ink:
        """A colour for an emblem, which may be darker than the ground; deep surroundings darken it."""
        return lch(light if self.tone == "pale" else light - 14, chroma, hue)

    def at(self, inset: float) -> float:
        """The x that lies `inset` from the free side's edge."""
        return inset if self.free < 0 else 1 - inset


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """A rectangle as a polygon."""
    return shape((left, top), (right, top), (right, bottom), (left, bottom))


def hill(top: float, swell: float, waves: float, phase: float, foot: float = 1.02) -> np.ndarray:
    """Ground whose upper edge is a wave."""
    x = np.linspace(-0.02, 1.02, 48)
    edge = np.stack([x, top + swell * np.sin(waves * x * 2 * math.pi + phase)], 1)
    return np.concatenate([edge, [[1.02, foot], [-0.02, foot]]])


def _sky(setting: Setting) -> Part:
    hue, chroma = setting.sky
    return Part(box(-0.02, -0.02, 1.02, 1.02), setting.ink(hue, chroma, 0.2))


def _night(setting: Setting, rng: np.random.Generator) -> list[Part]:
    parts = [Part(box(-0.02, -0.02, 1.02, 1.02), lch(8, 30, 290 + float(rng.uniform(-12, 8))))]
    for x, y in [
        (float(x), float(y))
        for x, y in zip(rng.uniform(0.03, 0.97, 11), rng.permutation(11) / 11 + 0.05, strict=True)
    ]:
        size = float(rng.uniform(0.024, 0.036))
        turns = [(size if k % 2 == 0 else 0.32 * size, k * math.pi / 4) for k in range(8)]
        parts.append(
            Part(
                shape(*[(x + r * math.sin(t), y + r * math.cos(t)) for r, t in turns]),
                lch(95, 20, 95),
            )
        )
    return parts


def _snow(setting: Setting, rng: np.random.Generator) -> list[Part]:
    parts = [_sky(setting)]
    for centre in (setting.at(0.15), setting.at(0.8)):
        x, peak, half = (
            centre + float(rng.uniform(-0.05, 0.05)),
            setting.horizon - float(rng.uniform(0.2, 0.28)),
            0.3,
        )
        cap = 0.4 * (setting.horizon - peak)
        parts.append(
            Part(
                shape(
                    (x - half, setting.horizon + 0.01),
                    (x, peak),
                    (x + half, setting.horizon + 0.01),
                ),
                setting.ink(270, 20, -0.9),
            )
        )
        parts.append(
            Part(
                shape((x - 0.4 * half, peak + cap), (x, peak), (x + 0.4 * half, peak + cap)),
                lch(98, 1, 250),
            )
        )
    parts.append(
        Part(hill(setting.horizon, 0.012, 1, float(rng.uniform(0, 6))), setting.ink(255, 5, 1.3))
    )
    for inset, size in ((0.1, 1.0), (0.24, 0.72)):
        x, foot = (
            setting.at(inset),
            setting.horizon + 0.1 + 0.1 * size + float(rng.uniform(-0.02, 0.02)),
        )
        for level in range(3):
            top, half = foot - size * (0.38 - 0.1 * level), size * (0.055 + 0.02 * level)
            parts.append(
                Part(
                    shape((x - half, top + 0.17 * size), (x, top), (x + half, top + 0.17 * size)),
                    setting.mark(48, 28, 170),
                )
            )
            parts.append(
                Part(
                    shape(
                        (x - 0.45 * half, top + 0.075 * size),
                        (x, top),
                        (x + 0.45 * half, top + 0.075 * size),
                    ),
                    lch(98, 1, 250),
                )
            )
    return parts


def _lake(setting: Setting, rng: np.random.Generator) -> list[Part]:
    parts = [_sky(setting)]
    parts.append(
        Part(
            hill(setting.horizon - 0.09, 0.045, 1.2, float(rng.uniform(0, 6))),
            setting.ink(150, 30, -1.0),
        )
    )
    parts.append(Part(box(-0.02, setting.horizon, 1.02, 1.02), setting.ink(240, 30, -0.7)))
    for row in range(5):
        x, y = float(rng.uniform(0, 0.85)), setting.horizon + 0.05 + 0.065 * row
        parts.append(
            Part(
                box(x, y, x + float(rng.uniform(0.12, 0.22)), y + 0.016), setting.ink(235, 12, 1.1)
            )
        )
    parts.append(Part(hill(0.93, 0.02, 0.8, float(rng.uniform(0, 6))), setting.ink(130, 44, -0.6)))
    for stalk in range(4):
        x, top = setting.at(0.05 + 0.06 * stalk), float(rng.uniform(0.58, 0.7))
        parts.append(Part(box(x - 0.011, top, x + 0.011, 0.97), setting.mark(52, 40, 130)))
        parts.append(Part(oval(x, top, 0.022, 0.06), setting.mark(40, 30, 55)))
    return parts


def _desert(setting: Setting, rng: np.random.Generator) -> list[Part]:
    parts = [_sky(setting)]
    for row, (lift, hue) in enumerate(((-0.9, 60), (-0.2, 72), (0.4, 80))):
        parts.append(
            Part(
                hill(
                    setting.horizon + 0.13 * row - 0.02,
                    0.035,
                    0.9 + 0.25 * row,
                    float(rng.uniform(0, 6)),
                ),
                setting.ink(hue, 34, lift),
            )
        )
    x, foot, green = (
        setting.at(0.13),
        setting.horizon + float(rng.uniform(0.22, 0.28)),
        setting.mark(50, 42, 150),
    )
    for points in (
        box(x - 0.035, foot - 0.42, x + 0.035, foot),
        oval(x, foot - 0.42, 0.035, 0.035),
        box(x - 0.1, foot - 0.23, x + 0.1, foot - 0.175),
        box(x - 0.115, foot - 0.32, x - 0.07, foot - 0.175),
        box(x + 0.07, foot - 0.29, x + 0.115, foot - 0.175),
    ):
        parts.append(Part(points, green))
    return parts


def _field(setting: Setting, rng: np.random.Generator) -> list[Part]:
    parts = [
        _sky(setting),
        Part(hill(setting.horizon, 0.012, 1, float(rng.uniform(0, 6))), setting.ink(128, 46, -0.4)),
    ]
    hues = ((15.0, 50.0), (95.0, 60.0), (320.0, 45.0), (55.0, 60.0))
    for row, count in enumerate((6, 5, 4)):
        y, size = setting.horizon + 0.07 + 0.145 * row, 0.024 + 0.009 * row
        for k in range(count):
            x = (k + 0.5 + float(rng.uniform(-0.25, 0.25))) / count
            hue, chroma = hues[int(rng.integers(4))]
            bloom = lch({"pale": 72, "deep": 66, "night": 40}[setting.tone], chroma, hue)
            height = y + float(rng.uniform(-0.02, 0.02))
            parts += [
                Part(oval(x, height, 1.25 * size, size), bloom),
                Part(oval(x, height, 0.45 * size, 0.4 * size), lch(95, 30, 95)),
            ]
    return parts


def _floor(setting: Setting, rng: np.random.Generator) -> list[Part]:
    wall = [(20.0, 10.0), (110.0, 12.0), (250.0, 10.0)][int(rng.integers(3))]
    parts = [Part(box(-0.02, -0.02, 1.02, 1.02), setting.ink(wall[0], wall[1], 0.4))]
    top = setting.horizon + 0.03
    x = setting.at(0.15)
    parts.append(Part(box(x - 0.11, 0.1, x + 0.11, 0.36), setting.mark(50, 30, 60)))
    parts.append(
        Part(box(x - 0.075, 0.135, x + 0.075, 0.325), setting.ink(wall[0] + 150, 24, -0.4))
    )
    parts.append(Part(box(-0.02, top, 1.02, 1.02), setting.ink(66, 36, -0.5)))
    seam = setting.ink(60, 36, -1.0) if setting.tone != "pale" else lch(74, 36, 64)
    middle = 0.5 + float(rng.uniform(-0.05, 0.05))
    for k in range(-5, 6):
        near, far = middle + 0.28 * (k + 0.5), middle + 0.14 * (k + 0.5)
        parts.append(
            Part(
                shape(
                    (far - 0.004, top),
                    (far + 0.004, top),
                    (near + 0.012, 1.02),
                    (near - 0.012, 1.02),
                ),
                seam,
            )
        )
    parts.append(Part(box(-0.02, top - 0.035, 1.02, top), setting.mark(62, 34, 62)))
    return parts


def _beach(setting: Setting, rng: np.random.Generator) -> list[Part]:
    shore = setting.horizon + 0.11
    parts = [
        _sky(setting),
        Part(box(-0.02, setting.horizon - 0.04, 1.02, shore + 0.05), setting.ink(228, 34, -1.0)),
    ]
    parts.append(
        Part(
            hill(shore - 0.02, 0.012, 2, float(rng.uniform(0, 6))),
            lch(98, 2, 220) if setting.tone == "pale" else lch(80, 6, 220),
        )
    )
    parts.append(
        Part(hill(shore + 0.015, 0.012, 2, float(rng.uniform(0, 6))), setting.ink(84, 32, 0.3))
    )
    x, top, foot = (
        setting.at(0.17),
        setting.horizon - float(rng.uniform(0.1, 0.14)),
        setting.horizon + 0.3,
    )
    parts.append(Part(box(x - 0.012, top, x + 0.012, foot), setting.mark(45, 20, 60)))
    turn = np.linspace(math.pi, 2 * math.pi, 25)
    rim = np.stack([x + 0.2 * np.cos(turn), top + 0.06 + 0.17 * np.sin(turn)], 1)
    for k in range(6):
        slice_ = np.concatenate(
            [rim[4 * k : 4 * k + 5], [[x + 0.2 * (k - 2.5) / 3, top + 0.06]], [[x, top - 0.11]]]
        )
        parts.append(Part(slice_, setting.mark(55, 62, 30) if k % 2 == 0 else lch(96, 3, 90)))
    return parts


def _city(setting: Setting, rng: np.random.Generator) -> list[Part]:
    parts, x = [_sky(setting)], -0.03
    street = setting.horizon + 0.17
    heights = rng.permutation(np.array([0.62, 0.44, 0.56, 0.36, 0.5, 0.58]))
    for k, height in enumerate(heights):
        width, top = float(rng.uniform(0.17, 0.22)), street - float(height)
        parts.append(
            Part(
                box(x, top, x + width, street),
                setting.ink((262, 30, 300)[k % 3], 12, (-1.0, -0.4)[k % 2]),
            )
        )
        pane = setting.mark(76, 30, 250) if setting.tone == "pale" else lch(68, 40, 92)
        for row in range(int((height - 0.06) / 0.1)):
            for column in (0.28, 0.72):
                px, py = x + column * width, top + 0.05 + 0.1 * row
                parts.append(Part(box(px - 0.024, py, px + 0.024, py + 0.05), pane))
        x += width + 0.005
    parts.append(Part(box(-0.02, street, 1.02, 1.02), setting.ink(270, 5, -0.8)))
    parts.append(Part(box(-0.02, street, 1.02, street + 0.03), setting.ink(270, 3, 0.9)))
    for k in range(4):
        left = 0.02 + 0.27 * k + float(rng.uniform(-0.02, 0.02))
        parts.append(Part(box(left, street + 0.15, left + 0.13, street + 0.18), lch(98, 3, 90)))
    return parts


PLACES: dict[str, Callable[[Setting, np.random.Generator], list[Part]]] = {
    "in the night sky": _night,
    "in a snowy landscape": _snow,
    "by a lake": _lake,
    "in a desert": _desert,
    "in a flower field": _field,
    "on a wooden floor": _floor,
    "on a beach": _beach,
    "in a city": _city,
}
