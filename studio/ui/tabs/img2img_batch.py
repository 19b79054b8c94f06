"""Many images with the same settings: one job for each, shown as one list.

Knows: the files, the list and what became of each.
Does not know: the settings; how an image is made.

The list is stored in the job table's metadata, by visitor: a page that opens later shows it again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.core.base import PLACEHOLDER_SHA256, validate
from studio.core.generation.request import GenerationRequest
from studio.errors import InvalidSpec, StudioError
from studio.services.submission import Services
from studio.services.urls import file_url
from studio.services.visitor import Visitor
from studio.storage.jobs import Job
from studio.ui.errors import report_errors
from studio.ui.events import (
    EVENT_OPTIONS,
    UNQUEUED_EVENT_OPTIONS,
    Updates,
    resolve_upload,
    visitor_from_request,
)
from studio.ui.views.jobs import STATE_LABELS, list_job_images
from studio.ui.views.templates import render_macro, render_nothing

if TYPE_CHECKING:
    from studio.ui.tabs.image_input import ImageInputTab

MAX_IMAGES = 500  # in one batch
MAX_NAME_CHARS = 120


class BatchImg2Img:
    """The components of the batch panel."""

    def __init__(self, services: Services) -> None:
        self.services = services
        with gr.Accordion(
            "Batch: many images", open=False, elem_id="img2img-many"
        ) as self.container:
            self.files = gr.File(
                label="Drop images, or choose files",
                file_count="multiple",
                height=160,
                elem_id="img2img-files",
            )
            self.folder = gr.UploadButton(
                "Or choose a folder",
                file_count="directory",
                size="sm",
                elem_id="img2img-folder",
            )
            self.native_sizes = gr.Checkbox(
                True,
                label="Keep each image's size",
                info="Otherwise all use the width and height above.",
                elem_id="img2img-own",
            )
            with gr.Row(elem_classes="actions"):
                self.start = gr.Button("Generate all", scale=3, elem_id="img2img-start")
                self.stop = gr.Button(
                    "Stop all",
                    variant="stop",
                    scale=1,
                    interactive=False,
                    elem_id="img2img-stop-all",
                )
            self.job_list = gr.HTML(elem_id="img2img-list")
        self.timer = gr.Timer(0.5, active=False)
        self.shown_revision: gr.State = gr.State("")

    @property
    def outputs(self) -> list[Any]:
        """What handlers may change."""
        return [self.job_list, self.timer, self.stop, self.shown_revision]

    def wire(self, tab: ImageInputTab) -> None:
        """Connect events and handlers; `tab` has the form whose settings are used."""
        self.tab = tab
        self.folder.upload(lambda files: files, self.folder, self.files, **EVENT_OPTIONS)
        self.start.click(
            self.submit_batch,
            {*tab.form.inputs, self.files, self.native_sizes},
            [*self.outputs, self.files, *tab.result_panel.refresh_outputs, tab.stop],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.stop.click(self.cancel_jobs, None, self.outputs, **EVENT_OPTIONS)
        self.timer.tick(self.poll, self.shown_revision, self.outputs, **UNQUEUED_EVENT_OPTIONS)
        self.container.expand(self.poll, self.shown_revision, self.outputs, **EVENT_OPTIONS)

    def submit_batch(self, values: Updates, request: gr.Request) -> Updates:
        """Queue a job for each file that is an image; list for the rest why they are not."""
        with report_errors():
            visitor = visitor_from_request(request)
            files = values.pop(self.files) or []
            has_native_sizes = bool(values.pop(self.native_sizes))
            form_values = self.tab.form.read_raw(values)
            if not isinstance(files, list):
                files = [files]
            if not files:
                raise InvalidSpec(["Images: choose files or a folder first."])
            if len(files) > MAX_IMAGES:
                raise InvalidSpec([f"Images: at most {MAX_IMAGES} (you chose {len(files)})."])
            if has_native_sizes:
                form_values |= {"width": None, "height": None}
            # What is wrong with the settings is said once, not for each image.
            validate(GenerationRequest, {**form_values, "image": PLACEHOLDER_SHA256})
            rows = [self._submit_row(file, form_values, visitor) for file in files]
            self.services.home.jobs.set_meta(_meta_key(visitor), json.dumps(rows))
            return {
                **self.render(visitor),
                self.files: None,
                **self.tab.result_panel.render(visitor),
            }

    def _submit_row(
        self, file: Any, form_values: dict[str, Any], visitor: Visitor
    ) -> dict[str, Any]:
        """Queue the job of a file; return its row of the list, with the job or an error."""
        name = file.get("orig_name") if isinstance(file, dict) else None
        row: dict[str, Any] = {"name": str(name or "a file")[:MAX_NAME_CHARS]}
        try:
            image = self.services.home.library.inputs.add(
                *resolve_upload(file), visitor.owner_filter
            )
            request = validate(GenerationRequest, {**form_values, "image": image.sha256})
            row["job"] = self.services.submit_generation(request, visitor)
        except StudioError as error:
            row["error"] = str(error)
        return row

    def cancel_jobs(self, request: gr.Request) -> Updates:
        """Stop all jobs of the list."""
        visitor = visitor_from_request(request)
        for job in self._find_jobs(visitor).values():
            if job.is_open:
                self.services.home.jobs.cancel(job.id)
        return self.render(visitor)

    def poll(self, shown_revision: str, request: gr.Request) -> Updates:
        """Render the list, if it has changed since the page last asked."""
        return self.render(visitor_from_request(request), shown_revision)

    def render(self, visitor: Visitor, shown_revision: str = "") -> Updates:
        """Render the list as it is now, unless the page shows this revision already."""
        jobs = self._find_jobs(visitor)
        revision = json.dumps(
            [(job.id, job.state, job.revision if job.is_open else 0) for job in jobs.values()]
        )
        if shown_revision == revision:
            return {self.shown_revision: gr.skip()}
        is_busy = any(job.is_open for job in jobs.values())
        return {
            self.job_list: render_batch(self._load_rows(visitor), jobs),
            self.timer: gr.Timer(active=is_busy),
            self.stop: gr.Button(interactive=is_busy),
            self.shown_revision: revision,
        }

    def _load_rows(self, visitor: Visitor) -> list[dict[str, Any]]:
        text = self.services.home.jobs.get_meta(_meta_key(visitor)) or "[]"
        rows: list[dict[str, Any]] = json.loads(text)
        return rows

    def _find_jobs(self, visitor: Visitor) -> dict[int, Job]:
        """Return the visitor's jobs that the list names and that are still stored, by id."""
        job_ids = [row["job"] for row in self._load_rows(visitor) if "job" in row]
        jobs = [self.services.home.jobs.get(job_id) for job_id in job_ids]
        return {job.id: job for job in jobs if job and job.owner == visitor.id}


def render_batch(rows: list[dict[str, Any]], jobs: dict[int, Job]) -> str:
    """Render the list as HTML: how far it is, then a row for each image.

    Args:
        rows: Each with the `name` of the file, and its `job` or an `error`.
        jobs: The jobs that are still stored, by id.
    """
    if not rows:
        return render_nothing("Each image becomes its own job; if one fails, the others continue.")
    described = [_describe_row(row, jobs.get(row.get("job", 0))) for row in rows]
    states = [row["state"] for row in described]
    return render_macro(
        "images.html",
        "batch",
        rows=described,
        num_done=states.count("done"),
        num_failed=states.count("failed"),
    )


def _describe_row(row: dict[str, Any], job: Job | None) -> dict[str, str]:
    """Return what is shown of one row, by its names in the template."""
    state = job.state if job else "failed"
    described = {
        "name": str(row["name"]),
        "state": state,
        "label": STATE_LABELS[state],
        "message": "",
        "url": "",
        "thumbnail_url": "",
    }
    if job is None:
        return described | {"message": str(row.get("error") or "Its job is gone.")}
    progress = job.progress
    described["message"] = job.error or ""
    if job.state == "running" and progress.total:
        described["message"] = f"step {progress.step} of {progress.total}"
    images = list_job_images(job)
    if images and Path(images[0]["path"]).is_file():
        path = Path(images[0]["path"])
        thumbnail_path = Path(images[0]["thumb"])
        described["url"] = file_url(path)
        described["thumbnail_url"] = file_url(thumbnail_path if thumbnail_path.is_file() else path)
    return described


def _meta_key(visitor: Visitor) -> str:
    return f"many {visitor.id} {visitor.tab}".rstrip()
