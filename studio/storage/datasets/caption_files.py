"""Captions as text: files beside pictures, and the records of metadata files.

Knows: encodings, JSON lines and CSV, what no caption can hold; how to put another caption into a file or record and leave all
else in it as it was. Does not know: pictures, folders (layout.py), who writes what and how it is undone (journal.py).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from studio.errors import DatasetError

MOST_CAPTION, MOST_METADATA = 64 * 2**10, 64 * 2**20  # bytes
KEYS = ("text", "caption", "prompt")  # the first that a record has holds its caption
_ODD = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff]")  # controls and halves of letters
_ENDS = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a metadata file: the number of its line, its text with the line's end, what it says (None: unreadable).

    `columns` are those of a CSV file's header, and empty for JSON lines.
    """

    number: int
    raw: str
    says: Any
    columns: tuple[str, ...] = ()


def shown(name: str) -> str:
    """A file's name as it can be shown, whatever bytes it consists of."""
    return name.encode(errors="replace").decode()


def first_line(data: bytes, what: str) -> str:
    """The caption in the bytes of a file of its own. Raises DatasetError, whose sentence goes on after the picture's name."""
    return checked(_plain(decoded(data, MOST_CAPTION, what)[0]).partition("\n")[0].strip(), what)


def below(data: bytes) -> str:
    """The lines that follow the first in a caption's file, as one: trainers do not read them."""
    return " ".join(" ".join(_plain(decoded(data, MOST_CAPTION, "")[0]).split("\n")[1:]).split())


def with_first_line(data: bytes | None, caption: str, whole: bool = False) -> bytes:
    """The bytes of a caption's file with another first line; lines below it stay, unless `whole`. Raises DatasetError."""
    checked(caption, "the caption")
    if "\n" in caption:
        raise DatasetError("a caption is one line; write it without line breaks.")
    try:
        text = decoded(data or b"", MOST_CAPTION, "")[0]
    except DatasetError:
        text = ""  # no text at all: nothing in it can stay; the journal keeps its bytes
    rest = [] if whole else _ENDS.split(text)[1:]
    ending = "\r\n" if "\r\n" in text else "\n"
    return "".join([caption, ending, *rest]).encode()


def records(file: Path) -> list[Record]:
    """The records of metadata.jsonl or metadata.csv. Raises DatasetError."""
    try:
        if not file.is_file() or file.stat().st_size > MOST_METADATA:
            raise DatasetError(f"it is no file of at most {MOST_METADATA // 2**10:,} KiB.")
        text = decoded(file.read_bytes(), MOST_METADATA, "it")[0]
    except OSError as error:
        raise DatasetError(f"it cannot be read ({error.strerror or error}).") from None
    return list(_csv(text) if file.suffix.lower() == ".csv" else _lines(text))


def entry(row: Any) -> tuple[PurePosixPath, str | None]:
    """The picture that a record names, as a path below its folder, and its caption if it has one. Raises DatasetError."""
    name = row.get("file_name") if isinstance(row, dict) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise DatasetError(
            'it names no picture; write {"file_name": "009.png", "text": "a photo of …"}.'
        )
    inner = PurePosixPath(name.replace("\\", "/"))
    if inner.is_absolute() or ".." in inner.parts or ":" in str(inner.parts[:1]):
        raise DatasetError(f"{name!r:.80} leads out of the folder.")
    caption = next((row[key] for key in KEYS if isinstance(row.get(key), str)), None)
    return inner, None if caption is None else checked(
        caption.strip(), f"the caption of {name!r:.80}"
    )


def with_caption(record: Record, caption: str) -> str:
    """The text of a record that has a caption, with another one. Raises DatasetError."""
    checked(caption, "the caption")
    key = next(key for key in KEYS if isinstance(record.says.get(key), str))
    body = record.raw.strip("\r\n")
    before, _, after = record.raw.partition(body)
    if not record.columns:
        return before + json.dumps({**record.says, key: caption}, ensure_ascii=False) + after
    cells = next(csv.reader(_ENDS.split(body)))
    cells[record.columns.index(key)] = caption
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return before + out.getvalue() + after


def decoded(data: bytes, most: int, what: str) -> tuple[str, str]:
    """Bytes as text in UTF-8, or UTF-16 with its mark, and the codec that writes them back. Raises DatasetError."""
    if len(data) > most:
        raise DatasetError(f"{what} is no file of at most {most // 2**10:,} KiB.")
    codec = (
        "utf-16"
        if data[:2] in (b"\xff\xfe", b"\xfe\xff")
        else "utf-8-sig"
        if data[:3] == b"\xef\xbb\xbf"
        else "utf-8"
    )
    try:
        return data.decode(codec), codec
    except UnicodeDecodeError:
        raise DatasetError(f"{what} is not written in UTF-8; save it as UTF-8.") from None


def checked(caption: str, what: str) -> str:
    """The caption, if text can hold it. Raises DatasetError."""
    if len(caption) > MOST_CAPTION or _ODD.search(caption):
        raise DatasetError(
            f"{what} has characters that no text has, or is far too long; write it anew."
        )
    return caption


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _lines(text: str) -> Iterator[Record]:
    for number, line in enumerate(_ENDS.split(text), 1):
        if line.strip():
            try:
                yield Record(number, line, json.loads(line))
            except (ValueError, RecursionError):
                yield Record(number, line, None)


def _csv(text: str) -> Iterator[Record]:
    """The records below the header."""
    lines = _ENDS.split(text)
    rows, start = csv.reader(iter(lines)), 0
    header: list[str] = []
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise DatasetError(f"line {rows.line_num} is no CSV ({error}).") from None
        if row is None:
            return
        if row and not header:
            header = row
        elif row:
            yield Record(
                rows.line_num,
                "".join(lines[start : rows.line_num]),
                dict(zip(header, row)),
                tuple(header),
            )
        start = rows.line_num
