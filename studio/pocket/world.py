"""The small world that the embedded models learn: a thing of a colour in a place, in a style.

Knows: which scenes there are, how one is drawn at 128 x 128 pixels or a multiple (same scene, same
image, on every machine) and which combinations nobody trains on. The demos' two concepts, the cratered Moon
and the toy `mysks`, are drawn on request only (`concept`).
Does not know: captions (captions.py), models, files.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from studio.engine.evaluation.scenes import PLACE_NAMES as PLACE_NAMES
from studio.engine.evaluation.scenes import STYLE_NAMES as STYLE_NAMES
from studio.pocket.objects import CONCEPTS as CONCEPTS
from studio.pocket.objects import SKY_THINGS, THING_BUILDERS, Polygon, make_shades
from studio.pocket.palette import COLOURS_LCH, get_ground_tone, sample_thing_lch
from studio.pocket.places import PLACE_BUILDERS, SKY_LCH_BY_TIME, Backdrop
from studio.pocket.styles import IMAGE_SIZE_PX as IMAGE_SIZE_PX
from studio.pocket.styles import STYLE_RENDERERS

THING_NAMES = tuple(THING_BUILDERS)
COLOUR_NAMES = tuple(COLOURS_LCH)
CONCEPT_NAMES = ("", *CONCEPTS)
HELD_OUT_SEED = 20_26
NUM_HELD_OUT = 512
NIGHT_PLACE = "in the night sky"

Combination = tuple[str, str, str, str]


@dataclass(frozen=True)
class Scene:
    """Everything that decides an image.

    A caption may name `side`, `size` and `time` too; `seed` decides the rest.
    """

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


def sample_held_out() -> frozenset[Combination]:
    """Return the 512 of 2,560 combinations that no model but the judge is trained on.

    Every single attribute occurs in the rest.
    """
    combinations = list(product(THING_NAMES, COLOUR_NAMES, PLACE_NAMES, STYLE_NAMES))
    rng = np.random.default_rng(HELD_OUT_SEED)
    indices = rng.choice(len(combinations), NUM_HELD_OUT, replace=False)
    return frozenset(combinations[index] for index in indices)


def sample_scene(
    seed: int,
    combination: Combination | None = None,
    concept: str = "",
    excluded: frozenset[Combination] = frozenset(),
) -> Scene:
    """Return a scene by chance.

    Args:
        seed: Decides everything that the other arguments leave open.
        combination: Its thing, colour, place and style; by chance if None.
        concept: A demo's concept, which has a thing and a colour of its own.
        excluded: Combinations that chance must not choose.
    """
    rng = np.random.default_rng([7, seed])
    while True:
        sampled = tuple(
            str(names[rng.integers(len(names))])
            for names in (THING_NAMES, COLOUR_NAMES, PLACE_NAMES, STYLE_NAMES)
        )
        thing, colour, place, style = combination or sampled
        if combination or (thing, colour, place, style) not in excluded:
            break
    if concept:
        thing = CONCEPTS[concept][0]
        colour = "white"
    time = "night"
    if place != NIGHT_PLACE:
        time = str(rng.choice(list(SKY_LCH_BY_TIME), p=[0.5, 0.3, 0.2]))
    return Scene(
        thing=thing,
        colour=colour,
        place=place,
        style=style,
        time=time,
        side=int(rng.integers(-1, 2)),
        size=float(rng.uniform(0.205, 0.275)),
        seed=seed,
        concept=concept,
    )


def build_polygons(scene: Scene) -> tuple[list[Polygon], list[Polygon]]:
    """Return the polygons of the ground and of the thing, back to front, in image coordinates.

    Coordinates run from 0 to 1, y down. Chance is drawn in the order of the stages.
    """
    rng = np.random.default_rng([11, scene.seed])
    # 1. The ground
    free_side = -scene.side or int(rng.choice([-1, 1]))
    sky_hue, sky_chroma = SKY_LCH_BY_TIME.get(scene.time, SKY_LCH_BY_TIME["day"])
    backdrop = Backdrop(
        tone=get_ground_tone(scene.colour, scene.place == NIGHT_PLACE),
        sky=(sky_hue + float(rng.uniform(-6, 6)), sky_chroma),
        horizon=float(rng.uniform(0.5, 0.56)),
        free_side=free_side,
    )
    ground = PLACE_BUILDERS[scene.place](backdrop, rng)
    # 2. Where the thing stands or hovers
    x = 0.5 + 0.17 * scene.side - 0.03 * free_side + float(rng.uniform(-0.02, 0.02))
    level = int(rng.integers(-1, 2))
    if scene.place == NIGHT_PLACE:
        y = 0.5 + 0.1 * level + float(rng.uniform(-0.02, 0.02))
    elif scene.thing in SKY_THINGS:
        y = 0.36 + 0.05 * level + float(rng.uniform(-0.02, 0.02))
    else:
        y = 0.83 + 0.04 * level + float(rng.uniform(-0.01, 0.01)) - scene.size
    # 3. The thing, mirrored by chance, tilted, scaled and put there
    shades = make_shades(*sample_thing_lch(scene.colour, rng))
    builder = CONCEPTS[scene.concept][1] if scene.concept else THING_BUILDERS[scene.thing]
    tilt = float(rng.uniform(-0.1, 0.1)) * (2.0 if scene.thing in SKY_THINGS else 0.6)
    rotation = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    mirror = np.array([1.0 if scene.concept or rng.random() < 0.5 else -1.0, 1.0])
    position = np.array([x, y])
    thing = []
    for part in builder(shades):
        points = (part.points * mirror) @ rotation * scene.size + position
        thing.append(Polygon(points, part.colour))
    return ground, thing


def render_scene(scene: Scene, scale: int = 1) -> np.ndarray:
    """Return the image of a scene: (128 * scale, 128 * scale, 3), uint8."""
    ground, thing = build_polygons(scene)
    grounded = scene.place != NIGHT_PLACE and scene.thing not in SKY_THINGS
    rng = np.random.default_rng([13, scene.seed])
    pixels = STYLE_RENDERERS[scene.style](ground, thing, rng, grounded, scale)
    return np.asarray(np.clip(pixels + 0.5, 0, 255), np.uint8)
