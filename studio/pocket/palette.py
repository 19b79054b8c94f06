"""Colours of the small world, as lightness, chroma and hue (CIE LCh, D65), and their way to sRGB.

Knows: the eight colour names, how light a thing and the ground around it may be, shades of a colour. A thing and its surroundings differ by at
least `CONTRAST` in L*: dark and middling colours stand in pale surroundings, yellow and white in deep ones, and everything shows in the night sky.
Does not know: shapes, places, styles, captions.
"""

import math

import numpy as np

Ink = tuple[int, int, int]

CONTRAST = 25.0
TONES = ("pale", "deep", "night")

# name -> lightness, chroma, hue of a thing's main colour
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (45.0, 72.0, 33.0),
    "orange": (60.0, 76.0, 58.0),
    "yellow": (88.0, 82.0, 92.0),
    "green": (47.0, 54.0, 142.0),
    "blue": (42.0, 68.0, 282.0),
    "purple": (39.0, 66.0, 312.0),
    "pink": (60.0, 64.0, 356.0),
    "white": (97.0, 2.0, 95.0),
}

_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_TO_RGB = np.linalg.inv(_TO_XYZ)
_WHITE = np.array([0.95047, 1.0, 1.08883])


def lch(lightness: float, chroma: float, hue: float) -> Ink:
    """The sRGB colour of lightness (0-100), chroma and hue (degrees); chroma is lowered until the colour can be shown."""
    for shrink in np.linspace(1.0, 0.0, 21):
        a, b = (
            chroma * shrink * math.cos(math.radians(hue)),
            chroma * shrink * math.sin(math.radians(hue)),
        )
        fy = (lightness + 16) / 116
        f = np.array([fy + a / 500, fy, fy - b / 200])
        xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * _WHITE
        linear = _TO_RGB @ xyz
        if linear.min() >= -0.004 and linear.max() <= 1.004:
            break
    linear = np.clip(linear, 0, 1)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (int(round(255 * float(value))) for value in coded)
    return red, green, blue


def lightness(pixels: np.ndarray) -> np.ndarray:
    """L* (0-100) of sRGB pixels, an array of 0-255 whose last axis is red, green, blue."""
    coded = np.asarray(pixels, np.float64) / 255
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    luminance = linear @ _TO_XYZ[1]
    cube = np.where(
        luminance > (6 / 29) ** 3, np.cbrt(luminance), luminance / (3 * (6 / 29) ** 2) + 4 / 29
    )
    return 116 * cube - 16


def tone_for(colour: str, night: bool) -> str:
    """How light the surroundings of a thing of this colour are: one of `TONES`."""
    return "night" if night else "deep" if COLOURS[colour][0] > 75 else "pale"


def thing_ink(colour: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """Lightness, chroma, hue of one thing: the colour's own with a little chance in it."""
    light, chroma, hue = COLOURS[colour]
    return (
        light + float(rng.uniform(-1, 1)),
        chroma * float(rng.uniform(0.94, 1.06)),
        hue + float(rng.uniform(-4, 4)),
    )


def ground_ink(tone: str, hue: float, chroma: float, lift: float = 0.0) -> Ink:
    """A colour of the surroundings; `lift` orders regions from dark (-1) to light (1) inside what the tone allows."""
    if tone == "night":
        return lch(6 + 2.5 * lift, 0.55 * chroma, hue)
    if tone == "deep":
        return lch(51 + 6 * lift, 1.35 * chroma, hue)
    return lch(91 + 3 * lift, chroma, hue)
