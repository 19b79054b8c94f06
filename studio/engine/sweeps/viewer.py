"""A sweep as one HTML file that needs no studio and no network.

Knows: how small images become to be embedded, when full ones are embedded or linked, how data is
kept from being markup.
Does not know: how cells were computed, the job table. How the page behaves stands in viewer.js, how
it looks in viewer.css.

All that a table says reaches the page as JSON and is shown as text. The page's policy allows its
own script and style by their hash, images from the file itself and, where full images are linked,
from beside it; nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from studio.engine.sweeps.results import (
    Coordinates,
    Table,
    TableCell,
    format_number,
    make_relative_path,
    serialize_verdict,
)
from studio.errors import BadPicture
from studio.imaging import decode
from studio.storage import atomic

ASSET_FOLDER = Path(__file__).resolve().parent
MAX_EMBEDDED_BYTES = 48 * 2**20  # of full images in the file; above that they are linked
# The longer side of a thumbnail, and the pixels of all thumbnails together
MAX_THUMBNAIL_SIDE_PX = 384
MIN_THUMBNAIL_SIDE_PX = 96
MAX_THUMBNAIL_PIXELS = 60_000_000
_IMAGE_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp"}


@dataclass(frozen=True)
class _Embedding:
    """How images get into the page.

    Attributes:
        folder: The folder that links are relative to.
        embed_images: Whether full images are embedded, or linked.
        thumbnail_side: The longer side of thumbnails, in pixels.
    """

    folder: Path
    embed_images: bool
    thumbnail_side: int


def write_viewer(
    table: Table,
    file: Path,
    embed_images: bool = True,
    *,
    max_embedded_bytes: int = MAX_EMBEDDED_BYTES,
) -> None:
    """Write the page. Cells are written one by one: memory holds one image.

    Args:
        table: A sweep.
        file: Where to write.
        embed_images: Whether full images may be embedded; thumbnails always are.
        max_embedded_bytes: If the images are larger together, they are linked relative to `file`.
    """
    if embed_images:
        total_bytes = sum(_get_file_size(cell.image_path) for cell in table.cells.values())
        embed_images = total_bytes <= max_embedded_bytes
    fair_side = math.sqrt(MAX_THUMBNAIL_PIXELS / max(1, len(table.cells)))
    thumbnail_side = int(max(MIN_THUMBNAIL_SIDE_PX, min(MAX_THUMBNAIL_SIDE_PX, fair_side)))
    style = _read_asset("viewer.css")
    script = _read_asset("viewer.js")
    template = _read_asset("viewer.html").replace("@SCRIPT@", script).replace("@STYLE@", style)
    head, tail = template.split("@DATA@")
    head = head.replace("@POLICY@", _build_csp(style, script, embed_images))
    head = head.replace("@TITLE@", html.escape(table.title or "Sweep"))
    embedding = _Embedding(file.parent, embed_images, thumbnail_side)
    with atomic.open_for_writing(file) as stream:
        for text in chain((head,), _iter_json(table, embedding), (tail,)):
            stream.write(text.encode("utf-8", "replace"))


def _read_asset(name: str) -> str:
    return (ASSET_FOLDER / name).read_text("utf-8")


def _build_csp(style: str, script: str, embed_images: bool) -> str:
    """Return the page's content security policy."""
    image_sources = "data:" if embed_images else "data: 'self' file:"
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash_source(script)}",
            f"style-src {_hash_source(style)}",
            f"img-src {image_sources}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash_source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _iter_json(table: Table, embedding: _Embedding) -> Iterator[str]:
    """Yield the JSON in pieces, harmless inside a script tag."""
    merged, index_of = table.merge_axis_groups()
    head = {
        "id": table.id,
        "title": table.title,
        "mode": table.mode,
        "fixed": table.fixed_settings,
        "edge": embedding.thumbnail_side,
        "axes": [{"title": axis.title, "labels": axis.labels} for axis in merged.axes],
    }
    yield _dump_json(head).removesuffix("}") + ',"cells":['
    separator = ""
    for coordinates, cell in sorted(merged.cells.items()):
        source_coordinates = tuple(coordinates[k] for k in index_of)
        entry = _build_cell_entry(cell, coordinates, source_coordinates, embedding)
        yield separator + _dump_json(entry)
        separator = ","
    yield "]}"


def _dump_json(value: object) -> str:
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _build_cell_entry(
    cell: TableCell,
    coordinates: Coordinates,
    source_coordinates: Coordinates,
    embedding: _Embedding,
) -> dict[str, Any]:
    """Return what the page gets of a cell, at its places in the merged and in the stored table."""
    entry: dict[str, Any] = {
        "key": cell.key,
        "at": coordinates,
        "from": source_coordinates,
        "seed": cell.seed,
        "settings": cell.settings,
        "error": cell.error,
        "numbers": {name: format_number(value) for name, value in cell.metrics.items()},
        "verdict": serialize_verdict(cell.verdict),
    }
    if cell.image_path and not cell.error:
        try:
            entry |= _build_image_entry(cell.image_path, cell.thumbnail_path, embedding)
        except BadPicture as fault:
            entry["error"] = str(fault)
    return entry


def _build_image_entry(
    path: Path, thumbnail_path: Path | None, embedding: _Embedding
) -> dict[str, Any]:
    """Return full image and thumbnail as addresses.

    An embedded image that is no larger than a thumbnail needs none.
    """
    width, height = _read_image_size(path)
    if embedding.embed_images:
        address = _make_data_uri(path.read_bytes())
    else:
        address = _make_link(path, embedding.folder)
    entry = {"full": address, "width": width, "height": height, "file": path.name}
    if not embedding.embed_images or max(width, height) > embedding.thumbnail_side:
        thumbnail = _make_thumbnail(path, thumbnail_path, embedding.thumbnail_side)
        entry["thumb"] = _make_data_uri(thumbnail)
    return entry


def _make_link(path: Path, folder: Path) -> str:
    """Return a link relative to a folder; an absolute one on another drive."""
    relative_path = make_relative_path(path, folder)
    if Path(relative_path).is_absolute():
        return path.resolve().as_uri()
    return quote(relative_path)


def _make_thumbnail(path: Path, thumbnail_path: Path | None, side: int) -> bytes:
    """Return a WebP of at most `side` pixels; from the stored thumbnail if that is large enough."""
    if (
        thumbnail_path is not None
        and thumbnail_path.is_file()
        and max(_read_image_size(thumbnail_path)) >= side
    ):
        path = thumbnail_path
    image = decode.load_image(path).image
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=84)
    return buffer.getvalue()


def _read_image_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path, formats=decode.ALLOWED_FORMATS) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise BadPicture(f"{path.name} is gone or is no longer an image.") from None


def _make_data_uri(data: bytes) -> str:
    for signature, image_type in _IMAGE_SIGNATURES.items():
        if data.startswith(signature):
            return f"data:image/{image_type};base64,{base64.b64encode(data).decode()}"
    raise BadPicture("A cell's image is not PNG, JPEG or WebP.")


def _get_file_size(path: Path | None) -> int:
    try:
        return path.stat().st_size if path else 0
    except OSError:
        return 0
