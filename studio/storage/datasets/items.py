"""Images of a dataset as they are listed: one, a page of them, their counts, their order.

Knows: what is known of an image of a dataset. Does not know: where captions stand and how they are
changed (edit_planner.py, dataset.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from studio.core.captions.edits import CaptionRow
from studio.core.captions.text import normalize_tag
from studio.errors import InvalidSpec, quote
from studio.storage.datasets import caption_files
from studio.storage.datasets.image_index import ImageInfo
from studio.storage.datasets.layout import ImageEntry, Layout

SortOrder = Literal["name", "caption", "length", "size", "repeats"]


@dataclass(frozen=True, slots=True)
class DatasetImage:
    """An image of a dataset.

    `key` is its path below the folder, with "/"; edits, pages and endpoints name images by it.
    """

    key: str
    path: Path
    caption: str
    entry: ImageEntry
    info: ImageInfo

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright image in pixels."""
        return self.info.size

    @property
    def file_size(self) -> int:
        """Bytes of its file."""
        return self.info.file_size

    @property
    def content_hash(self) -> str:
        """The sha256 of its file; empty until it was examined."""
        return self.info.content_hash

    @property
    def caption_error(self) -> str:
        """Why its caption cannot be read; continues a file's name."""
        return self.entry.caption_error

    @property
    def image_error(self) -> str:
        """Why the image itself cannot be used; continues a file's name."""
        return self.info.image_error

    @property
    def is_captioned(self) -> bool:
        """Whether it has a caption that is not empty."""
        return bool(self.caption)


@dataclass(frozen=True)
class Page:
    """Some of the images that a filter lets through, and how many those are in all."""

    images: tuple[DatasetImage, ...]
    total: int
    offset: int


@dataclass(frozen=True)
class Counts:
    """How many images of which sort a dataset has.

    `unexamined` images may still turn out broken or repeated.
    """

    images: int
    captioned: int
    broken: int
    unexamined: int
    layout: Layout
    repeats: Mapping[str, int]


def to_row(image: DatasetImage, tokens: int = 0) -> CaptionRow:
    """Convert an image to what edits, filters and lint work on.

    Args:
        image: the image.
        tokens: of its caption; 0 where they are not needed.
    """
    entry = image.entry
    width, height = image.size
    return CaptionRow(
        key=image.key,
        caption=image.caption,
        concept=entry.concept,
        repeats=entry.repeats,
        width=width,
        height=height,
        file_size=image.file_size,
        content_hash=image.content_hash,
        token_count=tokens,
        extra_lines=_read_extra_lines(entry),
        caption_error=entry.caption_error,
        image_error=image.image_error,
        has_caption_file=entry.caption is not None,
    )


def sort_images(images: list[DatasetImage], order: SortOrder, reverse: bool) -> list[DatasetImage]:
    """Sort images that are sorted by name; equal ones stay by name.

    Raises:
        InvalidSpec: there is no such order.
    """
    sort_keys: dict[SortOrder, Callable[[DatasetImage], Any]] = {
        "name": lambda _image: (),
        "caption": lambda image: normalize_tag(image.caption),
        "length": lambda image: len(image.caption),
        "size": lambda image: image.size[0] * image.size[1],
        "repeats": lambda image: image.entry.repeats,
    }
    if order not in sort_keys:
        orders = ", ".join(sort_keys)
        raise InvalidSpec([f"Sort: must be one of {orders} (you entered {quote(order)})."])
    if order == "name":
        return images[::-1] if reverse else images
    return sorted(images, key=sort_keys[order], reverse=reverse)


def explain_bad_name(key: str) -> str:
    """Return why a journal, a card or a page cannot hold a name; usually empty."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return "has a name that is not encoded in UTF-8; rename it."
    if any(ord(char) < 32 for char in key):
        return "has a line break in its name; rename it."
    return ""


def _read_extra_lines(entry: ImageEntry) -> str:
    """Return the lines below the first in a caption's own file, as one."""
    data = entry.caption_location.data
    if not data or entry.caption_error:
        return ""
    if b"\n" not in data[:-1] and b"\r" not in data[:-1]:  # as most files: nothing to decode
        return ""
    return caption_files.decode_extra_lines(data)
