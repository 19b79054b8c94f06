"""What a visitor's job comes to: the image so far, the images, their settings, before and after.

Knows: the right side of every tab that makes images, and which of a visitor's jobs belong there.
Does not know: the form; how an image is made; who carries the job there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import gradio as gr

from studio.core.base import validate_stored
from studio.core.generation.request import GenerationRequest
from studio.core.jobs import GENERATE
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.jobs import Job
from studio.ui.components.before_after import BeforeAfterSlider, load_before_image
from studio.ui.components.denoise_strip import DenoiseStrip
from studio.ui.components.export_bar import ExportBar
from studio.ui.errors import show_warning
from studio.ui.events import (
    EVENT_OPTIONS,
    UNQUEUED_EVENT_OPTIONS,
    Updates,
    look_at_js,
    visitor_from_request,
)
from studio.ui.views.images import render_image_settings
from studio.ui.views.jobs import (
    list_job_images,
    list_stops,
    render_outcome,
    render_progress,
)

MAX_HISTORY_JOBS = 60  # jobs back to look for the last one of a tab
MAX_OPEN_JOBS = 100  # waiting ones that are looked at
COMPARE_LABEL = "Compare with original"
RESULT_LABEL = "Hide comparison"
# Number of open jobs, id and revision of the first, id of the last one that ended.
Snapshot = tuple[int, ...]


class ResultPanel:
    """The results of a tab.

    `JOB_KIND` is the kind of the jobs whose results are shown.

    Args:
        services: The page's services.
        name: The tab's id; begins the ids of elements.
        tasks: Tasks of the requests whose jobs are shown.
        placeholder: HTML for when there is no job.
    """

    JOB_KIND: ClassVar[str] = GENERATE.name

    def __init__(
        self, services: Services, name: str, tasks: tuple[str, ...], placeholder: str
    ) -> None:
        self.services = services
        self.name = name
        self.tasks = tasks
        self.placeholder = placeholder
        with gr.Column(elem_classes="view"):
            self._add_view()
        with gr.Column(elem_classes="details"):
            self.image_settings = gr.HTML(elem_id=self.elem_id("about"))
            self.exports = ExportBar(services, self.elem_id("export"))
            self.strip = DenoiseStrip(services, self.elem_id("strip"))
        self.selected_path = gr.State(None)
        self.paths: gr.State = gr.State([])
        self.snapshot: gr.State = gr.State(())
        # The page asks, so a slow line skips previews; pushed ones would pile up.
        self.timer = gr.Timer(0.2, active=False)

    def _add_view(self) -> None:
        """Place what is always in view: progress, images, and the buttons below them."""
        self.live_preview = gr.HTML(
            self.placeholder, elem_id=self.elem_id("live"), elem_classes="live"
        )
        self.result = gr.Gallery(
            visible=False,
            preview=True,
            object_fit="contain",
            height="100%",
            show_label=False,
            buttons=["download", "fullscreen"],
            elem_id=self.elem_id("result"),
            interactive=False,
            elem_classes="result",
        )
        self.comparison = BeforeAfterSlider(self.elem_id("compare"))
        with gr.Row(visible=False, elem_classes="send") as self.send_row:
            self.compare_button = gr.Button(
                COMPARE_LABEL, size="sm", visible=False, elem_id=self.elem_id("beside")
            )
            self.reuse_seed_button = gr.Button(
                "Reuse seed", size="sm", elem_id=self.elem_id("reuse-seed")
            )
            gr.Button(
                "More", size="sm", elem_id=self.elem_id("image-more"), elem_classes="more"
            )  # opens a menu: static/image_menu.js

    def elem_id(self, part: str) -> str:
        """Return an element's id; those of the first tab go without its name."""
        return part if self.name == "txt2img" else f"{self.name}-{part}"

    @property
    def refresh_outputs(self) -> list[Any]:
        """The components that change while a job runs."""
        return [
            self.snapshot,
            self.timer,
            self.live_preview,
            self.result,
            self.image_settings,
            self.selected_path,
            self.paths,
            self.send_row,
            self.compare_button,
            self.strip.container,
            self.strip.job_id,
            self.strip.sheet,
            *self.exports.outputs,
            *self.comparison.outputs,
        ]

    def wire(self, stop_button: gr.Button) -> None:
        """Connect the events.

        Args:
            stop_button: Cancels the first job; enabled while there is one.
        """
        look = look_at_js(f"#tab-{self.name} .stage > .view", "Result")
        self.strip.wire(self.selected_path)
        self.exports.wire(self.selected_path, self.paths)
        self.timer.tick(
            self.refresh,
            {self.snapshot, self.selected_path},
            [*self.refresh_outputs, stop_button],
            **UNQUEUED_EVENT_OPTIONS,
        )
        self.result.select(
            self.select_image,
            self.paths,
            [
                self.selected_path,
                self.image_settings,
                self.compare_button,
                self.strip.container,
                *self.exports.outputs,
            ],
            **EVENT_OPTIONS,
        )
        self.compare_button.click(
            self.toggle_comparison,
            {self.selected_path, self.compare_button},
            [self.result, self.compare_button, *self.comparison.outputs],
            **EVENT_OPTIONS,
        ).success(None, None, None, js=look, **EVENT_OPTIONS)
        self.stop_button = stop_button
        # A button that is pressed and then off leaves the focus nowhere.
        stop_button.click(self.cancel_job, None, None, **EVENT_OPTIONS).success(
            None, None, None, js=look, **EVENT_OPTIONS
        )

    def list_open_jobs(self, visitor: Visitor) -> list[Job]:
        """Return this tab's open jobs that belong here, in the order in which they will run.

        Of very many only the first ones are looked at.
        """
        open_jobs = self.services.home.jobs.list_open(
            visitor.id, self.JOB_KIND, visitor.tab, limit=MAX_OPEN_JOBS
        )
        return [job for job in open_jobs if self.shows_job(job)]

    def shows_job(self, job: Job) -> bool:
        """Return whether a job of this kind belongs to this tab."""
        return get_task(job) in self.tasks

    def find_last_job(self, visitor: Visitor) -> Job | None:
        """Return the job that belongs here and ended last."""
        return next(iter(self.list_ended_jobs(visitor)), None)

    def list_ended_jobs(self, visitor: Visitor) -> list[Job]:
        """Return the jobs that belong here and have ended, the last one first."""
        recent = self.services.home.jobs.list_recent(MAX_HISTORY_JOBS, visitor.id, visitor.tab)
        ended_jobs = [
            job
            for job in recent
            if job.kind == self.JOB_KIND and not job.is_open and self.shows_job(job)
        ]
        return sorted(ended_jobs, key=lambda job: (job.ended or 0, job.id), reverse=True)

    def refresh(self, values: Updates, request: gr.Request) -> Updates:
        """Return what this tab's jobs are doing, as updates; none if nothing has changed."""
        visitor = visitor_from_request(request)
        return self.render(visitor, values[self.snapshot], values[self.selected_path])

    def render(
        self, visitor: Visitor, snapshot: Snapshot = (), selected_path: str | None = None
    ) -> Updates:
        """Return what a visitor's jobs are doing, as updates of the page.

        Args:
            visitor: Who is looking.
            snapshot: What the page shows already; empty to have all updated.
            selected_path: File of the image in view.
        """
        open_jobs = self.list_open_jobs(visitor)
        last_job = self.find_last_job(visitor)
        running_job = open_jobs[0] if open_jobs else None
        new_snapshot = (
            len(open_jobs),
            running_job.id if running_job else 0,
            running_job.revision if running_job else 0,
            last_job.id if last_job else 0,
        )
        if new_snapshot == tuple(snapshot):
            return {self.snapshot: gr.skip()}
        updates: Updates = {
            self.snapshot: new_snapshot,
            self.timer: gr.Timer(active=bool(open_jobs)),
            self.live_preview: self._render_message(open_jobs, last_job),
            self.stop_button: gr.Button(interactive=bool(open_jobs)),
        }
        shown_job = running_job or last_job
        paths = _list_existing_paths(shown_job)
        if running_job is None and last_job and last_job.state == "cancelled" and not paths:
            paths = self._list_earlier_paths(visitor)  # a stop takes nothing away
        previous_job_id = snapshot[1] if snapshot else 0
        is_new_job = running_job is not None and running_job.id != previous_job_id
        if paths and selected_path not in paths:
            updates |= self.strip.clear()
        if not paths and is_new_job:
            updates |= self._hide_result()
        elif paths and (running_job is None or is_new_job or selected_path not in paths):
            updates |= self._show_result(paths, is_running=running_job is not None)
            is_cut_short = running_job is None and bool(last_job and list_stops(last_job))
            if is_cut_short and paths[-1] != paths[0]:  # what was seen when it was stopped
                updates |= self._render_selection(paths[-1])
                updates[self.result] = gr.Gallery(
                    paths, visible=True, selected_index=len(paths) - 1
                )
        return updates

    def _list_earlier_paths(self, visitor: Visitor) -> list[str]:
        """Return the images of the last job here that has any."""
        for job in self.list_ended_jobs(visitor):
            if paths := _list_existing_paths(job):
                return paths
        return []

    def _render_message(self, open_jobs: list[Job], last_job: Job | None) -> str:
        if open_jobs:
            return render_progress(open_jobs)
        return render_outcome(last_job) if last_job else self.placeholder

    def _hide_result(self) -> Updates:
        return {
            self.result: gr.Gallery(visible=False),
            self.image_settings: "",
            self.send_row: gr.Row(visible=False),
            **self.strip.set_visible(False),
            **self.exports.set_visible(False),
            **self.comparison.hide(),
        }

    def _show_result(self, paths: list[str], is_running: bool) -> Updates:
        """Put images into the gallery; while a job runs it stays hidden behind the live preview."""
        path = paths[-1] if is_running else paths[0]
        return {
            self.result: gr.Gallery(
                paths, visible=not is_running, selected_index=paths.index(path)
            ),
            self.paths: paths,
            self.send_row: gr.Row(visible=not is_running),
            **self.comparison.hide(),
            **self._render_selection(path, with_settings=not is_running),
        }

    def _render_selection(self, path: str | None, with_settings: bool = True) -> Updates:
        image = self.services.home.gallery.get(path) if path else None
        has_source = bool(image and image.source_image)
        has_steps = bool(image and image.settings)
        return {
            **self.strip.set_visible(with_settings and has_steps),
            **self.exports.set_visible(with_settings and image is not None),
            self.selected_path: path,
            self.image_settings: render_image_settings(image) if with_settings else "",
            self.compare_button: gr.Button(COMPARE_LABEL, visible=has_source),
        }

    def select_image(self, paths: list[str], event: gr.SelectData) -> Updates:
        """Show the settings of the image that was clicked in the gallery."""
        index = event.index
        is_valid = isinstance(index, int) and 0 <= index < len(paths)
        return self._render_selection(paths[index] if is_valid else None)

    def toggle_comparison(self, values: Updates) -> Updates:
        """Switch between the result and the slider over its source, as the button's label says."""
        selected_path, label = values[self.selected_path], values[self.compare_button]
        source = load_before_image(self.services, selected_path)
        if source is None and label == COMPARE_LABEL:
            show_warning("The original image is no longer in this home.")
        if source is None or selected_path is None or label == RESULT_LABEL:
            return {
                self.result: gr.Gallery(visible=True),
                self.compare_button: gr.Button(COMPARE_LABEL),
                **self.comparison.hide(),
            }
        return {
            self.result: gr.Gallery(visible=False),
            self.compare_button: gr.Button(RESULT_LABEL),
            **self.comparison.show((source, "before"), (selected_path, "after")),
        }

    def cancel_job(self, request: gr.Request) -> None:
        """Cancel the first open job of this tab."""
        for job in self.list_open_jobs(visitor_from_request(request))[:1]:
            self.services.home.jobs.cancel(job.id)


def _list_existing_paths(job: Job | None) -> list[str]:
    """Return the files of a job's images that are still there."""
    if job is None:
        return []
    paths = [image["path"] for image in list_job_images(job)]
    return [path for path in paths if Path(path).is_file()]


def get_task(job: Job) -> str:
    """Return the task of a job's request, such as "txt2img" or "inpaint"."""
    return validate_stored(GenerationRequest, job.spec).task
