"""The img2img tab: a picture, or a drawing, made into another.

Knows: its layout, strength, how the picture is resized. Does not know: what its other parts do (maker.py, on_picture.py); how a
picture is made.
"""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from studio.core.generation.geometry import paint_size, steps_run
from studio.core.generation.request import GenerationRequest
from studio.imaging import decode
from studio.storage.gallery import Picture
from studio.ui import show
from studio.ui.components.lora_picker import Chooser
from studio.ui.guard import Visitor
from studio.ui.tabs.image_input import OnPicture
from studio.ui.tabs.img2img_batch import Many
from studio.ui.widgets import SHORT, Desk, Tab, Updates

MOST_STEPS = 1000  # that anything is said about
LEAST, MOST = 0.25, 4  # times that a picture can be resized by
TIMES = 2.0  # as large as Enlarge asks for, until somebody says otherwise
LIGHTLY = 0.2  # strength of its second pass: finer, not other (at 0.35 each tile begins to paint the prompt's things into itself)
PIECE = 1024  # pixels a side from which on it is made in tiles
EMPTY = show.empty(
    "What becomes of it will appear here.",
    "Put a picture on the easel or draw one, say what it should show, and "
    "press Generate. Strength says how much may change.",
)


class Img2Img(OnPicture):
    """One build of the tab."""

    ID = TITLE = "img2img"
    TASKS = ("img2img",)
    MODE = "sketch"

    def lay_out(self) -> None:
        with gr.Row(elem_classes="workspace"):
            with gr.Column(scale=6, min_width=320, elem_classes="controls"):
                with gr.Column(elem_classes="say"):
                    self.worked_on()
                    self.said("what it should show")
                with gr.Group():
                    self.form.add("strength", info="Denoising strength: how much may change.")
                    self.runs = gr.HTML(elem_id="img2img-runs", elem_classes="runs")
                with gr.Group():
                    self.size("As the picture, or a usual one.")
                    with gr.Row():
                        self.by = gr.Slider(
                            LEAST,
                            MOST,
                            1,
                            step=0.05,
                            label="Resize by",
                            info="Computes width and height.",
                            elem_id="img2img-by",
                            min_width=160,
                        )
                        self.form.add("resize_mode", min_width=160, info="If the shape differs.")
                self.loras = Chooser(self.desk, self.form)
                self.numbers()
                self.hires()
                self.many = Many(self.desk)
                self.more()
            with gr.Column(scale=6, min_width=320, elem_classes="stage"):
                self.staged(EMPTY)

    @property
    def says(self) -> list[Any]:
        return [*super().says, self.runs]

    @property
    def filled(self) -> list[Any]:
        return [*super().filled, self.runs]

    def wire(self) -> None:
        super().wire()
        self.by.input(
            self.resize,
            {self.by, *self.telling},
            [self.form["width"], self.form["height"]],
            preprocess=False,
            **SHORT,
        )
        self.many.wire(self)

    def more_of(self, values: Updates) -> dict[str, Any]:
        source = self.source(values)
        return {"image": self.easel.picture(values[self.easel.html], source)}

    def tell(self, values: Updates) -> Updates:
        steps, strength = values[self.form["steps"]], values[self.form["strength"]]
        return {**super().tell(values), self.runs: runs(steps, strength)}

    def resize(self, values: Updates) -> Updates:
        """So many times the picture's own size."""
        source, times = values[self.easel.source], values[self.by]
        if (
            source is None or not isinstance(times, int | float) or not LEAST <= times <= MOST
        ):  # NaN is not either
            return {self.form["width"]: gr.skip()}
        width, height = paint_size(
            (None, None), (round(source.width * times), round(source.height * times))
        )
        return {self.form["width"]: width, self.form["height"]: height}

    @property
    def outputs(self) -> list[Any]:
        return [*super().outputs, *self.many.outputs]

    def opened(self, visitor: Visitor) -> Updates:
        return {**super().opened(visitor), **self.many.shown(visitor)}

    def take(self, request: GenerationRequest, visitor: Visitor) -> Updates:
        return {**super().take(request, visitor), self.runs: runs(request.steps, request.strength)}

    def enlarged(self, picture: Picture, visitor: Visitor) -> Updates:
        """A picture from any tab, ready to be made larger: no first pass, and a light second one."""
        with show.said():
            large = TIMES * max(decode.measure(picture.path)) > PIECE
            steps = (
                0 if steps_run(picture.request.steps, LIGHTLY) else math.ceil(1 / LIGHTLY)
            )  # at least one has to run
        return self.sent(
            picture,
            visitor,
            as_it_is=True,
            strength=0.0,
            hires_scale=TIMES,
            hires_strength=LIGHTLY,
            hires_resize="pixel",
            hires_steps=steps,
            hires_tile=PIECE if large else 0,
            hires_overlap=64 if large else 32,
        )


def runs(steps: Any, strength: Any) -> str:
    """How many steps really run, in words."""
    numbers = (
        not isinstance(steps, bool) and isinstance(steps, int) and isinstance(strength, int | float)
    )
    if not numbers or not 1 <= steps <= MOST_STEPS or not 0 <= strength <= 1:
        return ""
    run = steps_run(steps, strength)
    if not run:
        words = (
            "No step runs: the picture is only enlarged."
            if not strength
            else "No step runs: more strength, or more steps."
        )
    else:
        words = f"{run} of {steps} steps really run."
    return f'<p class="estimate" data-runs="{run}">{words}</p>'


def build(desk: Desk) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = Img2Img(desk)
    made = tab.tab()
    made.enlarged = tab.enlarged
    return made
