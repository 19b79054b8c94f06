"""The easel: a picture on the page that is worked on, with what is painted over it.

Knows: how a picture gets there (a file, another tab, a blank sheet) and what comes back: the drawn layer, as pixels. Does not know:
what the picture is for; how it is painted on (easel.js) and drawn (easel_html.py).

Only the page's own state says which picture it is; the browser sends no more than a layer and whether the mask is inverted. A
browser that guards against tracking changes the last bits of pixels that a page reads back: so the picture itself never goes
through it, and a layer's nearly black is black.
"""

from __future__ import annotations

import base64
import binascii
import html
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageChops

from studio.core.generation.geometry import Box
from studio.errors import BadPicture
from studio.imaging import decode
from studio.ui import show
from studio.ui.components import mask_editor_html
from studio.ui.guard import uploaded
from studio.ui.widgets import Desk, Updates

MOST = 4096  # pixels, the longer side: more than any model paints, and still fluent under a brush
MOST_DRAWN = 96 * 2**20  # characters of a layer
NOISE = 8  # of 255: what a guarded browser may change
PREFIX = "data:image/png;base64,"


@dataclass(frozen=True)
class Source:
    """A picture on the easel, by hashes of files in inputs/: `alpha` masks its transparent places, `mask` is what it came with;
    `by` is the guest who brought it."""

    image: str
    width: int
    height: int
    name: str = ""
    alpha: str = ""
    mask: str = ""
    invert: bool = False
    by: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


class Easel:
    """One build of it; `mode` is "mask" or "sketch"."""

    def __init__(self, desk: Desk, name: str, mode: str) -> None:
        self.inputs, self.mode = desk.library.inputs, mode
        self.html = gr.HTML(
            {},
            html_template=mask_editor_html.template(mode),
            js_on_load=mask_editor_html.SCRIPT,
            apply_default_css=False,
            elem_id=f"{name}-easel",
            elem_classes="easel-place",
            told={},
            box={},
        )
        self.source: gr.State = gr.State(None)

    @property
    def outputs(self) -> list[Any]:
        return [self.html, self.source]

    # ---- what is put there --------------------------------------------------------------------------------------

    def put(self, source: Source | None, told: dict[str, Any] | None = None) -> Updates:
        """Show a picture with the mask it came with; None clears the easel. `told` is as for `tell`."""
        value: dict[str, Any] = {"key": secrets.token_hex(8)}
        if source:
            value |= {
                "url": self._address(source.image),
                "width": source.width,
                "height": source.height,
                "invert": source.invert,
                "layer": self._address(source.mask) if source.mask else "",
                "alpha": bool(source.alpha),
            }
        return {
            self.html: gr.HTML(value, told=told) if told else gr.HTML(value),
            self.source: source,
        }

    def tell(self, told: dict[str, Any]) -> Updates:
        """What else is to be seen: `extend` (left, top, right, bottom), whether to `paint`.

        With an `area` (whatever decides which part is painted) the page asks for that part, by an `input`, whenever it or the mask
        has changed.
        """
        return {self.html: gr.HTML(told=told)}

    def framed(self, value: Any, box: Box | None) -> Updates:
        """That part, drawn around in the picture that the browser's `value` is of; None is none."""
        key = value.get("key") if isinstance(value, dict) else None
        return {self.html: gr.HTML(box={"key": key, "at": list(box)} if box else {})}

    def _address(self, digest: str) -> str:
        return show.address(self.inputs.path(digest))

    def taken(self, path: Path, name: str = "", by: str | None = None) -> Source:
        """A picture file as a source; what was done to it is said. Raises BadPicture."""
        loaded, alpha = decode.load(path, name), decode.transparent(path, name)
        image, notes = loaded.image, list(loaded.notes)
        if max(image.size) > MOST:
            image = image.copy()
            image.thumbnail((MOST, MOST), Image.Resampling.LANCZOS)
            notes.append(
                f"{name or path.name} is {loaded.image.width} × {loaded.image.height}; it is worked on at {image.width} × "
                f"{image.height}."
            )
            alpha = alpha.resize(image.size) if alpha else None
        for note in notes:
            gr.Info(html.escape(note))
        return Source(
            self.inputs.add(image, by=by).sha256,
            *image.size,
            name or path.name,
            self.inputs.add_mask(alpha, by=by).sha256 if alpha else "",
            by=by,
        )

    def known(
        self, digest: str, mask: str = "", invert: bool = False, by: str | None = None
    ) -> Source | None:
        """One that is in inputs/ already, as a request names it; None if it is gone, or that guest never brought it."""
        try:
            for one in filter(None, (digest, mask)):
                self.inputs.path(one, by)
            return Source(digest, *self.inputs.size(digest), mask=mask, invert=invert, by=by)
        except BadPicture:
            return None

    def blank(self, width: int, height: int, by: str | None = None) -> Source:
        """A white sheet."""
        return Source(
            self.inputs.add(Image.new("RGB", (width, height), "white"), by=by).sha256,
            width,
            height,
            "A sheet",
            by=by,
        )

    # ---- what a press there means -------------------------------------------------------------------------------

    def pressed(
        self, data: Any, source: Source | None, size: tuple[int, int], by: str | None = None
    ) -> Source | None:
        """What is on the easel after a button was pressed or a file dropped; `size` is a blank sheet's, `by` the guest who did it.

        Raises StudioError.
        """
        data = data if isinstance(data, dict) else {}
        match data.get("what"):
            case "picture":
                return self.taken(*_sent(data), by)
            case "blank":
                return self.blank(*size, by)
            case "mask" if source:
                return replace(source, mask=self._mask_of(*_sent(data), source), invert=False)
            case "alpha" if source and source.alpha:
                return replace(source, mask=source.alpha, invert=False)
            case "remove":
                return None
        return source

    def _mask_of(self, path: Path, name: str, source: Source) -> str:
        mask = self.inputs.add_mask(path, name, source.by)
        if mask.size != source.size:
            raise BadPicture(
                f"{name} is {mask.size[0]} × {mask.size[1]}, and the picture is {source.width} × {source.height}; a "
                "mask has to be as large as its picture."
            )
        return mask.sha256

    # ---- what comes back ----------------------------------------------------------------------------------------

    def picture(self, value: Any, source: Source) -> str:
        """The hash of the picture with what is drawn on it. Raises BadPicture."""
        data = _drawn(value)
        if data is None:
            return source.image
        below = self.inputs.load(source.image)
        drawn, clear = (
            decode.load(data, "The drawing").image,
            decode.transparent(data, "The drawing"),
        )
        if drawn.size != below.size:
            raise BadPicture(
                "The drawing has another size than its picture; choose the picture again."
            )
        if clear is None:
            return self.inputs.add(drawn, by=source.by).sha256
        # what it shows over white, less that white, and the picture through what is clear: where all is clear, the picture itself
        clear = clear.point(lambda value: 255 if value > 255 - NOISE else value)
        ink = ImageChops.subtract(drawn, clear.convert("RGB"))
        return self.inputs.add(
            ImageChops.add(ink, ImageChops.multiply(below, clear.convert("RGB"))), by=source.by
        ).sha256

    def mask(self, value: Any, source: Source) -> tuple[str, bool]:
        """The hash of the mask, empty if nothing is painted, and whether it is inverted. Raises BadPicture."""
        mask, invert = self.layer(value, source)
        if mask is None or not _drawn(value):
            return source.mask, invert
        painted = mask.getextrema() != ((255, 255) if invert else (0, 0))
        return self.inputs.add_mask(mask, by=source.by).sha256 if painted else "", invert

    def layer(self, value: Any, source: Source) -> tuple[Image.Image | None, bool]:
        """The mask as it is seen, if there is one, and whether it is inverted. Raises BadPicture."""
        invert = bool(value.get("invert")) if isinstance(value, dict) else source.invert
        data = _drawn(value)
        if data is None:
            return self.inputs.load_mask(source.mask) if source.mask else None, invert
        mask = (
            decode.load(data, "The mask")
            .image.convert("L")
            .point(lambda value: 0 if value < NOISE else 255 if value > 255 - NOISE else value)
        )
        if mask.size != source.size:
            raise BadPicture(
                "The mask has another size than its picture; choose the picture again."
            )
        return mask, invert


def _sent(data: dict[str, Any]) -> tuple[Path, str]:
    path, name = uploaded({"path": data.get("path"), "orig_name": data.get("name")})
    return path, name[:200] or path.name


def _drawn(value: Any) -> bytes | None:
    """The layer that a browser sent, as a PNG; None if nobody touched it. Raises BadPicture for anything else."""
    drawn = value.get("drawn") if isinstance(value, dict) else None
    if not drawn:
        return None
    if not isinstance(drawn, str) or not drawn.startswith(PREFIX) or len(drawn) > MOST_DRAWN:
        raise BadPicture(
            "What was painted did not arrive as a picture; reload the page and paint again."
        )
    try:
        return base64.b64decode(drawn[len(PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        raise BadPicture(
            "What was painted did not arrive as a picture; reload the page and paint again."
        ) from None
