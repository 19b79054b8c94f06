"""Two pictures, one over the other with a slider between them; what a picture was before it was worked on.

Knows: how two pictures are laid over each other. Does not know: where on the page; which two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageOps

from studio.errors import BadPicture
from studio.imaging import decode
from studio.ui.views import sweep
from studio.ui.widgets import Desk, Updates

Side = tuple[str | Path | Image.Image, str]  # a picture and what it is called
GREY = (128, 128, 128)


class Compare:
    """One build of it, closed at first."""

    def __init__(self, name: str) -> None:
        with gr.Column(visible=False, elem_id=name, elem_classes="compare") as self.place:
            self.captions = gr.HTML(elem_id=f"{name}-captions")
            self.slider = gr.ImageSlider(
                show_label=False,
                type="filepath",
                interactive=False,
                height=480,
                max_height=480,
                elem_id=f"{name}-slider",
                buttons=["fullscreen"],
                elem_classes="slider",
            )

    @property
    def outputs(self) -> list[Any]:
        return [self.place, self.captions, self.slider]

    def closed(self) -> Updates:
        return {self.place: gr.Column(visible=False)}

    def shown(self, left: Side, right: Side) -> Updates:
        return {
            self.place: gr.Column(visible=True),
            self.captions: sweep.captions(left[1], right[1]),
            self.slider: tuple(
                one if isinstance(one, Image.Image) else str(one) for one, _ in (left, right)
            ),
        }


def before_of(desk: Desk, path: str | None) -> Path | Image.Image | None:
    """The picture that a picture was made from, laid out as the result is; None if there was none, or it is gone."""
    made = desk.gallery.get(path) if path else None
    if made is None or not made.request.image:
        return None
    request = made.request
    try:
        source = desk.library.inputs.path(request.image)
        (width, height), size = (
            desk.library.inputs.size(request.image),
            decode.load(made.path).image.size,
        )
        if request.task == "outpaint":
            left, top, right, bottom = request.extension
            framed = Image.new("RGB", (width + left + right, height + top + bottom), GREY)
            framed.paste(desk.library.inputs.load(request.image), (left, top))
            return framed
        if abs(width / height - size[0] / size[1]) < 0.01:
            return source
        image = desk.library.inputs.load(request.image)
    except BadPicture:
        return None
    turn = {"crop": ImageOps.fit, "fill": ImageOps.pad}.get(request.resize_mode)
    return turn(image, size) if turn else image.resize(size)
