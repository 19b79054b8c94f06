"""The owner's choice of what new pictures carry.

Knows: three settings, which of them a flag has fixed. Does not know: what they come to
(core/generation/carried.py).
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.core.generation.carried import CarryOptions
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.ui.errors import report_errors, show_info
from studio.ui.events import EVENT_OPTIONS, Updates, visitor_from_request
from studio.ui.form import Form

FIXED_NOTE = "Set when the studio was started"


class CarryOptionsBox:
    """The settings, each kept as soon as it is changed; not there for guests."""

    def __init__(self, services: Services) -> None:
        self.options = services.home.gallery.options
        self.form = Form(CarryOptions, "pictures")
        with gr.Accordion(
            "Data saved in images", open=False, visible=False, elem_id="pictures-options"
        ) as self.box:
            for name in CarryOptions.model_fields:
                is_fixed = name in self.options.fixed_fields
                info = {"info": FIXED_NOTE} if is_fixed else {}
                self.form.add(name, interactive=not is_fixed, **info)
        for component in self.form.outputs:
            component.input(self.save, self.form.inputs, None, preprocess=False, **EVENT_OPTIONS)

    @property
    def outputs(self) -> list[Any]:
        """The components that change when the tab is opened."""
        return [self.box, *self.form.outputs]

    def render(self, visitor: Visitor) -> Updates:
        """Return what holds now; nothing for guests."""
        values = CarryOptions() if visitor.is_guest else self.options.load()
        updates: Updates = {self.box: gr.Accordion(visible=not visitor.is_guest)}
        return updates | {
            self.form[name]: getattr(values, name) for name in CarryOptions.model_fields
        }

    def save(self, values: Updates, request: gr.Request) -> None:
        """Keep what is chosen."""
        with report_errors():
            visitor_from_request(request).require_owner("Choosing what is saved in images")
            self.options.save(self.form.read(values))
            show_info("Saved. It applies to images made from now on.")
