"""Content credentials (C2PA) in an image file: whether there are any, and who wrote them.

Knows: where PNG, JPEG and WebP keep them. Does not know: whether they are true: no signature is
checked. Signed over the very bytes of a file, they hold for no copy in another format.

Source: C2PA's specification: `caBX` in PNG, JUMBF in APP11 of JPEG, `C2PA` in WebP's RIFF; the
claim is CBOR, in which `claim_generator` is a text, or `claim_generator_info` has a `name`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_SCANNED_BYTES = 4 * 2**20
MAX_PARTS = 10_000
MAX_NAME_CHARS = 60
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_APP11, _START_OF_SCAN = 0xEB, 0xDA
_MANIFEST_MARK = b"c2pa"
_NAME_BEFORE_TEXT = re.compile(
    rb"\x6fclaim_generator|\x74claim_generator_info.{0,40}?\x64name", re.S
)


def find_content_credentials(path: Path) -> str | None:
    """Return who wrote a file's credentials, empty where that is not said; None without any."""
    try:
        with open(path, "rb") as file:
            manifest = b"".join(_iter_manifests(file))
    except (OSError, struct.error):
        return None
    return _find_generator(manifest) if _MANIFEST_MARK in manifest else None


def _iter_manifests(file: BinaryIO) -> Iterator[bytes]:
    head = file.read(12)
    if head.startswith(_PNG_SIGNATURE):
        file.seek(8)
        yield from _iter_chunks(file, b"caBX", is_png=True)
    elif head[:4] == b"RIFF" and head[8:] == b"WEBP":
        yield from _iter_chunks(file, b"C2PA", is_png=False)
    elif head.startswith(b"\xff\xd8"):
        file.seek(2)
        yield from _iter_segments(file)


def _iter_chunks(file: BinaryIO, kind: bytes, *, is_png: bool) -> Iterator[bytes]:
    """Yield the chunks of a kind in a PNG or in a RIFF file, which say length and kind."""
    for _ in range(MAX_PARTS):
        head = file.read(8)
        if len(head) < 8:
            return
        length = struct.unpack(">I", head[:4])[0] if is_png else struct.unpack("<I", head[4:])[0]
        end = file.tell() + length + (4 if is_png else length % 2)
        if kind == (head[4:] if is_png else head[:4]):
            yield file.read(min(length, MAX_SCANNED_BYTES))
            return
        file.seek(end)


def _iter_segments(file: BinaryIO) -> Iterator[bytes]:
    """Yield what lies in a JPEG's APP11 segments, without what each begins with."""
    num_bytes = 0
    for _ in range(MAX_PARTS):
        marker = file.read(4)
        if len(marker) < 4 or marker[0] != 0xFF or marker[1] == _START_OF_SCAN:
            return
        length = struct.unpack(">H", marker[2:])[0] - 2
        data = file.read(max(0, length))
        if marker[1] == _APP11 and data.startswith(b"JP"):
            num_bytes += length
            yield data[16:] if num_bytes > length else data[8:]  # later ones say the box again
        if num_bytes > MAX_SCANNED_BYTES:
            return


def _find_generator(manifest: bytes) -> str:
    """Return the text of CBOR behind the name of the field; empty where there is none."""
    match = _NAME_BEFORE_TEXT.search(manifest)
    if not match:
        return ""
    start = match.end()
    kind = manifest[start] if start < len(manifest) else 0
    length = kind - 0x60  # up to 23 bytes the kind says the length too
    start += 1
    if kind == 0x78:
        length = manifest[start] if start < len(manifest) else 0
        start += 1
    if not 0 < length < 256:
        return ""
    text = manifest[start : start + length].decode("utf-8", "ignore")
    printable = "".join(character for character in text if character.isprintable())
    return printable[:MAX_NAME_CHARS].strip()
