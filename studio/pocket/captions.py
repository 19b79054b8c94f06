"""Captions of scenes, in many forms, and the way back from a caption to what it names.

Knows: how each attribute is said; that a caption names only what can be seen. Does not know: pixels, tokens.
"""

import numpy as np

from studio.pocket.world import COLOUR_NAMES, PLACE_NAMES, STYLE_NAMES, THING_NAMES, Scene

OPENINGS: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of", "a photo of", "a photograph of"),
    "watercolor painting": (
        "a watercolor painting of",
        "a watercolor painting of",
        "a watercolor of",
    ),
    "pixel art": ("pixel art of", "a pixel art of", "a pixel art picture of"),
    "cartoon": ("a cartoon of", "a cartoon of", "a cartoon drawing of"),
}
SIDES = {-1: "on the left", 0: "in the middle", 1: "on the right"}
TIMES = {"day": "by day", "sunset": "at sunset", "dusk": "at dusk"}
BIG, SMALL = 0.257, 0.223
OUTSIDE = frozenset(PLACE_NAMES) - {"in the night sky", "on a wooden floor"}


def article(words: str) -> str:
    """The words with a or an before them."""
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def name_of(scene: Scene) -> str:
    """What the thing is called: a demo's token goes before its class."""
    return f"mysks {scene.thing}" if scene.concept == "mysks" else scene.thing


def full(scene: Scene) -> str:
    """The plain caption with all four attributes: "a photo of a red ball on a beach"."""
    return f"{OPENINGS[scene.style][0]} {article(f'{scene.colour} {name_of(scene)}')} {scene.place}"


def _extras(scene: Scene, noun: str, rng: np.random.Generator) -> tuple[str, str]:
    """The noun with its size, and words for side and time of day, each by chance and only where it can be seen."""
    tail = ""
    if rng.random() < 0.5 and not BIG > scene.size > SMALL:
        noun = f"{'big' if scene.size >= BIG else 'small'} {noun}"
    if rng.random() < 0.5:
        tail += f" {SIDES[scene.side]}"
    if rng.random() < 0.5 and scene.place in OUTSIDE:
        tail += f" {TIMES[scene.time]}"
    return noun, tail


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One of many ways to say what a scene shows: full, with more, reordered, as tags, or with a part left out."""
    noun, name, place = f"{scene.colour} {name_of(scene)}", name_of(scene), scene.place
    opening = str(rng.choice(OPENINGS[scene.style]))
    form = rng.random()
    if form < 0.52:
        return f"{opening} {article(noun)} {place}"
    if form < 0.68:
        noun, tail = _extras(scene, noun, rng)
        return f"{opening} {article(noun)} {place}{tail}"
    if form < 0.75:
        return f"{article(noun)} {place}, {scene.style}"
    if form < 0.80:
        return f"{place}, {article(noun)}, {scene.style}"
    if form < 0.86:
        tags = [scene.style, noun, place.split(" ", 1)[1].removeprefix("a ").removeprefix("the ")]
        return ", ".join(tags[k] for k in rng.permutation(3))
    if form < 0.90:
        return f"{opening} {article(noun)}"
    if form < 0.94:
        return f"{article(noun)} {place}"
    if form < 0.97:
        return f"{opening} {article(name)} {place}"
    return [noun, f"{article(name)}, {scene.style}", f"{scene.style}, {place}"][
        int(rng.integers(3))
    ]


def read(text: str) -> tuple[str, str, str, str]:
    """The thing, colour, place and style that a caption names; "" for what it does not name."""
    words = f" {text.lower()} ".replace(",", " ")
    places = {
        place: place.split(" ", 1)[1].removeprefix("a ").removeprefix("the ")
        for place in PLACE_NAMES
    }
    place = next((place for place, key in places.items() if f" {key} " in words), "")
    words = words.replace(places.get(place, " "), " ")
    thing, colour = (
        next((name for name in names if f" {name} " in words), "")
        for names in (THING_NAMES, COLOUR_NAMES)
    )
    return (
        thing,
        colour,
        place,
        next((style for style in STYLE_NAMES if f" {style.split()[0]}" in words), ""),
    )
