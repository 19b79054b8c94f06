"""A sweep as one HTML file that needs no studio and no network: swap axes, hide values, zoom, pin, compare, judge.

Knows: how small pictures become to be embedded, when whole ones are embedded or linked, how data is kept from being markup.
Does not know: how cells were computed, the job table. How the page behaves stands in viewer.js, how it looks in viewer.css.

All that a table says reaches the page as JSON and is shown as text. The page's policy allows its own script and style by their
hash, pictures from the file itself and, where whole pictures are linked, from beside it; nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from studio.engine.sweeps.results import Coordinates, Table, TableCell, address, said
from studio.errors import BadPicture
from studio.imaging import decode
from studio.storage import atomic

HERE = Path(__file__).resolve().parent
MOST_EMBEDDED = 48 * 2**20  # bytes of whole pictures in the file; above that they are linked
LARGEST_THUMB, SMALLEST_THUMB, THUMB_PIXELS = (
    384,
    96,
    60_000_000,
)  # longer side in pixels; pixels of all thumbnails together
_KINDS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp"}


def write_viewer(
    table: Table, file: Path, embed: bool = True, *, most_embedded: int = MOST_EMBEDDED
) -> None:
    """Write the page. Thumbnails are always inside; whole pictures too if `embed` and all together stay below `most_embedded`
    bytes, else they are linked relative to `file`. Cells are written one by one: memory holds one picture."""
    whole = embed and sum(_bytes(cell.picture) for cell in table.cells.values()) <= most_embedded
    edge = int(
        max(SMALLEST_THUMB, min(LARGEST_THUMB, math.sqrt(THUMB_PIXELS / max(1, len(table.cells)))))
    )
    style, script = (_asset(f"viewer.{kind}") for kind in ("css", "js"))
    before, after = (
        _asset("viewer.html").replace("@SCRIPT@", script).replace("@STYLE@", style).split("@DATA@")
    )
    before = before.replace("@POLICY@", _policy(style, script, whole)).replace(
        "@TITLE@", html.escape(table.title or "Sweep")
    )
    with atomic.writing(file) as out:
        for part in chain((before,), _data(table, file, whole, edge), (after,)):
            out.write(part.encode("utf-8", "replace"))


def _asset(name: str) -> str:
    return (HERE / name).read_text("utf-8")


def _policy(style: str, script: str, whole: bool) -> str:
    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    linked = "" if whole else " 'self' file:"
    return (
        f"default-src 'none'; script-src {hashed(script)}; style-src {hashed(style)}; img-src data:{linked}; base-uri 'none'; "
        "form-action 'none'"
    )


def _data(table: Table, file: Path, whole: bool, edge: int) -> Iterator[str]:
    """The JSON in pieces, harmless inside a script tag."""
    folded, where = table.folded()
    head = {
        "id": table.id,
        "title": table.title,
        "mode": table.mode,
        "fixed": table.fixed,
        "edge": edge,
        "axes": [{"title": axis.title, "labels": axis.labels} for axis in folded.axes],
    }
    yield _json(head)[:-1] + ',"cells":['
    for number, (at, cell) in enumerate(sorted(folded.cells.items())):
        yield ("," if number else "") + _json(
            _entry(tuple(at[k] for k in where), at, cell, file, whole, edge)
        )
    yield "]}"


def _json(value: object) -> str:
    return (
        json.dumps(value, allow_nan=False)
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
    )


def _entry(
    source: Coordinates, at: Coordinates, cell: TableCell, file: Path, whole: bool, edge: int
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "key": cell.key,
        "at": at,
        "from": source,
        "seed": cell.seed,
        "settings": cell.settings,
        "error": cell.error,
        "numbers": {name: said(value) for name, value in cell.numbers.items()},
    }
    entry["verdict"] = {
        "stars": cell.verdict.stars,
        "note": cell.verdict.note,
        "best": cell.verdict.best,
    }
    if cell.picture and not cell.error:
        try:
            entry |= _picture(cell.picture, cell.thumb, file, whole, edge)
        except BadPicture as fault:
            entry["error"] = str(fault)
    return entry


def _picture(path: Path, thumb: Path | None, file: Path, whole: bool, edge: int) -> dict[str, Any]:
    """Thumbnail and whole picture as addresses. A picture that is no larger than a thumbnail is its own."""
    width, height = _size(path)
    link = address(path, file.parent)
    full = (
        _uri(path.read_bytes())
        if whole
        else path.resolve().as_uri()
        if Path(link).is_absolute()
        else quote(link)
    )
    said_of = {"full": full, "width": width, "height": height, "file": path.name}
    if whole and max(width, height) <= edge:
        return said_of
    return said_of | {"thumb": _uri(_small(path, thumb, edge))}


def _small(path: Path, thumb: Path | None, edge: int) -> bytes:
    """WebP of at most `edge` pixels; from the ready thumbnail where that is large enough."""
    ready = thumb is not None and thumb.is_file() and max(_size(thumb)) >= edge
    image = decode.load(thumb if ready and thumb else path).image
    image.thumbnail((edge, edge), Image.Resampling.LANCZOS, reducing_gap=3)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=84)
    return out.getvalue()


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path, formats=decode.FORMATS) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise BadPicture(f"{path.name} is gone or no picture any more.") from None


def _uri(data: bytes) -> str:
    kind = next((kind for start, kind in _KINDS.items() if data.startswith(start)), None)
    if kind is None:
        raise BadPicture("A cell's picture is not PNG, JPEG or WebP.")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _bytes(path: Path | None) -> int:
    try:
        return path.stat().st_size if path else 0
    except OSError:
        return 0
