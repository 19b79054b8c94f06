"""The one way in for images: checked before they are decoded, turned upright, converted to RGB.

Knows: formats, sizes, orientation, transparency, colour profiles, 16 bits. Does not know: what an
image is for.
"""

from __future__ import annotations

import io
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageCms, ImageOps, features

from studio.core.generation.recipes.xmp import find_studio_json
from studio.errors import BadPicture

HAS_AVIF = bool(features.check("avif"))  # a Pillow built without it does not know the name
ALLOWED_FORMATS = ("PNG", "JPEG", "WEBP", *(["AVIF"] if HAS_AVIF else []), "BMP", "GIF")
MAX_PIXELS = 64_000_000
MAX_SIDE_PX = 16_384
MIN_INPUT_SIDE_PX = 8
MAX_FILE_BYTES = 256 * 2**20
BIG_IMAGE_PIXELS = 4_000_000  # from here on only one at a time
_BIG_IMAGE = threading.RLock()
_GUESTS_BIG_IMAGE = threading.RLock()
_EXIF_ORIENTATION = 0x0112
_SIDEWAYS_ORIENTATIONS = (5, 6, 7, 8)
_EXIF_IFD = 0x8769
_EXIF_USER_COMMENT = 0x9286
_USER_COMMENT_CODECS = {b"UNICODE\0": "utf-16-be", b"ASCII\0\0\0": "ascii"}


@dataclass(frozen=True)
class DecodedImage:
    """An image as RGB or RGBA, its file's text chunks, what was done to it that one should know."""

    image: Image.Image
    text_chunks: dict[str, str]
    notes: tuple[str, ...]


def load_image(
    source: Path | bytes,
    name: str = "",
    background: tuple[int, int, int] | None = (255, 255, 255),
    max_pixels: int | None = None,
) -> DecodedImage:
    """Decode an image upright and as RGB, or as RGBA where transparency is kept and there is some.

    Args:
        source: a file, or its bytes.
        name: what messages call it; the file's name by default.
        background: RGB colour, 0 to 255, behind transparent places; None keeps those.
        max_pixels: how many a guest's may have; None where the owner brought it.

    Raises:
        BadPicture: it has no format or size that is allowed, or it is damaged.
    """
    name = name or _default_name(source)
    with (
        _open_image(source, name, max_pixels) as image,
        _hold_big_image(image.size, max_pixels),
    ):
        notes = []
        try:
            if getattr(image, "is_animated", False):  # n_frames would read a long one to its end
                notes.append(f"{name} is animated; only its first frame is used.")
            image.load()
            text_chunks = _read_text_chunks(image)
            if comment := _read_user_comment(image):
                text_chunks["parameters"] = comment
            if studio_json := _read_studio_json(image):
                text_chunks.setdefault("studio", studio_json)
            upright_image = ImageOps.exif_transpose(image)
            profile = image.info.get("icc_profile")
            rgb_image = _to_rgb(upright_image, background, notes, name)
            if profile and upright_image.mode in ("RGB", "RGBA", "P"):
                rgb_image = _to_srgb(rgb_image, profile)
        except BadPicture:
            raise
        except Exception as error:  # Pillow's plugins raise anything: AssertionError, struct.error
            raise _damaged_image(name, error) from None
    return DecodedImage(rgb_image, text_chunks, tuple(notes))


def load_alpha_mask(
    source: Path | bytes, name: str = "", max_pixels: int | None = None
) -> Image.Image | None:
    """Read the mask that an image carries in its transparency.

    Args:
        source: a file, or its bytes.
        name: what messages call it; the file's name by default.
        max_pixels: how many a guest's may have; None where the owner brought it.

    Returns:
        Upright, mode L, 255 where the image is fully transparent; None if it is opaque.

    Raises:
        BadPicture: it has no format or size that is allowed, or it is damaged.
    """
    name = name or _default_name(source)
    with (
        _open_image(source, name, max_pixels) as image,
        _hold_big_image(image.size, max_pixels),
    ):
        try:
            image.load()
            if not image.has_transparency_data:
                return None
            alpha = ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")
        except Exception as error:
            raise _damaged_image(name, error) from None
    if alpha.getextrema() == (255, 255):
        return None
    return ImageOps.invert(alpha)


def read_image_size(path: Path, name: str = "") -> tuple[int, int]:
    """Read (width, height) of the upright image from its header, without decoding pixels.

    Raises:
        BadPicture: it has no format or size that is allowed.
    """
    name = name or path.name
    with _open_image(path, name) as image:
        try:
            is_sideways = image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS_ORIENTATIONS
        except Exception:
            is_sideways = False
        width, height = image.size
    return (height, width) if is_sideways else (width, height)


def read_text_chunks(path: Path) -> dict[str, str]:
    """Return the texts that stand before a PNG's pixels, without decoding these.

    Raises:
        BadPicture: it has no format or size that is allowed, or its header is damaged.
    """
    with _open_image(path, path.name) as image:
        return _read_text_chunks(image)


@contextmanager
def take_turn_for(source: Path | bytes, max_pixels: int | None = None) -> Iterator[None]:
    """Wait until no other big image is worked on, and hold that turn.

    For what goes on with an image after it was decoded. A file that is no image needs no turn.

    Args:
        source: a file, or its bytes.
        max_pixels: how many a guest's may have; None where the owner brought it.
    """
    try:
        with _open_image(source, "", max_pixels) as image:
            size = image.size
    except BadPicture:  # whoever decodes it says so
        size = (0, 0)
    with _hold_big_image(size, max_pixels):
        yield


@contextmanager
def _hold_big_image(size: tuple[int, int], max_pixels: int | None) -> Iterator[None]:
    """Let one big image be worked on at a time in this process; guests queue up among themselves.

    64 million pixels take some 700 MB while they are converted.
    """
    with ExitStack() as held:
        if size[0] * size[1] > BIG_IMAGE_PIXELS:
            if max_pixels is not None:
                held.enter_context(_GUESTS_BIG_IMAGE)
            held.enter_context(_BIG_IMAGE)
        yield


def _default_name(source: Path | bytes) -> str:
    return source.name if isinstance(source, Path) else "The image"


def _damaged_image(name: str, error: Exception) -> BadPicture:
    return BadPicture(
        f"{name} is damaged or cut off ({type(error).__name__}); take another copy of it."
    )


def _open_image(source: Path | bytes, name: str, max_pixels: int | None = None) -> Image.Image:
    """Open a file and check its header; no pixel is decoded yet."""
    try:
        num_bytes = _measure_file(source, name) if isinstance(source, Path) else len(source)
        if num_bytes > MAX_FILE_BYTES:
            raise BadPicture(
                f"{name} is {num_bytes / 2**20:.0f} MiB; at most {MAX_FILE_BYTES // 2**20} "
                "MiB are accepted."
            )
        file = source if isinstance(source, Path) else io.BytesIO(source)
        with warnings.catch_warnings():
            # the size is checked below, more strictly
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=ALLOWED_FORMATS)
    except Image.DecompressionBombError:
        raise BadPicture(
            f"{name} has too many pixels; at most {MAX_PIXELS // 10**6} million are accepted."
        ) from None
    except FileNotFoundError:
        raise BadPicture(f"{name} does not exist.") from None
    except BadPicture:
        raise
    except Exception:  # Pillow's plugins raise anything at a damaged header
        raise BadPicture(
            f"{name} is not a readable image; use PNG, JPEG, WebP, AVIF, BMP or GIF."
        ) from None
    try:
        _check_size(image.size, name, max_pixels)
    except BadPicture:
        image.close()
        raise
    return image


def _measure_file(path: Path, name: str) -> int:
    """Return the bytes of a file. Raises BadPicture for a pipe, which would never answer."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BadPicture(f"{name} is not a file; use PNG, JPEG, WebP, AVIF, BMP or GIF.")
    return status.st_size


def _check_size(size: tuple[int, int], name: str, max_pixels: int | None) -> None:
    width, height = size
    if max_pixels is not None and width * height > max_pixels:
        raise BadPicture(
            f"{name} is {width} x {height} pixels; guests may send up to "
            f"{max_pixels / 1000000.0:g} million pixels. Make it smaller."
        )
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE_PX:
        raise BadPicture(
            f"{name} is {width} x {height} pixels; at most {MAX_PIXELS // 10**6} million pixels "
            f"and {MAX_SIDE_PX} a side are accepted."
        )
    if min(width, height) < MIN_INPUT_SIDE_PX:
        raise BadPicture(
            f"{name} is only {width} x {height} pixels; each side needs at least "
            f"{MIN_INPUT_SIDE_PX}."
        )


def _to_rgb(
    image: Image.Image, background: tuple[int, int, int] | None, notes: list[str], name: str
) -> Image.Image:
    """Convert to RGB; what the owner should know about it is added to `notes`.

    Without a background an image with transparent places becomes RGBA.
    """
    if image.mode.startswith("I"):  # 16 bits: `convert` would clip nearly all of it to white
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if image.mode == "F":
        raise BadPicture(f"{name} contains floating-point values; save it with 8 bits per channel.")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    is_transparent = layer.getchannel("A").getextrema() != (255, 255)
    if background is None:
        return layer if is_transparent else layer.convert("RGB")
    if is_transparent:
        notes.append(f"{name} has transparent areas, which are filled with {background}.")
    backdrop = Image.new("RGBA", layer.size, (*background, 255))
    return Image.alpha_composite(backdrop, layer).convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert colours to sRGB; a profile that cannot be read is ignored."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    try:
        source_profile = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb_profile = ImageCms.createProfile("sRGB")
        converted_image = ImageCms.profileToProfile(
            image.convert("RGB"), source_profile, srgb_profile, outputMode="RGB"
        )
    except Exception:  # of a damaged one also TypeError
        return image
    if converted_image is None:
        return image
    if alpha is not None:
        converted_image.putalpha(alpha)
    return converted_image


def _read_text_chunks(image: Image.Image) -> dict[str, str]:
    return {str(key): value for key, value in image.info.items() if isinstance(value, str)}


def _read_user_comment(image: Image.Image) -> str:
    """Read A1111's settings in a JPEG or WebP.

    They stand in EXIF's UserComment, whose first 8 bytes say the codec.
    """
    try:
        comment = image.getexif().get_ifd(_EXIF_IFD).get(_EXIF_USER_COMMENT, b"")
    except Exception:
        return ""
    if not isinstance(comment, bytes) or len(comment) <= 8:
        return ""
    codec = _USER_COMMENT_CODECS.get(comment[:8], "utf-8")
    return comment[8:].decode(codec, "replace")


def _read_studio_json(image: Image.Image) -> str:
    """Read our own settings in a JPEG, WebP or AVIF: they stand in the XMP packet."""
    packet = image.info.get("xmp", b"")
    if not isinstance(packet, bytes):
        return ""
    return find_studio_json(packet.decode("utf-8", "replace"))
