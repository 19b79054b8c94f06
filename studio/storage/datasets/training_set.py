"""A dataset as a training sees it: pictures that can be used, each with its caption and how often it counts.

Knows: the shelf of datasets; which files cannot be used, and why. Does not know: torch, buckets, what is trained; how captions are
changed (album.py); it changes nothing on disk. How a folder may be laid out is said in layout.py.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from studio.errors import DatasetError
from studio.settings import Settings, shipped
from studio.storage.datasets import filesystem, layout
from studio.storage.datasets.caption_files import shown
from studio.storage.datasets.image_index import Looks
from studio.storage.datasets.layout import Layout


@dataclass(frozen=True)
class Item:
    """A picture that can be trained on; `content` is the sha256 of its file, width and height those of the upright picture."""

    path: Path
    caption: str
    repeats: int
    concept: str
    width: int
    height: int
    content: str


@dataclass(frozen=True)
class Dataset:
    """What was found in a folder. `broken` names what cannot be used and why, `notes` say what its owner should know."""

    name: str
    folder: Path
    items: tuple[Item, ...]
    broken: tuple[tuple[str, str], ...]
    layout: Layout
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Pictures an epoch: each as often as it is repeated."""
        return sum(item.repeats for item in self.items)

    @property
    def content(self) -> str:
        """sha256 over all that a training sees of it, whatever files and folders are called."""
        rows = sorted([item.content, item.caption, item.repeats] for item in self.items)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def tag_frequency(self) -> dict[str, dict[str, int]]:
        """How often each tag stands in the captions, by folder: kohya's `ss_tag_frequency`."""
        found: dict[str, Counter[str]] = {}
        for item in self.items:
            tags = (tag.strip().lower() for tag in item.caption.split(","))
            found.setdefault(shown(item.path.parent.name), Counter()).update(
                tag for tag in tags if tag
            )
        return {folder: dict(tags.most_common()) for folder, tags in found.items()}


class Datasets:
    """The shelf: folders in home/datasets, and the shipped ones. It remembers pictures that have not changed."""

    def __init__(self, settings: Settings) -> None:
        self.own = settings.home / "datasets"
        self._folders = (self.own, shipped("assets") / "datasets")
        self._looks = Looks(settings)

    def names(self) -> list[str]:
        """All datasets; the home's own come first and hide a shipped one of the same name."""
        return list(self._found())

    def folder(self, name: str) -> Path:
        """Where a dataset lies. Raises DatasetError, which names the nearest, for one that is not there."""
        every = self._found()
        if name not in every:
            near = difflib.get_close_matches(name, every, 3, 0.4) or list(every)[:5]
            raise DatasetError(
                f"There is no dataset {name!r:.80} in home/datasets; there is {', '.join(near) or 'none'}."
            )
        return every[name]

    def open(self, name: str) -> Dataset:
        """Read one. Raises what `folder` raises, and DatasetError where there is nothing to train on."""
        return read(self.folder(name), name, self._looks)

    def _found(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for folder in self._folders:
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if path.is_dir() and not path.name.startswith("."):
                    found.setdefault(shown(path.name), path)
        return found


def read(folder: Path, name: str = "", looks: Looks | None = None) -> Dataset:
    """Read a folder. `looks` remembers pictures from call to call. Raises DatasetError if there is nothing to train on."""
    found = layout.walk(folder)
    items: list[Item] = []
    for entry, look in zip(
        found.entries, (looks or Looks()).of([entry.path for entry in found.entries])
    ):
        if look.reason or entry.fault:
            found.broken.append((found.name(entry.path), look.reason or entry.fault))
            continue
        caption = entry.concept if entry.caption is None else entry.caption
        items.append(
            Item(entry.path, caption, entry.repeats, entry.concept, *look.size, look.content)
        )
        found.notes += look.notes
    if not items:
        raise DatasetError(nothing(folder, found.broken))
    found.notes += _about(items)
    return Dataset(
        name or shown(folder.name),
        folder,
        tuple(items),
        tuple(found.broken),
        found.layout,
        tuple(found.notes),
    )


def _about(items: list[Item]) -> list[str]:
    """What is worth knowing about the pictures as a whole."""
    notes = []
    bare = [item for item in items if not item.caption]
    if bare:
        notes.append(
            f"{len(bare)} of {len(items)} pictures have no caption, such as {shown(bare[0].path.name)}."
        )
    first: dict[str, Item] = {}
    for item in items:
        if item.content in first:
            notes.append(
                f"{shown(item.path.name)} is the same picture as {shown(first[item.content].path.name)}."
            )
        first.setdefault(item.content, item)
    return notes


def nothing(folder: Path, broken: list[tuple[str, str]]) -> str:
    """Why a folder gives nothing to train on, and where to look."""
    if broken:
        reasons = " ".join(f"{file} {reason}" for file, reason in broken[:3])
        return f"None of the pictures in {shown(str(folder))} can be used. {reasons}"
    inner = [one for one in filesystem.listing(folder) if filesystem.is_dir(one)]
    below = [
        one
        for one in inner
        if any(
            filesystem.ending(child.name) in layout.TAKEN or layout.repeats_and_concept(child.name)
            for child in filesystem.listing(Path(one.path))
        )
    ]
    hint = (
        f" Choose its folder {shown(below[0].name)} instead."
        if below
        else " Put PNG, JPEG, WebP or BMP files into it."
    )
    return f"There are no pictures in {shown(str(folder))}.{hint}"
