"""Texts in the lowest bits of pixels: NovelAI's, and those of A1111's "stealth" extension.

Knows: how the bits are laid: column by column, a signature, the length in bits, the text, packed or
not; in the alpha channel or in red, green and blue. Does not know: what the text says.

Source: the layout that NovelAI's public reader of its pictures documents (novelai-image-metadata)
and the signatures of the extension sd_webui_stealth_pnginfo.
"""

from __future__ import annotations

import warnings
import zlib
from typing import BinaryIO

from PIL import Image

from studio.imaging.decode import MAX_PIXELS

MAX_HIDDEN_BYTES = 2**20  # packed
MAX_UNPACKED_BYTES = 8 * 2**20
_SIGNATURE_BYTES = 15
_LENGTH_BYTES = 4
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
# Each signature with whether it stands in the alpha channel, and whether the text is packed.
_SIGNATURES = {
    b"stealth_pnginfo": (True, False),
    b"stealth_pngcomp": (True, True),
    b"stealth_rgbinfo": (False, False),
    b"stealth_rgbcomp": (False, True),
}
_LOWEST_BITS = [0, 255] * 128  # of each value that a sample may have


def read_hidden_text(
    file: BinaryIO, formats: tuple[str, ...], max_pixels: int | None = None
) -> str:
    """Return what the pixels of an image hide; empty for most, and for what is damaged.

    Args:
        file: An image.
        formats: Those that Pillow may try.
        max_pixels: How many it may have at most; 64 million in any case.
    """
    limit = min(MAX_PIXELS, max_pixels or MAX_PIXELS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=formats)
        if image.format == "JPEG" or image.mode not in ("RGB", "RGBA"):
            return ""  # nothing survives in JPEG
        if image.width * image.height > limit:
            return ""
        image.load()
        for channels in ("A", "RGB") if image.mode == "RGBA" else ("RGB",):
            if text := _read_channels(image, channels):
                return text
    except Exception:  # Pillow raises anything at damaged pixels
        return ""
    return ""


def _read_channels(image: Image.Image, channels: str) -> str:
    head = _read_bytes(image, channels, _SIGNATURE_BYTES + _LENGTH_BYTES)
    signature = _SIGNATURES.get(head[:_SIGNATURE_BYTES])
    if signature is None or signature[0] != (channels == "A"):
        return ""
    num_bytes = int.from_bytes(head[_SIGNATURE_BYTES:], "big") // 8
    if not 0 < num_bytes <= MAX_HIDDEN_BYTES:
        return ""
    data = _read_bytes(image, channels, len(head) + num_bytes)[len(head) :]
    if len(data) < num_bytes:
        return ""
    if signature[1]:
        data = zlib.decompressobj(_GZIP_WINDOW).decompress(data, MAX_UNPACKED_BYTES)
    return data.decode("utf-8", "replace")


def _read_bytes(image: Image.Image, channels: str, num_bytes: int) -> bytes:
    """Return the first bytes that the lowest bits make, fewer where the image ends."""
    bits_per_column = image.height * len(channels)
    columns = min(image.width, -(-num_bytes * 8 // bits_per_column))
    turned = image.crop((0, 0, columns, image.height)).transpose(Image.Transpose.TRANSPOSE)
    samples = (turned.getchannel("A") if channels == "A" else turned.convert("RGB")).tobytes()
    samples = samples[: min(num_bytes, len(samples) // 8) * 8]
    if not samples:
        return b""
    # Pillow packs bits as it stores them; NumPy would be loaded by all that reads a setting.
    line = Image.frombytes("L", (len(samples), 1), samples)
    return line.point(_LOWEST_BITS, "1").tobytes()
