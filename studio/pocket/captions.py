"""Captions of scenes, in many forms, and the way back from a caption to what it names.

Knows: how each attribute is said; that a caption names only what can be seen.
Does not know: pixels, tokens.
"""

from collections.abc import Iterable

import numpy as np

from studio.engine.evaluation.scenes import STYLE_OPENINGS
from studio.pocket.world import COLOUR_NAMES, PLACE_NAMES, STYLE_NAMES, THING_NAMES, Scene

# style -> its openings, the usual one first and twice, so that it is sampled more often
OPENINGS: dict[str, tuple[str, ...]] = {
    "photo": (STYLE_OPENINGS["photo"], STYLE_OPENINGS["photo"], "a photograph of"),
    "watercolor painting": (
        STYLE_OPENINGS["watercolor painting"],
        STYLE_OPENINGS["watercolor painting"],
        "a watercolor of",
    ),
    "pixel art": (STYLE_OPENINGS["pixel art"], "a pixel art of", "a pixel art picture of"),
    "cartoon": (STYLE_OPENINGS["cartoon"], STYLE_OPENINGS["cartoon"], "a cartoon drawing of"),
}
SIDE_PHRASES = {-1: "on the left", 0: "in the middle", 1: "on the right"}
TIME_PHRASES = {"day": "by day", "sunset": "at sunset", "dusk": "at dusk"}
# Between these sizes a thing is neither plainly big nor plainly small, and no caption says so.
BIG_MIN_SIZE = 0.257
SMALL_MAX_SIZE = 0.223
OUTDOOR_PLACES = frozenset(PLACE_NAMES) - {"in the night sky", "on a wooden floor"}


def add_article(phrase: str) -> str:
    """Return the phrase with "a" or "an" before it."""
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def get_thing_name(scene: Scene) -> str:
    """Return the name of a scene's thing: a demo's token stands before its class."""
    return f"mysks {scene.thing}" if scene.concept == "mysks" else scene.thing


def format_full_caption(scene: Scene) -> str:
    """Return the plain caption with all four attributes: "a photo of a red ball on a beach"."""
    noun = f"{scene.colour} {get_thing_name(scene)}"
    return f"{OPENINGS[scene.style][0]} {add_article(noun)} {scene.place}"


def get_size_word(scene: Scene) -> str:
    """Return "big" or "small" where a scene's thing is plainly so, else ""."""
    if scene.size >= BIG_MIN_SIZE:
        return "big"
    return "small" if scene.size <= SMALL_MAX_SIZE else ""


def _add_optional_details(scene: Scene, noun: str, rng: np.random.Generator) -> tuple[str, str]:
    """Return the noun with its size, and words for side and time of day, each by chance.

    Only what can be seen is named.
    """
    tail = ""
    if rng.random() < 0.5:
        noun = f"{get_size_word(scene)} {noun}".strip()
    if rng.random() < 0.5:
        tail += f" {SIDE_PHRASES[scene.side]}"
    if rng.random() < 0.5 and scene.place in OUTDOOR_PLACES:
        tail += f" {TIME_PHRASES[scene.time]}"
    return noun, tail


def sample_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Return one of many captions of a scene.

    It is full, has details, is reordered, a list of tags, or leaves an attribute out.
    """
    name = get_thing_name(scene)
    noun = f"{scene.colour} {name}"
    place = scene.place
    opening = str(rng.choice(OPENINGS[scene.style]))
    form = rng.random()
    if form < 0.52:
        return f"{opening} {add_article(noun)} {place}"
    if form < 0.68:
        noun, tail = _add_optional_details(scene, noun, rng)
        return f"{opening} {add_article(noun)} {place}{tail}"
    if form < 0.75:
        return f"{add_article(noun)} {place}, {scene.style}"
    if form < 0.80:
        return f"{place}, {add_article(noun)}, {scene.style}"
    if form < 0.86:
        tags = [scene.style, noun, _strip_preposition(place)]
        return ", ".join(tags[k] for k in rng.permutation(3))
    if form < 0.90:
        return f"{opening} {add_article(noun)}"
    if form < 0.94:
        return f"{add_article(noun)} {place}"
    if form < 0.97:
        return f"{opening} {add_article(name)} {place}"
    rare_forms = [noun, f"{add_article(name)}, {scene.style}", f"{scene.style}, {place}"]
    return rare_forms[int(rng.integers(3))]


def _strip_preposition(place: str) -> str:
    """Return the noun of a place: "beach" for "on a beach"."""
    return place.split(" ", 1)[1].removeprefix("a ").removeprefix("the ")


def parse_caption(text: str) -> tuple[str, str, str, str]:
    """Return the thing, colour, place and style that a caption names; "" for what it does not."""
    words = f" {text.lower()} ".replace(",", " ")
    place_nouns = {place: _strip_preposition(place) for place in PLACE_NAMES}
    place = _find_first(PLACE_NAMES, (f" {noun} " in words for noun in place_nouns.values()))
    # The place's own words name no thing: "in a flower field" has no flower.
    words = words.replace(place_nouns.get(place, " "), " ")
    thing = _find_first(THING_NAMES, (f" {name} " in words for name in THING_NAMES))
    colour = _find_first(COLOUR_NAMES, (f" {name} " in words for name in COLOUR_NAMES))
    style = _find_first(STYLE_NAMES, (f" {name.split()[0]}" in words for name in STYLE_NAMES))
    return thing, colour, place, style


def _find_first(names: Iterable[str], matches: Iterable[bool]) -> str:
    """Return the first name that matches, else ""."""
    return next((name for name, is_match in zip(names, matches) if is_match), "")
