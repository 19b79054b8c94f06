"""The selected cell of a sweep: large, with its settings and verdict, compared with a pinned one.

Knows: the components under the grid.
Does not know: the form, the grid, jobs; which sweep a visitor may see.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from studio.core.sweeps.spec import Cell, SweepPlan
from studio.errors import InvalidSpec, quote
from studio.services.submission import Services
from studio.services.urls import file_url
from studio.storage.gallery import GeneratedImage
from studio.storage.sweeps import CellResult
from studio.storage.verdicts import MAX_STARS, Verdict
from studio.ui.events import EVENT_OPTIONS, Updates, look_at_js
from studio.ui.views import sweep
from studio.ui.views.images import render_cell_label, render_image_settings
from studio.ui.views.templates import render_nothing

SLIDER_MODE = "Slider"
SIDE_BY_SIDE_MODE = "Side by side"


class CellPane:
    """The components of the selected cell.

    The page's state: `cell_key` is the cell in view, `pinned_key` the one it is compared with,
    `selected_path` the path of the cell's image.
    """

    def __init__(self, services: Services) -> None:
        self.services = services
        # Stars and a note may come at once; neither may take the other back.
        self._verdict_lock = threading.Lock()
        self.cell_key: gr.State = gr.State("")
        self.pinned_key: gr.State = gr.State("")
        self.selected_path: gr.State = gr.State(None)
        with (
            gr.Column(visible=False, elem_id="sweep-cell") as self.container,
            gr.Row(elem_classes="cell-row"),
        ):
            with gr.Column(scale=5, min_width=260) as self.image_column:
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
                self.details = gr.HTML(elem_id="sweep-about")
                self.verdict_editor = gr.HTML(js_on_load=sweep.SCRIPT, elem_id="sweep-judging")
                with gr.Row(elem_classes="send") as self.send_row:
                    self.pin = gr.Button("Pin to compare", size="sm", elem_id="sweep-pin")
                    self.use_as_base = gr.Button("Use as base", size="sm", elem_id="sweep-as-base")
        with gr.Column(
            visible=False, elem_id="sweep-compare", elem_classes="compare"
        ) as self.compare:
            with gr.Row(elem_classes="compare-row"):
                self.compare_mode = gr.Radio(
                    [SLIDER_MODE, SIDE_BY_SIDE_MODE],
                    value=SLIDER_MODE,
                    label="Compare with pinned",
                    elem_id="sweep-how",
                )
                self.unpin = gr.Button(
                    "Unpin", size="sm", scale=0, min_width=90, elem_id="sweep-unpin"
                )
            self.compare_labels = gr.HTML(elem_id="sweep-captions")
            self.slider = gr.ImageSlider(
                show_label=False,
                type="filepath",
                interactive=False,
                height=420,
                max_height=420,
                elem_id="sweep-slider",
                buttons=["fullscreen"],
            )
            self.side_by_side = gr.HTML(visible=False, elem_id="sweep-sides")

    @property
    def outputs(self) -> list[Any]:
        """What handlers may change."""
        return [
            self.cell_key,
            self.pinned_key,
            self.selected_path,
            self.container,
            self.image_column,
            self.send_row,
            self.view,
            self.details,
            self.verdict_editor,
            self.pin,
            self.compare,
            self.compare_labels,
            self.slider,
            self.side_by_side,
        ]

    def wire(
        self,
        on_pin: Any,
        on_unpin: Any,
        *,
        on_compare_mode: Any,
        inputs: set[Any],
        grid_outputs: list[Any],
    ) -> None:
        """Wire the tab's handlers.

        Args:
            on_pin: Handles a press on Pin.
            on_unpin: Handles a press on Unpin.
            on_compare_mode: Handles the choice of another way to compare.
            inputs: Components whose values all of them get.
            grid_outputs: Components that pinning changes besides those of this pane.
        """
        pin_outputs = [*self.outputs, *grid_outputs]
        self.pin.click(on_pin, inputs, pin_outputs, **EVENT_OPTIONS).success(
            None, None, None, js=look_at_js("#sweep-compare", "Comparison"), **EVENT_OPTIONS
        )
        self.unpin.click(on_unpin, inputs, pin_outputs, **EVENT_OPTIONS)
        self.compare_mode.input(on_compare_mode, inputs, self.outputs, **EVENT_OPTIONS)

    def render_empty(self) -> Updates:
        """Hide the pane, as when another sweep is opened."""
        return {
            self.cell_key: "",
            self.pinned_key: "",
            self.selected_path: None,
            self.container: gr.Column(visible=False),
            self.compare: gr.Column(visible=False),
        }

    def render_cell(
        self, sweep_id: str, plan: SweepPlan, *, cell_key: str, pinned_key: str, compare_mode: str
    ) -> Updates:
        """Render a cell, and the comparison if another cell is pinned.

        Args:
            sweep_id: The sweep that the cell belongs to.
            plan: The plan of that sweep.
            cell_key: The cell to show; the pane is hidden if the plan does not have it.
            pinned_key: The cell to compare it with, "" for none.
            compare_mode: SLIDER_MODE or SIDE_BY_SIDE_MODE.
        """
        cells = {cell.key: cell for cell in plan.cells}
        cell = cells.get(cell_key)
        if cell is None:
            return self.render_empty()
        results = self.services.home.sweeps.load_cell_results(sweep_id)
        result = results.get(cell_key, CellResult())
        image: GeneratedImage | None = None
        if result.has_image and result.path:
            image = self.services.home.gallery.get(result.path)
        image_path = str(image.path) if image else None
        has_image = image is not None
        return {
            self.cell_key: cell_key,
            self.pinned_key: pinned_key if pinned_key in cells else "",
            self.selected_path: image_path,
            self.container: gr.Column(visible=True),
            self.details: _render_details(cell, result, image),
            self.image_column: gr.Column(visible=has_image),
            self.send_row: gr.Row(visible=has_image),
            self.view: image_path,
            self.verdict_editor: sweep.render_binned_cell(cell_key)
            if result.is_binned
            else sweep.render_verdict_editor(cell_key, result.verdict, has_image),
            self.pin: "Unpin" if cell_key == pinned_key else "Pin to compare",
            **self._render_comparison(
                cells.get(pinned_key), cell, results=results, compare_mode=compare_mode
            ),
        }

    def _render_comparison(
        self,
        pinned_cell: Cell | None,
        cell: Cell,
        *,
        results: dict[str, CellResult],
        compare_mode: str,
    ) -> Updates:
        """Render the pinned and the selected cell, if they are two and both have an image."""
        hidden: Updates = {self.compare: gr.Column(visible=False)}
        if pinned_cell is None or pinned_cell.key == cell.key:
            return hidden
        pinned_path = _image_path(results.get(pinned_cell.key))
        cell_path = _image_path(results.get(cell.key))
        if pinned_path is None or cell_path is None:
            return hidden
        pinned_label = f"pinned: {_cell_label(pinned_cell)}"
        cell_label = _cell_label(cell)
        is_side_by_side = compare_mode == SIDE_BY_SIDE_MODE
        side_by_side_html = ""
        if is_side_by_side:
            side_by_side_html = sweep.render_comparison(
                (file_url(pinned_path), pinned_label), (file_url(cell_path), cell_label)
            )
        return {
            self.compare: gr.Column(visible=True),
            self.compare_labels: gr.HTML(
                sweep.render_slider_labels(pinned_label, cell_label), visible=not is_side_by_side
            ),
            self.slider: gr.ImageSlider(
                (str(pinned_path), str(cell_path)), visible=not is_side_by_side
            ),
            self.side_by_side: gr.HTML(side_by_side_html, visible=is_side_by_side),
        }

    def update_verdict(
        self, sweep_id: str, cell_key: str, *, verdict_field: str, value: Any
    ) -> Verdict:
        """Change one field of a cell's verdict, and store it.

        Args:
            sweep_id: The sweep that the cell belongs to.
            cell_key: A cell of that sweep.
            verdict_field: "best" (which is toggled), "note" or "stars".
            value: What the browser sent: a text, or the number of stars as a digit.

        Returns:
            The whole verdict as it is now.

        Raises:
            InvalidSpec: If `value` is not valid.
        """
        with self._verdict_lock:
            results = self.services.home.sweeps.load_cell_results(sweep_id)
            verdict = results.get(cell_key, CellResult()).verdict
            if verdict_field == "best":
                verdict = replace(verdict, best=not verdict.best)
            elif verdict_field == "note":
                verdict = replace(verdict, note=str(value or ""))
            else:
                verdict = replace(verdict, stars=_parse_stars(value))
            self.services.home.sweeps.set_verdict(sweep_id, cell_key, verdict)
            return verdict


def _parse_stars(value: Any) -> int:
    """Return a digit as a number; the store checks its range."""
    if not (isinstance(value, str) and value.isdecimal() and len(value) == 1):
        raise InvalidSpec([f"Stars: must be 0 to {MAX_STARS} (you entered {quote(value)})."])
    return int(value)


def _cell_label(cell: Cell) -> str:
    return " · ".join(cell.labels)


def _image_path(result: CellResult | None) -> Path | None:
    """Return where a cell's image is, if it has one that is still there."""
    return result.path if result and result.has_image else None


def _render_details(cell: Cell, result: CellResult, image: GeneratedImage | None) -> str:
    """Render the cell's label, and its image's settings or why it has no image."""
    label = render_cell_label(_cell_label(cell))
    if image:
        return label + render_image_settings(image)
    if result.error:
        return label + sweep.render_faults([result.error])
    if result.is_binned:
        return label
    return label + render_nothing("Not run yet.")
