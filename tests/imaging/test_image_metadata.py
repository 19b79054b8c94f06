"""Texts in image files: every place, every encoding, bounded, and of damaged files nothing worse than a sentence."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.errors import BadPicture
from studio.imaging.image_metadata import (
    MAX_ALL_TEXT_BYTES,
    MAX_TEXT_BYTES,
    read_image_metadata,
    read_sidecars,
    wrap_text,
)
from support.sentences import refused

TEXT = "größe, 猫\nSteps: 20, Sampler: Euler, Seed: 1"
LATIN = "größe\nSteps: 20"
USER_COMMENT, EXIF_IFD = 0x9286, 0x8769


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, behind: tuple[bytes, ...] = (), size: tuple[int, int] = (1, 1)) -> bytes:
    """A grey PNG by the specification, with chunks before and behind its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes([0, 0])))
    parts = [b"\x89PNG\r\n\x1a\n", header, *chunks, pixels, *behind, chunk(b"IEND", b"")]
    return b"".join(parts)


def saved(format_name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8), "red").save(buffer, format_name, **options)
    return buffer.getvalue()


def exif_of(comment: bytes = b"", **texts: str) -> bytes:
    exif = Image.Exif()
    if comment:
        exif.get_ifd(EXIF_IFD)[USER_COMMENT] = comment
    for tag, text in texts.items():
        exif[{"ImageDescription": 0x010E, "Make": 0x010F, "Model": 0x0110}[tag]] = text.encode()
    return exif.tobytes()


@pytest.mark.parametrize(
    "written",
    [
        chunk(b"tEXt", b"parameters\0" + TEXT.encode()),  # A1111's relatives: UTF-8 in tEXt
        chunk(b"zTXt", b"parameters\0\0" + zlib.compress(TEXT.encode())),
        chunk(b"iTXt", b"parameters\0\0\0\0\0" + TEXT.encode()),
        chunk(b"iTXt", b"parameters\0\1\0de\0Angaben\0" + zlib.compress(TEXT.encode())),
        # UTF-8 that somebody took for Latin-1 and saved again
        chunk(b"iTXt", b"parameters\0\0\0\0\0" + TEXT.encode().decode("latin-1").encode()),
    ],
)
def test_text_chunks_before_and_behind_the_pixels(written: bytes) -> None:
    assert read_image_metadata(png(written)).chunks == {"parameters": TEXT}
    assert read_image_metadata(png(behind=(written,))).chunks == {"parameters": TEXT}


def test_latin_1_is_not_taken_for_damage() -> None:
    written = chunk(b"tEXt", b"parameters\0" + LATIN.encode("latin-1"))
    assert read_image_metadata(png(written)).chunks["parameters"] == LATIN


def test_pillows_own_png() -> None:
    info = PngInfo()
    info.add_text("parameters", LATIN)
    info.add_itxt("studio", TEXT)
    info.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>")
    metadata = read_image_metadata(saved("PNG", pnginfo=info, exif=exif_of(Make="Prompt:{}")))
    assert metadata.chunks == {"parameters": LATIN, "studio": TEXT}
    assert (metadata.xmp, metadata.size) == ("<x:xmpmeta/>", (16, 8))
    assert metadata.exif == {"Make": "Prompt:{}"}


@pytest.mark.parametrize("format_name", ["JPEG", "WEBP", "AVIF", "PNG"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + TEXT.encode("utf-16-be"),  # A1111, by piexif
        b"UNICODE\0" + TEXT.encode("utf-16-le"),
        b"UNICODE\0" + b"\xff\xfe" + TEXT.encode("utf-16-le"),
        b"UNICODE\0" + TEXT.encode(),
        b"ASCII\0\0\0" + TEXT.encode(),
        bytes(8) + TEXT.encode(),
        TEXT.encode(),
    ],
)
def test_user_comments(format_name: str, comment: bytes) -> None:
    metadata = read_image_metadata(saved(format_name, exif=exif_of(comment)))
    assert metadata.user_comment == TEXT
    assert metadata.size == (16, 8)


def test_jis_is_not_read() -> None:
    assert read_image_metadata(saved("JPEG", exif=exif_of(b"JIS\0\0\0\0\0x"))).user_comment == ""


@pytest.mark.parametrize("format_name", ["JPEG", "WEBP", "AVIF"])
def test_other_texts_of_exif_and_xmp(format_name: str) -> None:
    """ComfyUI's WebP: the graphs in Make and Model or ImageDescription (its node SaveAnimatedWEBP)."""
    exif = exif_of(Make='workflow:{"nodes": []}', Model='prompt:{"größe": 1}')
    metadata = read_image_metadata(saved(format_name, exif=exif, xmp=b"<x:xmpmeta/>"))
    assert metadata.exif == {"Make": 'workflow:{"nodes": []}', "Model": 'prompt:{"größe": 1}'}
    assert metadata.xmp == "<x:xmpmeta/>"


def test_windows_comment() -> None:
    exif = Image.Exif()
    exif[0x9C9C] = TEXT.encode("utf-16-le") + b"\0\0"
    assert read_image_metadata(saved("JPEG", exif=exif.tobytes())).exif == {"XPComment": TEXT}


def test_comments_of_jpeg_and_gif() -> None:
    for format_name in ("JPEG", "GIF"):
        assert read_image_metadata(saved(format_name, comment=LATIN.encode())).comment == LATIN


def test_iptc() -> None:
    """A caption (2:120), as Photoshop's resource 0x0404 holds it (IPTC-IIM 4.2)."""
    caption = "größe".encode()
    record = b"\x1c\x02\x78" + struct.pack(">H", len(caption)) + caption
    resource = (
        b"8BIM\x04\x04\0\0" + struct.pack(">I", len(record)) + record + b"\0" * (len(record) % 2)
    )
    body = b"Photoshop 3.0\0" + resource
    plain = saved("JPEG")
    data = plain[:2] + b"\xff\xed" + struct.pack(">H", len(body) + 2) + body + plain[2:]
    assert read_image_metadata(data).iptc == {"2:120": "größe"}


def test_an_image_that_no_pixel_can_be_decoded_of_gives_its_texts() -> None:
    written = chunk(b"tEXt", b"parameters\0" + TEXT.encode())
    huge = png(written, size=(2**30, 2**30))
    assert read_image_metadata(huge, with_hidden=True).chunks == {"parameters": TEXT}
    assert read_image_metadata(png(written)[:-30]).chunks == {"parameters": TEXT}  # cut off


def test_a_few_bytes_that_stand_for_gigabytes() -> None:
    bomb = zlib.compress(bytes(MAX_TEXT_BYTES + 1))
    metadata = read_image_metadata(png(chunk(b"zTXt", b"a\0\0" + bomb), chunk(b"tEXt", b"b\0c")))
    assert metadata.chunks == {"b": "c"}


def test_many_large_texts_are_not_all_unpacked() -> None:
    large = zlib.compress(b"a" * MAX_TEXT_BYTES)
    texts = [chunk(b"zTXt", b"%d\0\0" % number + large) for number in range(12)]
    chunks = read_image_metadata(png(*texts)).chunks
    assert sum(map(len, chunks.values())) == MAX_ALL_TEXT_BYTES


def hide(text: bytes, signature: bytes, mode: str) -> bytes:
    """A PNG with a text in its lowest bits, column by column, as NovelAI's own reader has it (novelai-image-metadata, MIT)."""
    message = signature + struct.pack(">I", len(text) * 8) + text
    bits = np.unpackbits(np.frombuffer(message, np.uint8))
    channels = 1 if mode == "A" else 3
    pixels = np.full((64, 64, 4), 254, np.uint8)  # rows, columns
    part = pixels[..., 3:] if mode == "A" else pixels[..., :3]
    flat = part.transpose(1, 0, 2).reshape(-1).copy()
    flat[: len(bits)] |= bits
    part[...] = flat.reshape(64, 64, channels).transpose(1, 0, 2)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("signature", "mode", "is_packed"),
    [
        (b"stealth_pnginfo", "A", False),
        (b"stealth_pngcomp", "A", True),
        (b"stealth_rgbinfo", "RGB", False),
        (b"stealth_rgbcomp", "RGB", True),
    ],
)
def test_hidden_texts(signature: bytes, mode: str, is_packed: bool) -> None:
    data = hide(gzip.compress(TEXT.encode()) if is_packed else TEXT.encode(), signature, mode)
    assert read_image_metadata(data, with_hidden=True).hidden == TEXT
    assert read_image_metadata(data).hidden == ""
    assert read_image_metadata(data, with_hidden=True, max_pixels=100).hidden == ""


def test_hidden_nonsense_is_nothing() -> None:
    for text in (b"no gzip", b""):
        data = hide(text, b"stealth_pngcomp", "A")
        assert read_image_metadata(data, with_hidden=True).hidden == ""
    bomb = hide(gzip.compress(bytes(9 * 2**20))[:480], b"stealth_pngcomp", "A")
    assert len(read_image_metadata(bomb, with_hidden=True).hidden) <= MAX_TEXT_BYTES


def test_files_beside_it_count_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    (tmp_path / "a.txt").write_text(TEXT, "utf-8")
    (tmp_path / "a.png.json").write_text("{}", "utf-8")
    assert read_image_metadata(path).sidecars == {}
    sidecars = {".txt": TEXT, ".json": "{}"}
    assert read_image_metadata(path, with_sidecars=True).sidecars == sidecars
    (tmp_path / "a.txt").write_bytes(bytes(2**20 + 1))
    assert read_sidecars(path) == {".json": "{}"}


def test_a_text_alone() -> None:
    assert wrap_text("\ufeff" + TEXT).chunks == {"parameters": TEXT}
    assert wrap_text(' {"a": 1}').sidecars == {".json": ' {"a": 1}'}


@pytest.mark.parametrize("data", [b"", b"no picture", png()[:20], b"RIFF\0\0\0\0WEBPVP8 "])
def test_what_is_no_picture_is_refused(data: bytes, tmp_path: Path) -> None:
    with refused(BadPicture):
        read_image_metadata(data, "odd.png")
    with refused(BadPicture):
        read_image_metadata(tmp_path, "a folder")


WHOLE = [
    png(chunk(b"tEXt", b"parameters\0" + TEXT.encode()), chunk(b"eXIf", exif_of(b"abc")[6:])),
    saved("JPEG", exif=exif_of(TEXT.encode()), comment=b"x", xmp=b"<x/>"),
    saved("WEBP", exif=exif_of(TEXT.encode()), xmp=b"<x/>"),
    saved("GIF", comment=b"x"),
]


@given(st.sampled_from(WHOLE), st.data())
def test_damaged_files_never_raise_anything_else(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 8))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        metadata = read_image_metadata(bytes(damaged), with_hidden=True)
    except BadPicture:
        return
    assert isinstance(metadata.user_comment, str)
