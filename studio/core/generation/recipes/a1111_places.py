"""Where A1111's text stands in a file: its own places, and those where other programs move it.

Knows: the order of places, when a text in a foreign place is recognisably A1111's. Does not know:
how texts come out of files (imaging/image_metadata.py), what they say (a1111.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from studio.core.generation.recipes.a1111_text import MAX_TEXT_CHARS, split_text
from studio.core.generation.recipes.recipe import ImageMetadata
from studio.core.generation.recipes.xmp import list_texts

MAX_MOVED_TEXTS = 100
# Programs that copy a picture move its text to a description or a caption.
_MARK = "Steps:"


def find_text(metadata: ImageMetadata) -> str:
    """Return the first text of an image that can be read as A1111's; empty where none can."""
    for text in _list_own_places(metadata):
        if text and _can_be_split(text):
            return text
    for number, text in enumerate(_list_other_places(metadata)):
        if number >= MAX_MOVED_TEXTS:
            break
        if _MARK in text and _can_be_split(text, needs_settings=True):
            return text
    return ""


def _list_own_places(metadata: ImageMetadata) -> tuple[str, ...]:
    return (
        metadata.chunks.get("parameters", ""),
        metadata.user_comment,
        metadata.comment,
        metadata.exif.get("ImageDescription", ""),
        metadata.hidden,
        metadata.chunks.get("Comment", ""),
        metadata.sidecars.get(".txt", ""),
    )


def _list_other_places(metadata: ImageMetadata) -> Iterator[str]:
    yield from metadata.chunks.values()
    yield from metadata.exif.values()
    yield from metadata.iptc.values()
    yield from list_texts(metadata.xmp)


def _can_be_split(text: str, *, needs_settings: bool = False) -> bool:
    if len(text) > MAX_TEXT_CHARS:
        return False
    try:
        split = split_text(text)
    except ValueError:
        return False
    return split.has_settings or not needs_settings
