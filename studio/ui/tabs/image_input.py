"""What img2img and inpainting have in common: a picture on an easel that is worked on.

Knows: how a picture comes to the tab and what size it asks for. Does not know: masks, drawings, what else a tab asks of it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gradio as gr

from studio.core.generation.geometry import UNIT, Size, paint_size
from studio.core.generation.request import GenerationRequest
from studio.errors import InvalidSpec
from studio.storage.gallery import Picture
from studio.ui import show
from studio.ui.components.mask_editor import Easel, Source
from studio.ui.guard import Visitor, who
from studio.ui.tabs.generation import Maker
from studio.ui.widgets import SHORT, Tab, Updates

DEFAULTS = {name: field.get_default() for name, field in GenerationRequest.model_fields.items()}
OF_THE_PICTURE = (
    "image",
    "mask",
    "invert_mask",
    "extend_left",
    "extend_top",
    "extend_right",
    "extend_bottom",
    "hires_scale",
)


class OnPicture(Maker):
    """One build of such a tab."""

    MODE: ClassVar[str]  # of the easel
    OWN = "the picture's own"

    def worked_on(self) -> None:
        """The easel."""
        self.easel = Easel(self.desk, self.ID, self.MODE)

    def said(self, placeholder: str) -> None:
        """The prompts around the buttons: short, for the easel is high."""
        self.form.add("prompt", lines=2, placeholder=placeholder, info=None)
        self.buttons()
        self.form.add("negative_prompt", lines=1, placeholder="what it should not show", info=None)

    @property
    def asked(self) -> set[Any]:
        return {*super().asked, *self.easel.outputs}

    @property
    def telling(self) -> set[Any]:
        return {*super().telling, self.easel.source}

    @property
    def filled(self) -> list[Any]:
        return [*super().filled, *self.easel.outputs]

    def wire(self) -> None:
        super().wire()
        sized = [self.usual, self.form["width"], self.form["height"]]
        self.easel.html.click(
            self.press, self.telling, [*self.easel.outputs, *sized], preprocess=False, **SHORT
        )
        gr.on(
            [self.easel.source.change],
            self.tell,
            self.telling,
            self.says,
            preprocess=False,
            trigger_mode="always_last",
            **SHORT,
        )

    def press(self, values: Updates, event: gr.EventData, request: gr.Request) -> Updates:
        """A button on the easel, or a file dropped on it."""
        with show.said():
            visitor = who(request)
            size = paint_size(
                (_whole(values[self.form["width"]]), _whole(values[self.form["height"]])),
                (512, 512),
            )
            before = values[self.easel.source]
            source = self.easel.pressed(event._data, before, size, visitor.sees)
            if source == before:
                return {self.easel.source: gr.skip()}
            sized = (
                self.sized(source, values)
                if source is None or before is None or source.image != before.image
                else {}
            )
            return {**self.easel.put(source), **sized}

    def sized(self, source: Source | None, values: Updates) -> Updates:
        """The size that suits another picture."""
        return self.fit_model({**values, self.easel.source: source})

    def own_size(self, values: Updates) -> Size | None:
        """The picture's own, unless that is far more than the model was made for."""
        source, model = values[self.easel.source], self.model(values)
        if source is None or model is None:
            return super().own_size(values)
        return suited(source.size, model.side)

    def known_of(self, values: Updates) -> dict[str, Any]:
        source = values[self.easel.source]
        return {"image": source.image} if source else {}

    def source(self, values: Updates) -> Source:
        """The picture on the easel. Raises InvalidSpec where there is none."""
        source = values[self.easel.source]
        if not isinstance(source, Source):
            raise InvalidSpec(
                [
                    "Picture: there is none yet; drop one on the easel, choose a file, or send one from another tab."
                ]
            )
        return source

    def tab(self) -> Tab:
        made = super().tab()
        made.source = self.easel.source
        return made

    # ---- what fills the form ------------------------------------------------------------------------------------

    def take(self, request: GenerationRequest, visitor: Visitor) -> Updates:
        filled, told = super().take(request, visitor), self.told_easel(request)
        if not request.image:  # a preset, which is for any picture
            return {**filled, **(self.easel.tell(told) if told else {})}
        source = self.easel.known(request.image, request.mask, request.invert_mask, visitor.sees)
        if source is None:
            gr.Warning(
                "The picture that this was made from is not in this home any more; choose another."
            )
        return {**filled, **self.easel.put(source, told)}

    def told_easel(self, request: GenerationRequest) -> dict[str, Any]:
        """What the easel is to show beside the picture."""
        return {}

    def sent(
        self, picture: Picture, visitor: Visitor, as_it_is: bool = False, **wanted: Any
    ) -> Updates:
        """A picture from another tab: it goes on the easel, and what it was made with into the form.

        It is painted at the size that suits the model, or `as_it_is`; `wanted` are other values of fields.
        """
        with show.said():
            found = self.desk.library.inputs.add(picture.path, by=visitor.sees)
            model = self.models.get(picture.request.model)
            width, height = (
                paint_size((None, None), found.size)
                if as_it_is
                else suited(found.size, model.side if model else 512)
            )
            strength = picture.request.strength or DEFAULTS["strength"]
            asked = {
                "strength": strength,
                **{name: DEFAULTS[name] for name in OF_THE_PICTURE},
                "width": width,
                "height": height,
                "count": 1,
                **wanted,
                "image": found.sha256,
            }
            return self.take(picture.request.model_copy(update=asked), visitor)


def suited(own: Size, side: int) -> Size:
    """A size to paint a picture at: its own, to the nearest unit, or about as many pixels as the model was made for."""
    scale = 1.0 if max(own) <= 2 * side else side / (own[0] * own[1]) ** 0.5
    return paint_size(
        (None, None), (max(UNIT, round(own[0] * scale)), max(UNIT, round(own[1] * scale)))
    )


def _whole(value: Any) -> int | None:
    """A side that a browser sent, if it can be one."""
    return (
        value
        if isinstance(value, int)
        and not isinstance(value, bool)
        and 64 <= value <= 2048
        and value % UNIT == 0
        else None
    )
