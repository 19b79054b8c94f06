"""What a form has no field for, carried along: the picture that a sweep works on, its mask, how it is worked on.

Knows: how those settings are shown in a few words and taken away again. Does not know: what they mean; which form it stands beside.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import gradio as gr

from studio.core.generation.request import GenerationRequest
from studio.errors import BadPicture
from studio.ui import show
from studio.ui.form import Form
from studio.ui.widgets import BUTTONS, SHORT, Desk, Updates

FIELDS = GenerationRequest.model_fields


class Basis:
    """One build of it, where it is to stand; empty it takes no room."""

    def __init__(self, desk: Desk, form: Form[GenerationRequest]) -> None:
        self.desk, self.form = desk, form
        self.kept: gr.State = gr.State({})  # field → value
        self.html = gr.HTML(visible=False, js_on_load=BUTTONS, elem_id=f"{form.name}-basis")

    @property
    def outputs(self) -> list[Any]:
        return [self.kept, self.html]

    def wire(self) -> None:
        self.html.click(lambda: self.show(GenerationRequest()), None, self.outputs, **SHORT)

    def raw(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """Of a request, what the form does not say."""
        return dict(values.get(self.kept) or {})

    def show(self, request: GenerationRequest) -> Updates:
        """Keep what the form has no field for and what is not at its default."""
        if not request.image and not request.hires:  # nothing else would change anything
            return {self.kept: {}, self.html: gr.HTML(visible=False)}
        kept = {
            name: value
            for name, field in FIELDS.items()
            if name not in self.form.parts
            and (value := getattr(request, name)) != field.get_default()
        }
        return {self.kept: kept, self.html: gr.HTML(self._told(request, kept), visible=True)}

    def _told(self, request: GenerationRequest, kept: Mapping[str, Any]) -> str:
        words = [
            f"{FIELDS[name].title}: {value}"
            for name, value in kept.items()
            if name not in ("image", "mask")
        ]
        picture = ""
        try:
            if request.image:
                picture = f'<img alt="" src="{show.address(self.desk.library.inputs.path(request.image))}">'
        except BadPicture:
            words.insert(0, "The picture is not in this home any more.")
        head = {
            "txt2img": "With a second pass",
            "img2img": "On this picture",
            "inpaint": "On this picture, where it is masked",
            "outpaint": "Around this picture",
        }[request.task]
        return (
            f'<div class="basis">{picture}<div><b>{head}</b><small>{html.escape(" · ".join(words))}</small></div>'
            '<button type="button" class="do" data-do="away" data-subject="">Take away</button></div>'
        )
