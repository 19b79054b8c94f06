"""Captions as text: files beside pictures, and the rows of metadata files.

Knows: encodings, JSON lines and CSV, what no caption can hold. Does not know: pictures, folders (dataset.py).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from studio.errors import DatasetError

MOST_CAPTION, MOST_METADATA = 64 * 2**10, 64 * 2**20  # bytes


def shown(name: str) -> str:
    """A file's name as it can be shown, whatever bytes it consists of."""
    return name.encode(errors="replace").decode()


def first_line(file: Path) -> str:
    """The caption in a file of its own. Raises DatasetError, whose sentence goes on after the picture's name."""
    what = f"its caption {shown(file.name)}"
    return _checked(_text(file, MOST_CAPTION, what).partition("\n")[0].strip(), what)


def rows(file: Path) -> Iterator[tuple[int, Any]]:
    """The rows of metadata.jsonl or metadata.csv with their numbers; None for one that cannot be read. Raises DatasetError."""
    text = _text(file, MOST_METADATA, "it")
    return _csv(text) if file.suffix == ".csv" else _lines(text)


def entry(row: Any) -> tuple[PurePosixPath, str | None]:
    """The picture that a row names, as a path below its folder, and its caption if it has one. Raises DatasetError."""
    name = row.get("file_name") if isinstance(row, dict) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise DatasetError('it names no picture; write {"file_name": "009.png", "text": "a photo of …"}.')
    inner = PurePosixPath(name.replace("\\", "/"))
    if inner.is_absolute() or ".." in inner.parts or ":" in str(inner.parts[:1]):
        raise DatasetError(f"{name!r:.80} leads out of the folder.")
    caption = next((row[key] for key in ("text", "caption", "prompt") if isinstance(row.get(key), str)), None)
    return inner, None if caption is None else _checked(caption.strip(), f"the caption of {name!r:.80}")


def _text(file: Path, most: int, what: str) -> str:
    """A text file in UTF-8, or UTF-16 with its mark, with plain line ends."""
    try:
        if not file.is_file() or file.stat().st_size > most:
            raise DatasetError(f"{what} is no file of at most {most // 2**10:,} KiB.")
        data = file.read_bytes()
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetError(f"{what} is not written in UTF-8; save it as UTF-8.") from None
    except OSError as error:
        raise DatasetError(f"{what} cannot be read ({error.strerror or error}).") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _checked(caption: str, what: str) -> str:
    if len(caption) > MOST_CAPTION or any(
            (ord(letter) < 32 and letter not in "\t\n") or 0xD800 <= ord(letter) < 0xE000 for letter in caption):
        raise DatasetError(f"{what} has characters that no text has, or is far too long; write it anew.")
    return caption


def _lines(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _csv(text: str) -> Iterator[tuple[int, Any]]:
    rows = csv.DictReader(io.StringIO(text))
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise DatasetError(f"line {rows.line_num} is no CSV ({error}).") from None
        if row is None:
            return
        yield rows.line_num, row
