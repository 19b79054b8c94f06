"""Colours of the small world, as lightness, chroma and hue (CIE LCh, D65), and their way to sRGB.

Knows: the eight colour names, how light a thing and the ground around it may be, shades of a
colour.
Does not know: shapes, places, styles, captions.

A thing and its surroundings differ by at least MIN_LIGHTNESS_CONTRAST in L*: dark and middling
colours stand in pale surroundings, yellow and white in deep ones; everything shows in the night
sky.
"""

import math

import numpy as np

RGB = tuple[int, int, int]

MIN_LIGHTNESS_CONTRAST = 25.0
GROUND_TONES = ("pale", "deep", "night")

# name -> lightness, chroma, hue of a thing's main colour
COLOURS_LCH: dict[str, tuple[float, float, float]] = {
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
_WHITE_POINT = np.array([0.95047, 1.0, 1.08883])


def lch_to_rgb(lightness: float, chroma: float, hue: float) -> RGB:
    """Return the sRGB colour (0-255) of lightness (0-100), chroma and hue (degrees).

    Chroma is lowered until the colour lies inside sRGB.
    """
    for shrink in np.linspace(1.0, 0.0, 21):
        a = chroma * shrink * math.cos(math.radians(hue))
        b = chroma * shrink * math.sin(math.radians(hue))
        fy = (lightness + 16) / 116
        f = np.array([fy + a / 500, fy, fy - b / 200])
        xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * _WHITE_POINT
        linear = _TO_RGB @ xyz
        if linear.min() >= -0.004 and linear.max() <= 1.004:
            break
    linear = np.clip(linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (int(round(255 * float(value))) for value in encoded)
    return red, green, blue


def compute_lightness(pixels: np.ndarray) -> np.ndarray:
    """Return L* (0-100) of sRGB pixels (..., 3) from 0 to 255."""
    encoded = np.asarray(pixels, np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    luminance = linear @ _TO_XYZ[1]
    dark_value = luminance / (3 * (6 / 29) ** 2) + 4 / 29
    f = np.where(luminance > (6 / 29) ** 3, np.cbrt(luminance), dark_value)
    return 116 * f - 16


def get_ground_tone(colour: str, is_night: bool) -> str:
    """Return how light the surroundings of a thing of this colour are: one of GROUND_TONES."""
    if is_night:
        return "night"
    return "deep" if COLOURS_LCH[colour][0] > 75 else "pale"


def sample_thing_lch(colour: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return lightness, chroma, hue of one thing: its colour's own with a little chance in it."""
    lightness, chroma, hue = COLOURS_LCH[colour]
    return (
        lightness + float(rng.uniform(-1, 1)),
        chroma * float(rng.uniform(0.94, 1.06)),
        hue + float(rng.uniform(-4, 4)),
    )


def compute_ground_colour(tone: str, hue: float, chroma: float, lift: float = 0.0) -> RGB:
    """Return a colour of the surroundings.

    Args:
        tone: One of GROUND_TONES.
        lift: Orders regions from dark (-1) to light (1) inside what the tone allows.
    """
    if tone == "night":
        return lch_to_rgb(6 + 2.5 * lift, 0.55 * chroma, hue)
    if tone == "deep":
        return lch_to_rgb(51 + 6 * lift, 1.35 * chroma, hue)
    return lch_to_rgb(91 + 3 * lift, chroma, hue)
