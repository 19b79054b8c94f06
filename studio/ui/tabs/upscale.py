"""The Upscale tab: a picture made larger as it is, by a network or a formula.

Knows: its layout, which picture is worked on and what is known of it.
Does not know: how an image is enlarged; what the upscalers are (storage/models/upscalers.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.core.base import validate
from studio.core.generation.geometry import Size
from studio.core.generation.request import GenerationRequest
from studio.core.generation.upscaling import UpscaleSpec
from studio.core.jobs import UPSCALE
from studio.errors import InvalidSpec, ModelNotFound, StudioError, quote
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage import gallery
from studio.storage.gallery import GeneratedImage
from studio.storage.jobs import Job
from studio.ui.components.result_panel import ResultPanel
from studio.ui.errors import report_errors
from studio.ui.events import (
    EVENT_OPTIONS,
    UNQUEUED_EVENT_OPTIONS,
    Updates,
    look_at_js,
    resolve_upload,
    visitor_from_request,
)
from studio.ui.form import Form, single_file
from studio.ui.tab import Tab
from studio.ui.views.images import render_note, render_placeholder

EMPTY_HTML = render_placeholder(
    "The larger image will appear here.",
    "Drop an image, or press Upscale under any image in the studio. Upscale enlarges the image as "
    "it is; Redraw larger, beside it, repaints it with more detail.",
)
AUTOMATIC_LABEL = "Automatic"


@dataclass(frozen=True)
class UpscaleSource:
    """The picture on the page.

    Attributes:
        image: Its sha256 in home/inputs.
        size: Width and height in pixels.
        settings: What it was made with; None where that is not known.
    """

    image: str
    size: Size
    settings: GenerationRequest | None


class UpscaleResultPanel(ResultPanel):
    """The results of upscales."""

    JOB_KIND = UPSCALE.name

    def shows_job(self, job: Job) -> bool:
        """All upscales are shown here."""
        return True


class UpscaleTab:
    """The components of the tab."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.form: Form[UpscaleSpec] = Form(UpscaleSpec, "upscale")
        self.source: gr.State = gr.State(None)
        with gr.Row(elem_classes="workspace"):
            with gr.Column(elem_classes="controls"):
                self._add_controls()
            with gr.Column(elem_classes="stage"):
                self.result_panel = UpscaleResultPanel(services, "upscale", (), EMPTY_HTML)
                self.result_panel.reuse_seed_button.visible = False
        self._wire()

    def _add_controls(self) -> None:
        self.image = gr.Image(
            label="Image",
            type="filepath",
            sources=["upload"],  # what is pasted comes by static/incoming.js
            height=300,
            buttons=[],
            elem_id="upscale-image",
        )
        with gr.Row(elem_classes="actions"):
            self.start = gr.Button(
                "Upscale",
                variant="primary",
                scale=3,
                elem_classes="on-ctrl-enter",
                elem_id="upscale-start",
            )
            self.stop = gr.Button(
                "Stop", variant="stop", scale=1, interactive=False, elem_id="upscale-stop"
            )
        self.note = gr.HTML(elem_id="upscale-note")
        with gr.Group():
            self.form.add("upscaler", choices=self._list_choices(), info=None)
            self.form.add("scale", info="Enlarge by this factor.")
            self.form.add("longer_side", info="In pixels; 0 uses the scale instead.")

    @property
    def form_outputs(self) -> list[Any]:
        """What another picture changes."""
        return [self.image, self.source]

    @property
    def outputs(self) -> list[Any]:
        """What handlers may change."""
        return [
            *self.form_outputs,
            self.note,
            self.form["upscaler"],
            self.stop,
            *self.result_panel.refresh_outputs,
        ]

    def _wire(self) -> None:
        self.result_panel.wire(self.stop)
        inputs = {*self.form.inputs, self.source}
        self.image.upload(
            self.take_upload,
            {self.image},
            self.source,
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.image.clear(self.clear, None, self.source, **EVENT_OPTIONS)
        self.start.click(
            self.submit,
            inputs,
            [*self.result_panel.refresh_outputs, self.stop],
            preprocess=False,
            **EVENT_OPTIONS,
        ).success(
            None,
            None,
            None,
            js=look_at_js("#tab-upscale .stage > .view", "Result"),
            **EVENT_OPTIONS,
        )
        fields = [self.form[name] for name in ("upscaler", "scale", "longer_side")]
        gr.on(
            [component.change for component in fields],
            self.update_note,
            inputs,
            self.note,
            preprocess=False,
            trigger_mode="always_last",
            **UNQUEUED_EVENT_OPTIONS,
        )
        # gradio tells of a changed State only after queued events.
        self.source.change(self.update_note, inputs, self.note, preprocess=False, **EVENT_OPTIONS)

    def take_upload(self, values: Updates, request: gr.Request) -> Updates:
        """Take in a file that was dropped, with what it says of how it was made."""
        with report_errors():
            path, name = resolve_upload(single_file(values.pop(self.image)))
            guest_id = visitor_from_request(request).owner_filter
            inputs = self.services.home.inputs
            stored = inputs.add(path, name, guest_id, keeps_transparency=True)
            settings = gallery.read_request(path, name, inputs.max_pixels(guest_id))
            return {self.source: UpscaleSource(stored.sha256, stored.size, settings)}

    def clear(self) -> Updates:
        """Forget the picture."""
        return {self.source: None}

    def receive_image(self, image: GeneratedImage, visitor: Visitor) -> Updates:
        """Put an image of any tab on the page."""
        with report_errors():
            inputs = self.services.home.inputs
            stored = inputs.add(image.path, guest_id=visitor.owner_filter, keeps_transparency=True)
            path = inputs.get_path(stored.sha256, visitor.owner_filter)
            source = UpscaleSource(stored.sha256, stored.size, image.settings)
            return {self.image: str(path), self.source: source}

    def receive_fields(self, values: dict[str, Any], visitor: Visitor) -> Updates:
        """Set single fields of the form. Raises ModelNotFound for an upscaler that is not there."""
        name = str(values.get("upscaler") or "")
        if name and name not in self.services.home.library.upscalers.list_names():
            raise ModelNotFound(f"The upscaler {quote(name)} no longer exists.")
        updates = self.form.fill_fields(values)
        updates[self.form["upscaler"]] = gr.Dropdown(self._list_choices(), value=name)
        return updates

    def update_note(self, values: Updates) -> Updates:
        """Say what the picture will become, or what keeps it from becoming that."""
        return {self.note: self._render_note(values)}

    def submit(self, values: Updates, request: gr.Request) -> Updates:
        """Queue the upscale on the page."""
        with report_errors():
            visitor = visitor_from_request(request)
            spec, source = self._read(values)
            self.services.submit_upscale(spec, visitor, source.settings)
            return self.result_panel.render(visitor)

    def on_open(self, visitor: Visitor) -> Updates:
        """Return what a page that opens shows: the last upscale, and the upscalers there are."""
        return {
            **self.result_panel.render(visitor),
            self.form["upscaler"]: gr.Dropdown(self._list_choices()),
        }

    def _read(self, values: Updates) -> tuple[UpscaleSpec, UpscaleSource]:
        """Return what is asked for. Raises InvalidSpec."""
        source = values[self.source]
        if not isinstance(source, UpscaleSource):
            raise InvalidSpec(["Image: required; drop one, or press Upscale under an image."])
        fields = {**self.form.read_raw(values), "image": source.image}
        return validate(UpscaleSpec, fields), source

    def _render_note(self, values: Updates) -> str:
        try:
            spec, source = self._read(values)
            width, height = spec.compute_size(source.size)
            upscalers = self.services.home.library.upscalers
            name = spec.upscaler or upscalers.choose_default(
                source.settings, spec.compute_scale(source.size)
            )
        except StudioError as error:
            return render_note(str(error).splitlines()[0])
        return render_note(
            f"{source.size[0]} × {source.size[1]} becomes {width} × {height}, with {name}."
        )

    def _list_choices(self) -> list[tuple[str, str]]:
        names = self.services.home.library.upscalers.list_names()
        return [(AUTOMATIC_LABEL, ""), *((name, name) for name in names)]


def build(services: Services) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    upscale = UpscaleTab(services)
    return Tab(
        selected_path=upscale.result_panel.selected_path,
        send_row=upscale.result_panel.send_row,
        on_open=upscale.on_open,
        upscale_image=upscale.receive_image,
        receive_fields=upscale.receive_fields,
        outputs=list(dict.fromkeys(upscale.outputs)),
        form_outputs=upscale.form_outputs,
        has_text_input=True,
    )
