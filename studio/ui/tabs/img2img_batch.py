"""Many pictures with the same settings: one job for each, shown as one list.

Knows: the files, the list and what became of each. Does not know: the settings; how a picture is made.

The list is kept in the job table's notes, by visitor: a page that opens later shows it again.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.core.base import check
from studio.core.generation.request import GenerationRequest
from studio.errors import InvalidSpec, StudioError
from studio.storage.jobs import Job
from studio.ui import show
from studio.ui.guard import Visitor, uploaded, who
from studio.ui.widgets import SHORT, SILENT, Desk, Updates

if TYPE_CHECKING:
    from studio.ui.tabs.image_input import OnPicture

MOST = 500  # pictures at once
ANY = "0" * 64  # stands for a picture's hash while the settings alone are looked at


class Many:
    """One build of it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        with gr.Accordion(
            "Many pictures at once (batch)", open=False, elem_id="img2img-many"
        ) as self.place:
            self.files = gr.File(
                label="Drop pictures, or choose several",
                file_count="multiple",
                height=160,
                elem_id="img2img-files",
            )
            self.folder = gr.UploadButton(
                "Or take a whole folder",
                file_count="directory",
                size="sm",
                elem_id="img2img-folder",
            )
            self.own = gr.Checkbox(
                True,
                label="Each at its own size",
                info="Else all at the width and height above.",
                elem_id="img2img-own",
            )
            with gr.Row(elem_classes="actions"):
                self.start = gr.Button("Make all of them", scale=3, elem_id="img2img-start")
                self.stop = gr.Button(
                    "Stop all",
                    variant="stop",
                    scale=1,
                    interactive=False,
                    elem_id="img2img-stop-all",
                )
            self.list = gr.HTML(elem_id="img2img-list")
        self.clock = gr.Timer(0.5, active=False)
        self.seen: gr.State = gr.State("")

    @property
    def outputs(self) -> list[Any]:
        return [self.list, self.clock, self.stop, self.seen]

    def wire(self, tab: OnPicture) -> None:
        """`tab` has the form whose settings are taken."""
        self.tab = tab
        self.folder.upload(lambda files: files, self.folder, self.files, **SHORT)
        self.start.click(
            self.begin,
            {*tab.form.inputs, self.files, self.own},
            [*self.outputs, self.files, *tab.stage.watched, tab.stop],
            preprocess=False,
            **SHORT,
        )
        self.stop.click(self.cancel, None, self.outputs, **SHORT)
        self.clock.tick(self.look, self.seen, self.outputs, **SILENT)
        self.place.expand(self.look, self.seen, self.outputs, **SHORT)

    def begin(self, values: Updates, request: gr.Request) -> Updates:
        """A job for each file that is a picture; for every other a row that says why not."""
        with show.said():
            visitor, files = who(request), values.pop(self.files) or []
            own, raw = bool(values.pop(self.own)), self.tab.form.raw(values)
            files = files if isinstance(files, list) else [files]
            if not files:
                raise InvalidSpec(["Pictures: choose some first, or a folder."])
            if len(files) > MOST:
                raise InvalidSpec([f"Pictures: {MOST} at once at most (not {len(files)})."])
            raw |= {"width": None, "height": None} if own else {}
            check(
                GenerationRequest, {**raw, "image": ANY}
            )  # what is wrong with the settings is said once
            rows = [self._row(file, raw, visitor) for file in files]
            self.desk.jobs.note(_name(visitor), json.dumps(rows))
            return {**self.shown(visitor), self.files: None, **self.tab.stage.shown(visitor)}

    def _row(self, file: Any, raw: dict[str, Any], visitor: Visitor) -> dict[str, Any]:
        name = str(file.get("orig_name") or "a file")[:120] if isinstance(file, dict) else "a file"
        try:
            image = self.desk.library.inputs.add(*uploaded(file), visitor.sees)
            return {
                "name": name,
                "job": self.desk.submit(
                    check(GenerationRequest, {**raw, "image": image.sha256}), visitor
                ),
            }
        except StudioError as error:
            return {"name": name, "error": str(error)}

    def cancel(self, request: gr.Request) -> Updates:
        visitor = who(request)
        for job in self._jobs(visitor).values():
            if job.open:
                self.desk.jobs.cancel(job.id)
        return self.shown(visitor)

    def look(self, seen: str, request: gr.Request) -> Updates:
        return self.shown(who(request), seen)

    def shown(self, visitor: Visitor, seen: str = "") -> Updates:
        """The list as it is now; nothing if it is as `seen`."""
        jobs = self._jobs(visitor)
        now = json.dumps(
            [(job.id, job.state, job.beat if job.open else 0) for job in jobs.values()]
        )
        if seen == now:
            return {self.seen: gr.skip()}
        rows, busy = self._rows(visitor), any(job.open for job in jobs.values())
        return {
            self.list: drawn(rows, jobs),
            self.clock: gr.Timer(active=busy),
            self.stop: gr.Button(interactive=busy),
            self.seen: now,
        }

    def _rows(self, visitor: Visitor) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.desk.jobs.noted(_name(visitor)) or "[]")
        return rows

    def _jobs(self, visitor: Visitor) -> dict[int, Job]:
        found = (self.desk.jobs.get(row["job"]) for row in self._rows(visitor) if "job" in row)
        return {job.id: job for job in found if job and job.owner == visitor.id}


def drawn(rows: list[dict[str, Any]], jobs: dict[int, Job]) -> str:
    """The list as HTML: how far it is, then a row for each picture."""
    if not rows:
        return '<p class="nothing">Each picture becomes a job of its own; one that fails does not stop the others.</p>'
    told = [_told(row, jobs.get(row.get("job", 0))) for row in rows]
    done, failed = (sum(one[0] == state for one in told) for state in ("done", "failed"))
    bar = (
        f'<div class="bar" role="progressbar" aria-valuenow="{100 * (done + failed) // len(rows)}">'
        f'<i style="width:{100 * (done + failed) / len(rows):.1f}%"></i></div>'
    )
    head = (
        f'<p class="estimate" data-done="{done}" data-failed="{failed}">{done} of {len(rows)} done'
        + (f" · {failed} failed" if failed else "")
        + "</p>"
    )
    return (
        f'<div class="many">{head}{bar}'
        + "".join(
            f'<div class="one" data-state="{state}">{picture}<b>{html.escape(str(row["name"]))}</b><span class="chip {state}">'
            f"{show.STATES[state]}</span>{f'<small>{html.escape(words)}</small>' if words else ''}</div>"
            for row, (state, words, picture) in zip(rows, told)
        )
        + "</div>"
    )


def _told(row: dict[str, Any], job: Job | None) -> tuple[str, str, str]:
    """State, words and a small picture of a row."""
    blank = '<i aria-hidden="true"></i>'
    if job is None:
        return "failed", str(row.get("error") or "Its job is gone."), blank
    made = show.pictures_of(job)
    if made and Path(made[0]["path"]).is_file():
        path, thumb = Path(made[0]["path"]), Path(made[0]["thumb"])
        blank = (
            f'<a href="{show.address(path)}" target="_blank" rel="noopener"><img alt="" loading="lazy" '
            f'src="{show.address(thumb if thumb.is_file() else path)}"></a>'
        )
    at = job.progress
    words = (
        f"step {at.step} of {at.total}" if job.state == "running" and at.total else job.error or ""
    )
    return job.state, words, blank


def _name(visitor: Visitor) -> str:
    return f"many {visitor.id}"
