"""What a visitor's job comes to, as it comes: the picture so far, the pictures, their settings, before and after.

Knows: the right side of every tab that makes pictures, and which of a visitor's jobs belong there. Does not know: the form; how a
picture is made; who carries the job there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from studio.core.generation.request import GenerationRequest
from studio.storage.jobs import Job
from studio.ui import show
from studio.ui.components.before_after import Compare, before_of
from studio.ui.components.denoise_strip import Strip
from studio.ui.guard import Visitor, who
from studio.ui.widgets import SHORT, SILENT, Desk, Updates

KIND = "generate"
FAR = 60  # jobs back to look for the last one of a tab
AFTER, BEFORE = "Before and after", "The result alone"


class Stage:
    """One build of it. `picked` is the path of the picture in view; `tasks` says whose jobs are shown."""

    def __init__(self, desk: Desk, name: str, tasks: tuple[str, ...], empty: str) -> None:
        self.desk, self.tasks, self.name, self.empty = desk, tasks, name, empty
        self.live = gr.HTML(empty, elem_id=self.id("live"), elem_classes="live")
        self.result = gr.Gallery(
            visible=False,
            preview=True,
            object_fit="contain",
            height=560,
            show_label=False,
            buttons=["download", "fullscreen"],
            elem_id=self.id("result"),
            interactive=False,
            elem_classes="result",
        )
        self.compare = Compare(self.id("compare"))
        self.about = gr.HTML(elem_id=self.id("about"))
        with gr.Row(visible=False, elem_classes="send") as self.send:
            self.beside = gr.Button(AFTER, size="sm", visible=False, elem_id=self.id("beside"))
            self.reuse = gr.Button("Reuse this seed", size="sm", elem_id=self.id("reuse-seed"))
        self.strip = Strip(desk, self.id("strip"))
        self.picked = gr.State(None)
        self.paths: gr.State = gr.State([])
        self.seen: gr.State = gr.State(())
        self.clock = gr.Timer(
            0.2, active=False
        )  # the page asks, so a slow line skips frames; pushed ones would pile up

    def id(self, part: str) -> str:
        """An element's id; those of the first tab go without its name."""
        return part if self.name == "txt2img" else f"{self.name}-{part}"

    @property
    def watched(self) -> list[Any]:
        """What changes while a job runs."""
        return [
            self.seen,
            self.clock,
            self.live,
            self.result,
            self.about,
            self.picked,
            self.paths,
            self.send,
            self.beside,
            self.strip.place,
            self.strip.job,
            self.strip.sheet,
            *self.compare.outputs,
        ]

    def wire(self, stop: gr.Button) -> None:
        """`stop` ends the first job; it can be pressed while there is one."""
        self.strip.wire(self.picked)
        self.clock.tick(self.look, [self.seen, self.picked], [*self.watched, stop], **SILENT)
        self.result.select(self.pick, self.paths, [self.picked, self.about, self.beside], **SHORT)
        self.beside.click(
            self.turn,
            [self.picked, self.beside],
            [self.result, self.beside, *self.compare.outputs],
            **SHORT,
        )
        self.stop = stop
        stop.click(self.cancel, None, None, **SHORT)

    def waiting(self, visitor: Visitor) -> list[Job]:
        """This visitor's open jobs that belong here, in the order in which they will be done."""
        return [
            job for job in self.desk.jobs.waiting(visitor.id, KIND) if task_of(job) in self.tasks
        ]

    def last(self, visitor: Visitor) -> Job | None:
        """The one of them that ended last."""
        ended = [
            job
            for job in self.desk.jobs.history(FAR, visitor.id)
            if job.kind == KIND and not job.open and task_of(job) in self.tasks
        ]
        return max(ended, key=lambda job: (job.ended or 0, job.id), default=None)

    def look(self, seen: tuple[int, ...], picked: str | None, request: gr.Request) -> Updates:
        """What this browser's jobs are doing, as updates of the page; nothing if nothing has changed."""
        return self.shown(who(request), seen, picked)

    def shown(
        self, visitor: Visitor, seen: tuple[int, ...] = (), picked: str | None = None
    ) -> Updates:
        """`look` for a visitor; without more it shows all anew."""
        waiting, last = self.waiting(visitor), self.last(visitor)
        now = (
            len(waiting),
            waiting[0].id if waiting else 0,
            waiting[0].beat if waiting else 0,
            last.id if last else 0,
        )
        if list(now) == list(seen):
            return {self.seen: gr.skip()}
        running = waiting[0] if waiting else None
        shown = running if running and running.progress.pictures else last if not running else None
        words = show.running(waiting) if waiting else show.ended(last) if last else self.empty
        updates: Updates = {
            self.seen: now,
            self.clock: gr.Timer(active=bool(waiting)),
            self.live: words,
            self.stop: gr.Button(interactive=bool(waiting)),
        }
        paths = [made["path"] for made in show.pictures_of(shown)] if shown else []
        paths = [path for path in paths if Path(path).is_file()]
        before = list(seen) or [0, 0, 0, 0]
        if paths and picked not in paths:
            updates |= self.strip.cleared()
        if running and not paths and before[1] != running.id:
            updates |= {
                self.result: gr.Gallery(visible=False),
                self.about: "",
                self.send: gr.Row(visible=False),
                **self.strip.seen(False),
                **self.compare.closed(),
            }
        elif paths and (not running or picked not in paths or before[1] != running.id):
            first = paths[-1] if running else paths[0]
            updates |= {
                self.result: gr.Gallery(
                    paths, visible=not running, selected_index=paths.index(first)
                ),
                self.paths: paths,
                self.send: gr.Row(visible=not running),
                **self.strip.seen(not running),
                **self.compare.closed(),
                **self._picked(first, not running),
            }
        return updates

    def _picked(self, path: str | None, about: bool = True) -> Updates:
        picture = self.desk.gallery.get(path) if path else None
        return {
            self.picked: path,
            self.about: show.settings(picture) if about else "",
            self.beside: gr.Button(AFTER, visible=bool(picture and picture.request.image)),
        }

    def pick(self, paths: list[str], event: gr.SelectData) -> Updates:
        there = isinstance(event.index, int) and 0 <= event.index < len(paths)
        return self._picked(paths[event.index] if there else None)

    def turn(self, picked: str | None, label: str) -> Updates:
        """Between the result and the slider over its source."""
        source = before_of(self.desk, picked)
        if source is None and label == AFTER:
            gr.Warning("The picture that it was made from is not in this home any more.")
        if source is None or picked is None or label == BEFORE:
            return {
                self.result: gr.Gallery(visible=True),
                self.beside: gr.Button(AFTER),
                **self.compare.closed(),
            }
        return {
            self.result: gr.Gallery(visible=False),
            self.beside: gr.Button(BEFORE),
            **self.compare.shown((source, "before"), (picked, "after")),
        }

    def cancel(self, request: gr.Request) -> None:
        for job in self.waiting(who(request))[:1]:
            self.desk.jobs.cancel(job.id)


def task_of(job: Job) -> str:
    """What kind of work a job's request is."""
    return GenerationRequest.model_validate(job.spec).task
