"""The settings that an image file, or a text alone, carries, whoever made it.

Knows: where in a file they may be, in which order it is looked. Does not know: the gallery; how a
program writes its settings (core/generation/recipes).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from studio.core.base import validate
from studio.core.generation.recipes import sources
from studio.core.generation.recipes.recipe import NothingFound, Recipe
from studio.core.generation.request import GenerationRequest
from studio.errors import BadPicture, InvalidSpec
from studio.imaging import decode
from studio.imaging.image_metadata import (
    SIDECAR_SUFFIXES,
    read_image_metadata,
    read_text_file,
    wrap_text,
)


def read_image_settings(
    path: Path, name: str = "", max_pixels: int | None = None, *, with_sidecars: bool = False
) -> Recipe:
    """Return the settings that an image file carries, whoever made it.

    Pixels are decoded only where its texts hold none: for what may be hidden in them.

    Args:
        path: The file; also a text or JSON alone.
        name: What errors call it, where that is not the file's name.
        max_pixels: How many a guest's may have; None where the owner brought it.
        with_sidecars: Whether files of the same name beside it count; only for the owner's paths.

    Raises:
        BadPicture: It is no image, or carries no settings.
    """
    name = name or path.name
    if Path(name).suffix.lower() in SIDECAR_SUFFIXES:
        return read_text_settings(_read_text(path, name), name)
    metadata = read_image_metadata(path, name, with_sidecars=with_sidecars)
    try:
        return sources.read_recipe(metadata)
    except ValueError as error:
        sentence = _explain_unread(name, error)
    with decode.take_turn_for(path, max_pixels):
        hidden = read_image_metadata(path, name, with_hidden=True, max_pixels=max_pixels).hidden
    if hidden:
        with suppress(ValueError):
            return sources.read_recipe(replace(metadata, hidden=hidden))
    raise BadPicture(sentence)


def read_text_settings(text: str, name: str = "the text") -> Recipe:
    """Return the settings in a text alone, pasted or of a file. Raises BadPicture."""
    try:
        return sources.read_recipe(wrap_text(text))
    except ValueError as error:
        raise BadPicture(_explain_unread(name, error)) from None


def _explain_unread(name: str, error: ValueError) -> str:
    """Return a sentence on a file whose settings cannot be read, or that holds none."""
    if isinstance(error, NothingFound):
        return f"No generation settings found in {name}."
    return f"The settings in {name} cannot be read: {error}"


def _read_text(path: Path, name: str) -> str:
    try:
        return read_text_file(path)
    except OSError as error:
        raise BadPicture(f"{name} cannot be read ({error.strerror or error}).") from None


def read_request(
    path: Path, name: str = "", max_pixels: int | None = None
) -> GenerationRequest | None:
    """Return the request that an image file was made from; None where it does not carry one.

    Args:
        path: The file.
        name: What it is called, where that is not the file's name.
        max_pixels: How many a guest's may have; None where the owner brought it.
    """
    try:
        return validate(GenerationRequest, read_image_settings(path, name, max_pixels).values)
    except (BadPicture, InvalidSpec):
        return None
