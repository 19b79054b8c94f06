"""Changes of a dataset's files, carried out one file at a time.

Knows: the kinds of changes that the journal (history.py) lists, records of metadata files. A file
is only changed from what it is known to hold to what it is to hold. Does not know: the journal, why
something is changed.

Each function may be called again after a kill at any point; what is already as it should be stays.
`fsync_parents` comes after `apply`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from studio.errors import BadFile, DatasetError, StudioError
from studio.storage import atomic
from studio.storage.datasets import caption_files
from studio.storage.datasets.caption_files import display_name

ChangeKind = Literal["file", "record", "move", "source"]
CHANGED_ELSEWHERE = (
    "was changed by another program, or through another image; check it and try again."
)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a file: of which image (`key`), and from which bytes to which.

    `old_caption` and `new_caption` are the image's captions, for display.
    """

    key: str
    kind: ChangeKind
    file: str
    old_data: bytes | None
    new_data: bytes | None
    old_caption: str = ""
    new_caption: str = ""

    def invert(self) -> Change:
        """Return the change that takes this one back."""
        return replace(
            self,
            old_data=self.new_data,
            new_data=self.old_data,
            old_caption=self.new_caption,
            new_caption=self.old_caption,
        )


def apply(folder: Path, kind: str, file: str, changes: Sequence[Change]) -> list[str]:
    """Apply changes to one file, in order.

    Args:
        folder: of the dataset.
        kind: of all the changes.
        file: of all the changes, a path below the folder.
        changes: what to apply.

    Returns:
        One message for each change: empty on success, else why the file was left as it is.
    """
    path = folder / file
    try:
        if kind == "record":
            return _apply_record_changes(path, changes)
        if kind == "move":
            return [_apply_move(folder, change) for change in changes]
        return [_apply_file_change(path, change) for change in changes]
    except OSError as error:
        reason = error.strerror or str(error)
    except StudioError as error:
        reason = str(error)
    return [f"could not be changed: {reason}"] * len(changes)


def fsync_parents(folder: Path, files: Sequence[str]) -> None:
    """Flush everything that `apply` did to these files to the disk."""
    for parent in {(folder / file).parent for file in files}:
        with suppress(OSError):
            atomic.fsync_folder(parent)


def remove_temp_files(folder: Path, change: Change) -> None:
    """Remove what a killed writer left beside a file."""
    path = folder / change.file
    with suppress(OSError):
        for entry in os.scandir(path.parent):
            if entry.name.startswith(f".{path.name}.") and entry.name.endswith(".tmp"):
                os.unlink(entry.path)


def _apply_file_change(path: Path, change: Change) -> str:
    data = _read_bytes(path)
    if data == change.new_data:
        return ""
    if data != change.old_data:
        return CHANGED_ELSEWHERE
    if change.new_data is None:
        path.unlink()
    else:
        atomic.write(path, change.new_data, durable=False)
    return ""


def _read_bytes(path: Path) -> bytes | None:
    """Read a file; None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


class _RecordText:
    """The text of a metadata file in pieces, so that records can be replaced by what they say."""

    def __init__(self, path: Path, text: str) -> None:
        self._pieces: list[str] = []
        self._indices_by_record: dict[str, list[int]] = {}
        end = 0
        for record in caption_files.read_records(path):
            start = text.index(record.raw, end)
            self._pieces.append(text[end:start])
            self._add_piece(record.raw)
            end = start + len(record.raw)
        self._pieces.append(text[end:])

    def contains(self, record: str) -> bool:
        """Return whether the file has, or had, such a record."""
        return record in self._indices_by_record

    def replace(self, old_record: str, new_record: str | None) -> bool:
        """Replace or remove the last of equal records; False if there is none."""
        indices = self._indices_by_record.get(old_record)
        if not indices:
            return False
        index = indices.pop()
        self._pieces[index] = new_record or ""
        if new_record is not None:
            self._indices_by_record.setdefault(new_record, []).append(index)
        return True

    def append(self, record: str) -> None:
        """Add a record on a line of its own."""
        text = self.join()
        line_end = "" if not text or text.endswith(("\n", "\r")) else "\n"
        self._add_piece(record, line_end)

    def join(self) -> str:
        return "".join(self._pieces)

    def _add_piece(self, record: str, prefix: str = "") -> None:
        self._indices_by_record.setdefault(record, []).append(len(self._pieces))
        self._pieces.append(prefix + record)


def _apply_record_changes(path: Path, changes: Sequence[Change]) -> list[str]:
    """Replace, remove or append records; the file is written once, in the encoding that it has."""
    data = _read_bytes(path)
    if data is None:
        return [CHANGED_ELSEWHERE] * len(changes)
    text, codec = caption_files.decode_text(
        data, caption_files.MAX_METADATA_BYTES, display_name(path.name)
    )
    record_text = _RecordText(path, text)
    reasons = [_apply_record_change(record_text, change) for change in changes]
    new_data = record_text.join().encode(codec)
    if new_data != data:
        atomic.write(path, new_data, durable=False)
    return reasons


def _apply_record_change(record_text: _RecordText, change: Change) -> str:
    old_record = None if change.old_data is None else change.old_data.decode()
    new_record = None if change.new_data is None else change.new_data.decode()
    if old_record is None:
        if new_record is not None:
            record_text.append(new_record)
        return ""
    if record_text.replace(old_record, new_record):
        return ""
    is_applied = new_record is None or record_text.contains(new_record)
    return "" if is_applied else CHANGED_ELSEWHERE


def _apply_move(folder: Path, change: Change) -> str:
    """Rename a file below the folder; a name that is taken stays taken."""
    if change.old_data is None or change.new_data is None:
        raise DatasetError("a move requires two names.")
    old_path = folder / os.fsdecode(change.old_data)
    new_path = folder / os.fsdecode(change.new_data)
    if not old_path.exists():
        return "" if new_path.exists() else "is no longer there."
    if new_path.exists():
        return f"{display_name(new_path.name)} already exists."
    new_path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(old_path, new_path)
    except OSError as error:
        raise BadFile(
            f"{display_name(old_path.name)} could not be moved: {error.strerror or error}."
        ) from None
    return ""
