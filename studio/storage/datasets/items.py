"""Pictures of an album as they are shown: one, a page of them, how many there are, in which order.

Knows: what a picture of a dataset is known by. Does not know: where captions stand and how they are changed (rewrite.py, album.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from studio.core.captions.edits import Row
from studio.core.captions.text import folded
from studio.errors import InvalidSpec
from studio.storage.datasets import caption_files
from studio.storage.datasets.image_index import Look
from studio.storage.datasets.layout import Entry, Layout

Order = Literal["name", "caption", "length", "size", "repeats"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of an album. `key` is its path below the folder, with "/"; it is what edits, pages and endpoints call it.

    `size` is (width, height) of the upright picture in pixels; `content` is the sha256 of its file, empty until it was examined;
    `fault` says why its caption cannot be read, `reason` why the picture itself cannot be used: both go on after a file's name.
    """

    key: str
    path: Path
    caption: str
    entry: Entry
    look: Look

    @property
    def size(self) -> tuple[int, int]:
        return self.look.size

    @property
    def bytes(self) -> int:
        return self.look.bytes

    @property
    def content(self) -> str:
        return self.look.content

    @property
    def fault(self) -> str:
        return self.entry.fault

    @property
    def reason(self) -> str:
        return self.look.reason

    @property
    def captioned(self) -> bool:
        return bool(self.caption)


@dataclass(frozen=True)
class Page:
    """Some pictures of those that a filter lets through, and how many those are."""

    pictures: tuple[Picture, ...]
    total: int
    offset: int


@dataclass(frozen=True)
class Counts:
    """What was found. `unseen` are pictures that have not been examined: they may still turn out broken or repeated."""

    pictures: int
    captioned: int
    broken: int
    unseen: int
    layout: Layout
    repeats: Mapping[str, int]


def row(picture: Picture, tokens: int = 0) -> Row:
    """A picture as edits, filters and lint see it."""
    entry, data = picture.entry, picture.entry.place.data
    below = (
        caption_files.below(data)
        if data and not entry.fault and (b"\n" in data[:-1] or b"\r" in data[:-1])
        else ""
    )
    return Row(
        picture.key,
        picture.caption,
        entry.concept,
        entry.repeats,
        *picture.size,
        picture.bytes,
        picture.content,
        tokens,
        below,
        entry.fault,
        picture.reason,
        entry.caption is not None,
    )


def in_order(pictures: list[Picture], order: Order, reverse: bool) -> list[Picture]:
    """By that order, those alike by name."""
    keys: dict[Order, Callable[[Picture], Any]] = {
        "name": lambda picture: (),
        "caption": lambda picture: folded(picture.caption),
        "length": lambda picture: len(picture.caption),
        "size": lambda picture: picture.size[0] * picture.size[1],
        "repeats": lambda picture: picture.entry.repeats,
    }
    if order not in keys:
        raise InvalidSpec([f"Sort: has to be one of {', '.join(keys)} (not {order!r:.40})."])
    if order == "name":
        return pictures[::-1] if reverse else pictures  # they are by name
    return sorted(pictures, key=keys[order], reverse=reverse)


def unnameable(key: str) -> str:
    """Why a name cannot be written down in a journal, a card or a page; usually empty."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return "has a name that is not written in UTF-8; rename it."
    return (
        "has a line break in its name; rename it."
        if any(ord(letter) < 32 for letter in key)
        else ""
    )
