"""The texts that an image file carries, wherever programs put them.

Knows: PNG chunks, EXIF, XMP, IPTC, comments, bits hidden in pixels (hidden_text.py), files of the
same name. Does not know: which bytes are which letters (text_bytes.py), what any text says
(core/generation/recipes).

Nothing is painted from these files, so no pixel is decoded but for hidden bits, and an image that
is too small or too large to be worked on still gives its texts. What comes out is bounded.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, Image, IptcImagePlugin

from studio.core.generation.recipes.recipe import ImageMetadata
from studio.errors import BadPicture
from studio.imaging import text_bytes
from studio.imaging.decode import MAX_FILE_BYTES
from studio.imaging.hidden_text import read_hidden_text

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP")
FORMAT_NAMES = "PNG, JPEG, WebP, AVIF or GIF"
MAX_TEXT_BYTES = 8 * 2**20  # of one text; the graphs of real files reach two
MAX_TEXTS = 100
MAX_ALL_TEXT_BYTES = 4 * MAX_TEXT_BYTES  # unpacked, of one file
MAX_PNG_CHUNKS = 100_000  # pixels count among them
MAX_SIDECAR_BYTES = 2**20
SIDECAR_SUFFIXES = (".txt", ".json")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP_KEYWORD = "XML:com.adobe.xmp"
_USER_COMMENT_TAG = 0x9286
_EXIF_TEXT_TAGS = (
    *("DocumentName", "ImageDescription", "Make", "Model", "Software", "Artist", "Copyright"),
    *("XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject"),
)


def read_image_metadata(
    source: Path | bytes,
    name: str = "",
    *,
    with_sidecars: bool = False,
    with_hidden: bool = False,
    max_pixels: int | None = None,
) -> ImageMetadata:
    """Return the texts in an image file.

    Args:
        source: A file, or its bytes.
        name: What messages call it; the file's name by default.
        with_sidecars: Whether files of the same name beside it count; only for the owner's paths.
        with_hidden: Whether its pixels are decoded for what their lowest bits hold.
        max_pixels: How many a guest's may have for that.

    Raises:
        BadPicture: It is no image of a known format.
    """
    name = name or (source.name if isinstance(source, Path) else "The image")
    with _open_file(source, name) as file:
        if file.read(len(_PNG_SIGNATURE)) == _PNG_SIGNATURE:
            texts = _read_png(file, name)
        else:
            file.seek(0)
            texts = _read_others(file, name)
        if with_hidden:
            file.seek(0)
            texts["hidden"] = read_hidden_text(file, FORMATS, max_pixels)
    if with_sidecars and isinstance(source, Path):
        texts["sidecars"] = read_sidecars(source)
    return ImageMetadata(**texts)


def read_sidecars(path: Path) -> dict[str, str]:
    """Return the texts of files beside an image that are called as it is, by their endings."""
    sidecars = {}
    for suffix in SIDECAR_SUFFIXES:
        for sidecar in (path.with_suffix(suffix), path.with_name(path.name + suffix)):
            with suppress(OSError, BadPicture):
                sidecars[suffix] = read_text_file(sidecar)
                break
    return sidecars


def read_text_file(path: Path) -> str:
    """Return the text in a small file. Raises OSError and BadPicture."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SIDECAR_BYTES:
        raise BadPicture(f"{path.name} is not a settings file: at most 1 MiB of text is accepted.")
    return text_bytes.decode_text(path.read_bytes())


def wrap_text(text: str) -> ImageMetadata:
    """Return a text alone, pasted or out of a file, as an image that holds nothing else."""
    text = text[:MAX_TEXT_BYTES].removeprefix("\ufeff")
    suffix = ".json" if text.lstrip()[:1] in ("{", "[") else ".txt"
    return ImageMetadata(chunks={"parameters": text}, sidecars={suffix: text})


def _open_file(source: Path | bytes, name: str) -> BinaryIO:
    """Open a regular file of a possible size. Raises BadPicture."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        status = os.stat(source)
        if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE_BYTES:
            return open(source, "rb")
    except OSError:
        raise BadPicture(f"{name} does not exist or cannot be read.") from None
    raise BadPicture(
        f"{name} is not an image file of at most {MAX_FILE_BYTES // 2**20} MiB; use {FORMAT_NAMES}."
    )


# ---- PNG --------------------------------------------------------------------------------------


def _read_png(file: BinaryIO, name: str) -> dict[str, Any]:
    """Read the texts before and behind a PNG's pixels."""
    chunks: dict[str, str] = {}
    texts: dict[str, Any] = {"chunks": chunks}
    unpacked_bytes = 0
    for kind, data in _iter_png_chunks(file):
        if kind == b"IHDR" and len(data) >= 8:
            texts["size"] = struct.unpack(">II", data[:8])
        elif kind == b"eXIf":
            exif = Image.Exif()
            with suppress(Exception):  # Pillow raises anything at damaged EXIF
                exif.load(data)
                texts |= _read_exif(exif)
        elif len(chunks) < MAX_TEXTS and unpacked_bytes < MAX_ALL_TEXT_BYTES:
            try:
                keyword, text = _decode_png_text(kind, data)
            except (ValueError, zlib.error):
                unpacked_bytes += MAX_TEXT_BYTES  # as much may have been unpacked
                continue
            unpacked_bytes += len(text)
            chunks.setdefault(keyword, text)
    if "size" not in texts:
        raise BadPicture(f"{name} is damaged or incomplete; use another copy.")
    texts["xmp"] = chunks.pop(_XMP_KEYWORD, "")
    return texts


def _iter_png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks that can hold texts, up to where the file ends or is cut off."""
    for _ in range(MAX_PNG_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            return
        length, kind = struct.unpack(">I4s", header)
        if kind == b"IEND":
            return
        if kind in (b"IHDR", b"tEXt", b"zTXt", b"iTXt", b"eXIf") and length <= MAX_TEXT_BYTES:
            data = file.read(length)
            if len(data) < length:
                return
            yield kind, data
            file.seek(4, os.SEEK_CUR)
        else:
            file.seek(length + 4, os.SEEK_CUR)


def _decode_png_text(kind: bytes, data: bytes) -> tuple[str, str]:
    """Return keyword and text of a chunk. Raises ValueError and zlib.error where it is odd."""
    keyword, separator, rest = data.partition(b"\0")
    if not separator or not keyword:
        raise ValueError
    if kind == b"zTXt":
        rest = _inflate(rest[1:])
    elif kind == b"iTXt":
        is_compressed = rest[:1] == b"\1"
        _language, _, rest = rest[2:].partition(b"\0")
        _translated, _, rest = rest.partition(b"\0")
        rest = _inflate(rest) if is_compressed else rest
    return keyword.decode("latin-1"), text_bytes.decode_text(rest)


def _inflate(data: bytes) -> bytes:
    """Unpack at most `MAX_TEXT_BYTES`: a few bytes can stand for gigabytes."""
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data, MAX_TEXT_BYTES)
    if unpacker.unconsumed_tail:
        raise ValueError
    return text


# ---- JPEG, WebP, AVIF, GIF ----------------------------------------------------------------------


def _read_others(file: BinaryIO, name: str) -> dict[str, Any]:
    """Read the texts that Pillow finds in a header."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        raise BadPicture(f"{name} has too many pixels to be opened.") from None
    except Exception:  # Pillow's plugins raise anything at a damaged header
        raise BadPicture(f"{name} is not a readable image; use {FORMAT_NAMES}.") from None
    texts: dict[str, Any] = {"size": image.size}
    with suppress(Exception):
        texts |= _read_exif(image.getexif())
    for key in ("xmp", "comment"):
        value = image.info.get(key, b"")
        if isinstance(value, bytes | str) and len(value) <= MAX_TEXT_BYTES:
            texts[key] = text_bytes.decode_text(value)
    with suppress(Exception):
        texts["iptc"] = _read_iptc(IptcImagePlugin.getiptcinfo(image) or {})
    return texts


def _read_exif(exif: Image.Exif) -> dict[str, Any]:
    """Return the user comment and the other texts of EXIF."""
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    comment = inner.get(_USER_COMMENT_TAG) or exif.get(_USER_COMMENT_TAG, b"")
    texts = {}
    for tag in _EXIF_TEXT_TAGS:
        value = exif.get(getattr(ExifTags.Base, tag))
        if tag.startswith("XP"):
            text = text_bytes.decode_windows_text(value)
        else:
            text = text_bytes.decode_text(value) if isinstance(value, bytes | str) else ""
        if text and len(text) <= MAX_TEXT_BYTES:
            texts[tag] = text
    return {"user_comment": text_bytes.decode_user_comment(comment), "exif": texts}


def _read_iptc(info: Mapping[tuple[int, int], Any]) -> dict[str, str]:
    texts = {}
    for (record, dataset), value in list(info.items())[:MAX_TEXTS]:
        values = value if isinstance(value, list) else [value]
        parts = [text_bytes.decode_text(part) for part in values if isinstance(part, bytes)]
        texts[f"{record}:{dataset}"] = "\n".join(parts[:MAX_TEXTS])
    return texts
