"""The open sweep: its grid as it fills, the axes turned, a cell pressed, its files.

Knows: everything on the right side of the Sweep tab. Does not know: the form, how a sweep is asked for, how cells are painted.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from studio.core.sweeps.spec import Plan, SweepSpec, plan
from studio.errors import BadFile, InvalidSpec
from studio.storage.jobs import Job
from studio.storage.sweeps import Sweep, exported_verdicts
from studio.ui import show
from studio.ui.guard import Visitor, uploaded, who
from studio.ui.tabs.sweep.cell import CellPane
from studio.ui.views import sweep as grid
from studio.ui.widgets import SHORT, SILENT, Desk, Updates

KINDS = ("sweep", "export")
STARTS = ("Schedulers and steps", "Words - things and places")  # presets to begin with
NUMBERS = [
    ("seconds", "seconds"),
    ("prompt fit (CLIP)", "prompt fit"),
    ("difference to the pinned cell", "difference"),
]
View = tuple[int, int | None]  # which axis goes across, which down


@lru_cache(maxsize=8)
def planned(spec: SweepSpec) -> Plan:
    """A stored sweep's plan, which is looked at again and again while it runs."""
    return plan(spec)


class OpenSweep:
    """One build of it. `current` is the id of the sweep that is looked at; the buttons are the form's."""

    def __init__(self, desk: Desk, stop: gr.Button, extend: gr.Button, again: gr.Button) -> None:
        self.desk, self.stop, self.extend, self.again = desk, stop, extend, again
        self.current: gr.State = gr.State("")
        self.seen: gr.State = gr.State("")
        self.drawn: gr.State = gr.State("")
        self.view: gr.State = gr.State((0, None))
        self.clock = gr.Timer(0.5, active=False)  # the page asks, so a slow line skips frames
        self.head = gr.HTML(elem_id="sweep-head")
        with gr.Row(visible=False, elem_classes="turn", elem_id="sweep-turn") as self.turning:
            self.across = gr.Dropdown(
                [], label="Across →", scale=4, min_width=110, elem_id="sweep-across"
            )
            self.swap = gr.Button("⇄ Swap", size="sm", scale=0, min_width=84, elem_id="sweep-swap")
            self.down = gr.Dropdown(
                [], label="Down ↓", scale=4, min_width=110, elem_id="sweep-down"
            )
        self.grid = gr.HTML(self.empty(), js_on_load=grid.SCRIPT, elem_id="sweep-grid")
        self.pane = CellPane(desk)
        with gr.Accordion(
            "Take it along: sheet, viewer, index", open=False, visible=False, elem_id="sweep-export"
        ) as self.taking:
            with gr.Row(elem_classes="export-row"):
                self.numbers = gr.CheckboxGroup(
                    NUMBERS,
                    value=[],
                    label="Numbers under the cells",
                    scale=4,
                    elem_id="sweep-numbers",
                )
                self.export = gr.Button("Export", scale=1, min_width=110, elem_id="sweep-do-export")
            self.files = gr.HTML(elem_id="sweep-files")
            self.upload = gr.UploadButton(
                "Take verdicts from a viewer",
                size="sm",
                file_types=[".json"],
                elem_id="sweep-verdicts",
            )

    def empty(self) -> str:
        return grid.empty([name for name in STARTS if name in self.desk.sweep_presets.names()])

    @property
    def watched(self) -> list[Any]:
        """What changes while it runs."""
        return [
            self.seen,
            self.drawn,
            self.clock,
            self.head,
            self.grid,
            self.taking,
            self.files,
            self.stop,
            self.extend,
            self.again,
        ]

    @property
    def outputs(self) -> list[Any]:
        return [
            *self.watched,
            self.current,
            self.view,
            self.turning,
            self.across,
            self.down,
            *self.pane.outputs,
        ]

    def wire(self) -> None:
        looking = [self.current, self.seen, self.drawn, self.view, self.pane.key, self.pane.pinned]
        self.clock.tick(self.look, looking, self.watched, **SILENT)
        self.stop.click(self.cancel, self.current, None, **SHORT)
        turning = [self.current, self.view, self.across, self.down, self.pane.key, self.pane.pinned]
        for part in (self.across, self.down):
            part.input(self.turn, turning, self.outputs, preprocess=False, **SHORT)
        self.swap.click(self.swapped, turning, self.outputs, preprocess=False, **SHORT)
        self.pane.judging.click(
            self.act, self.acting, self.outputs, trigger_mode="multiple", **SHORT
        )  # a note, then a star
        self.pane.wire(self.pin, self.unpin, self.compare, self.acting, [self.grid, self.drawn])
        self.upload.upload(
            self.take_verdicts,
            {self.upload, *self.acting[:4]},
            [*self.outputs, self.upload],
            preprocess=False,
            **SHORT,
        )
        self.export.click(
            self.submit_export,
            [self.current, self.view, self.numbers, self.pane.key, self.pane.pinned],
            self.outputs,
            preprocess=False,
            **SHORT,
        )

    @property
    def acting(self) -> list[Any]:
        """What `act` needs."""
        return [self.current, self.view, self.pane.key, self.pane.pinned, self.pane.how]

    # ---- as it runs ---------------------------------------------------------------------------------------------

    def look(
        self, id: str, seen: str, drawn: str, view: View, key: str, pinned: str, request: gr.Request
    ) -> Updates:
        """What the open sweep is doing, as updates of the page; nothing if nothing has changed."""
        visitor = who(request)
        sweep, now = self.mine(id, visitor), self._state(visitor, id)
        if sweep is None:
            return {self.clock: gr.Timer(active=False)}
        return (
            {self.seen: gr.skip()}
            if now == seen
            else self._shown(visitor, sweep, drawn, view, key, pinned)
        )

    def _state(self, visitor: Visitor, id: str) -> str:
        return repr([(job.id, job.state, job.beat) for job in self.jobs(visitor, id)])

    def _shown(
        self,
        visitor: Visitor,
        sweep: Sweep,
        drawn: str,
        view: View,
        key: str = "",
        pinned: str = "",
    ) -> Updates:
        """All that says how far a sweep is; the grid only where it differs from the one `drawn`."""
        seen, jobs = self._state(visitor, sweep.id), self.jobs(visitor, sweep.id)
        shown = self._board(sweep)
        states = [tile.state for tile in shown.tiles.values()]
        done, failed, total = states.count("done"), states.count("failed"), len(states)
        running = any(job.kind == "sweep" for job in jobs)
        words, share, state = _doing(jobs) if jobs else self._ended(visitor, sweep.id)
        updates: Updates = {
            self.seen: seen,
            self.clock: gr.Timer(active=bool(jobs)),
            self.stop: gr.Button(interactive=bool(jobs)),
            self.head: grid.head(sweep.spec, done, failed, total, words, share, state),
            self.extend: gr.Button(visible=True),
            self.again: gr.Button(
                _rest(total - done - failed, failed), visible=done < total and not running
            ),
            self.taking: gr.Accordion(visible=done > 0),
            self.files: self._files(sweep.id, jobs),
        }
        text = grid.grid(shown, *_fitting(view, shown), key, pinned, busy=running)
        if (digest := str(hash(text))) != drawn:
            updates |= {self.grid: text, self.drawn: digest}
        return updates

    def open(self, visitor: Visitor, id: str) -> Updates:
        """A sweep is shown from now on, its first axis across and its second down, no cell of it looked at."""
        sweep = self.must(id, visitor)
        shown = grid.board(planned(sweep.spec), {}, show.address)
        several = len(shown.axes) > 1
        view: View = (0, 1 if several else None)
        return {
            **self.pane.closed(),
            self.current: id,
            self.view: view,
            self.turning: gr.Row(visible=several),
            self.across: gr.Dropdown(shown.titles, value=0),
            self.down: gr.Dropdown(shown.titles, value=1 if several else 0),
            **self._shown(visitor, sweep, "", view),
        }

    def close(self) -> Updates:
        """No sweep is open."""
        return {
            **self.pane.closed(),
            self.current: "",
            self.head: "",
            self.turning: gr.Row(visible=False),
            self.grid: self.empty(),
            self.extend: gr.Button(visible=False),
            self.again: gr.Button(visible=False),
            self.files: "",
            self.taking: gr.Accordion(visible=False),
        }

    def cancel(self, id: str, request: gr.Request) -> None:
        for job in self.jobs(who(request), id):
            self.desk.jobs.cancel(job.id)

    def submit_export(
        self, id: str, view: View, numbers: list[str], key: str, pinned: str, request: gr.Request
    ) -> Updates:
        with show.said():
            visitor = who(request)
            sweep, reference = self.must(id, visitor), pinned or key
            if "difference" in (numbers or ()) and not reference:
                raise InvalidSpec(
                    ["Difference: choose or pin the cell that all others are compared to."]
                )
            shown = grid.board(planned(sweep.spec), {}, show.address)
            across, down = _fitting(view, shown)
            self.desk.submit_export(
                {
                    "sweep": id,
                    "numbers": numbers or [],
                    "reference": reference,
                    "x": shown.places[across],
                    "y": None if down is None else shown.places[down],
                },
                visitor,
            )
            return self._shown(visitor, sweep, "", view, key, pinned)

    def take_verdicts(self, values: Updates, request: gr.Request) -> Updates:
        """What was said in a viewer, for the cells that are still there, in place of what was said here."""
        with show.said():
            visitor, file = who(request), values[self.upload]
            sweep = self.must(values[self.current], visitor)
            path, _ = uploaded(file[0] if isinstance(file, list) and file else file)
            given = exported_verdicts(path.read_text("utf-8", "replace"), sweep.id)
            there = [cell.key for cell in planned(sweep.spec).cells if cell.key in given]
            for key in there:
                self.desk.sweeps.judge(sweep.id, key, given[key])
            gr.Info(f"{len(there)} verdict{'s' * (len(there) != 1)} taken.")
            return {
                **self._drawn(
                    sweep, values[self.view], values[self.pane.key], values[self.pane.pinned]
                ),
                self.upload: None,
            }

    # ---- the grid -----------------------------------------------------------------------------------------------

    def turn(
        self,
        id: str,
        view: View,
        across: Any,
        down: Any,
        key: str,
        pinned: str,
        request: gr.Request,
    ) -> Updates:
        """Other axes across and down. An axis cannot be both: the one it takes the place of goes where it was."""
        if across == down:
            across, down = (across, view[0]) if across != view[0] else (view[1], down)
        return self._turned(who(request), id, (across, down), key, pinned)

    def swapped(
        self,
        id: str,
        view: View,
        across: Any,
        down: Any,
        key: str,
        pinned: str,
        request: gr.Request,
    ) -> Updates:
        return self._turned(who(request), id, (down, across), key, pinned)

    def _turned(
        self, visitor: Visitor, id: str, asked: tuple[Any, Any], key: str, pinned: str
    ) -> Updates:
        with show.said():
            sweep = self.must(id, visitor)
            view = _fitting(asked, grid.board(planned(sweep.spec), {}, show.address))
            return {
                self.view: view,
                self.across: view[0],
                self.down: view[1],
                **self._drawn(sweep, view, key, pinned),
            }

    def act(
        self,
        id: str,
        view: View,
        key: str,
        pinned: str,
        how: str,
        event: gr.EventData,
        request: gr.Request,
    ) -> Updates:
        """A button of the grid or of a verdict; what it says comes from the browser, so it is only words."""
        with show.said():
            visitor, data = who(request), event._data or {}
            verb, subject, value = data.get("what"), str(data.get("subject")), data.get("value")
            sweep = self.must(id, visitor)
            if subject not in {cell.key for cell in planned(sweep.spec).cells}:
                raise BadFile("That cell is no longer in this sweep.")
            if verb == "cell":
                return self.pane.shown(id, planned(sweep.spec), subject, pinned, how)
            if verb == "pin":
                return self._pinned(
                    sweep, view, key or subject, "" if pinned == subject else subject, how
                )
            if verb not in ("stars", "best", "note"):
                raise BadFile("The page asked for something that the studio does not know.")
            verdict = self.pane.judged(id, subject, verb, value)
            again = (
                {self.pane.judging: grid.judging(key, verdict)}
                if subject == key and verb != "note"
                else {}
            )
            return {**self._drawn(sweep, view, key, pinned), **again}

    def pin(
        self, id: str, view: View, key: str, pinned: str, how: str, request: gr.Request
    ) -> Updates:
        """Pin the cell in view in place of another; if it is the pinned one, let it go."""
        with show.said():
            return self._pinned(
                self.must(id, who(request)), view, key, "" if pinned == key else key, how
            )

    def unpin(
        self, id: str, view: View, key: str, pinned: str, how: str, request: gr.Request
    ) -> Updates:
        with show.said():
            return self._pinned(self.must(id, who(request)), view, key, "", how)

    def _pinned(self, sweep: Sweep, view: View, key: str, pinned: str, how: str) -> Updates:
        return {
            **self.pane.shown(sweep.id, planned(sweep.spec), key, pinned, how),
            **self._drawn(sweep, view, key, pinned),
        }

    def compare(
        self, id: str, view: View, key: str, pinned: str, how: str, request: gr.Request
    ) -> Updates:
        with show.said():
            return self.pane.shown(id, planned(self.must(id, who(request)).spec), key, pinned, how)

    def _drawn(self, sweep: Sweep, view: View, key: str, pinned: str) -> Updates:
        """Only the grid, as after a verdict."""
        busy = any(
            job.kind == "sweep" and job.spec.get("sweep") == sweep.id
            for job in self.desk.jobs.waiting()
        )
        shown = self._board(sweep)
        text = grid.grid(shown, *_fitting(view, shown), key, pinned, busy)
        return {self.grid: text, self.drawn: str(hash(text))}

    def _board(self, sweep: Sweep) -> grid.Board:
        return grid.board(planned(sweep.spec), self.desk.sweeps.cells(sweep.id), self._thumb)

    # ---- what is whose, and where -------------------------------------------------------------------------------

    def mine(self, id: str, visitor: Visitor) -> Sweep | None:
        """A sweep that this visitor may see."""
        sweep = self.desk.sweeps.get(id) if id else None
        return sweep if sweep and visitor.sees in (None, sweep.owner) else None

    def must(self, id: str, visitor: Visitor) -> Sweep:
        """Raises BadFile where there is none."""
        sweep = self.mine(id, visitor)
        if sweep is None:
            raise BadFile("There is no such sweep any more; run one, or open an earlier one.")
        return sweep

    def jobs(self, visitor: Visitor, id: str) -> list[Job]:
        """What is still to be done for a sweep."""
        return [
            job
            for job in self.desk.jobs.waiting(visitor.sees)
            if job.kind in KINDS and job.spec.get("sweep") == id
        ]

    def _ended(self, visitor: Visitor, id: str) -> tuple[str, float | None, str]:
        """How the last work for a sweep came out."""
        every = self.desk.jobs.history(200, visitor.sees)
        job = next(
            (job for job in every if job.kind in KINDS and job.spec.get("sweep") == id), None
        )
        if job is None:
            return "", None, "done"
        took = show.duration((job.ended or 0) - (job.started or job.ended or 0))
        words = {
            "done": f"ready in {took}" if job.kind == "sweep" else "files are ready",
            "cancelled": "stopped; what is made is kept",
        }.get(job.state, job.error or job.state)
        return words, None, job.state

    def _thumb(self, path: Path) -> str:
        outputs = self.desk.gallery.outputs
        inside = path.is_relative_to(outputs)
        return show.address(
            (self.desk.gallery.thumbs / path.relative_to(outputs)).with_suffix(".webp")
            if inside
            else path
        )

    def _files(self, id: str, jobs: list[Job]) -> str:
        if any(job.kind == "export" for job in jobs):
            return grid.note("Sheet, viewer and index are being made …")
        folder = self.desk.sweeps.folder(id)
        every = [
            *sorted(folder.glob("sheet*.png")),
            *(folder / name for name in ("viewer.html", "index.json", "index.csv")),
        ]
        there = [(path, path.stat()) for path in every if path.is_file()]
        if not there:
            return grid.note("Made when the sweep has ended, or when you press Export.")
        return grid.downloads(
            [
                (f"{show.address(path)}?v={told.st_mtime_ns}", path.name, told.st_size)
                for path, told in there
            ]
        )


def _doing(jobs: list[Job]) -> tuple[str, float | None, str]:
    """What is being done, how far it is, and its state."""
    job = next((job for job in jobs if job.state == "running"), jobs[0])
    if job.state == "queued":
        return "waiting for its turn", 0.0, "queued"
    at = job.progress
    if job.kind == "export":
        return "the sheet is being drawn", None, "running"
    left = f" · about {show.duration(at.left)} left" if at.left is not None else ""
    note = at.note[:1].lower() + at.note[1:] if at.note else "getting ready"
    return note + left, at.step / at.total if at.total else 0.0, "running"


def _rest(missing: int, failed: int) -> str:
    """What is left to be done, as a button."""
    cells = f"{missing:,} cell{'s' * (missing != 1)}"
    if missing and failed:
        return f"Continue: {cells} left, {failed:,} to retry"
    return f"Continue: {cells} left" if missing else f"Retry the {failed:,} failed"


def _fitting(asked: tuple[Any, Any], shown: grid.Board) -> View:
    """Axes that there are, across and down."""
    many = len(shown.axes)
    if many == 1:
        return 0, None
    across, down = (axis if isinstance(axis, int) and 0 <= axis < many else None for axis in asked)
    return (0, 1) if across is None or down is None or across == down else (across, down)
