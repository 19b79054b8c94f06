"""The Inpaint tab: a part of an image made anew, or more of it around its edges (outpainting).

Knows: its layout, the mask's settings, the sides.
Does not know: what its other parts do (generation.py, image_input.py); how the part is painted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from studio.core.base import validate
from studio.core.generation.geometry import Box, Size
from studio.core.generation.request import GenerationRequest
from studio.errors import InvalidSpec, StudioError
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.ui.components.mask_editor import SourceImage
from studio.ui.events import EVENT_OPTIONS, UNQUEUED_EVENT_OPTIONS, Updates
from studio.ui.tab import Tab
from studio.ui.tabs.generation import native_size_of
from studio.ui.tabs.image_input import ImageInputTab, fit_size
from studio.ui.tabs.img2img import render_effective_steps
from studio.ui.views.images import render_placeholder

INPAINT = "inpaint"
OUTPAINT = "outpaint"
TASK_CHOICES = [
    ("Inpaint", INPAINT),
    ("Outpaint", OUTPAINT),
]
# The field keeps A1111's word, which files hold.
AREA_CHOICES = [("whole image", "whole picture"), ("only masked", "only masked")]
SIDE_FIELDS = ("extend_left", "extend_top", "extend_right", "extend_bottom")
# Settings that decide which part of the image is painted.
AREA_FIELDS = (
    "model",
    "width",
    "height",
    "inpaint_area",
    "mask_padding",
    "mask_blur",
    "mask_grow",
    "seam_blur",
)
# Of an image whose painted part is framed: blurring a larger mask takes seconds.
MAX_FRAMED_PIXELS = 4_000_000
EMPTY_HTML = render_placeholder(
    "The result will appear here.",
    "Add an image, paint over the area to replace, describe what should be there, and press "
    "Generate. Everything else stays exactly as it is.",
)


class Inpaint(ImageInputTab):
    """The components of the tab."""

    ID = "inpaint"
    TASKS = ("inpaint", "outpaint")
    EDITOR_MODE = "mask"

    def build_layout(self) -> None:
        """Place every component."""
        with gr.Row(elem_classes="workspace with-source"):
            with gr.Column(elem_classes="controls"):
                self.task_choice = gr.Radio(
                    TASK_CHOICES,
                    value=INPAINT,
                    show_label=False,
                    elem_id="inpaint-way",
                    elem_classes="ways",
                    container=False,
                )
                self.add_prompts("what should be there", lines=2)
                self.form.add("strength", info="How much of the painted area may change.")
                self.step_count = gr.HTML(elem_id="inpaint-runs", elem_classes="runs")
                self.add_main_settings("Size of the painted area; the image keeps its own.")
                self.add_extras()
            with gr.Column(elem_classes="source"):
                self.add_editor()
                self._add_sides()
                self._add_mask_settings()
            with gr.Column(elem_classes="stage"):
                self.add_result_panel(EMPTY_HTML)

    def _add_sides(self) -> None:
        with gr.Group(visible=False, elem_id="inpaint-sides") as self.margins_group:
            with gr.Row(elem_classes="pair"):
                for name in SIDE_FIELDS:
                    self.form.add(name, slider=False, info=None, min_width=60)
            with gr.Row(elem_classes="pair"):
                self.form.add(
                    "extend_fill", min_width=120, info="Fills the new area before it is painted."
                )
                self.form.add("extend_colour", visible=False, max_lines=1, info="As #rrggbb.")
            self.form.add("seam_blur", info="How softly the new area blends in.")

    def _add_mask_settings(self) -> None:
        with gr.Group() as self.area_group:
            self.form.add(
                "inpaint_area",
                choices=AREA_CHOICES,
                info=("The whole image, or only the masked area, enlarged."),
            )
            self.form.add(
                "mask_padding", slider=True, info="Context around the mask when only it is painted."
            )
        with gr.Group() as self.mask_group:
            self.form.add("masked_content", info="What the masked area starts from.")
            self.form.add("mask_blur", info="How soft the edge of the mask is.")
            self.form.add("mask_grow", info="Grows the mask on all sides; below 0 shrinks it.")

    # ---- events -------------------------------------------------------------------------------

    @property
    def estimate_inputs(self) -> set[Any]:
        return {*super().estimate_inputs, self.task_choice}

    @property
    def inputs(self) -> set[Any]:
        return {*super().inputs, self.task_choice}

    @property
    def estimate_outputs(self) -> list[Any]:
        return [*super().estimate_outputs, self.step_count]

    @property
    def task_outputs(self) -> list[Any]:
        """What looks different for another task."""
        return [
            self.task_choice,
            self.margins_group,
            self.mask_group,
            self.editor.html,
            self.form["extend_colour"],
        ]

    @property
    def form_outputs(self) -> list[Any]:
        return list(dict.fromkeys([*super().form_outputs, *self.task_outputs, self.step_count]))

    def wire(self) -> None:
        """Connect events and handlers."""
        super().wire()
        form = self.form
        task_outputs = [*self.task_outputs, *self.estimate_outputs]
        self.task_choice.input(
            self.change_task,
            self.estimate_inputs,
            [*task_outputs, form["inpaint_area"], *self.size_outputs],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self._wire_latest(
            [form[name].change for name in (*SIDE_FIELDS, "extend_fill")],
            self.update_task_view,
            task_outputs,
        )
        self._wire_latest(
            [form[name].change for name in AREA_FIELDS], self.update_editor, [self.editor.html]
        )
        self.editor.html.input(
            self.draw_area_frame,
            {*self.estimate_inputs, self.editor.html},
            self.editor.html,
            preprocess=False,
            trigger_mode="always_last",
            **UNQUEUED_EVENT_OPTIONS,
        )
        gr.on(
            [form[name].input for name in ("inpaint_area", *SIDE_FIELDS)],
            self.apply_model_size,
            self.estimate_inputs,
            self.size_outputs,
            preprocess=False,
            trigger_mode="always_last",
            **EVENT_OPTIONS,
        )

    def _wire_latest(self, events: list[Any], handler: Any, outputs: list[Any]) -> None:
        """Wire a handler that only looks; of events in a row it needs the last one only."""
        gr.on(
            events,
            handler,
            self.estimate_inputs,
            outputs,
            preprocess=False,
            trigger_mode="always_last",
            **UNQUEUED_EVENT_OPTIONS,
        )

    def change_task(self, values: Updates, request: gr.Request | None = None) -> Updates:
        """Show another task, which begins with the whole image.

        What was to be painted for the previous task says nothing about this one.
        """
        area = self.form["inpaint_area"]
        default_area = GenerationRequest.model_fields["inpaint_area"].default
        values = {**values, area: default_area}
        return {
            **self.update_task_view(values, request),
            area: default_area,
            **self.apply_model_size(values),
        }

    def update_task_view(self, values: Updates, request: gr.Request | None = None) -> Updates:
        """Show what belongs to the chosen task, in the editor too."""
        return {
            **self._task_visibility(values[self.task_choice], values[self.form["extend_fill"]]),
            **self.update_estimate(values, request),
            **self.update_editor(values),
        }

    def update_editor(self, values: Updates) -> Updates:
        """Show in the editor how far the image is extended, or that it is painted on."""
        return self.editor.set_options(self._read_editor_hints(values))

    def _read_editor_hints(self, values: Updates) -> dict[str, Any]:
        fields = self.form.read_raw(values)
        margins = [fields[name] for name in SIDE_FIELDS]
        return build_editor_hints(values[self.task_choice], margins, fields)

    def draw_area_frame(self, values: Updates) -> Updates:
        """Draw a frame around the part of the image that will be painted."""
        return self.editor.highlight_area(values[self.editor.html], self.find_painted_box(values))

    def find_painted_box(self, values: Updates) -> Box | None:
        """Return the part of the image that will be painted, as the engine finds it.

        Returns:
            Left, top, right and bottom in pixels of the image; None where all of it is painted,
            or the request is not valid.
        """
        # Its libraries take a third of a second to load, for which no page is to wait.
        from studio.imaging import masks

        source = values[self.editor.source]
        if not isinstance(source, SourceImage) or source.width * source.height > MAX_FRAMED_PIXELS:
            return None
        raw = self.form.read_raw(values)
        fields = {name: raw[name] for name in (*AREA_FIELDS, *SIDE_FIELDS)}
        fields |= self.cheap_fields(values)
        try:
            mask, is_inverted = self.editor.decode_mask(values[self.editor.html], source)
            request = validate(GenerationRequest, fields)
            has_area = request.task == "outpaint" or (
                request.task == "inpaint" and mask is not None
            )
            if request.inpaint_area != "only masked" or not has_area:
                return None
            native_size = native_size_of(self.selected_model(values))
            resolved = request.resolve(native_size, 0, source.size)
            resolved = resolved.model_copy(update={"invert_mask": is_inverted})
            return masks.compute_inpaint_box(
                resolved, masks.build_mask(resolved, source.size, mask)
            )
        except StudioError:
            return None  # whatever is wrong is said when an image is asked for

    def _task_visibility(self, task: Any, extend_fill: Any) -> Updates:
        is_outpainting = task == OUTPAINT
        return {
            self.margins_group: gr.Group(visible=is_outpainting),
            self.mask_group: gr.Group(visible=not is_outpainting),
            self.form["extend_colour"]: gr.Textbox(visible=extend_fill == "colour"),
        }

    # ---- the request on the page --------------------------------------------------------------

    def extra_fields(self, values: Updates) -> dict[str, Any]:
        """Return the image, and its mask where it is not extended.

        Raises:
            InvalidSpec: If there is no image, no side to extend, or nothing masked.
            BadPicture: If the mask is not an image of the same size.
        """
        source = self.require_source(values)
        if values[self.task_choice] == OUTPAINT:
            if not any(values[self.form[name]] for name in SIDE_FIELDS):
                raise InvalidSpec(["Sides: add pixels on at least one side."])
            return {"image": source.image, "mask": ""}
        mask, is_inverted = self.editor.store_mask(values[self.editor.html], source)
        if not mask:
            raise InvalidSpec(["Mask: nothing is painted yet; paint over the area to replace."])
        return {
            "image": source.image,
            "mask": mask,
            "invert_mask": is_inverted,
            **dict.fromkeys(SIDE_FIELDS, 0),
        }

    def cheap_fields(self, values: Updates) -> dict[str, Any]:
        """Return the image, and in place of the mask the image again.

        Which pixels are masked matters little to how long it will take.
        """
        fields = super().cheap_fields(values)
        if fields and values[self.task_choice] != OUTPAINT:
            fields |= {"mask": fields["image"], **dict.fromkeys(SIDE_FIELDS, 0)}
        return fields

    def update_estimate(self, values: Updates, request: gr.Request | None = None) -> Updates:
        """Say how long the request on the page will take, and how many steps run."""
        steps = values[self.form["steps"]]
        strength = values[self.form["strength"]]
        return {
            **super().update_estimate(values, request),
            self.step_count: render_effective_steps(steps, strength),
        }

    def default_size(self, values: Updates) -> Size | None:
        """Return the image's own size with what is added to it.

        Where only what is masked is painted, it is the model's.
        """
        model = self.selected_model(values)
        source = values[self.editor.source]
        if values[self.form["inpaint_area"]] == "only masked" and model:
            return model.native_size, model.native_size
        left, top, right, bottom = self._read_editor_hints(values)["extend"]
        if source is None or model is None or not any((left, top, right, bottom)):
            return super().default_size(values)
        extended_size = (source.width + left + right, source.height + top + bottom)
        return fit_size(extended_size, model.native_size)

    # ---- filling the form ---------------------------------------------------------------------

    def load_request(self, request: GenerationRequest, visitor: Visitor) -> Updates:
        """Put a request on the page, with the task that it is for."""
        task = infer_task(request)
        colour = gr.Textbox(request.extend_colour, visible=request.extend_fill == "colour")
        return {
            **super().load_request(request, visitor),
            **self._task_visibility(task, request.extend_fill),
            self.form["extend_colour"]: colour,
            self.task_choice: task,
            self.step_count: render_effective_steps(request.steps, request.strength),
        }

    def editor_hints(self, request: GenerationRequest) -> dict[str, Any]:
        """Return what the editor is to show beside the image."""
        fields = request.model_dump()
        return build_editor_hints(infer_task(request), list(request.extension), fields)


def infer_task(request: GenerationRequest) -> str:
    """Return OUTPAINT for a request that extends its image, else INPAINT."""
    return OUTPAINT if any(request.extension) else INPAINT


def build_editor_hints(
    task: Any, margins: list[Any], form_values: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the editor is to show beside the image (see `MaskEditor.set_options`).

    Args:
        task: INPAINT or OUTPAINT.
        margins: Pixels to add at the left, top, right and bottom, as the browser sent them.
        form_values: The fields of the request; those of AREA_FIELDS are needed.
    """
    is_outpainting = task == OUTPAINT
    extend = [0, 0, 0, 0]
    if is_outpainting:
        extend = [margin if isinstance(margin, int) else 0 for margin in margins]
    area: list[Any] = []
    if form_values["inpaint_area"] == "only masked":
        area = [form_values[name] for name in AREA_FIELDS]
    return {"extend": extend, "paint": not is_outpainting, "area": area}


def build(services: Services) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    return Inpaint(services).build_tab()
