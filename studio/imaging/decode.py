"""The one way a picture comes in: checked before it is decoded, upright, RGB.

Knows: formats, sizes, orientation, transparency, colour profiles, 16 bits. Does not know: what the picture is for.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from studio.errors import BadPicture

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
MOST_PIXELS = 64_000_000
MOST_SIDE = 16_384
LEAST_SIDE = 8
MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Loaded:
    """A picture as RGB, the text chunks it came with, and what was done to it that its owner should know."""

    image: Image.Image
    text: dict[str, str]
    notes: tuple[str, ...]


def load(
    source: Path | bytes, name: str = "", background: tuple[int, int, int] = (255, 255, 255)
) -> Loaded:
    """Read a picture upright and as RGB; transparent places show `background`. Raises BadPicture."""
    name = name or (source.name if isinstance(source, Path) else "The picture")
    with _opened(source, name) as image:
        notes = []
        try:
            if getattr(image, "is_animated", False):  # n_frames would read a long one to its end
                notes.append(f"{name} is animated: its first frame is taken.")
            image.load()
            text = {str(key): value for key, value in image.info.items() if isinstance(value, str)}
            text |= {"parameters": comment} if (comment := _user_comment(image)) else {}
            upright = ImageOps.exif_transpose(image)
            profile = image.info.get("icc_profile")
            rgb = _rgb(upright, background, notes, name)
            rgb = _srgb(rgb, profile) if profile and upright.mode in ("RGB", "RGBA", "P") else rgb
        except (OSError, ValueError, SyntaxError, IndexError, MemoryError) as error:
            raise BadPicture(
                f"{name} is damaged or cut off ({type(error).__name__}); take another copy of it."
            ) from None
    return Loaded(rgb, text, tuple(notes))


def transparent(source: Path | bytes, name: str = "") -> Image.Image | None:
    """The mask that a picture carries in its transparency: white (of mode L) where nothing is seen, upright. None if it has none.

    Raises BadPicture.
    """
    name = name or (source.name if isinstance(source, Path) else "The picture")
    with _opened(source, name) as image:
        try:
            image.load()
            if not image.has_transparency_data:
                return None
            seen = ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")
        except (OSError, ValueError, SyntaxError, IndexError, MemoryError) as error:
            raise BadPicture(
                f"{name} is damaged or cut off ({type(error).__name__}); take another copy of it."
            ) from None
    return None if seen.getextrema() == (255, 255) else ImageOps.invert(seen)


def measure(path: Path, name: str = "") -> tuple[int, int]:
    """Width and height of the upright picture from its header; its pixels are not decoded. Raises BadPicture."""
    name = name or path.name
    with _opened(path, name) as image:
        try:
            turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
        except (OSError, ValueError, SyntaxError, IndexError, KeyError, MemoryError):
            turned = False
        width, height = image.size
    return (height, width) if turned else (width, height)


def _opened(source: Path | bytes, name: str) -> Image.Image:
    """The file opened, its header judged, nothing decoded yet."""
    try:
        size = source.stat().st_size if isinstance(source, Path) else len(source)
        if size > MOST_BYTES:
            raise BadPicture(
                f"{name} is {size / 2**20:.0f} MiB large; at most {MOST_BYTES // 2**20} MiB are taken."
            )
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # the size is judged below, more strictly
            image = Image.open(
                source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS
            )
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        ValueError,
        SyntaxError,
    ) as error:
        if isinstance(error, Image.DecompressionBombError):
            raise BadPicture(
                f"{name} has too many pixels; at most {MOST_PIXELS // 10**6} million are taken."
            ) from None
        if isinstance(error, FileNotFoundError):
            raise BadPicture(f"{name} is not there.") from None
        raise BadPicture(
            f"{name} is no picture that can be read; use PNG, JPEG, WebP, BMP or GIF."
        ) from None
    width, height = image.size
    if width * height > MOST_PIXELS or max(width, height) > MOST_SIDE:
        image.close()
        raise BadPicture(
            f"{name} is {width} x {height} pixels large; at most {MOST_PIXELS // 10**6} million pixels and "
            f"{MOST_SIDE} a side are taken."
        )
    if min(width, height) < LEAST_SIDE:
        image.close()
        raise BadPicture(
            f"{name} is only {width} x {height} pixels large; each side needs {LEAST_SIDE}."
        )
    return image


def _rgb(
    image: Image.Image, background: tuple[int, int, int], notes: list[str], name: str
) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits: `convert` would clip nearly all of it to white
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if image.mode == "F":
        raise BadPicture(f"{name} holds floating point values; save it with 8 bits a channel.")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        if layer.getchannel("A").getextrema() != (255, 255):
            notes.append(
                f"{name} has transparent places: they are filled with the colour {background}."
            )
        return Image.alpha_composite(
            Image.new("RGBA", layer.size, (*background, 255)), layer
        ).convert("RGB")
    return image.convert("RGB")


def _srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Colours as sRGB; a profile that cannot be read is as good as none."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        turned = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return turned or image


def _user_comment(image: Image.Image) -> str:
    """A1111's settings in a JPEG or WebP: EXIF UserComment, with its eight bytes that name the encoding."""
    try:
        raw = image.getexif().get_ifd(0x8769).get(0x9286, b"")
    except (ValueError, SyntaxError, KeyError, OSError):
        return ""
    if not isinstance(raw, bytes) or len(raw) <= 8:
        return ""
    codec = {b"UNICODE\0": "utf-16-be", b"ASCII\0\0\0": "ascii"}.get(raw[:8], "utf-8")
    return raw[8:].decode(codec, "replace")
