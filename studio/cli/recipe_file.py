"""`studio generate --from FILE`: the settings of a picture as flags.

Knows: files, what is said of what cannot be taken. Does not know: how a file is read, how images
are made.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.cli.runner import log
from studio.core.catalog import DEFAULT_MODEL
from studio.core.generation.recipes.note_words import list_names
from studio.core.generation.recipes.recipe import Recipe
from studio.core.generation.request import GenerationRequest
from studio.core.valid_values import merge_valid
from studio.errors import BadFile, StudioError
from studio.services.recipe_files import look_up_files
from studio.storage import gallery
from studio.storage.home import Home


def read_recipe_values(home: Home, path: Path, number: int, model_name: str = "") -> dict[str, Any]:
    """Return the values of a request that a file holds, by what is here; the rest is logged.

    Args:
        home: Whose library is looked up.
        path: A picture, or a text or JSON alone.
        number: Which of several recipes in it, counted from 1; 0 takes the file's main one.
        model_name: The model that paints instead of the file's; empty for none.

    Raises:
        BadFile: It is not there, has no such recipe, or was made from a picture that is not here.
        BadPicture: There are no settings in it.
    """
    if not path.is_file():
        raise BadFile(f"There is no file {path}.")
    recipe = _choose(gallery.read_image_settings(path, with_sidecars=True), number, path.name)
    if model_name:
        recipe = _leave_model_out(recipe)
    recipe, _ = look_up_files(home.library, recipe, model_name or DEFAULT_MODEL)
    accepted, faults = merge_valid(GenerationRequest, {}, {**recipe.defaults, **recipe.values})
    log(f"{path.name} was made with {recipe.program}.")
    for note in (*recipe.notes, *faults):
        log(note)
    for name in ("image", "mask"):
        _check_input(home, str(accepted.get(name, "")), path.name)
    return accepted


def _leave_model_out(recipe: Recipe) -> Recipe:
    values = {name: value for name, value in recipe.values.items() if name != "model"}
    return replace(recipe, values=values, files=[f for f in recipe.files if f.kind != "model"])


def _choose(recipe: Recipe, number: int, name: str) -> Recipe:
    """Return one of the recipes in a file. Raises BadFile for a number that it does not have."""
    titles = [title for title, _ in recipe.choices]
    if number > len(titles) or number < 0:
        raise BadFile(
            f"{name} contains {len(titles)} recipes to choose from: {list_names(titles)}."
            if titles
            else f"{name} contains only one recipe; leave out --recipe."
        )
    if titles and not number:
        listed = list_names(f"{index} {title}" for index, title in enumerate(titles, 1))
        log(f"{name} contains {len(titles)} recipes; choose another with --recipe: {listed}.")
    return recipe.choices[number - 1][1] if number else recipe


def _check_input(home: Home, sha256: str, name: str) -> None:
    """Raise BadFile for a picture that a recipe works on and that this home does not have."""
    try:
        if sha256:
            home.inputs.get_path(sha256)
    except StudioError:
        raise BadFile(
            f"{name} was made from another image, which is not in this home; pass it with --image."
        ) from None
