"""Changes of a dataset's files, carried out one file at a time: only from what a file is known to hold to what it is to hold.

Knows: the kinds of changes that journal.py lists, records of metadata files. Does not know: the journal, why something is changed.
Each function may be called again after a kill at any point; what is already as it should be stays. `settle` comes after `out`.
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
from studio.storage.datasets.caption_files import shown

Kind = Literal["file", "record", "move", "source"]
OUTSIDE = "was changed by another program, or through another picture; look at it and try again."


@dataclass(frozen=True, slots=True)
class Change:
    """One change: of which picture (`key`), where, from which bytes to which; `old` and `new` are its captions, to be shown."""

    key: str
    kind: Kind
    file: str
    before: bytes | None
    after: bytes | None
    old: str = ""
    new: str = ""

    def back(self) -> Change:
        """The change that takes this one back."""
        return replace(self, before=self.after, after=self.before, old=self.new, new=self.old)


def out(folder: Path, kind: str, file: str, changes: Sequence[Change]) -> list[str]:
    """Carry out changes of one file, in order. For each: empty, or why it was left alone."""
    path = folder / file
    try:
        if kind == "record":
            return _records(path, changes)
        return [_move(folder, one) if kind == "move" else _file(path, one) for one in changes]
    except (StudioError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return [f"could not be changed: {reason}"] * len(changes)


def settle(folder: Path, files_of: Sequence[str]) -> None:
    """Have the disk remember everything that `out` did to these files."""
    for parent in {(folder / file).parent for file in files_of}:
        with suppress(OSError):
            atomic.sync(parent)


def tidy(folder: Path, change: Change) -> None:
    """Remove what a killed writer left beside a file."""
    path = folder / change.file
    with suppress(OSError):
        for one in os.scandir(path.parent):
            if one.name.startswith(f".{path.name}.") and one.name.endswith(".tmp"):
                os.unlink(one.path)


def _file(path: Path, change: Change) -> str:
    holds = _bytes(path)
    if holds == change.after:
        return ""
    if holds != change.before:
        return OUTSIDE
    if change.after is None:
        path.unlink()
    else:
        atomic.write(path, change.after, settle=False)
    return ""


def _bytes(path: Path) -> bytes | None:
    """What a file holds; None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _records(path: Path, changes: Sequence[Change]) -> list[str]:
    """Replace, remove or append records; the file is written once, in the encoding that it has."""
    data = _bytes(path)
    if data is None:
        return [OUTSIDE] * len(changes)
    text, codec = caption_files.decoded(data, caption_files.MOST_METADATA, shown(path.name))
    pieces: list[str] = []
    at: dict[str, list[int]] = {}
    start = 0
    for record in caption_files.records(path):
        where = text.index(record.raw, start)
        pieces += [text[start:where], record.raw]
        at.setdefault(record.raw, []).append(len(pieces) - 1)
        start = where + len(record.raw)
    pieces.append(text[start:])
    reasons = []
    for one in changes:
        before, after = (
            None if half is None else half.decode() for half in (one.before, one.after)
        )
        if before is not None and at.get(before):
            place = at[before].pop()  # of equal ones the last counts
            pieces[place] = after or ""
        elif before is None and after is not None:
            whole = "".join(pieces)
            pieces.append("\n" * (whole != "" and not whole.endswith(("\n", "\r"))) + after)
            place = len(pieces) - 1
        else:
            reasons.append("" if (after is not None and after in at) or after is None else OUTSIDE)
            continue
        if after is not None:
            at.setdefault(after, []).append(place)
        reasons.append("")
    made = "".join(pieces).encode(codec)
    if made != data:
        atomic.write(path, made, settle=False)
    return reasons


def _move(folder: Path, change: Change) -> str:
    """Give a file another name below the folder; a name that is taken stays taken."""
    if change.before is None or change.after is None:
        raise DatasetError("a move needs two names.")
    old, new = folder / os.fsdecode(change.before), folder / os.fsdecode(change.after)
    if not old.exists():
        return "" if new.exists() else "is no longer there."
    if new.exists():
        return f"{shown(new.name)} is there already."
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(old, new)
    except OSError as error:
        raise BadFile(f"{shown(old.name)} could not be moved: {error.strerror or error}.") from None
    return ""
