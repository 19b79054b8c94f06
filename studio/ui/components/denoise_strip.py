"""How a picture came out of the noise: every n-th of its steps on one sheet, asked for and shown.

Knows: one such job of a page. Does not know: how a strip is painted; which pictures there are.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import BadPicture, InvalidSpec
from studio.storage.jobs import Job
from studio.ui import show
from studio.ui.guard import who
from studio.ui.widgets import SHORT, SILENT, Desk, Updates

MOST = 50  # steps from one shown to the next


class Strip:
    """One build of it, for the picture whose path is in `picked`."""

    def __init__(self, desk: Desk, name: str) -> None:
        self.desk = desk
        with gr.Accordion(
            "How it came out of the noise (denoise strip)", open=False, visible=False, elem_id=name
        ) as self.place:
            with gr.Row(elem_classes="strip-row"):
                self.every = gr.Slider(
                    1,
                    MOST,
                    3,
                    step=1,
                    precision=0,
                    label="Every n-th step",
                    scale=3,
                    min_width=160,
                    info="The last one is always there.",
                    elem_id=f"{name}-every",
                )
                self.make = gr.Button(
                    "Make the strip", scale=1, min_width=130, elem_id=f"{name}-make"
                )
            self.sheet = gr.HTML(elem_id=f"{name}-sheet")
        self.job: gr.State = gr.State(0)
        self.clock = gr.Timer(0.3, active=False)

    def wire(self, picked: gr.State) -> None:
        self.make.click(
            self.begin,
            [picked, self.every],
            [self.job, self.clock, self.sheet],
            preprocess=False,
            **SHORT,
        )
        self.clock.tick(self.look, self.job, [self.clock, self.sheet], **SILENT)
        picked.change(self.cleared, None, [self.job, self.sheet], **SHORT)

    def cleared(self) -> Updates:
        """Nothing of another picture. A SILENT event says so itself: gradio tells of a changed State only after queued ones."""
        return {self.job: 0, self.sheet: ""}

    def seen(self, there: bool) -> Updates:
        """Shown only beside a picture."""
        return {self.place: gr.Accordion(visible=there)}

    def begin(self, picked: str | None, every: Any, request: gr.Request) -> Updates:
        with show.said():
            picture = self.desk.gallery.get(picked) if picked else None
            if picture is None:
                raise BadPicture("Choose a picture first.")
            if (
                isinstance(every, bool)
                or not isinstance(every, int | float)
                or not 1 <= every <= MOST
                or every != int(every)
            ):
                raise InvalidSpec(
                    [
                        f"Every n-th step: has to be a whole number from 1 to {MOST} (not {every!r:.40})."
                    ]
                )
            id = self.desk.submit_strip(picture.request, int(every), who(request))
            return {
                self.job: id,
                self.clock: gr.Timer(active=True),
                self.sheet: told(self.desk.jobs.get(id)),
            }

    def look(self, id: int, request: gr.Request) -> Updates:
        job = self.desk.jobs.get(id) if id else None
        if job is None or job.owner != who(request).id:
            return {self.clock: gr.Timer(active=False), self.sheet: ""}
        return {self.clock: gr.Timer(active=job.open), self.sheet: told(job)}


def told(job: Job | None) -> str:
    """The sheet, or how far it is."""
    made = show.pictures_of(job) if job else []
    if job is None or (job.open and not made):
        return show.running([job]) if job else ""
    if made and Path(made[0]["path"]).is_file():
        address = html.escape(show.address(Path(made[0]["path"])))
        return (
            f'<a class="strip-sheet" href="{address}" target="_blank" rel="noopener"><img src="{address}" '
            'alt="The steps of this picture"></a>'
        )
    return show.ended(job)
