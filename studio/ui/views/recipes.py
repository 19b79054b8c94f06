"""A recipe as HTML: who made the picture, what was taken, what was not or differs.

Knows: how settings read in a line (templates/recipes.html). Does not know: gradio, how a recipe was
read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studio.core.generation.recipes.file_names import hide_paths
from studio.core.generation.recipes.note_words import list_names, shorten
from studio.core.generation.request import GenerationRequest
from studio.ui.views.templates import render_macro

MAX_NOTES = 30
MAX_VALUE_CHARS = 40
_LONG_FIELDS = ("prompt", "negative_prompt", "image", "mask")


def render_recipe(
    program: str,
    taken: Mapping[str, Any],
    notes: Sequence[str],
    *,
    titles: Sequence[str] = (),
    handed: str = "",
    unsaid: Sequence[str] = (),
) -> str:
    """Render what became of a picture's settings.

    Args:
        program: Who made it.
        taken: What was filled in, by field.
        notes: A sentence for each thing that was not taken, or will differ.
        titles: Of the recipes to choose from, where there are several.
        handed: The values as JSON, for the button that varies them; empty for none.
        unsaid: Fields that the recipe does not name and that were set to their defaults.
    """
    heading = "Made here" if program == "studio" else f"Made with {program}"
    return render_macro(
        "recipes.html",
        "recipe",
        heading=heading,
        taken=" · ".join(_describe(name, value) for name, value in taken.items()),
        notes=[hide_paths(note) for note in notes[:MAX_NOTES]],
        num_more=max(0, len(notes) - MAX_NOTES),
        titles=list(titles),
        handed=handed,
        unsaid=", ".join(_get_title(name) for name in unsaid),
    )


def _describe(name: str, value: Any) -> str:
    """Return a setting in a few words."""
    title = _get_title(name)
    if name in _LONG_FIELDS:
        return f"{title} (empty)" if value == "" else title
    if name == "loras":
        names = list_names(use.get("name", "") for use in value if isinstance(use, dict))
        return f"{title} {names or '(none)'}"
    return f"{title} {shorten(str(value), MAX_VALUE_CHARS) or '(none)'}"


def _get_title(name: str) -> str:
    return GenerationRequest.model_fields[name].title or name
