"""A folder of pictures with captions, as trainers lay it out.

Knows: captions beside pictures, metadata.jsonl and metadata.csv, kohya's `N_concept` folders; which files cannot be used, and
why. Does not know: torch, buckets, what is trained; it changes nothing on disk.

    moon/009.png + 009.txt or .caption        flat: each picture counts once
    moon/metadata.jsonl (or .csv)             metadata: {"file_name": "009.png", "text": "a photo of …"} a line
    img/10_moon/…, img/5_mysks toy/…          kohya: each picture counts 10 times (5 times) an epoch; "moon" is the caption of
    10_moon/…                                 kohya: … pictures that have no caption file; the folder itself may be the choice

Nothing is followed out of the folder. A caption is the first line of its file.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from studio.errors import BadPicture, DatasetError
from studio.settings import Settings, shipped
from studio.store import captions, images
from studio.store.captions import shown

Layout = Literal["flat", "metadata", "kohya"]
TAKEN = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
OTHERS = (".gif", ".tif", ".tiff", ".avif", ".heic", ".jxl", ".psd", ".svg")
CAPTIONS = (".txt", ".caption")  # the first that is there counts
METADATA = ("metadata.jsonl", "metadata.csv")
LEAST_SIDE = 64
MOST_REPEATS = 10_000
AT_ONCE = 4  # pictures that are decoded at the same time


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
            found.setdefault(shown(item.path.parent.name), Counter()).update(tag for tag in tags if tag)
        return {folder: dict(tags.most_common()) for folder, tags in found.items()}


@dataclass(frozen=True)
class _Look:
    """A picture file read once: its size, its hash and notes, or the reason why it cannot be used."""

    size: tuple[int, int] = (0, 0)
    content: str = ""
    notes: tuple[str, ...] = ()
    reason: str = ""


Looks = dict[Path, tuple[tuple[int, int], _Look]]


class Datasets:
    """The shelf: folders in home/datasets, and the shipped ones. It remembers pictures that have not changed."""

    def __init__(self, settings: Settings) -> None:
        self._folders = (settings.home / "datasets", shipped("assets") / "datasets")
        self._looks: Looks = {}

    def names(self) -> list[str]:
        """All datasets; the home's own come first and hide a shipped one of the same name."""
        return list(self._found())

    def folder(self, name: str) -> Path:
        """Where a dataset of `names` lies."""
        return self._found()[name]

    def open(self, name: str) -> Dataset:
        """Read one. Raises DatasetError, which names the nearest, or says what is wrong with the folder."""
        every = self._found()
        if name not in every:
            near = difflib.get_close_matches(name, every, 3, 0.4) or list(every)[:5]
            raise DatasetError(f"There is no dataset {name!r:.80} in home/datasets; there is {', '.join(near) or 'none'}.")
        return read(every[name], name, self._looks)

    def _found(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for folder in self._folders:
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if path.is_dir() and not path.name.startswith("."):
                    found.setdefault(shown(path.name), path)
        return found


def read(folder: Path, name: str = "", looks: Looks | None = None) -> Dataset:
    """Read a folder. `looks` remembers pictures from call to call. Raises DatasetError if there is nothing to train on."""
    reading = _Reading(folder, looks if looks is not None else {})
    parts, layout = reading.parts()
    items: list[Item] = []
    for part, repeats, concept in parts:
        items += reading.items(part, repeats, concept)
    if not items:
        raise DatasetError(_nothing(folder, reading.broken))
    layout = "metadata" if layout == "flat" and reading.described else layout
    items.sort(key=lambda item: item.path.as_posix())
    reading.notes += _about(items)
    return Dataset(name or shown(folder.name), folder, tuple(items), tuple(reading.broken), layout, tuple(reading.notes))


def repeats_and_concept(folder: str) -> tuple[int, str] | None:
    """`10_moon rock` → (10, "moon rock"), by kohya's rule: a whole number up to the first "_". None for any other name."""
    number, _, concept = folder.partition("_")
    try:
        return int(number), concept
    except ValueError:
        return None


class _Reading:
    """One reading of a folder, and what it meets on the way."""

    def __init__(self, folder: Path, looks: Looks) -> None:
        if not folder.is_dir():
            raise DatasetError(f"There is no folder {shown(str(folder))}; choose one with pictures in it.")
        self.folder, self.root, self.looks = folder, folder.resolve(), looks
        self.broken: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.described = False  # by a metadata file

    def parts(self) -> tuple[list[tuple[Path, int, str]], Layout]:
        """The folders to read, each with its repeats and concept."""
        children = [(path, repeats_and_concept(path.name)) for path in _listing(self.folder) if path.is_dir()]
        parts = [(path, *found) for path, found in children if found and self._can_be(path, found[0])]
        if parts or any(found for _, found in children):
            others = [shown(path.name) for path, found in children if not found]
            loose = sum(path.suffix.lower() in TAKEN for path in _listing(self.folder))
            if others or loose:
                what = [f"{loose} pictures beside them"] * bool(loose) + [f"the folder {other}" for other in others[:5]]
                self.notes.append(f"Only folders named like 10_concept are read; not read: {', '.join(what)}.")
            return parts, "kohya"
        own = repeats_and_concept(self.folder.name) if "_" in self.folder.name else None
        if own and self._can_be(self.folder, own[0]):
            self.notes.append(f"Each picture counts {own[0]} times an epoch, as the folder's name says.")
            return [(self.folder, *own)], "kohya"
        return [(self.folder, 1, "")], "flat"

    def items(self, part: Path, repeats: int, concept: str) -> list[Item]:
        """The pictures of one folder."""
        listing = _listing(part)
        described = self._described(part)
        beside = {path.name.lower(): path for path in listing if path.suffix.lower() in CAPTIONS}
        paths = {path: None for path in listing if path.suffix.lower() in TAKEN} | dict.fromkeys(described)
        self.broken += [(self._name(path), f"is a {path.suffix.lower()} file; save it as PNG, JPEG, WebP or BMP.")
                        for path in listing if path.suffix.lower() in OTHERS]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            looks = list(pool.map(self._looked, paths))
        found = []
        for path, look in zip(paths, looks):
            try:
                if look.reason:
                    raise DatasetError(look.reason)
                caption = described.get(path)
                caption = self._beside(path, beside) if caption is None else caption
                caption = concept if caption is None else caption
                found.append(Item(path, caption, repeats, concept, *look.size, look.content))
                self.notes += look.notes
            except DatasetError as error:
                self.broken.append((self._name(path), str(error)))
        return found

    def _can_be(self, path: Path, repeats: int) -> bool:
        if not self._inside(path):
            self.broken.append((self._name(path), "leads out of the folder; copy the pictures into it."))
        elif not 1 <= repeats <= MOST_REPEATS:
            self.broken.append((self._name(path), f"its name asks for {repeats} repeats; 1 to {MOST_REPEATS:,} can be."))
        else:
            return True
        return False

    def _inside(self, path: Path) -> bool:
        try:
            return path.resolve().is_relative_to(self.root)
        except (OSError, RuntimeError):  # links in a circle
            return False

    def _name(self, path: Path) -> str:
        return shown(path.relative_to(self.folder).as_posix()) if path != self.folder else shown(path.name)

    def _looked(self, path: Path) -> _Look:
        if not self._inside(path):
            return _Look(reason="leads out of the folder; copy the picture into it.")
        try:
            about = path.stat()
        except OSError as error:
            return _Look(reason=f"cannot be read ({error.strerror or error}).")
        stamp = (about.st_size, about.st_mtime_ns)
        if path not in self.looks or self.looks[path][0] != stamp:
            self.looks[path] = stamp, _look(path, about.st_size)
        return self.looks[path][1]

    def _beside(self, path: Path, beside: Mapping[str, Path]) -> str | None:
        """The caption file's first line; None if there is no caption file."""
        file = next((beside[name] for ending in CAPTIONS if (name := f"{path.stem}{ending}".lower()) in beside), None)
        if file is None:
            return None
        if not self._inside(file):
            raise DatasetError(f"its caption {shown(file.name)} leads out of the folder.")
        return captions.first_line(file)

    def _described(self, part: Path) -> dict[Path, str | None]:
        """Pictures that a metadata file names, with their captions (None where it gives none)."""
        file = next((part / name for name in METADATA if (part / name).is_file()), None)
        if file is None:
            return {}
        self.described = True
        found: dict[Path, str | None] = {}
        try:
            if not self._inside(file):
                raise DatasetError("leads out of the folder.")
            for number, row in captions.rows(file):
                try:
                    path, caption = self._row(part, row)
                    if path in found:
                        self.notes.append(f"{self._name(path)} stands twice in {file.name}; its last caption is used.")
                    found[path] = caption
                except DatasetError as error:
                    self.broken.append((self._name(file), f"line {number}: {error}"))
        except DatasetError as error:
            self.broken.append((self._name(file), str(error)))
        return found

    def _row(self, part: Path, row: Any) -> tuple[Path, str | None]:
        inner, caption = captions.entry(row)
        path, name = part.joinpath(*inner.parts), shown(str(inner))
        if path.suffix.lower() not in TAKEN:
            raise DatasetError(f"{name:.80} is no PNG, JPEG, WebP or BMP.")
        if not _is_file(path):
            raise DatasetError(f"{name:.80} is not there.")
        return path, caption


def _listing(folder: Path) -> list[Path]:
    """A folder's entries by name, without hidden ones (which systems put there for themselves)."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"The folder {shown(str(folder))} cannot be read ({error.strerror or error}).") from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long
        return False


def _look(path: Path, size: int) -> _Look:
    """Decode a picture once, from the same bytes that are hashed. The sentence of a refusal goes on after the file's name."""
    name = shown(path.name)
    try:
        if not path.is_file():
            return _Look(reason="is no file.")
        data = path.read_bytes() if size <= images.MOST_BYTES else path
        loaded = images.load(data, name)
    except BadPicture as error:
        return _Look(reason=str(error).removeprefix(f"{name} "))
    except OSError as error:
        return _Look(reason=f"cannot be read ({error.strerror or error}).")
    width, height = loaded.image.size
    if min(width, height) < LEAST_SIDE:
        return _Look(reason=f"is only {width} x {height} pixels large; each side needs {LEAST_SIDE}.")
    assert isinstance(data, bytes)
    return _Look((width, height), hashlib.sha256(data).hexdigest(), loaded.notes)


def _about(items: list[Item]) -> list[str]:
    """What is worth knowing about the pictures as a whole."""
    notes = []
    bare = [item for item in items if not item.caption]
    if bare:
        notes.append(f"{len(bare)} of {len(items)} pictures have no caption, such as {shown(bare[0].path.name)}.")
    first: dict[str, Item] = {}
    for item in items:
        if item.content in first:
            notes.append(f"{shown(item.path.name)} is the same picture as {shown(first[item.content].path.name)}.")
        first.setdefault(item.content, item)
    return notes


def _nothing(folder: Path, broken: list[tuple[str, str]]) -> str:
    """Why a folder gives nothing to train on, and where to look."""
    if broken:
        reasons = " ".join(f"{file} {reason}" for file, reason in broken[:3])
        return f"None of the pictures in {shown(str(folder))} can be used. {reasons}"
    inner = [path for path in _listing(folder) if path.is_dir()]
    below = [path for path in inner if any(child.suffix.lower() in TAKEN or repeats_and_concept(child.name)
                                           for child in _listing(path))]
    hint = f" Choose its folder {shown(below[0].name)} instead." if below else " Put PNG, JPEG, WebP or BMP files into it."
    return f"There are no pictures in {shown(str(folder))}.{hint}"
