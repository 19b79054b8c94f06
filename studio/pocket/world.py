"""The small world that the embedded models learn: one thing of one colour in one place, drawn in one of four styles, 128 x 128 pixels.

Knows: which scenes there are, how one is drawn (same scene, same picture, on every machine) and which combinations nobody trains on. The demos'
two concepts, the cratered Moon and the toy `mysks`, are drawn on request only (`concept`).
Does not know: captions (`captions`), models, files.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image

from studio.pocket.objects import CONCEPTS as CONCEPTS
from studio.pocket.objects import IN_THE_SKY, THINGS, Part, shades_of
from studio.pocket.palette import COLOURS, thing_ink, tone_for
from studio.pocket.places import PLACES, TIMES, Setting
from studio.pocket.styles import SIZE as SIZE
from studio.pocket.styles import STYLES

THING_NAMES = tuple(THINGS)
COLOUR_NAMES = tuple(COLOURS)
PLACE_NAMES = tuple(PLACES)
STYLE_NAMES = tuple(STYLES)
CONCEPT_NAMES = ("", *CONCEPTS)
HELD_OUT_SEED = 20_26
HELD_OUT = 512
NIGHT = "in the night sky"

Combination = tuple[str, str, str, str]


@dataclass(frozen=True)
class Scene:
    """Everything that decides a picture. `side`, `size` and `time` may be named in a caption; `seed` decides the rest."""

    thing: str
    colour: str
    place: str
    style: str
    time: str
    side: int
    size: float
    seed: int
    concept: str = ""

    @property
    def combination(self) -> Combination:
        """The four attributes that the judge reads."""
        return self.thing, self.colour, self.place, self.style


def held_out() -> frozenset[Combination]:
    """The 512 of 2,560 combinations that no model but the judge is trained on; every single attribute occurs in the rest."""
    everything = list(product(THING_NAMES, COLOUR_NAMES, PLACE_NAMES, STYLE_NAMES))
    chosen = np.random.default_rng(HELD_OUT_SEED).choice(len(everything), HELD_OUT, replace=False)
    return frozenset(everything[index] for index in chosen)


def sample(
    seed: int,
    combination: Combination | None = None,
    concept: str = "",
    without: frozenset[Combination] = frozenset(),
) -> Scene:
    """A scene by chance: of the given combination, or of any that is not in `without`; a concept sets its own thing and colour."""
    rng = np.random.default_rng([7, seed])
    while True:
        drawn = tuple(
            str(names[rng.integers(len(names))])
            for names in (THING_NAMES, COLOUR_NAMES, PLACE_NAMES, STYLE_NAMES)
        )
        thing, colour, place, style = combination or drawn
        if combination or (thing, colour, place, style) not in without:
            break
    if concept:
        thing, colour = CONCEPTS[concept][0], "white"
    time = "night" if place == NIGHT else str(rng.choice(list(TIMES), p=[0.5, 0.3, 0.2]))
    return Scene(
        thing,
        colour,
        place,
        style,
        time,
        int(rng.integers(-1, 2)),
        float(rng.uniform(0.205, 0.275)),
        seed,
        concept,
    )


def parts_of(scene: Scene) -> tuple[list[Part], list[Part]]:
    """The flat parts of a scene, in coordinates of the picture: the ground's, then the thing's."""
    rng = np.random.default_rng([11, scene.seed])
    tone = tone_for(scene.colour, scene.place == NIGHT)
    free = -scene.side or int(rng.choice([-1, 1]))
    hue, chroma = TIMES.get(scene.time, TIMES["day"])
    setting = Setting(
        tone, (hue + float(rng.uniform(-6, 6)), chroma), float(rng.uniform(0.5, 0.56)), free
    )
    ground = PLACES[scene.place](setting, rng)
    x = 0.5 + 0.17 * scene.side - 0.03 * free + float(rng.uniform(-0.02, 0.02))
    if scene.place == NIGHT:
        y = 0.5 + 0.1 * int(rng.integers(-1, 2)) + float(rng.uniform(-0.02, 0.02))
    elif scene.thing in IN_THE_SKY:
        y = 0.36 + 0.05 * int(rng.integers(-1, 2)) + float(rng.uniform(-0.02, 0.02))
    else:
        y = 0.83 + 0.04 * int(rng.integers(-1, 2)) + float(rng.uniform(-0.01, 0.01)) - scene.size
    shades = shades_of(*thing_ink(scene.colour, rng))
    drawn = CONCEPTS[scene.concept][1](shades) if scene.concept else THINGS[scene.thing](shades)
    tilt = float(rng.uniform(-0.1, 0.1)) * (2.0 if scene.thing in IN_THE_SKY else 0.6)
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    flip = np.array([1.0 if scene.concept or rng.random() < 0.5 else -1.0, 1.0])
    return ground, [
        Part((part.points * flip) @ turn * scene.size + np.array([x, y]), part.ink)
        for part in drawn
    ]


def draw(scene: Scene) -> np.ndarray:
    """The picture of a scene: (128, 128, 3), uint8."""
    ground, thing = parts_of(scene)
    grounded = scene.place != NIGHT and scene.thing not in IN_THE_SKY
    pixels = STYLES[scene.style](ground, thing, np.random.default_rng([13, scene.seed]), grounded)
    return np.asarray(np.clip(pixels + 0.5, 0, 255), np.uint8)


def sheet(pictures: list[np.ndarray], columns: int) -> Image.Image:
    """Pictures side by side, row by row."""
    rows = [
        np.concatenate(pictures[k : k + columns], 1)
        for k in range(0, len(pictures) - columns + 1, columns)
    ]
    return Image.fromarray(np.concatenate(rows))
