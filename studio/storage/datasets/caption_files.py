"""Captions as text: files beside images, and the records of metadata files.

Knows: encodings, JSON lines and CSV, what no caption can hold; how to replace a caption in a file
or record and leave all else in it as it was. Does not know: images, folders (layout.py), who writes
captions and how that is undone (history.py).
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

from studio.errors import DatasetError, quote
from studio.storage.odd_files import read_file

MAX_CAPTION_BYTES = 64 * 2**10
MAX_METADATA_BYTES = 64 * 2**20
CAPTION_KEYS = ("text", "caption", "prompt")  # the first that a record has holds its caption
# control characters and half surrogate pairs
_INVALID_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff]")
_LINE_END = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a metadata file.

    `raw` is its text with the line's end, `fields` what it says (None: unreadable), `columns` those
    of a CSV file's header and empty for JSON lines.
    """

    line_number: int
    raw: str
    fields: Any
    columns: tuple[str, ...] = ()


def display_name(name: str) -> str:
    """Make a file's name printable, whatever bytes it consists of."""
    return name.encode(errors="replace").decode()


def decode_first_line(data: bytes, label: str) -> str:
    """Return the caption in the bytes of its own file: the first line, stripped.

    Raises:
        DatasetError: it is no text, or too long; the sentence continues the image's name.
    """
    text, _ = decode_text(data, MAX_CAPTION_BYTES, label)
    first_line = _normalize_newlines(text).partition("\n")[0]
    return check_caption(first_line.strip(), label)


def decode_extra_lines(data: bytes) -> str:
    """Return the lines below the first in a caption's file, as one; trainers do not read them."""
    text, _ = decode_text(data, MAX_CAPTION_BYTES, "")
    extra_lines = _normalize_newlines(text).split("\n")[1:]
    return " ".join(" ".join(extra_lines).split())


def replace_first_line(data: bytes | None, caption: str, drop_extra_lines: bool = False) -> bytes:
    """Return the bytes of a caption's file with another caption.

    Args:
        data: the file's bytes; None if there is no file yet.
        caption: one line.
        drop_extra_lines: do not keep the lines below the first.

    Raises:
        DatasetError: no file can hold the caption.
    """
    check_caption(caption, "the caption")
    if "\n" in caption:
        raise DatasetError("a caption is a single line; remove its line breaks.")
    try:
        text, _ = decode_text(data or b"", MAX_CAPTION_BYTES, "")
    except DatasetError:
        text = ""  # no text at all: nothing in it can stay; the journal keeps its bytes
    extra_lines = [] if drop_extra_lines else _LINE_END.split(text)[1:]
    line_end = "\r\n" if "\r\n" in text else "\n"
    return "".join([caption, line_end, *extra_lines]).encode()


def read_records(file: Path) -> list[Record]:
    """Read the records of metadata.jsonl or metadata.csv.

    Raises:
        DatasetError: it cannot be read, is too large or no text.
    """
    try:
        if not file.is_file() or file.stat().st_size > MAX_METADATA_BYTES:
            raise DatasetError(f"it is not a file of at most {MAX_METADATA_BYTES // 2**10:,} KiB.")
        text, _ = decode_text(read_file(file), MAX_METADATA_BYTES, "it")
    except OSError as error:
        raise DatasetError(f"it cannot be read ({error.strerror or error}).") from None
    if file.suffix.lower() == ".csv":
        return list(_parse_csv(text))
    return list(_parse_json_lines(text))


def parse_record(fields: Any) -> tuple[PurePosixPath, str | None]:
    """Parse what a record says.

    Args:
        fields: `Record.fields`.

    Returns:
        The image that it names, as a path below its folder, and its caption if it has one.

    Raises:
        DatasetError: it names no image, or one outside the folder, or no file can hold its caption.
    """
    name = fields.get("file_name") if isinstance(fields, dict) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise DatasetError(
            'it names no image; it must be like {"file_name": "009.png", "text": "a photo of …"}.'
        )
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in str(path.parts[:1]):
        raise DatasetError(f"{quote(name)} points outside the folder.")
    for key in CAPTION_KEYS:
        caption = fields.get(key)
        if isinstance(caption, str):
            return path, check_caption(caption.strip(), f"the caption of {quote(name)}")
    return path, None


def replace_record_caption(record: Record, caption: str) -> str:
    """Return the text of a record that has a caption, with another one.

    Raises:
        DatasetError: no file can hold the caption.
    """
    check_caption(caption, "the caption")
    key = next(key for key in CAPTION_KEYS if isinstance(record.fields.get(key), str))
    body = record.raw.strip("\r\n")
    before, _, after = record.raw.partition(body)
    if not record.columns:
        return before + json.dumps({**record.fields, key: caption}, ensure_ascii=False) + after
    cells = next(csv.reader(_LINE_END.split(body)))
    cells[record.columns.index(key)] = caption
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(cells)
    return before + buffer.getvalue() + after


def decode_text(data: bytes, max_bytes: int, label: str) -> tuple[str, str]:
    """Decode UTF-8, or UTF-16 with a byte order mark.

    Args:
        data: the file's bytes.
        max_bytes: more are rejected.
        label: what messages call the file.

    Returns:
        The text, and the codec that writes it back.

    Raises:
        DatasetError: it is too large or no such text.
    """
    if len(data) > max_bytes:
        raise DatasetError(f"{label} is not a file of at most {max_bytes // 2**10:,} KiB.")
    codec = "utf-8"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        codec = "utf-16"
    elif data[:3] == b"\xef\xbb\xbf":
        codec = "utf-8-sig"
    try:
        return data.decode(codec), codec
    except UnicodeDecodeError:
        raise DatasetError(f"{label} is not encoded in UTF-8; save it as UTF-8.") from None


def check_caption(caption: str, label: str) -> str:
    """Return the caption; raise DatasetError if a text file cannot hold it."""
    if len(caption) > MAX_CAPTION_BYTES or _INVALID_CHARACTERS.search(caption):
        raise DatasetError(f"{label} contains invalid characters or is far too long; rewrite it.")
    return caption


def _normalize_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse_json_lines(text: str) -> Iterator[Record]:
    for line_number, line in enumerate(_LINE_END.split(text), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            fields = None
        yield Record(line_number, line, fields)


def _parse_csv(text: str) -> Iterator[Record]:
    """Yield the records below the header."""
    lines = _LINE_END.split(text)
    rows = csv.reader(iter(lines))
    header: tuple[str, ...] = ()
    start = 0
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise DatasetError(f"line {rows.line_num} is not valid CSV ({error}).") from None
        if row is None:
            return
        if row and not header:
            header = tuple(row)
        elif row:
            raw = "".join(lines[start : rows.line_num])
            yield Record(rows.line_num, raw, dict(zip(header, row)), header)
        start = rows.line_num
