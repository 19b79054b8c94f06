"""Content credentials (C2PA): recognised where each format keeps them, whoever wrote them, however damaged."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from studio.imaging.content_credentials import find_content_credentials

# The boxes as C2PA's specification lays them out, with a claim that holds one field.
JUMBF = b"\0\0\0\x20jumb\0\0\0\x18jumdc2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71"


def text(value: str) -> bytes:
    data = value.encode()
    return (bytes([0x60 + len(data)]) if len(data) < 24 else bytes([0x78, len(data)])) + data


OLD_CLAIM = JUMBF + b"\xa1" + text("claim_generator") + text("Adobe_Firefly")
NEW_CLAIM = (
    JUMBF + text("claim_generator_info") + b"\xa2" + text("name") + text("Ein Programm 🚤 " * 2)
)


def make(image_format: str, manifest: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, image_format)
    data = buffer.getvalue()
    if image_format == "PNG":
        body = b"caBX" + manifest
        chunk = struct.pack(">I", len(manifest)) + body + struct.pack(">I", zlib.crc32(body))
        return data[:33] + chunk + data[33:]
    if image_format == "WEBP":
        chunk = b"C2PA" + struct.pack("<I", len(manifest)) + manifest + b"\0" * (len(manifest) % 2)
        return data[:4] + struct.pack("<I", len(data) + len(chunk) - 8) + data[8:] + chunk
    segments = b""
    for number, start in enumerate(range(0, len(manifest), 40), 1):
        part = manifest[start : start + 40]
        again = manifest[:8] if number > 1 else b""
        payload = b"JP\0\1" + struct.pack(">I", number) + again + part
        segments += b"\xff\xeb" + struct.pack(">H", len(payload) + 2) + payload
    return data[:2] + segments + data[2:]


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_who_wrote_them(image_format: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for manifest, name in (
        (OLD_CLAIM, "Adobe_Firefly"),
        (NEW_CLAIM, "Ein Programm 🚤 Ein Programm 🚤"),
        (JUMBF, ""),
    ):
        path.write_bytes(make(image_format, manifest))
        Image.open(path).load()
        assert find_content_credentials(path) == name


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_none_and_damaged_ones(image_format: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, image_format)
    path.write_bytes(buffer.getvalue())
    assert find_content_credentials(path) is None
    assert find_content_credentials(tmp_path / "nothing") is None
    whole = make(image_format, OLD_CLAIM)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert find_content_credentials(path) in (
            None,
            "",
            *("Adobe_Firefly"[:n] for n in range(14)),
        )
