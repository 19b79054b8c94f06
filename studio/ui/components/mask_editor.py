"""The easel: an image on the page that is worked on, with what is painted over it.

Knows: how an image gets there (a file, another tab, a blank sheet) and what comes back: the drawn
layer, as pixels. Does not know: what the image is for; how it is painted on (mask_editor.js) and
drawn (views/templates/components.html).

Only the page's own state says which image it is; the browser sends no more than a layer and whether
the mask is inverted. A browser that guards against tracking changes the last bits of pixels that a
page reads back: so the image itself never goes through it, and a layer's nearly black is black.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageChops

from studio.core.generation.geometry import Box
from studio.errors import BadPicture
from studio.imaging import decode
from studio.services.submission import Services
from studio.services.urls import file_url
from studio.ui.errors import show_info
from studio.ui.events import Updates, resolve_upload
from studio.ui.views.templates import render_macro

SCRIPT = Path(__file__).with_name("mask_editor.js").read_text("utf-8")
# The longer side: more than any model paints, and still fluent under a brush.
MAX_SIDE_PX = 4096
MAX_LAYER_CHARS = 96 * 2**20  # of a layer as a data URL
MAX_NAME_CHARS = 200  # of an uploaded file's name
PIXEL_TOLERANCE = 8  # of 255: what a guarded browser may change
PNG_DATA_URL_PREFIX = "data:image/png;base64,"
UNREADABLE_LAYER = "The painted mask did not arrive as an image; reload the page and paint again."


@dataclass(frozen=True)
class SourceImage:
    """An image on the easel.

    Attributes:
        image: Hash of the image's file in inputs/.
        width: Its width in pixels.
        height: Its height in pixels.
        name: Name of the file that it came as.
        alpha_mask: Hash of a mask of its transparent places; empty without one.
        mask: Hash of the mask that it came with; empty without one.
        invert: Whether that mask is inverted.
        guest_id: The guest who brought it; None for the owner.
    """

    image: str
    width: int
    height: int
    name: str = ""
    alpha_mask: str = ""
    mask: str = ""
    invert: bool = False
    guest_id: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height


class MaskEditor:
    """The easel of a tab.

    Args:
        services: The page's services.
        name: Begins the ids of its elements.
        mode: "mask" to mark what is painted anew, "sketch" to draw on the image.
    """

    def __init__(self, services: Services, name: str, mode: str) -> None:
        self.input_store = services.home.library.inputs
        self.mode = mode
        self.html = gr.HTML(
            {},
            html_template=render_editor(mode),
            js_on_load=SCRIPT,
            apply_default_css=False,
            elem_id=f"{name}-easel",
            elem_classes="easel-place",
            options={},
            box={},
        )
        self.source: gr.State = gr.State(None)

    @property
    def outputs(self) -> list[Any]:
        """The components that a change of the image updates."""
        return [self.html, self.source]

    # ---- what is put there ----------------------------------------------------------------------

    def show_image(
        self, source: SourceImage | None, options: dict[str, Any] | None = None
    ) -> Updates:
        """Show an image with the mask it came with; None clears the easel.

        Args:
            source: The image.
            options: As for `set_options`.
        """
        value: dict[str, Any] = {"key": secrets.token_hex(8)}
        if source:
            value |= {
                "url": self._get_input_url(source.image),
                "width": source.width,
                "height": source.height,
                "invert": source.invert,
                "layer": self._get_input_url(source.mask) if source.mask else "",
                "alpha": bool(source.alpha_mask),
            }
        component = gr.HTML(value, options=options) if options else gr.HTML(value)
        return {self.html: component, self.source: source}

    def set_options(self, options: dict[str, Any]) -> Updates:
        """Update what else is to be seen.

        Args:
            options: `extend` (left, top, right, bottom in pixels), whether to `paint`, and `area`:
                whatever decides which part is painted. With it the page asks for that part, by an
                `input` event, whenever it or the mask has changed.
        """
        return {self.html: gr.HTML(options=options)}

    def highlight_area(self, value: Any, box: Box | None) -> Updates:
        """Draw a frame around the part that is painted; None takes it away.

        Args:
            value: What the browser sent; says which image the box is of.
            box: The part in pixels.
        """
        key = value.get("key") if isinstance(value, dict) else None
        return {self.html: gr.HTML(box={"key": key, "at": list(box)} if box else {})}

    def _get_input_url(self, digest: str) -> str:
        return file_url(self.input_store.get_path(digest))

    def import_image(self, path: Path, name: str = "", guest_id: str | None = None) -> SourceImage:
        """Store an image file as a source and tell the visitor what was done to it.

        Args:
            path: The file.
            name: What the visitor calls it.
            guest_id: The guest who brought it; None for the owner.

        Raises:
            BadPicture: The file is no image that can be used.
        """
        max_pixels = self.input_store.max_pixels(guest_id)
        with decode.take_turn_for(path, max_pixels):
            loaded = decode.load_image(path, name, max_pixels=max_pixels)
            alpha_mask = decode.load_alpha_mask(path, name, max_pixels)
            image = loaded.image
            notes = list(loaded.notes)
            if max(image.size) > MAX_SIDE_PX:
                image = image.copy()
                image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
                notes.append(
                    f"{name or path.name} is {loaded.image.width} × {loaded.image.height}; it is "
                    f"edited at {image.width} × {image.height}."
                )
                alpha_mask = alpha_mask.resize(image.size) if alpha_mask else None
            del loaded
        for note in notes:
            show_info(note)
        image_digest = self.input_store.add(image, guest_id=guest_id).sha256
        mask_digest = ""
        if alpha_mask:
            mask_digest = self.input_store.add_mask(alpha_mask, guest_id=guest_id).sha256
        return SourceImage(
            image_digest,
            image.width,
            image.height,
            name=name or path.name,
            alpha_mask=mask_digest,
            guest_id=guest_id,
        )

    def find_image(
        self, digest: str, mask: str = "", invert: bool = False, guest_id: str | None = None
    ) -> SourceImage | None:
        """Return an image that is in inputs/ already, as a request names it.

        Args:
            digest: Hash of the image.
            mask: Hash of its mask; empty without one.
            invert: Whether the mask is inverted.
            guest_id: The guest who asks; None for the owner.

        Returns:
            The source; None if it is gone, or that guest never brought it.
        """
        try:
            self.input_store.get_path(digest, guest_id)
            if mask:
                self.input_store.get_path(mask, guest_id)
            width, height = self.input_store.read_size(digest)
        except BadPicture:
            return None
        return SourceImage(digest, width, height, mask=mask, invert=invert, guest_id=guest_id)

    def create_blank(self, width: int, height: int, guest_id: str | None = None) -> SourceImage:
        """Store a white sheet of this size as a source."""
        sheet = Image.new("RGB", (width, height), "white")
        digest = self.input_store.add(sheet, guest_id=guest_id).sha256
        return SourceImage(digest, width, height, name="A sheet", guest_id=guest_id)

    # ---- what a press there means ---------------------------------------------------------------

    def apply_action(
        self,
        data: Any,
        source: SourceImage | None,
        blank_size: tuple[int, int],
        guest_id: str | None = None,
    ) -> SourceImage | None:
        """Return what is on the easel after a button was pressed or a file dropped.

        Args:
            data: What the browser sent of the event.
            source: What is on the easel before; None if it is empty.
            blank_size: Width and height of a blank sheet in pixels.
            guest_id: The guest who did it; None for the owner.

        Raises:
            StudioError: A file is no upload or no usable image.
        """
        data = data if isinstance(data, dict) else {}
        match data.get("action"):
            case "picture":
                return self.import_image(*_get_upload(data), guest_id)
            case "blank":
                return self.create_blank(*blank_size, guest_id)
            case "mask" if source:
                mask = self._import_mask(*_get_upload(data), source)
                return replace(source, mask=mask, invert=False)
            case "alpha" if source and source.alpha_mask:
                return replace(source, mask=source.alpha_mask, invert=False)
            case "remove":
                return None
        return source

    def _import_mask(self, path: Path, name: str, source: SourceImage) -> str:
        """Store a mask file for `source` and return its hash. Raises BadPicture."""
        mask = self.input_store.add_mask(path, name, source.guest_id)
        if mask.size != source.size:
            raise BadPicture(
                f"{name} is {mask.size[0]} × {mask.size[1]}, but the image is {source.width} × "
                f"{source.height}; a mask must have the size of its image."
            )
        return mask.sha256

    # ---- what comes back ------------------------------------------------------------------------

    def store_image(self, value: Any, source: SourceImage) -> str:
        """Store the image with what is drawn on it.

        Args:
            value: What the browser sent.
            source: The image on the easel.

        Returns:
            Its hash; that of the source if nothing is drawn.

        Raises:
            BadPicture: The layer is no PNG of the image's size.
        """
        layer = _decode_layer(value)
        if layer is None:
            return source.image
        image = self.input_store.load(source.image)
        max_pixels = self.input_store.max_pixels(source.guest_id)
        drawing = decode.load_image(layer, "The drawing", max_pixels=max_pixels).image
        transparency = decode.load_alpha_mask(layer, "The drawing", max_pixels)
        if drawing.size != image.size:
            raise BadPicture(
                "The drawing does not have the size of its image; choose the image again."
            )
        if transparency is None:
            return self.input_store.add(drawing, guest_id=source.guest_id).sha256
        # The drawing over white less that white, and the image through what is transparent: where
        # all is transparent, the image itself.
        transparency = transparency.point(_snap_white).convert("RGB")
        ink = ImageChops.subtract(drawing, transparency)
        result = ImageChops.add(ink, ImageChops.multiply(image, transparency))
        return self.input_store.add(result, guest_id=source.guest_id).sha256

    def store_mask(self, value: Any, source: SourceImage) -> tuple[str, bool]:
        """Store the mask as it is seen.

        Args:
            value: What the browser sent.
            source: The image on the easel.

        Returns:
            Its hash, empty if nothing is painted, and whether it is inverted.

        Raises:
            BadPicture: The layer is no PNG of the image's size.
        """
        mask, invert = self.decode_mask(value, source)
        if mask is None or not _decode_layer(value):
            return source.mask, invert
        unpainted = 255 if invert else 0
        if mask.getextrema() == (unpainted, unpainted):
            return "", invert
        return self.input_store.add_mask(mask, guest_id=source.guest_id).sha256, invert

    def decode_mask(self, value: Any, source: SourceImage) -> tuple[Image.Image | None, bool]:
        """Return the mask as it is seen, if there is one, and whether it is inverted.

        Args:
            value: What the browser sent.
            source: The image on the easel.

        Raises:
            BadPicture: The layer is no PNG of the image's size.
        """
        invert = bool(value.get("invert")) if isinstance(value, dict) else source.invert
        layer = _decode_layer(value)
        if layer is None:
            return self.input_store.load_mask(source.mask) if source.mask else None, invert
        max_pixels = self.input_store.max_pixels(source.guest_id)
        mask = decode.load_image(layer, "The mask", max_pixels=max_pixels).image.convert("L")
        mask = mask.point(_snap_black).point(_snap_white)
        if mask.size != source.size:
            raise BadPicture(
                "The mask does not have the size of its image; choose the image again."
            )
        return mask, invert


def render_editor(mode: str) -> str:
    """Render the easel with its tools; `mode` is "mask" or "sketch"."""
    return render_macro("components.html", "mask_editor", mode=mode)


def _snap_white(value: int) -> int:
    """Return 255 for what a guarded browser may have made of 255."""
    return 255 if value > 255 - PIXEL_TOLERANCE else value


def _snap_black(value: int) -> int:
    """Return 0 for what a guarded browser may have made of 0."""
    return 0 if value < PIXEL_TOLERANCE else value


def _get_upload(data: dict[str, Any]) -> tuple[Path, str]:
    """Return the file that an event brought, and its name."""
    path, name = resolve_upload({"path": data.get("path"), "orig_name": data.get("name")})
    return path, name[:MAX_NAME_CHARS] or path.name


def _decode_layer(value: Any) -> bytes | None:
    """Return the layer that a browser sent, as a PNG; None if nobody painted. Raises BadPicture."""
    data_url = value.get("drawn") if isinstance(value, dict) else None
    if not data_url:
        return None
    is_png_url = isinstance(data_url, str) and data_url.startswith(PNG_DATA_URL_PREFIX)
    if not is_png_url or len(data_url) > MAX_LAYER_CHARS:
        raise BadPicture(UNREADABLE_LAYER)
    try:
        return base64.b64decode(data_url[len(PNG_DATA_URL_PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        raise BadPicture(UNREADABLE_LAYER) from None
