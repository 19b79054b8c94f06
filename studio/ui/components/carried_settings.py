"""Settings that a form has no field for, carried along: an input image, its mask, how it is used.

Knows: how to show those settings in a few words and how to drop them.
Does not know: what they mean; which form it stands beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from studio.core.generation.request import GenerationRequest
from studio.errors import BadPicture
from studio.services.submission import Services
from studio.services.urls import file_url
from studio.ui.events import BUTTON_CLICK_JS, EVENT_OPTIONS, Updates
from studio.ui.form import Form
from studio.ui.views.images import render_carried_settings

REQUEST_FIELDS = GenerationRequest.model_fields
TASK_HEADINGS = {
    "txt2img": "With a second pass",
    "img2img": "Based on this image",
    "inpaint": "Inpaints this image",
    "outpaint": "Extends this image",
}


class CarriedSettings:
    """The block beside a form that shows its carried settings; takes no room while empty."""

    def __init__(self, services: Services, form: Form[GenerationRequest]) -> None:
        self.services = services
        self.form = form
        self.carried_values: gr.State = gr.State({})  # field → value
        self.html = gr.HTML(visible=False, js_on_load=BUTTON_CLICK_JS, elem_id=f"{form.name}-basis")

    @property
    def outputs(self) -> list[Any]:
        """Components that `fill` updates."""
        return [self.carried_values, self.html]

    def wire(self) -> None:
        """Connect the button that drops the settings."""
        self.html.click(lambda: self.fill(GenerationRequest()), None, self.outputs, **EVENT_OPTIONS)

    def read_raw(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """Return the carried request fields, by field name, from the page's `values`."""
        return dict(values.get(self.carried_values) or {})

    def fill(self, request: GenerationRequest) -> Updates:
        """Carry the non-default values of `request` that the form has no field for.

        Args:
            request: the request to carry on. One with neither an input image nor a second pass
                empties the block, as none of the other settings would change anything.

        Returns:
            Updates of `outputs`.
        """
        if not request.image and not request.has_hires_pass:
            return {self.carried_values: {}, self.html: gr.HTML(visible=False)}
        carried_values: dict[str, Any] = {}
        for name, field in REQUEST_FIELDS.items():
            value = getattr(request, name)
            if name not in self.form.components and value != field.get_default():
                carried_values[name] = value
        block = self._render(request, carried_values)
        return {self.carried_values: carried_values, self.html: gr.HTML(block, visible=True)}

    def _render(self, request: GenerationRequest, carried_values: Mapping[str, Any]) -> str:
        settings = [
            f"{REQUEST_FIELDS[name].title}: {value}"
            for name, value in carried_values.items()
            if name not in ("image", "mask")
        ]
        image_url = ""
        try:
            if request.image:
                path = self.services.home.library.inputs.get_path(request.image)
                image_url = file_url(path)
        except BadPicture:
            settings.insert(0, "The image is no longer in this home.")
        return render_carried_settings(TASK_HEADINGS[request.task], " · ".join(settings), image_url)
