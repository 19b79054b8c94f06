"""How a dataset lies in its folder: which pictures, which captions, how often each counts.

Knows: captions beside pictures, metadata.jsonl and metadata.csv, kohya's `N_concept` folders; where each caption stands, so that
it can be changed there. Does not know: what is in the pictures (dataset.py), who changes captions (journal.py).

    moon/009.png + 009.txt or .caption        sidecar: each picture counts once
    moon/metadata.jsonl (or .csv)             metadata: {"file_name": "009.png", "text": "a photo of …"} a line
    img/10_moon/…, img/5_mysks toy/…          kohya: each picture counts 10 times (5 times) an epoch; "moon" is the caption of
    10_moon/…                                 kohya: … pictures that have no caption file; the folder itself may be the choice

Nothing is followed out of the folder. A caption is the first line of its file.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from studio.errors import DatasetError
from studio.storage.datasets import caption_files
from studio.storage.datasets.caption_files import Record, shown
from studio.storage.datasets.filesystem import Fence, ending, is_dir, listing

Layout = Literal["sidecar", "metadata", "kohya"]
TAKEN = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
OTHERS = (".gif", ".tif", ".tiff", ".avif", ".heic", ".jxl", ".psd", ".svg")
CAPTIONS = (".txt", ".caption")  # the first that is there counts
METADATA = ("metadata.jsonl", "metadata.csv")
MOST_REPEATS = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture's caption stands, or would: a file of its own, or a record of a metadata file.

    `data` are the file's bytes as they were read, None where there is no such file yet; a record brings its own text.
    """

    file: Path
    data: bytes | None = None
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture file and its caption; None where it has none, and a `fault` where it cannot be read.

    `key` is its path below the dataset, with "/".
    """

    key: str
    path: Path
    repeats: int
    concept: str
    place: Place
    caption: str | None
    fault: str = ""


@dataclass
class Found:
    """What lies in a folder. `broken` are (file, why it cannot be used), `notes` what its owner should know."""

    folder: Path
    layout: Layout = "sidecar"
    repeats: dict[str, int] = field(default_factory=dict)  # of each folder that is read
    entries: list[Entry] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def name(self, path: Path) -> str:
        """A file's path below the folder, as it can be shown."""
        return (
            shown(path.relative_to(self.folder).as_posix())
            if path != self.folder
            else shown(path.name)
        )


def walk(folder: Path) -> Found:
    """What lies in a folder; pictures are listed by path and not opened. Raises DatasetError if it is none."""
    if not folder.is_dir():
        raise DatasetError(
            f"There is no folder {shown(str(folder))}; choose one with pictures in it."
        )
    walking = _Walk(folder)
    for part, repeats, concept in walking.parts():
        walking.found.repeats["." if part == folder else shown(part.name)] = repeats
        walking.found.entries += walking.entries(part, repeats, concept)
    if walking.described and walking.found.layout == "sidecar":
        walking.found.layout = "metadata"
    walking.found.entries.sort(key=lambda entry: entry.key)
    return walking.found


def repeats_and_concept(folder: str) -> tuple[int, str] | None:
    """`10_moon rock` → (10, "moon rock"), by kohya's rule: a whole number up to the first "_". None for any other name."""
    number, _, concept = folder.partition("_")
    try:
        return int(number), concept
    except ValueError:
        return None


def followed(entries: Sequence[Entry], after: Mapping[Path, bytes | None]) -> list[Entry]:
    """Entries after captions' own files came to hold other bytes (None: are gone)."""
    made = []
    for entry in entries:
        file, caption, fault = entry.place.file, entry.caption, entry.fault
        if file in after:
            try:
                data = after[file]
                caption, fault = (
                    None
                    if data is None
                    else caption_files.first_line(data, f"its caption {shown(file.name)}"),
                    "",
                )
            except DatasetError as error:
                caption, fault = None, str(error)
            entry = replace(
                entry, place=replace(entry.place, data=data), caption=caption, fault=fault
            )
        made.append(entry)
    return made


class _Walk:
    """One walk through a folder, and what it meets on the way."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fence, self.found = folder, Fence(folder), Found(folder)
        self.described = False  # by a metadata file

    def parts(self) -> list[tuple[Path, int, str]]:
        """The folders to read, each with its repeats and concept."""
        inside = listing(self.folder)
        children = [
            (Path(one.path), repeats_and_concept(one.name)) for one in inside if is_dir(one)
        ]
        parts = [
            (path, *found) for path, found in children if found and self._can_be(path, found[0])
        ]
        if parts or any(found for _, found in children):
            others = [shown(path.name) for path, found in children if not found]
            loose = sum(ending(one.name) in TAKEN for one in inside)
            if others or loose:
                what = [f"{loose} pictures beside them"] * bool(loose) + [
                    f"the folder {other}" for other in others[:5]
                ]
                self.found.notes.append(
                    f"Only folders named like 10_concept are read; not read: {', '.join(what)}."
                )
            self.found.layout = "kohya"
            return parts
        own = repeats_and_concept(self.folder.name) if "_" in self.folder.name else None
        if own and self._can_be(self.folder, own[0]):
            self.found.notes.append(
                f"Each picture counts {own[0]} times an epoch, as the folder's name says."
            )
            self.found.layout = "kohya"
            return [(self.folder, *own)]
        return [(self.folder, 1, "")]

    def entries(self, part: Path, repeats: int, concept: str) -> Iterator[Entry]:
        """The pictures of one folder."""
        inside, described = listing(part), self._described(part)
        file = next((part / name for name in METADATA if (part / name).is_file()), part)
        beside: dict[str, os.DirEntry[str]] = {}
        pictures: dict[str, bool] = {}  # name below this folder → whether it may lead out of it
        for one in inside:
            end = ending(one.name)
            if end in TAKEN:
                pictures[one.name] = one.is_symlink()
            elif end in CAPTIONS:
                beside[one.name.lower()] = one
            elif end in OTHERS:
                self.found.broken.append(
                    (
                        self.found.name(Path(one.path)),
                        f"is a {end} file; save it as PNG, JPEG, WebP or BMP.",
                    )
                )
        used = [name.endswith(".caption") for name in beside]
        usual = (
            ".caption" if used and all(used) else ".txt"
        )  # the ending of captions that are still to be written
        below = "" if part == self.folder else f"{part.name}/"
        for stem, count in Counter(os.path.splitext(name)[0].lower() for name in pictures).items():
            if count > 1:
                self.found.notes.append(
                    f"{count} pictures are called {shown(below + stem)} and have one caption file together."
                )
        for name in pictures | dict.fromkeys(described, True):
            path, record = part / name, described.get(name)
            if pictures.get(name, True) and not self.fence.holds(path):
                self.found.broken.append(
                    (self.found.name(path), "leads out of the folder; copy the picture into it.")
                )
            elif (
                record is not None and (caption := caption_files.entry(record.says)[1]) is not None
            ):
                yield Entry(
                    below + name, path, repeats, concept, Place(file, None, record), caption
                )
            else:
                place, caption, fault = self._beside(path, beside, usual)
                yield Entry(below + name, path, repeats, concept, place, caption, fault)

    def _beside(
        self, path: Path, beside: Mapping[str, os.DirEntry[str]], usual: str
    ) -> tuple[Place, str | None, str]:
        """Where a picture's own caption file is, what it says, and why it cannot be read."""
        stem = os.path.splitext(path.name)[0]
        one = next(
            (beside[name] for end in CAPTIONS if (name := f"{stem}{end}".lower()) in beside), None
        )
        if one is None:
            return Place(path.with_name(stem + usual)), None, ""
        file, data, what = Path(one.path), None, f"its caption {shown(one.name)}"
        try:
            if one.is_symlink() and not self.fence.holds(file):
                raise DatasetError(f"{what} leads out of the folder.")
            data = _read(one, what)
            return Place(file, data), caption_files.first_line(data, what), ""
        except DatasetError as error:
            return Place(file, data), None, str(error)

    def _can_be(self, path: Path, repeats: int) -> bool:
        if not self.fence.holds(path):
            self.found.broken.append(
                (self.found.name(path), "leads out of the folder; copy the pictures into it.")
            )
        elif not 1 <= repeats <= MOST_REPEATS:
            self.found.broken.append(
                (
                    self.found.name(path),
                    f"its name asks for {repeats} repeats; 1 to {MOST_REPEATS:,} can be.",
                )
            )
        else:
            return True
        return False

    def _described(self, part: Path) -> dict[str, Record]:
        """Pictures that a metadata file names, by their names below the folder, each with its last record."""
        file = next((part / name for name in METADATA if (part / name).is_file()), None)
        if file is None:
            return {}
        self.described = True
        found: dict[str, Record] = {}
        try:
            if not self.fence.holds(file):
                raise DatasetError("leads out of the folder.")
            for record in caption_files.records(file):
                try:
                    name = self._named(part, record)
                    if name in found:
                        self.found.notes.append(
                            f"{shown(name)} stands twice in {file.name}; its last caption is used."
                        )
                    found[name] = record
                except DatasetError as error:
                    self.found.broken.append(
                        (self.found.name(file), f"line {record.number}: {error}")
                    )
        except DatasetError as error:
            self.found.broken.append((self.found.name(file), str(error)))
        return found

    def _named(self, part: Path, record: Record) -> str:
        inner, _ = caption_files.entry(record.says)
        path, name = part.joinpath(*inner.parts), shown(str(inner))
        if path.suffix.lower() not in TAKEN:
            raise DatasetError(f"{name:.80} is no PNG, JPEG, WebP or BMP.")
        try:
            there = path.is_file()
        except (OSError, ValueError):  # a name that is too long
            there = False
        if not there:
            raise DatasetError(f"{name:.80} is not there.")
        return inner.as_posix()


def _read(one: os.DirEntry[str], what: str) -> bytes:
    """The bytes of a caption's file. Raises DatasetError."""
    try:
        if one.is_file():  # a pipe would never end
            with open(one.path, "rb") as opened:
                data = opened.read(caption_files.MOST_CAPTION + 1)
            if len(data) <= caption_files.MOST_CAPTION:
                return data
        raise DatasetError(
            f"{what} is no file of at most {caption_files.MOST_CAPTION // 2**10:,} KiB."
        )
    except OSError as error:
        raise DatasetError(f"{what} cannot be read ({error.strerror or error}).") from None
