"""The open sweep: its grid as it fills, its axes swapped, a cell selected, its files.

Knows: everything on the right side of the Sweep tab.
Does not know: the form, how a sweep is asked for, how cells are rendered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from studio.core.comparison.conclusions import MEASURES
from studio.core.jobs import SWEEP
from studio.core.sweeps.spec import SweepPlan, SweepSpec, plan_sweep
from studio.errors import BadFile, InvalidSpec
from studio.services.submission import Services
from studio.services.urls import file_url
from studio.services.visitor import Visitor
from studio.storage.jobs import Job
from studio.storage.sweeps import Sweep
from studio.storage.verdicts import MAX_EXPORT_CHARS, parse_exported_verdicts
from studio.ui.errors import report_errors, show_info
from studio.ui.events import (
    EVENT_OPTIONS,
    ROW_EVENT_OPTIONS,
    UNQUEUED_EVENT_OPTIONS,
    Updates,
    read_sent_text,
    visitor_from_request,
)
from studio.ui.form import single_file
from studio.ui.private_gradio import event_payload
from studio.ui.tabs.sweep import progress
from studio.ui.tabs.sweep.cell import SLIDER_MODE, CellPane
from studio.ui.views import sweep as grid
from studio.ui.views.effects import render_effects

STARTER_PRESETS = ("Samplers and steps", "Words - things and places")  # presets to begin with
METRIC_CHOICES = [(measure.choice or measure.name, measure.name) for measure in MEASURES]
MAX_HISTORY_JOBS = 200  # jobs back to look for the last one of a sweep
GridAxes = tuple[int, int | None]  # which axis goes across, which down


@lru_cache(maxsize=8)
def cached_plan(spec: SweepSpec) -> SweepPlan:
    """Return the plan of a stored sweep, which is needed at every poll while it runs."""
    return plan_sweep(spec)


@dataclass(frozen=True)
class GridSelection:
    """What a page shows of the open sweep: the axes of its grid, the selected and pinned cell."""

    axes: GridAxes
    cell_key: str = ""
    pinned_key: str = ""
    compare_mode: str = SLIDER_MODE


class SweepView:
    """The components of the open sweep. `sweep_id` is its id; the buttons are the form's."""

    def __init__(
        self, services: Services, stop: gr.Button, extend: gr.Button, resume: gr.Button
    ) -> None:
        self.services = services
        self.stop = stop
        self.extend = extend
        self.resume = resume
        self.sweep_id: gr.State = gr.State("")
        self.shown_revision: gr.State = gr.State("")
        self.grid_hash: gr.State = gr.State("")
        self.grid_axes: gr.State = gr.State((0, None))
        # The page asks, so that a slow connection skips frames.
        self.timer = gr.Timer(0.5, active=False)
        self.head = gr.HTML(elem_id="sweep-head")
        with gr.Row(visible=False, elem_classes="turn", elem_id="sweep-turn") as self.axes_row:
            self.x_axis = gr.Dropdown(
                [], label="Across →", scale=4, min_width=110, elem_id="sweep-across"
            )
            self.swap = gr.Button("⇄ Swap", size="sm", scale=0, min_width=84, elem_id="sweep-swap")
            self.y_axis = gr.Dropdown(
                [], label="Down ↓", scale=4, min_width=110, elem_id="sweep-down"
            )
        self.effects = gr.HTML(elem_id="sweep-effects")
        self.grid = gr.HTML(self.render_invitation(), js_on_load=grid.SCRIPT, elem_id="sweep-grid")
        self.pane = CellPane(services)
        with gr.Accordion(
            "Export", open=False, visible=False, elem_id="sweep-export"
        ) as self.export_accordion:
            with gr.Row(elem_classes="export-row"):
                self.metrics = gr.CheckboxGroup(
                    METRIC_CHOICES,
                    value=[],
                    label="Numbers under the cells",
                    scale=4,
                    elem_id="sweep-numbers",
                )
                self.export = gr.Button("Export", scale=1, min_width=110, elem_id="sweep-do-export")
            self.files = gr.HTML(elem_id="sweep-files")
            self.upload = gr.UploadButton(
                "Import ratings",
                size="sm",
                file_types=[".json"],
                elem_id="sweep-verdicts",
            )

    def render_invitation(self) -> str:
        """Render what stands in place of a grid: what a sweep is, and presets to begin with."""
        preset_names = self.services.home.sweep_presets.list_names(only_shipped=True)
        return grid.render_placeholder([name for name in STARTER_PRESETS if name in preset_names])

    @property
    def selection_inputs(self) -> set[Any]:
        """What says which sweep is open and what the page shows of it."""
        return {
            self.sweep_id,
            self.grid_axes,
            self.pane.cell_key,
            self.pane.pinned_key,
            self.pane.compare_mode,
        }

    @property
    def live_outputs(self) -> list[Any]:
        """What changes while a sweep runs."""
        return [
            self.shown_revision,
            self.grid_hash,
            self.timer,
            self.head,
            self.grid,
            self.effects,
            self.export_accordion,
            self.files,
            self.stop,
            self.extend,
            self.resume,
        ]

    @property
    def outputs(self) -> list[Any]:
        """What handlers may change."""
        return [
            *self.live_outputs,
            self.sweep_id,
            self.grid_axes,
            self.axes_row,
            self.x_axis,
            self.y_axis,
            *self.pane.outputs,
        ]

    def wire(self) -> None:
        """Connect events and handlers."""
        selection = self.selection_inputs
        self.timer.tick(
            self.poll,
            {self.shown_revision, self.grid_hash, *selection},
            self.live_outputs,
            **UNQUEUED_EVENT_OPTIONS,
        )
        self.stop.click(self.cancel_jobs, self.sweep_id, None, **EVENT_OPTIONS)
        axis_events = (
            (self.x_axis.input, self.change_axes),
            (self.y_axis.input, self.change_axes),
            (self.swap.click, self.swap_axes),
        )
        for event, handler in axis_events:
            event(
                handler,
                {self.x_axis, self.y_axis, *selection},
                self.outputs,
                preprocess=False,
                **EVENT_OPTIONS,
            )
        self.pane.verdict_editor.click(
            self.handle_action,
            selection,
            self.outputs,
            **ROW_EVENT_OPTIONS,  # a note, then a star
        )
        self.pane.wire(
            self.toggle_pin,
            self.unpin,
            on_compare_mode=self.compare_cells,
            inputs=selection,
            grid_outputs=[self.grid, self.grid_hash],
        )
        self.upload.upload(
            self.import_verdicts,
            {self.upload, *selection},
            [*self.outputs, self.upload],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.export.click(
            self.submit_export,
            {self.metrics, *selection},
            self.outputs,
            preprocess=False,
            **EVENT_OPTIONS,
        )

    def _read_selection(self, values: Updates) -> GridSelection:
        return GridSelection(
            values[self.grid_axes],
            values[self.pane.cell_key],
            pinned_key=values[self.pane.pinned_key],
            compare_mode=values[self.pane.compare_mode],
        )

    # ---- while it runs ------------------------------------------------------------------------

    def poll(self, values: Updates, request: gr.Request) -> Updates:
        """Render how far the open sweep is, if that has changed since the page last asked."""
        visitor = visitor_from_request(request)
        sweep = self.find_sweep(values[self.sweep_id], visitor)
        if sweep is None:
            return {self.timer: gr.Timer(active=False)}
        if _revision(self.open_jobs(visitor, sweep.id)) == values[self.shown_revision]:
            return {self.shown_revision: gr.skip()}
        return self._render(visitor, sweep, self._read_selection(values), values[self.grid_hash])

    def _render(
        self, visitor: Visitor, sweep: Sweep, selection: GridSelection, grid_hash: str = ""
    ) -> Updates:
        """Render how far a sweep is; its grid only if it differs from that with `grid_hash`."""
        jobs = self.open_jobs(visitor, sweep.id)
        is_running = any(job.kind == SWEEP.name for job in jobs)
        if jobs:
            status = progress.describe_progress(jobs)
        else:
            status = progress.describe_outcome(self._find_last_job(visitor, sweep.id))
        board = self._build_board(sweep)
        states = [tile.state for tile in board.tiles.values()]
        num_done = states.count("done")
        num_failed = states.count("failed")
        num_missing = states.count("missing")
        updates: Updates = {
            self.shown_revision: _revision(jobs),
            self.timer: gr.Timer(active=bool(jobs)),
            self.stop: gr.Button(interactive=bool(jobs)),
            self.head: grid.render_header(
                sweep.spec,
                num_done,
                num_failed=num_failed,
                num_cells=len(states),
                message=status.message,
                fraction=status.fraction,
                state=status.state,
            ),
            self.extend: gr.Button(visible=True),
            self.resume: gr.Button(
                progress.resume_label(num_missing, num_failed),
                visible=bool(num_missing or num_failed) and not is_running,
            ),
            self.export_accordion: gr.Accordion(visible=num_done > 0),
            self.files: progress.render_files(self.services.home.sweeps.get_folder(sweep.id), jobs),
            self.effects: "" if is_running else render_effects(board, sweep.spec),
        }
        grid_updates = self._grid_updates(board, selection, is_running)
        if grid_updates[self.grid_hash] != grid_hash:
            updates |= grid_updates
        return updates

    def open(self, visitor: Visitor, sweep_id: str) -> Updates:
        """Show a sweep, its first axis across and its second down, with no cell selected.

        Raises:
            BadFile: If there is no such sweep that the visitor may see.
        """
        sweep = self.require_sweep(sweep_id, visitor)
        board = _empty_board(sweep)
        axes = _valid_axes((0, 1), board)
        x_axis, y_axis = axes
        return {
            **self.pane.render_empty(),
            self.sweep_id: sweep_id,
            self.grid_axes: axes,
            self.axes_row: gr.Row(visible=y_axis is not None),
            self.x_axis: gr.Dropdown(board.axis_choices, value=x_axis),
            self.y_axis: gr.Dropdown(board.axis_choices, value=y_axis or 0),
            **self._render(visitor, sweep, GridSelection(axes)),
        }

    def close(self) -> Updates:
        """Show that no sweep is open."""
        return {
            **self.pane.render_empty(),
            self.sweep_id: "",
            self.head: "",
            self.axes_row: gr.Row(visible=False),
            self.grid: self.render_invitation(),
            self.extend: gr.Button(visible=False),
            self.resume: gr.Button(visible=False),
            self.files: "",
            self.effects: "",
            self.export_accordion: gr.Accordion(visible=False),
        }

    def cancel_jobs(self, sweep_id: str, request: gr.Request) -> None:
        """Stop all that is being done for the open sweep."""
        for job in self.open_jobs(visitor_from_request(request), sweep_id):
            self.services.home.jobs.cancel(job.id)

    def submit_export(self, values: Updates, request: gr.Request) -> Updates:
        """Queue the sheet, viewer and index of the open sweep, as its grid is shown."""
        with report_errors():
            visitor = visitor_from_request(request)
            sweep = self.require_sweep(values[self.sweep_id], visitor)
            selection = self._read_selection(values)
            metrics = values[self.metrics] or []
            reference = selection.pinned_key or selection.cell_key
            if "difference" in metrics and not reference:
                raise InvalidSpec(
                    ["Difference: choose or pin the cell to compare the others with."]
                )
            board = _empty_board(sweep)
            x_axis, y_axis = _valid_axes(selection.axes, board)
            export_spec = {
                "sweep": sweep.id,
                "numbers": metrics,
                "reference": reference,
                "x": board.axis_indices[x_axis],
                "y": None if y_axis is None else board.axis_indices[y_axis],
            }
            self.services.submit_sweep_export(export_spec, visitor)
            return self._render(visitor, sweep, selection)

    def import_verdicts(self, values: Updates, request: gr.Request) -> Updates:
        """Store the verdicts of a viewer, over those that its cells have here."""
        with report_errors():
            visitor = visitor_from_request(request)
            sweep = self.require_sweep(values[self.sweep_id], visitor)
            text, _ = read_sent_text(single_file(values[self.upload]), MAX_EXPORT_CHARS)
            verdicts = parse_exported_verdicts(text, sweep.id)
            cells = [cell for cell in cached_plan(sweep.spec).cells if cell.key in verdicts]
            for cell in cells:
                self.services.home.sweeps.set_verdict(sweep.id, cell.key, verdicts[cell.key])
            show_info(f"{len(cells)} {'rating' if len(cells) == 1 else 'ratings'} imported.")
            return {
                **self._render_grid(sweep, self._read_selection(values)),
                self.upload: None,
            }

    # ---- the grid -----------------------------------------------------------------------------

    def change_axes(self, values: Updates, request: gr.Request) -> Updates:
        """Show other axes across and down.

        An axis cannot be both: the one whose place it takes goes to the place that it had.
        """
        x_axis, y_axis = values[self.x_axis], values[self.y_axis]
        previous_x_axis, previous_y_axis = values[self.grid_axes]
        if x_axis == y_axis:
            if x_axis == previous_x_axis:
                x_axis = previous_y_axis
            else:
                y_axis = previous_x_axis
        return self._apply_axes(values, request, requested_axes=(x_axis, y_axis))

    def swap_axes(self, values: Updates, request: gr.Request) -> Updates:
        """Show the axis across down, and the one down across."""
        requested_axes = (values[self.y_axis], values[self.x_axis])
        return self._apply_axes(values, request, requested_axes=requested_axes)

    def _apply_axes(
        self, values: Updates, request: gr.Request, *, requested_axes: tuple[Any, Any]
    ) -> Updates:
        with report_errors():
            sweep = self.require_sweep(values[self.sweep_id], visitor_from_request(request))
            axes = _valid_axes(requested_axes, _empty_board(sweep))
            selection = replace(self._read_selection(values), axes=axes)
            return {
                self.grid_axes: axes,
                self.x_axis: axes[0],
                self.y_axis: axes[1],
                **self._render_grid(sweep, selection),
            }

    def handle_action(self, values: Updates, event: gr.EventData, request: gr.Request) -> Updates:
        """Handle a button of the grid or of a verdict.

        What the button says comes from the browser, so it is checked.
        """
        with report_errors():
            visitor = visitor_from_request(request)
            sweep = self.require_sweep(values[self.sweep_id], visitor)
            selection = self._read_selection(values)
            data = event_payload(event)
            action = data.get("action")
            cell_key = str(data.get("target"))
            if cell_key not in {cell.key for cell in cached_plan(sweep.spec).cells}:
                raise BadFile("That cell is no longer in this sweep.")
            if action == "cell":
                return self._render_cell(sweep, replace(selection, cell_key=cell_key))
            if action == "pin":
                return self._pin_cell(
                    sweep, replace(selection, cell_key=selection.cell_key or cell_key), cell_key
                )
            if action in ("restore", "remake"):
                return self._bring_back(sweep, selection, cell_key, visitor, action == "remake")
            if action not in ("stars", "best", "note"):
                raise BadFile("The page asked for something the studio does not know; reload it.")
            verdict = self.pane.update_verdict(
                sweep.id, cell_key, verdict_field=action, value=data.get("value")
            )
            updates = self._render_grid(sweep, selection)
            # A note is in its text field already, where somebody may still be typing.
            if cell_key == selection.cell_key and action != "note":
                editor_html = grid.render_verdict_editor(cell_key, verdict)
                updates[self.pane.verdict_editor] = editor_html
            return updates

    def _bring_back(
        self,
        sweep: Sweep,
        selection: GridSelection,
        cell_key: str,
        visitor: Visitor,
        is_remade: bool,
    ) -> Updates:
        """Take a cell's image out of the bin, or have it made again."""
        result = self.services.home.sweeps.load_cell_results(sweep.id).get(cell_key)
        if is_remade:
            self.services.submit_sweep(sweep.spec, visitor, sweep.id, [cell_key])
        elif result and result.path and (image := self.services.home.gallery.get(result.path)):
            self.services.home.gallery.bin.restore([image.id], visitor.owner_filter)
        selection = replace(selection, cell_key=cell_key)
        return {
            **self._render_cell(sweep, selection),
            **self._render(visitor, sweep, selection),
        }

    def toggle_pin(self, values: Updates, request: gr.Request) -> Updates:
        """Pin the selected cell in place of another; if it is the pinned one, unpin it."""
        with report_errors():
            sweep = self.require_sweep(values[self.sweep_id], visitor_from_request(request))
            selection = self._read_selection(values)
            return self._pin_cell(sweep, selection, selection.cell_key)

    def unpin(self, values: Updates, request: gr.Request) -> Updates:
        """Let no cell be pinned."""
        with report_errors():
            sweep = self.require_sweep(values[self.sweep_id], visitor_from_request(request))
            return self._pin_cell(sweep, self._read_selection(values), "")

    def compare_cells(self, values: Updates, request: gr.Request) -> Updates:
        """Compare the pinned and the selected cell in the way that the page asks for."""
        with report_errors():
            sweep = self.require_sweep(values[self.sweep_id], visitor_from_request(request))
            return self._render_cell(sweep, self._read_selection(values))

    def _pin_cell(self, sweep: Sweep, selection: GridSelection, cell_key: str) -> Updates:
        """Pin a cell, or unpin it if it is pinned already."""
        pinned_key = "" if cell_key == selection.pinned_key else cell_key
        selection = replace(selection, pinned_key=pinned_key)
        return {
            **self._render_cell(sweep, selection),
            **self._render_grid(sweep, selection),
        }

    def _render_cell(self, sweep: Sweep, selection: GridSelection) -> Updates:
        return self.pane.render_cell(
            sweep.id,
            cached_plan(sweep.spec),
            cell_key=selection.cell_key,
            pinned_key=selection.pinned_key,
            compare_mode=selection.compare_mode,
        )

    def _render_grid(self, sweep: Sweep, selection: GridSelection) -> Updates:
        """Render only the grid, as after a verdict."""
        is_running = any(
            job.kind == SWEEP.name and progress.is_job_of(job, sweep.id)
            for job in self.services.home.jobs.list_open()
        )
        return self._grid_updates(self._build_board(sweep), selection, is_running)

    def _grid_updates(
        self, board: grid.Board, selection: GridSelection, is_running: bool
    ) -> Updates:
        x_axis, y_axis = _valid_axes(selection.axes, board)
        grid_html = grid.render_grid(
            board,
            x_axis,
            y_axis=y_axis,
            selected_key=selection.cell_key,
            pinned_key=selection.pinned_key,
            is_running=is_running,
        )
        return {self.grid: grid_html, self.grid_hash: str(hash(grid_html))}

    def _build_board(self, sweep: Sweep) -> grid.Board:
        results = self.services.home.sweeps.load_cell_results(sweep.id)
        return grid.build_board(cached_plan(sweep.spec), results, self._thumbnail_url)

    def _thumbnail_url(self, path: Path) -> str:
        """Return the address of an image's thumbnail; of the image, if it is not an output."""
        gallery = self.services.home.gallery
        if not path.is_relative_to(gallery.outputs):
            return file_url(path)
        thumbnail = gallery.thumbs / path.relative_to(gallery.outputs)
        return file_url(thumbnail.with_suffix(".webp"))

    # ---- sweeps and their jobs ----------------------------------------------------------------

    def find_sweep(self, sweep_id: str, visitor: Visitor) -> Sweep | None:
        """Return a sweep, if there is one that this visitor may see."""
        sweep = self.services.home.sweeps.get(sweep_id) if sweep_id else None
        if sweep is None or not visitor.may_see(sweep.owner):
            return None
        return sweep

    def require_sweep(self, sweep_id: str, visitor: Visitor) -> Sweep:
        """Return a sweep that this visitor may see.

        Raises:
            BadFile: If there is none.
        """
        sweep = self.find_sweep(sweep_id, visitor)
        if sweep is None:
            raise BadFile("That sweep no longer exists; run one, or open an earlier one.")
        return sweep

    def open_jobs(self, visitor: Visitor, sweep_id: str) -> list[Job]:
        """Return the jobs of a sweep that wait or run, if the visitor may see them."""
        jobs = self.services.home.jobs.list_open(visitor.owner_filter)
        return [job for job in jobs if progress.is_job_of(job, sweep_id)]

    def _find_last_job(self, visitor: Visitor, sweep_id: str) -> Job | None:
        jobs = self.services.home.jobs.list_recent(MAX_HISTORY_JOBS, visitor.owner_filter)
        return next((job for job in jobs if progress.is_job_of(job, sweep_id)), None)


def _revision(jobs: list[Job]) -> str:
    """Return a text that differs as soon as anything about these jobs does."""
    return repr([(job.id, job.state, job.revision) for job in jobs])


def _empty_board(sweep: Sweep) -> grid.Board:
    """Return the board of a sweep without its cells' results: its axes and their labels."""
    return grid.build_board(cached_plan(sweep.spec), {}, file_url)


def _valid_axes(requested_axes: tuple[Any, Any], board: grid.Board) -> GridAxes:
    """Return the requested axes across and down, or the first two if these are not two axes."""
    num_axes = len(board.axes)
    if num_axes == 1:
        return 0, None
    x_axis, y_axis = requested_axes
    for axis in requested_axes:
        if not isinstance(axis, int) or not 0 <= axis < num_axes:
            return 0, 1
    if x_axis == y_axis:
        return 0, 1
    return x_axis, y_axis
