"""The Inpaint tab: a part of a picture made anew, or more of it around its edges (outpainting).

Knows: its layout, the mask's settings, the sides. Does not know: what its other parts do (maker.py, on_picture.py); how the part is
painted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from studio.core.base import check
from studio.core.generation.geometry import Box, Size
from studio.core.generation.request import GenerationRequest
from studio.errors import InvalidSpec, StudioError
from studio.ui import show
from studio.ui.components.lora_picker import Chooser
from studio.ui.components.mask_editor import Source
from studio.ui.guard import Visitor
from studio.ui.tabs.image_input import OnPicture, suited
from studio.ui.tabs.img2img import runs
from studio.ui.widgets import SHORT, SILENT, Desk, Tab, Updates

WITHIN, AROUND = "inpaint", "outpaint"
WAYS = [("What I paint over (inpainting)", WITHIN), ("More around it (outpainting)", AROUND)]
SIDES = ("extend_left", "extend_top", "extend_right", "extend_bottom")
AREA = (
    "model",
    "width",
    "height",
    "inpaint_area",
    "mask_padding",
    "mask_blur",
    "mask_grow",
    "seam_blur",
)  # which part is painted
MOST_FRAMED = 4_000_000  # pixels of a picture whose painted part is drawn around: softening a larger mask takes seconds
EMPTY = show.empty(
    "The mended picture will appear here.",
    "Put a picture on the easel, paint over what is to be made anew, say "
    "what should be there, and press Generate. Everything else stays as it is, to the last bit.",
)


class Inpaint(OnPicture):
    """One build of the tab."""

    ID = "inpaint"
    TITLE = "Inpaint"
    TASKS = ("inpaint", "outpaint")
    MODE = "mask"

    def lay_out(self) -> None:
        with gr.Row(elem_classes="workspace"):
            with gr.Column(scale=6, min_width=320, elem_classes="controls"):
                with gr.Column(elem_classes="say"):
                    self.way = gr.Radio(
                        WAYS,
                        value=WITHIN,
                        show_label=False,
                        elem_id="inpaint-way",
                        elem_classes="ways",
                        container=False,
                    )
                    self.worked_on()
                    self.said("what should be there")
                self._sides()
                with gr.Group():
                    self.form.add("strength", info="Denoising strength: how much may change.")
                    self.runs = gr.HTML(elem_id="inpaint-runs", elem_classes="runs")
                self._mask()
                with gr.Group():
                    self.size("What is painted; the picture keeps its own.")
                self.loras = Chooser(self.desk, self.form)
                self.numbers()
                self.more()
            with gr.Column(scale=6, min_width=320, elem_classes="stage"):
                self.staged(EMPTY)

    def _sides(self) -> None:
        with gr.Group(visible=False, elem_id="inpaint-sides") as self.sides:
            with gr.Row():
                for name in SIDES:
                    self.form.add(name, slider=False, info=None, min_width=100)
            with gr.Row():
                self.form.add(
                    "extend_fill", min_width=120, info="What is there before it is painted."
                )
                self.form.add("seam_blur", min_width=120, info="How softly new meets old.")
            self.form.add("extend_colour", visible=False, max_lines=1, info="As #rrggbb.")

    def _mask(self) -> None:
        with gr.Group() as self.area, gr.Row():
            self.form.add(
                "inpaint_area", min_width=160, info="All of it, or only what is masked, enlarged."
            )
            self.form.add(
                "mask_padding",
                min_width=160,
                slider=True,
                info="Seen around it, if only that is painted.",
            )
        with gr.Group() as self.masking:
            with gr.Row():
                self.form.add("mask_blur", min_width=160, info="How soft its edge is.")
                self.form.add(
                    "mask_grow", min_width=160, info="Larger all around; below 0 smaller."
                )
            self.form.add("masked_content", info="What is under the mask before painting.")

    # ---- which event does what ----------------------------------------------------------------------------------

    @property
    def telling(self) -> set[Any]:
        return {*super().telling, self.way}

    @property
    def asked(self) -> set[Any]:
        return {*super().asked, self.way}

    @property
    def says(self) -> list[Any]:
        return [*super().says, self.runs]

    @property
    def turned(self) -> list[Any]:
        """What looks different when another way is gone."""
        return [self.way, self.sides, self.masking, self.easel.html, self.form["extend_colour"]]

    @property
    def filled(self) -> list[Any]:
        return list(dict.fromkeys([*super().filled, *self.turned, self.runs]))

    def wire(self) -> None:
        super().wire()
        form = self.form
        sized = [self.usual, form["width"], form["height"]]
        self.way.input(
            self.turn_way,
            self.telling,
            [*self.turned, *self.says, form["inpaint_area"], *sized],
            preprocess=False,
            **SHORT,
        )
        gr.on(
            [form[name].change for name in (*SIDES, "extend_fill")],
            self.turn,
            self.telling,
            [*self.turned, *self.says],
            preprocess=False,
            trigger_mode="always_last",
            **SILENT,
        )
        gr.on(
            [form[name].change for name in AREA],
            lambda values: self.easel.tell(self._seen(values)),
            self.telling,
            self.easel.html,
            preprocess=False,
            trigger_mode="always_last",
            **SILENT,
        )
        self.easel.html.input(
            self.frame,
            {*self.telling, self.easel.html},
            self.easel.html,
            preprocess=False,
            trigger_mode="always_last",
            **SILENT,
        )
        gr.on(
            [form[name].input for name in ("inpaint_area", *SIDES)],
            self.fit_model,
            self.telling,
            sized,
            preprocess=False,
            trigger_mode="always_last",
            **SHORT,
        )

    def turn_way(self, values: Updates) -> Updates:
        """Another way begins with the whole picture: what was to be painted of the last one says nothing about it."""
        area = self.form["inpaint_area"]
        now = {**values, area: GenerationRequest.model_fields["inpaint_area"].default}
        return {**self.turn(now), area: now[area], **self.fit_model(now)}

    def turn(self, values: Updates) -> Updates:
        """What belongs to the chosen way is shown, on the easel too."""
        return {
            **self._turned(values[self.way], values[self.form["extend_fill"]]),
            **self.tell(values),
            **self.easel.tell(self._seen(values)),
        }

    def _seen(self, values: Updates) -> dict[str, Any]:
        said = self.form.raw(values)
        return seen(values[self.way], [said[name] for name in SIDES], said)

    def frame(self, values: Updates) -> Updates:
        """The part of the picture that will be painted, drawn around."""
        return self.easel.framed(values[self.easel.html], self.part(values))

    def part(self, values: Updates) -> Box | None:
        """It in pixels, as the engine finds it; None where all is painted, or it cannot be said."""
        from studio.imaging import (
            masks,  # its libraries take a third of a second to load, for which no page is to wait
        )

        source, said = values[self.easel.source], self.form.raw(values)
        if not isinstance(source, Source) or source.width * source.height > MOST_FRAMED:
            return None
        try:
            mask, invert = self.easel.layer(values[self.easel.html], source)
            request = check(
                GenerationRequest,
                {**{name: said[name] for name in (*AREA, *SIDES)}, **self.known_of(values)},
            )
            if request.inpaint_area != "only masked" or (
                mask is None if request.task == "inpaint" else request.task != "outpaint"
            ):
                return None
            model = self.model(values)
            full = request.resolved(model.side if model else 512, 0, source.size).model_copy(
                update={"invert_mask": invert}
            )
            return masks.painted_box(full, masks.used(full, source.size, mask))
        except StudioError:
            return None  # whatever is wrong is said when a picture is asked for

    def _turned(self, way: Any, fill: Any) -> Updates:
        around = way == AROUND
        return {
            self.sides: gr.Group(visible=around),
            self.masking: gr.Group(visible=not around),
            self.form["extend_colour"]: gr.Textbox(visible=fill == "colour"),
        }

    # ---- what is wanted -----------------------------------------------------------------------------------------

    def more_of(self, values: Updates) -> dict[str, Any]:
        source = self.source(values)
        if values[self.way] == AROUND:
            if not any(values[self.form[name]] for name in SIDES):
                raise InvalidSpec(
                    ["Sides: say on at least one of them how many pixels are to be added."]
                )
            return {"image": source.image, "mask": ""}
        mask, invert = self.easel.mask(values[self.easel.html], source)
        if not mask:
            raise InvalidSpec(["Mask: nothing is painted yet; paint over what is to be made anew."])
        return {
            "image": source.image,
            "mask": mask,
            "invert_mask": invert,
            **dict.fromkeys(SIDES, 0),
        }

    def known_of(self, values: Updates) -> dict[str, Any]:
        known = super().known_of(values)
        if (
            values[self.way] != AROUND and known
        ):  # which pixels are masked matters little to what it will take
            known |= {"mask": known["image"], **dict.fromkeys(SIDES, 0)}
        return known

    def tell(self, values: Updates) -> Updates:
        return {
            **super().tell(values),
            self.runs: runs(values[self.form["steps"]], values[self.form["strength"]]),
        }

    def own_size(self, values: Updates) -> Size | None:
        """The picture's own, with what is added to it; the model's where only what is masked is painted."""
        model, source = self.model(values), values[self.easel.source]
        if values[self.form["inpaint_area"]] == "only masked" and model:
            return model.side, model.side
        left, top, right, bottom = self._seen(values)["extend"]
        if source is None or model is None or not any((left, top, right, bottom)):
            return super().own_size(values)
        return suited((source.width + left + right, source.height + top + bottom), model.side)

    # ---- what fills the form ------------------------------------------------------------------------------------

    def take(self, request: GenerationRequest, visitor: Visitor) -> Updates:
        way = way_of(request)
        colour = gr.Textbox(request.extend_colour, visible=request.extend_fill == "colour")
        return {
            **super().take(request, visitor),
            **self._turned(way, request.extend_fill),
            self.form["extend_colour"]: colour,
            self.way: way,
            self.runs: runs(request.steps, request.strength),
        }

    def told_easel(self, request: GenerationRequest) -> dict[str, Any]:
        return seen(way_of(request), list(request.extension), request.model_dump())


def way_of(request: GenerationRequest) -> str:
    """Inside the picture, or around it."""
    return AROUND if any(request.extension) else WITHIN


def seen(way: Any, sides: list[Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """What the easel is told: how far the picture will be extended, or that it is painted on; what decides which part of it is."""
    around = way == AROUND
    return {
        "extend": [side if isinstance(side, int) else 0 for side in sides] if around else [0] * 4,
        "paint": not around,
        "area": [said[name] for name in AREA] if said["inpaint_area"] == "only masked" else [],
    }


def build(desk: Desk) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    return Inpaint(desk).tab()
