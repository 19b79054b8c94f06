"""The words of the embedded model's world that a report's prompts and verdicts are made of.

Knows: the styles with the opening words of a prompt, and the places.
Does not know: how a scene is drawn or captioned (pocket/, which takes its own names from here), the
judge's network (judge.py).
"""

from __future__ import annotations

# style -> the words that a prompt in this style opens with
STYLE_OPENINGS: dict[str, str] = {
    "photo": "a photo of",
    "watercolor painting": "a watercolor painting of",
    "pixel art": "pixel art of",
    "cartoon": "a cartoon of",
}
STYLE_NAMES: tuple[str, ...] = tuple(STYLE_OPENINGS)
PLACE_NAMES: tuple[str, ...] = (
    "in the night sky",
    "in a snowy landscape",
    "by a lake",
    "in a desert",
    "in a flower field",
    "on a wooden floor",
    "on a beach",
    "in a city",
)
