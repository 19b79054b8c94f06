"""The img2img tab: an image, or a drawing, made into another.

Knows: its layout, strength, how the image is resized.
Does not know: what its other parts do (generation.py, image_input.py); how an image is made.
"""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from studio.core.generation.geometry import count_effective_steps, resolve_size
from studio.core.generation.request import GenerationRequest
from studio.imaging import decode
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.gallery import GeneratedImage
from studio.ui.errors import report_errors
from studio.ui.events import EVENT_OPTIONS, Updates
from studio.ui.tab import Tab
from studio.ui.tabs.image_input import ImageInputTab
from studio.ui.tabs.img2img_batch import BatchImg2Img
from studio.ui.views.images import render_placeholder, render_step_count

MAX_STEPS = 1000  # more are not counted under the strength
MIN_SCALE = 0.25  # of "Resize by"
MAX_SCALE = 4
REDRAW_SCALE = 2.0  # what "Redraw larger" fills in
# Of its second pass: it makes the image finer, not another. (At 0.35 each tile begins to paint the
# prompt's things into itself.)
REDRAW_STRENGTH = 0.2
TILE_THRESHOLD_PX = 1024  # the longer side above which "Redraw larger" works in tiles
EMPTY_HTML = render_placeholder(
    "The result will appear here.",
    "Add an image or draw one, describe what it should show, and press Generate. Denoising "
    "strength sets how much may change.",
)


class Img2Img(ImageInputTab):
    """The components of the tab."""

    ID = "img2img"
    TASKS = ("img2img",)
    EDITOR_MODE = "sketch"

    def build_layout(self) -> None:
        """Place every component."""
        with gr.Row(elem_classes="workspace with-source"):
            with gr.Column(elem_classes="controls"):
                self.add_prompts("what it should show", lines=2)
                self.form.add("strength", info="How much of the image may change.")
                self.step_count = gr.HTML(elem_id="img2img-runs", elem_classes="runs")
                self.add_main_settings("The image's size, or a preset.")
                with gr.Accordion("Resize", open=False, elem_id="img2img-resize"):
                    self.scale = gr.Slider(
                        MIN_SCALE,
                        MAX_SCALE,
                        1,
                        step=0.05,
                        label="Resize by",
                        info="Sets width and height.",
                        elem_id="img2img-by",
                    )
                    self.form.add("resize_mode", info="For images with other proportions.")
                self.add_hires()
                self.batch_panel = BatchImg2Img(self.services)
                self.add_extras()
            with gr.Column(elem_classes="source"):
                self.add_editor()
            with gr.Column(elem_classes="stage"):
                self.add_result_panel(EMPTY_HTML)

    @property
    def estimate_outputs(self) -> list[Any]:
        return [*super().estimate_outputs, self.step_count]

    @property
    def form_outputs(self) -> list[Any]:
        return [*super().form_outputs, self.step_count]

    def wire(self) -> None:
        """Connect events and handlers."""
        super().wire()
        self.scale.input(
            self.apply_scale,
            {self.scale, *self.estimate_inputs},
            [self.form["width"], self.form["height"]],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.batch_panel.wire(self)

    def extra_fields(self, values: Updates) -> dict[str, Any]:
        """Return the image with what is drawn on it.

        Raises:
            InvalidSpec: If there is no image.
            BadPicture: If the drawing is not one.
        """
        source = self.require_source(values)
        return {"image": self.editor.store_image(values[self.editor.html], source)}

    def update_estimate(self, values: Updates, request: gr.Request | None = None) -> Updates:
        """Say how long the request on the page will take, and how many steps run."""
        steps = values[self.form["steps"]]
        strength = values[self.form["strength"]]
        return {
            **super().update_estimate(values, request),
            self.step_count: render_effective_steps(steps, strength),
        }

    def apply_scale(self, values: Updates) -> Updates:
        """Fill in so many times the image's own size."""
        source = values[self.editor.source]
        scale = values[self.scale]
        # Written so that NaN is not in the range.
        is_valid = isinstance(scale, int | float) and MIN_SCALE <= scale <= MAX_SCALE
        if source is None or not is_valid:
            return {self.form["width"]: gr.skip()}
        scaled_size = (round(source.width * scale), round(source.height * scale))
        width, height = resolve_size((None, None), scaled_size)
        return {self.form["width"]: width, self.form["height"]: height}

    @property
    def outputs(self) -> list[Any]:
        """What handlers may change."""
        return [*super().outputs, *self.batch_panel.outputs]

    def on_open(self, visitor: Visitor) -> Updates:
        """Return what a page that opens shows: the last job, and the last batch."""
        return {**super().on_open(visitor), **self.batch_panel.render(visitor)}

    def load_request(self, request: GenerationRequest, visitor: Visitor) -> Updates:
        """Put a request on the page, and say how many of its steps run."""
        return {
            **super().load_request(request, visitor),
            self.step_count: render_effective_steps(request.steps, request.strength),
        }

    def receive_for_redrawing(self, image: GeneratedImage, visitor: Visitor) -> Updates:
        """Put an image of any tab on the page, ready to be painted again, larger.

        Strength 0 leaves out the first pass; the second changes little.
        """
        with report_errors():
            longer_side = REDRAW_SCALE * max(decode.read_image_size(image.path))
        is_tiled = longer_side > TILE_THRESHOLD_PX
        hires_steps = 0  # as many as the first pass
        if not count_effective_steps(image.request.steps, REDRAW_STRENGTH):
            hires_steps = math.ceil(1 / REDRAW_STRENGTH)  # one has to run at least
        return self.receive_image(
            image,
            visitor,
            keep_size=True,
            strength=0.0,
            hires_scale=REDRAW_SCALE,
            hires_strength=REDRAW_STRENGTH,
            hires_resize="pixel",
            hires_steps=hires_steps,
            hires_tile=TILE_THRESHOLD_PX if is_tiled else 0,
            hires_overlap=64 if is_tiled else 32,
        )


def render_effective_steps(steps: Any, strength: Any) -> str:
    """Render how many steps really run.

    Args:
        steps: What the browser sent; nothing is rendered unless it is 1 to `MAX_STEPS`.
        strength: What the browser sent; nothing is rendered unless it is 0 to 1.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MAX_STEPS:
        return ""
    if not isinstance(strength, int | float) or not 0 <= strength <= 1:
        return ""
    num_steps = count_effective_steps(steps, strength)
    if num_steps:
        text = f"Runs {num_steps} of {steps} steps at this strength."
    elif strength:
        text = "No steps run; choose more strength or more steps."
    else:
        text = "No steps run: the image is only enlarged."
    return render_step_count(num_steps, text)


def build(services: Services) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    img2img = Img2Img(services)
    tab = img2img.build_tab()
    tab.redraw_image = img2img.receive_for_redrawing
    return tab
