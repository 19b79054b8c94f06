"""The captioner's part of the Captions tab: who writes, how, for which pictures; shown first or written; watched, stopped.

Knows: the form of a captioning and its job. Does not know: how anything is captioned, the pictures beside their captions.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.core.base import check
from studio.core.captions.edits import Dress
from studio.core.captions.spec import CaptionSpec
from studio.core.catalog import CAPTIONERS, DEFAULT_CAPTIONER, ENDPOINT
from studio.errors import InvalidSpec
from studio.storage.jobs import Job
from studio.storage.models.library import Unusable
from studio.storage.models.transformers_models import Networks
from studio.ui import show
from studio.ui.form import Form
from studio.ui.guard import Visitor, who
from studio.ui.tabs.captioning.browser import View
from studio.ui.views import dataset as words
from studio.ui.views import sweep
from studio.ui.widgets import SHORT, SILENT, Desk, Updates

ROWS = 50  # captions before and after that are shown
MODES = [("Where there is none", "fill"), ("All anew", "replace"), ("Add to them", "append")]


class Captioner:
    """One build of it. `form` has the dataset's chooser already."""

    def __init__(self, desk: Desk, form: Form[CaptionSpec]) -> None:
        self.desk, self.form, self.networks = desk, form, Networks(desk.settings)
        with gr.Group(elem_id="caption-form"):
            with gr.Row():
                form.add(
                    "captioner",
                    choices=self.choices(),
                    allow_custom_value=True,
                    min_width=170,
                    info="Who writes.",
                )
                form.add("mode", choices=MODES, min_width=170, info="What becomes of present ones.")
            form.add(
                "trigger",
                max_lines=1,
                placeholder="mysks",
                info="A rare word that calls the new thing; put in front.",
            )
        with gr.Row(elem_classes="actions"):
            self.start = gr.Button(
                "Caption",
                variant="primary",
                scale=3,
                elem_classes="on-ctrl-enter",
                elem_id="caption-start",
            )
            self.dry = gr.Button("Only show", scale=2, elem_id="caption-dry")
            self.stop = gr.Button(
                "Stop",
                variant="stop",
                scale=1,
                min_width=70,
                interactive=False,
                elem_id="caption-stop",
            )
        self.dress = gr.Button(
            "Put the trigger word into present captions", size="sm", elem_id="caption-dress"
        )
        self.doing = gr.HTML(elem_id="caption-doing")
        with gr.Accordion("More settings of the captioner", open=False, elem_id="caption-more"):
            with gr.Row():
                form.add(
                    "prefix",
                    max_lines=1,
                    min_width=150,
                    placeholder="a photo of ",
                    info="Before, as written here.",
                )
                form.add(
                    "suffix",
                    max_lines=1,
                    min_width=150,
                    placeholder=", film grain",
                    info="Behind, as written here.",
                )
            form.add("instruction", lines=2)
            with gr.Row():
                form.add(
                    "tokens",
                    slider=False,
                    min_width=150,
                    placeholder="its usual",
                    info="Empty: the captioner's usual.",
                )
                form.add(
                    "batch",
                    slider=False,
                    min_width=150,
                    placeholder="by itself",
                    info="Pictures in one call.",
                )
            with gr.Row():
                form.add(
                    "address", max_lines=1, min_width=150, placeholder="http://127.0.0.1:1234/v1"
                )
                form.add("model", max_lines=1, min_width=150)
            form.add("anew")
        self.result = gr.HTML(elem_id="caption-result")
        self.job: gr.State = gr.State(0)
        self.seen: gr.State = gr.State("")
        self.clock = gr.Timer(0.5, active=False)

    def choices(self) -> list[tuple[str, str]]:
        """Those on this machine, and an endpoint."""
        there = [one for one in self.networks.captioners() if not isinstance(one, Unusable)]
        return [
            *((f"{one.name} ({CAPTIONERS[one.kind].title})", one.name) for one in there),
            ("an endpoint", ENDPOINT),
        ]

    @property
    def outputs(self) -> list[Any]:
        return [
            self.doing,
            self.result,
            self.start,
            self.dry,
            self.stop,
            self.job,
            self.seen,
            self.clock,
        ]

    def wire(self, view: View) -> None:
        self.view = view
        inputs = {*view.meaning, *self.form.inputs}
        self.start.click(self.submit, inputs, self.outputs, preprocess=False, **SHORT)
        self.dry.click(self.submit_dry, inputs, self.outputs, preprocess=False, **SHORT)
        self.stop.click(self.cancel, self.job, None, **SHORT)
        self.dress.click(self.dressed, inputs, view.outputs, preprocess=False, **SHORT)
        self.clock.tick(self.look, [self.job, self.seen], self.outputs, **SILENT)

    # ---- asked for ----------------------------------------------------------------------------------------------

    def read(self, values: Updates, visitor: Visitor, dry: bool = False) -> CaptionSpec:
        """What the page asks for, of those that are meant. Raises InvalidSpec with all that is wrong, DatasetError."""
        raw = self.form.raw(values) | {"dry_run": dry}
        if not raw.get("dataset"):
            raise InvalidSpec(["Dataset: choose one, or send pictures."])
        keys, filter = self.view.meant(values, visitor)
        return check(CaptionSpec, raw | {"filter": filter, "pictures": keys or ()})

    def submit(self, values: Updates, request: gr.Request) -> Updates:
        return self._submit(values, who(request), dry=False)

    def submit_dry(self, values: Updates, request: gr.Request) -> Updates:
        return self._submit(values, who(request), dry=True)

    def _submit(self, values: Updates, visitor: Visitor, dry: bool) -> Updates:
        with show.said():
            asked = self.read(values, visitor, dry)
            if not dry:
                self.desk.shelf.changeable(asked.dataset, visitor)
            return self.open(self.desk.submit_caption(asked, visitor), visitor)

    def dressed(self, values: Updates, request: gr.Request) -> Updates:
        """The trigger word in front of captions that lack it, as one step."""
        with show.said():
            visitor = who(request)
            asked = self.read(
                {
                    **values,
                    self.form["captioner"]: DEFAULT_CAPTIONER,
                    self.form["address"]: "",
                    self.form["model"]: "",
                },
                visitor,
            )
            if not asked.trigger.strip():
                raise InvalidSpec(["Trigger word: write the word first, such as mysks."])
            album = self.view.mine(values, visitor, "Editing captions")
            captioned = [one.key for one in album.pictures if one.caption]
            meant = [key for key in asked.pictures or captioned if key in set(captioned)]
            step = album.apply(Dress(trigger=asked.trigger), meant, filter=asked.filter)
            said = (
                f"{asked.trigger.strip()} was put into {words.many(step.changed, 'caption')}."
                if step.changed
                else (
                    f"All captions have {asked.trigger.strip()} already."
                    if captioned
                    else "There is no caption yet to put it into; Caption puts it there by itself."
                )
            )
            return self.view.again(values, visitor, words.left_alone(step) or sweep.note(said))

    # ---- watched ------------------------------------------------------------------------------------------------

    def cancel(self, job: int, request: gr.Request) -> None:
        with show.said():
            found = self.desk.jobs.get(int(job or 0))
            if found:
                who(request).may_touch(found)
                self.desk.jobs.cancel(found.id)

    def last(self, name: str, visitor: Visitor) -> int:
        """The captioning of a dataset that runs or waits; 0 if none does."""
        return next(
            (
                job.id
                for job in self.desk.jobs.waiting(visitor.sees, "caption")
                if job.spec.get("dataset") == name
            ),
            0,
        )

    def open(self, id: int, visitor: Visitor) -> Updates:
        """A job is shown from now on; 0: none."""
        return self._shown(id, "", visitor)

    def look(self, id: int, seen: str, request: gr.Request) -> Updates:
        """How the job goes; nothing if nothing has changed."""
        return self._shown(id, seen, who(request))

    def _shown(self, id: int, seen: str, visitor: Visitor) -> Updates:
        job = self.desk.jobs.get(int(id or 0))
        if job is None or job.kind != "caption" or visitor.sees not in (None, job.owner):
            return {
                self.doing: "",
                self.result: "",
                self.clock: gr.Timer(active=False),
                **self._buttons(False),
                self.job: 0,
            }
        state = f"{job.id} {job.state} {job.beat}"
        if state == seen:
            return {self.seen: gr.skip()}
        told = {
            self.job: job.id,
            self.seen: state,
            self.clock: gr.Timer(active=job.open),
            **self._buttons(job.open),
        }
        if job.open:
            return {
                **told,
                self.doing: words.running(_words(job), job.progress.step, job.progress.total),
                self.result: "",
            }
        found = job.result if isinstance(job.result, dict) else {}
        return {
            **told,
            self.doing: words.ended(job.state, _ended(job, found), found.get("failed") or ()),
            self.result: _rows(found),
        }

    def _buttons(self, busy: bool) -> Updates:
        return {
            self.start: gr.Button(interactive=not busy),
            self.dry: gr.Button(interactive=not busy),
            self.stop: gr.Button(interactive=busy),
        }


def _words(job: Job) -> str:
    if job.state == "queued":
        return "Waiting for its turn"
    at = job.progress
    counted = f" · {at.step:,} of {at.total:,}" if at.total else ""
    return (
        (at.note or "Getting ready")
        + counted
        + (f" · about {show.duration(at.left)} left" if at.left is not None else "")
    )


def _ended(job: Job, found: dict[str, Any]) -> str:
    if job.state == "cancelled":
        return "Stopped. What was captioned is kept; Caption goes on from there."
    if job.state != "done":
        return job.error or "It failed."
    wrote, failed = (
        int(found.get("made", 0)) + int(found.get("taken", 0)),
        len(found.get("failed") or ()),
    )
    said = f"{words.many(wrote, 'picture')} captioned in {show.duration(float(found.get('seconds', 0)))}"
    said += f", {found['kept']:,} had a caption already and keep it" if found.get("kept") else ""
    said += f", {failed:,} not" if failed else ""
    return said + (". Nothing was written; Caption writes them." if found.get("dry_run") else ".")


def _rows(found: dict[str, Any]) -> str:
    rows = [
        (str(one["file"]), str(one["before"]), str(one["after"])) for one in found.get("rows") or ()
    ]
    if not rows or not found.get("dry_run"):
        return ""
    more = len(rows) + int(found.get("more_rows") or 0)
    title = f"What {found.get('captioner')} would write" + (
        f", the first {ROWS} of {more:,}" if more > ROWS else ""
    )
    return words.changes(rows[:ROWS], more, title)
