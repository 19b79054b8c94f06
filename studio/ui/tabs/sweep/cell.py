"""The cell of a sweep that somebody looks at: large, with its settings, judged, sent on, compared with a pinned one.

Knows: the parts that stand under the grid. Does not know: the form, the grid, jobs; which sweep a visitor may see.
"""

from __future__ import annotations

import html
import threading
from dataclasses import replace
from typing import Any

import gradio as gr

from studio.core.sweeps.spec import Cell, Plan
from studio.errors import InvalidSpec
from studio.storage.sweeps import MOST_STARS, Kept, Verdict
from studio.ui import show
from studio.ui.views import sweep
from studio.ui.widgets import SHORT, Desk, Updates

SLIDER, SIDES = "Slider", "Side by side"


class CellPane:
    """One build of it. `key` is the cell in view, `pinned` the one it is compared with, `picked` the picture's path."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._judging = (
            threading.Lock()
        )  # stars and a note may come at once; neither may take the other back
        self.key: gr.State = gr.State("")
        self.pinned: gr.State = gr.State("")
        self.picked: gr.State = gr.State(None)
        with (
            gr.Column(visible=False, elem_id="sweep-cell") as self.place,
            gr.Row(elem_classes="cell-row"),
        ):
            with gr.Column(scale=5, min_width=260) as self.left:
                self.view = gr.Image(
                    show_label=False,
                    type="filepath",
                    image_mode=None,
                    interactive=False,
                    height=400,
                    buttons=["download", "fullscreen"],
                    elem_id="sweep-view",
                )
            with gr.Column(scale=6, min_width=280, elem_classes="cell-side"):
                self.about = gr.HTML(elem_id="sweep-about")
                self.judging = gr.HTML(js_on_load=sweep.SCRIPT, elem_id="sweep-judging")
                with gr.Row(elem_classes="send") as self.send:
                    self.pin = gr.Button("Pin to compare", size="sm", elem_id="sweep-pin")
                    self.base = gr.Button("Use as base", size="sm", elem_id="sweep-as-base")
        with gr.Column(
            visible=False, elem_id="sweep-compare", elem_classes="compare"
        ) as self.compare:
            with gr.Row(elem_classes="compare-row"):
                self.how = gr.Radio(
                    [SLIDER, SIDES],
                    value=SLIDER,
                    label="The pinned and the chosen cell",
                    elem_id="sweep-how",
                )
                self.unpin = gr.Button(
                    "Unpin", size="sm", scale=0, min_width=90, elem_id="sweep-unpin"
                )
            self.captions = gr.HTML(elem_id="sweep-captions")
            self.slider = gr.ImageSlider(
                show_label=False,
                type="filepath",
                interactive=False,
                height=420,
                max_height=420,
                elem_id="sweep-slider",
                buttons=["fullscreen"],
            )
            self.sides = gr.HTML(visible=False, elem_id="sweep-sides")

    @property
    def outputs(self) -> list[Any]:
        return [
            self.key,
            self.pinned,
            self.picked,
            self.place,
            self.left,
            self.send,
            self.view,
            self.about,
            self.judging,
            self.pin,
            self.compare,
            self.captions,
            self.slider,
            self.sides,
        ]

    def wire(self, pin: Any, unpin: Any, how: Any, inputs: list[Any], more: list[Any]) -> None:
        """The tab's handlers for a press on Pin and Unpin, which change `more`, and for another way to compare."""
        self.pin.click(pin, inputs, [*self.outputs, *more], **SHORT)
        self.unpin.click(unpin, inputs, [*self.outputs, *more], **SHORT)
        self.how.input(how, inputs, self.outputs, **SHORT)

    def closed(self) -> Updates:
        """Nothing is looked at, as when another sweep is opened."""
        return {
            self.key: "",
            self.pinned: "",
            self.picked: None,
            self.place: gr.Column(visible=False),
            self.compare: gr.Column(visible=False),
        }

    def shown(self, id: str, plan: Plan, key: str, pinned: str, how: str) -> Updates:
        """A cell, and the comparison if another is pinned."""
        cells, kept = {cell.key: cell for cell in plan.cells}, self.desk.sweeps.cells(id)
        cell = cells.get(key)
        if cell is None:
            return self.closed()
        one = kept.get(key, Kept())
        picture = self.desk.gallery.get(one.path) if one.done and one.path else None
        label = f'<p class="cell-label">{html.escape(" · ".join(cell.labels))}</p>'
        said = (
            show.settings(picture)
            if picture
            else sweep.faults([one.error])
            if one.error
            else ('<p class="nothing">Not made yet.</p>')
        )
        return {
            self.key: key,
            self.pinned: pinned if pinned in cells else "",
            self.picked: str(picture.path) if picture else None,
            self.place: gr.Column(visible=True),
            self.about: label + said,
            self.left: gr.Column(visible=picture is not None),
            self.send: gr.Row(visible=picture is not None),
            self.view: str(picture.path) if picture else None,
            self.judging: sweep.judging(key, one.verdict, picture is not None),
            self.pin: "Unpin" if key == pinned else "Pin to compare",
            **self._compared(cells, kept, pinned, key, how),
        }

    def _compared(
        self, cells: dict[str, Cell], kept: dict[str, Kept], pinned: str, key: str, how: str
    ) -> Updates:
        both = [
            (path, " · ".join(cells[one].labels))
            for one in (pinned, key)
            if one in cells and kept.get(one, Kept()).done and (path := kept[one].path)
        ]
        if len(both) < 2 or pinned == key:
            return {self.compare: gr.Column(visible=False)}
        (left, left_label), (right, right_label) = both
        left_label, beside = f"pinned: {left_label}", how == SIDES
        return {
            self.compare: gr.Column(visible=True),
            self.captions: gr.HTML(sweep.captions(left_label, right_label), visible=not beside),
            self.slider: gr.ImageSlider((str(left), str(right)), visible=not beside),
            self.sides: gr.HTML(
                sweep.compared((show.address(left), left_label), (show.address(right), right_label))
                if beside
                else "",
                visible=beside,
            ),
        }

    def judged(self, id: str, key: str, verb: str, value: Any) -> Verdict:
        """Change one part of a cell's verdict, at once and for good. Raises InvalidSpec for what is none."""
        with self._judging:
            verdict = self.desk.sweeps.cells(id).get(key, Kept()).verdict
            if verb == "best":
                verdict = replace(verdict, best=not verdict.best)
            elif verb == "note":
                verdict = replace(verdict, note=str(value or ""))
            else:
                if not (isinstance(value, str) and value.isdecimal() and len(value) == 1):
                    raise InvalidSpec([f"Stars: has to be 0 to {MOST_STARS} (not {value!r:.20})."])
                verdict = replace(verdict, stars=int(value))
            self.desk.sweeps.judge(id, key, verdict)
            return verdict
