"""Images as files of any format, with the texts that they carry.

Knows: where each format has room for texts, how much. Does not know: what the texts say
(core/generation/carried.py), what an image is for.

- PNG: `parameters` and `studio` as international text, ComfyUI's `prompt`, an XMP packet.
- JPEG, WebP, AVIF: A1111's text as EXIF's UserComment, as A1111 writes it; our JSON in the XMP.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.core.generation.carried import CarriedTexts
from studio.core.generation.recipes.xmp import build_packet

ImageFormat = Literal["PNG", "JPEG", "WebP", "AVIF"]
SUFFIXES: dict[ImageFormat, str] = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "WebP": ".webp",
    "AVIF": ".avif",
}
DEFAULT_QUALITY = 90
MAX_JPEG_EXIF_BYTES = 65_533
MAX_JPEG_XMP_BYTES = 65_504
_PNG_XMP_KEYWORD = "XML:com.adobe.xmp"
_EXIF_IFD = 0x8769
_EXIF_USER_COMMENT = 0x9286


@dataclass(frozen=True)
class EncodedImage:
    """A file's bytes, and a sentence for each thing that had no room in it."""

    data: bytes
    notes: tuple[str, ...] = ()


def encode_png(image: Image.Image, texts: CarriedTexts) -> bytes:
    """Return an image as PNG, with its texts."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=build_png_info(texts))
    return buffer.getvalue()


def build_png_info(texts: CarriedTexts) -> PngInfo:
    """Return texts as what Pillow writes into a PNG."""
    info = PngInfo()
    chunks = {
        "parameters": texts.parameters,
        "studio": texts.studio_json,
        "prompt": texts.comfyui_prompt,
        _PNG_XMP_KEYWORD: build_packet("", texts.source_type),
    }
    for keyword, text in chunks.items():
        if text and keyword == "prompt":
            info.add_text(keyword, text)  # ComfyUI's page reads no other kind; it is ASCII
        elif text:
            info.add_itxt(keyword, text)
    return info


def encode_image(
    image: Image.Image, texts: CarriedTexts, image_format: ImageFormat, quality: int
) -> EncodedImage:
    """Return an image as a file of a format, with its texts.

    Args:
        image: RGB.
        texts: What it carries.
        image_format: One of `SUFFIXES`.
        quality: 1 to 100, of all but PNG. At 100 WebP loses nothing.
    """
    if image_format == "PNG":
        return EncodedImage(encode_png(image, texts))
    exif = _build_exif(texts.parameters) if texts.parameters else b""
    packet = build_packet(texts.studio_json, texts.source_type).encode()
    notes = []
    if image_format == "JPEG" and len(exif) > MAX_JPEG_EXIF_BYTES:
        exif = b""
        notes.append(
            "A1111's text is too long for a JPEG and was left out; PNG and WebP can hold it."
        )
    if image_format == "JPEG" and len(packet) > MAX_JPEG_XMP_BYTES:
        packet = build_packet("", texts.source_type).encode()
        notes.append("The studio's own settings are too long for a JPEG and were left out.")
    options: dict[str, object] = {"quality": quality}
    if exif:
        options["exif"] = exif
    if packet:
        options["xmp"] = packet
    if image_format == "WebP":
        options |= {"method": 4, "lossless": quality == 100}
    if image_format == "JPEG":
        options |= {"optimize": True, "subsampling": 0 if quality >= DEFAULT_QUALITY else 2}
    if image_format == "AVIF" and quality >= DEFAULT_QUALITY:
        options["subsampling"] = "4:4:4"
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, image_format.upper(), **options)
    return EncodedImage(buffer.getvalue(), tuple(notes))


def _build_exif(parameters: str) -> bytes:
    """Return EXIF with A1111's text as its UserComment, in UTF-16 behind the word UNICODE."""
    exif = Image.Exif()
    comment = b"UNICODE\0" + parameters.encode("utf-16-be", "replace")
    exif.get_ifd(_EXIF_IFD)[_EXIF_USER_COMMENT] = comment
    return exif.tobytes()
