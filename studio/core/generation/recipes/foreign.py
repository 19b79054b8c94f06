"""What another program's recipe may not bring along: somebody's folders, pictures of this home.

Knows: which fields name pictures of a home, where a recipe holds text. Does not know: any program.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from studio.core.generation.recipes.file_names import hide_paths
from studio.core.generation.recipes.recipe import Recipe

OWN_PROGRAM = "studio"
# By their sha256. What a foreign text says there is a name of that program's, or a guess at ours.
INPUT_FIELDS = ("image", "mask")
_NOTES_BY_FIELD = {
    "image": "It was made from another image, which is not in the file; add it yourself.",
    "mask": "Only a masked part was painted, and the mask is not in the file; paint it yourself.",
}
_PROMPT_FIELDS = ("prompt", "negative_prompt")


def clean_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe without folders of whoever made the picture, and without inputs.

    Our own stay as they are: their inputs are this home's, and they hold no paths.
    """
    if recipe.program == OWN_PROGRAM:
        return recipe
    values = {name: value for name, value in recipe.values.items() if name not in INPUT_FIELDS}
    notes = list(recipe.notes)
    for name in INPUT_FIELDS:
        note = _NOTES_BY_FIELD[name]
        is_noted = any(note.partition(",")[0] in other for other in notes)
        notes += [note] if recipe.values.get(name) and not is_noted else []
    cleaned = _hide_all(values)
    if any(cleaned.get(name) != values.get(name) for name in _PROMPT_FIELDS):
        notes.append("A prompt contained folder names from somebody's machine; they are left out.")
    return replace(
        recipe,
        values=cleaned,
        files=[replace(file, name=hide_paths(file.name)) for file in recipe.files],
        notes=list(dict.fromkeys(map(hide_paths, notes))),
        text=hide_paths(recipe.text),
        choices=[(hide_paths(title), clean_recipe(choice)) for title, choice in recipe.choices],
    )


def _hide_all(value: Any) -> Any:
    """Return a value with folders cut from all texts in it."""
    if isinstance(value, str):
        return hide_paths(value)
    if isinstance(value, dict):
        return {name: _hide_all(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_hide_all(inner) for inner in value)
    return value
