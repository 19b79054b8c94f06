"""How a dataset lies in its folder: which images, which captions, how often each counts.

Knows: captions beside images, metadata.jsonl and metadata.csv, kohya's `N_concept` folders; where
each caption stands, so that it can be changed there. Does not know: what is in the images
(image_index.py), who changes captions (history.py).

    moon/009.png + 009.txt or .caption     sidecar: each image counts once
    moon/metadata.jsonl (or .csv)          metadata: {"file_name": "009.png", "text": "…"} a line
    img/10_moon/…, img/5_mysks toy/…       kohya: each image counts 10 times (5 times) an epoch;
                                           "moon" is the caption of images without a caption file
    10_moon/…                              kohya: the folder itself may be the dataset

Nothing is followed out of the folder. A caption is the first line of its file.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from studio.errors import DatasetError, StudioError
from studio.storage.datasets import caption_files
from studio.storage.datasets.caption_files import Record, display_name
from studio.storage.datasets.filesystem import ContainedFolder, file_suffix, is_dir, list_folder
from studio.storage.odd_files import explain_odd_file, open_file

Layout = Literal["sidecar", "metadata", "kohya"]
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
UNSUPPORTED_SUFFIXES = (".gif", ".tif", ".tiff", ".avif", ".heic", ".jxl", ".psd", ".svg")
CAPTION_SUFFIXES = (".txt", ".caption")  # the first that is there counts
METADATA_FILENAMES = ("metadata.jsonl", "metadata.csv")
MAX_REPEATS = 10_000


@dataclass(frozen=True, slots=True)
class CaptionLocation:
    """Where an image's caption stands, or would: its own file, or a record of a metadata file.

    `data` are the own file's bytes as they were read, None where there is no such file yet.
    """

    file: Path
    data: bytes | None = None
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """An image file and its caption; None where it has none.

    `key` is its path below the dataset, with "/"; `caption_error` says why the caption cannot be
    read.
    """

    key: str
    path: Path
    repeats: int
    concept: str
    caption_location: CaptionLocation
    caption: str | None
    caption_error: str = ""


@dataclass
class ScanResult:
    """What lies in a folder.

    `repeats` are those of each folder that is read, `broken` are (file, why it cannot be used),
    `notes` what the owner should know.
    """

    folder: Path
    layout: Layout = "sidecar"
    repeats: dict[str, int] = field(default_factory=dict)
    entries: list[ImageEntry] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def display_path(self, path: Path) -> str:
        """Return a file's path below the folder, printable."""
        if path == self.folder:
            return display_name(path.name)
        return display_name(path.relative_to(self.folder).as_posix())


def scan_folder(folder: Path) -> ScanResult:
    """List the images of a dataset by path, with their captions; images are not opened.

    Raises:
        DatasetError: there is no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        raise DatasetError(
            f"There is no folder {display_name(str(folder))}; choose one with images in it."
        )
    scan = _FolderScan(folder)
    for image_folder, repeats, concept in scan.list_image_folders():
        folder_name = "." if image_folder == folder else display_name(image_folder.name)
        scan.result.repeats[folder_name] = repeats
        scan.result.entries += scan.read_entries(image_folder, repeats, concept)
    if scan.has_metadata and scan.result.layout == "sidecar":
        scan.result.layout = "metadata"
    scan.result.entries.sort(key=lambda entry: entry.key)
    return scan.result


def parse_concept_folder(folder_name: str) -> tuple[int, str] | None:
    """Parse a folder's name by kohya's rule: `10_moon rock` → (10, "moon rock").

    The repeats are a whole number up to the first "_". Returns None for any other name.
    """
    number, _, concept = folder_name.partition("_")
    try:
        return int(number), concept
    except ValueError:
        return None


def update_entries(
    entries: Sequence[ImageEntry], file_data: Mapping[Path, bytes | None]
) -> list[ImageEntry]:
    """Return the entries after captions' own files were written.

    Args:
        entries: as they were.
        file_data: what the files hold now; None for one that is gone.
    """
    updated_entries = []
    for entry in entries:
        file = entry.caption_location.file
        if file in file_data:
            entry = _update_entry(entry, file_data[file])
        updated_entries.append(entry)
    return updated_entries


def _update_entry(entry: ImageEntry, data: bytes | None) -> ImageEntry:
    location = replace(entry.caption_location, data=data)
    caption = None
    caption_error = ""
    if data is not None:
        try:
            label = f"its caption {display_name(location.file.name)}"
            caption = caption_files.decode_first_line(data, label)
        except DatasetError as error:
            caption_error = str(error)
    return replace(entry, caption_location=location, caption=caption, caption_error=caption_error)


class _FolderScan:
    """One walk through a folder; `result` collects what it meets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.contained_folder = ContainedFolder(folder)
        self.result = ScanResult(folder)
        self.has_metadata = False

    def list_image_folders(self) -> list[tuple[Path, int, str]]:
        """List the folders to read, each with its repeats and concept."""
        dir_entries = list_folder(self.folder)
        concept_folders: list[tuple[Path, int, str]] = []
        other_folders: list[str] = []
        for entry in dir_entries:
            if not is_dir(entry):
                continue
            repeats_and_concept = parse_concept_folder(entry.name)
            if repeats_and_concept:
                concept_folders.append((Path(entry.path), *repeats_and_concept))
            else:
                other_folders.append(display_name(entry.name))
        if concept_folders:
            accepted = [
                (path, repeats, concept)
                for path, repeats, concept in concept_folders
                if self._accept_folder(path, repeats)
            ]
            num_images = sum(file_suffix(entry.name) in IMAGE_SUFFIXES for entry in dir_entries)
            self._note_unread(num_images, other_folders)
            self.result.layout = "kohya"
            return accepted
        if "_" in self.folder.name:
            repeats_and_concept = parse_concept_folder(self.folder.name)
            if repeats_and_concept and self._accept_folder(self.folder, repeats_and_concept[0]):
                self.result.notes.append(
                    f"Each image counts {repeats_and_concept[0]} times per epoch, as the folder's "
                    "name says."
                )
                self.result.layout = "kohya"
                return [(self.folder, *repeats_and_concept)]
        return [(self.folder, 1, "")]

    def read_entries(self, image_folder: Path, repeats: int, concept: str) -> Iterator[ImageEntry]:
        """Read the images of one folder with their captions."""
        dir_entries = list_folder(image_folder)
        metadata_file = _find_metadata_file(image_folder)
        records = self._read_metadata(image_folder, metadata_file) if metadata_file else {}
        sidecars: dict[str, os.DirEntry[str]] = {}
        is_link_by_name: dict[str, bool] = {}
        for dir_entry in dir_entries:
            suffix = file_suffix(dir_entry.name)
            if suffix in IMAGE_SUFFIXES:
                is_link_by_name[dir_entry.name] = dir_entry.is_symlink()
            elif suffix in CAPTION_SUFFIXES:
                sidecars[dir_entry.name.lower()] = dir_entry
            elif suffix in UNSUPPORTED_SUFFIXES:
                self._add_broken(
                    Path(dir_entry.path),
                    f"is a {suffix} file; save it as PNG, JPEG, WebP or BMP.",
                )
        # the ending of captions that are still to be written: that of all others
        is_caption_suffix = [name.endswith(".caption") for name in sidecars]
        default_suffix = ".caption" if sidecars and all(is_caption_suffix) else ".txt"
        prefix = "" if image_folder == self.folder else f"{image_folder.name}/"
        self._note_shared_captions(prefix, list(is_link_by_name))
        for name in dict.fromkeys([*is_link_by_name, *records]):
            path = image_folder / name
            # names from a metadata file may lead through a folder that is a link
            if is_link_by_name.get(name, True) and not self.contained_folder.contains(path):
                self._add_broken(path, "points outside the folder; copy the image into it.")
                continue
            record = records.get(name)
            caption = caption_files.parse_record(record.fields)[1] if record else None
            caption_error = ""
            if metadata_file and caption is not None:
                location = CaptionLocation(metadata_file, None, record)
            else:
                location, caption, caption_error = self._read_sidecar(
                    path, sidecars, default_suffix
                )
            yield ImageEntry(
                prefix + name, path, repeats, concept, location, caption, caption_error
            )

    def _read_sidecar(
        self, path: Path, sidecars: Mapping[str, os.DirEntry[str]], default_suffix: str
    ) -> tuple[CaptionLocation, str | None, str]:
        """Return where an image's own caption file is, its caption, and why it cannot be read."""
        stem = os.path.splitext(path.name)[0]
        names = [f"{stem}{suffix}".lower() for suffix in CAPTION_SUFFIXES]
        sidecar = next((sidecars[name] for name in names if name in sidecars), None)
        if sidecar is None:
            return CaptionLocation(path.with_name(stem + default_suffix)), None, ""
        file = Path(sidecar.path)
        label = f"its caption {display_name(sidecar.name)}"
        data = None
        try:
            with explain_odd_file(file, label):
                if sidecar.is_symlink() and not self.contained_folder.contains(file):
                    raise DatasetError(f"{label} points outside the folder.")
                data = _read_caption_file(sidecar, label)
                caption = caption_files.decode_first_line(data, label)
        except StudioError as error:
            return CaptionLocation(file, data), None, str(error)
        return CaptionLocation(file, data), caption, ""

    def _accept_folder(self, path: Path, repeats: int) -> bool:
        if not self.contained_folder.contains(path):
            self._add_broken(path, "points outside the folder; copy the images into it.")
            return False
        if not 1 <= repeats <= MAX_REPEATS:
            self._add_broken(
                path, f"its name asks for {repeats} repeats; 1 to {MAX_REPEATS:,} are allowed."
            )
            return False
        return True

    def _read_metadata(self, image_folder: Path, file: Path) -> dict[str, Record]:
        """Return the last record of each image by its name below the image folder."""
        self.has_metadata = True
        records: dict[str, Record] = {}
        try:
            if not self.contained_folder.contains(file):
                raise DatasetError("points outside the folder.")
            with explain_odd_file(file, "it"):
                all_records = caption_files.read_records(file)
            for record in all_records:
                try:
                    with explain_odd_file(file, "it"):
                        name = _resolve_image_name(image_folder, record)
                except StudioError as error:
                    self._add_broken(file, f"line {record.line_number}: {error}")
                    continue
                if name in records:
                    self.result.notes.append(
                        f"{display_name(name)} appears twice in {file.name}; its last caption is "
                        "used."
                    )
                records[name] = record
        except StudioError as error:
            self._add_broken(file, str(error))
        return records

    def _add_broken(self, path: Path, reason: str) -> None:
        self.result.broken.append((self.result.display_path(path), reason))

    def _note_unread(self, num_images: int, other_folders: Sequence[str]) -> None:
        """Note what lies beside kohya's folders and is not read."""
        unread = [f"the folder {folder}" for folder in other_folders[:5]]
        if num_images:
            unread.insert(0, f"{num_images} images beside them")
        if unread:
            self.result.notes.append(
                f"Only folders named like 10_concept are read; not read: {', '.join(unread)}."
            )

    def _note_shared_captions(self, prefix: str, image_names: Sequence[str]) -> None:
        """Note images that differ only in their ending: one caption file is for all of them."""
        stems = Counter(os.path.splitext(name)[0].lower() for name in image_names)
        for stem, count in stems.items():
            if count > 1:
                self.result.notes.append(
                    f"{count} images are called {display_name(prefix + stem)} and share one "
                    "caption file."
                )


def _find_metadata_file(image_folder: Path) -> Path | None:
    files = [image_folder / name for name in METADATA_FILENAMES]
    return next((file for file in files if os.path.lexists(file)), None)


def _resolve_image_name(image_folder: Path, record: Record) -> str:
    """Return the image that a record names, below the folder; raise DatasetError if it is none."""
    relative_path, _ = caption_files.parse_record(record.fields)
    path = image_folder.joinpath(*relative_path.parts)
    name = display_name(str(relative_path))
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise DatasetError(f"{name:.80} is not a PNG, JPEG, WebP or BMP file.")
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # a name that is too long
        is_file = False
    if not is_file:
        raise DatasetError(f"{name:.80} does not exist.")
    return relative_path.as_posix()


def _read_caption_file(dir_entry: os.DirEntry[str], label: str) -> bytes:
    """Read a caption's file; raise DatasetError if it is none, or too large."""
    try:
        if dir_entry.is_file():  # a pipe would never end
            with open_file(Path(dir_entry.path)) as file:
                data = file.read(caption_files.MAX_CAPTION_BYTES + 1)
            if len(data) <= caption_files.MAX_CAPTION_BYTES:
                return data
    except OSError as error:
        raise DatasetError(f"{label} cannot be read ({error.strerror or error}).") from None
    raise DatasetError(
        f"{label} is not a file of at most {caption_files.MAX_CAPTION_BYTES // 2**10:,} KiB."
    )
