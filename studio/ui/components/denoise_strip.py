"""How an image came out of the noise: every n-th of its steps on one sheet.

Knows: one such job of a page. Does not know: how a strip is painted
(engine/sweeps/denoise_strip.py); which images there are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import BadPicture, InvalidSpec, quote
from studio.services.submission import Services
from studio.services.urls import file_url
from studio.storage.jobs import Job
from studio.ui.errors import report_errors
from studio.ui.events import EVENT_OPTIONS, UNQUEUED_EVENT_OPTIONS, Updates, visitor_from_request
from studio.ui.views import images
from studio.ui.views.jobs import list_job_images, render_outcome, render_progress

MAX_STEP_INTERVAL = 50  # steps from one shown to the next


class DenoiseStrip:
    """A button that asks for the strip of the selected image, and the sheet."""

    def __init__(self, services: Services, name: str) -> None:
        self.services = services
        with gr.Accordion(
            "Denoising steps", open=False, visible=False, elem_id=name
        ) as self.container:
            with gr.Row(elem_classes="strip-row"):
                self.interval = gr.Slider(
                    1,
                    MAX_STEP_INTERVAL,
                    3,
                    step=1,
                    precision=0,
                    label="Show every … steps",
                    scale=3,
                    min_width=160,
                    info="The last step is always shown.",
                    elem_id=f"{name}-every",
                )
                self.make_button = gr.Button(
                    "Show steps", scale=1, min_width=130, elem_id=f"{name}-make"
                )
            self.sheet = gr.HTML(elem_id=f"{name}-sheet")
        self.job_id: gr.State = gr.State(0)
        self.timer = gr.Timer(0.3, active=False)

    def wire(self, selected_path: gr.State) -> None:
        """Connect the events; `selected_path` holds the file of the image in view."""
        self.selected_path = selected_path
        self.make_button.click(
            self.submit,
            {selected_path, self.interval},
            [self.job_id, self.timer, self.sheet],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.timer.tick(
            self.refresh, self.job_id, [self.timer, self.sheet], **UNQUEUED_EVENT_OPTIONS
        )
        selected_path.change(self.clear, None, [self.job_id, self.sheet], **EVENT_OPTIONS)

    def clear(self) -> Updates:
        """Forget the strip of another image.

        An unqueued event that selects an image has to call this itself: gradio tells of a changed
        State only after queued ones.
        """
        return {self.job_id: 0, self.sheet: ""}

    def set_visible(self, visible: bool) -> Updates:
        """Show or hide the whole of it; without an image there is nothing to ask for."""
        return {self.container: gr.Accordion(visible=visible)}

    def submit(self, values: Updates, request: gr.Request) -> Updates:
        """Queue the strip of the selected image, with every n-th step."""
        with report_errors():
            selected_path = values[self.selected_path]
            image = self.services.home.gallery.get(selected_path) if selected_path else None
            if image is None:
                raise BadPicture("Choose an image first.")
            job_id = self.services.submit_denoise_strip(
                image.request,
                _parse_interval(values[self.interval]),
                visitor_from_request(request),
            )
            return {
                self.job_id: job_id,
                self.timer: gr.Timer(active=True),
                self.sheet: render_strip(self.services.home.jobs.get(job_id)),
            }

    def refresh(self, job_id: int, request: gr.Request) -> Updates:
        """Show how far the job is; another visitor's job is shown as none."""
        job = self.services.home.jobs.get(job_id) if job_id else None
        if job is None or job.owner != visitor_from_request(request).id:
            return {self.timer: gr.Timer(active=False), self.sheet: ""}
        return {self.timer: gr.Timer(active=job.is_open), self.sheet: render_strip(job)}


def _parse_interval(interval: Any) -> int:
    """Return the number that a page sent. Raises InvalidSpec."""
    is_number = isinstance(interval, int | float) and not isinstance(interval, bool)
    if not is_number or not 1 <= interval <= MAX_STEP_INTERVAL or interval != int(interval):
        raise InvalidSpec(
            [
                f"Show every … steps: must be a whole number from 1 to {MAX_STEP_INTERVAL} "
                f"(you entered {quote(interval)})."
            ]
        )
    return int(interval)


def render_strip(job: Job | None) -> str:
    """Render the sheet of a job, or how far it is; nothing for None."""
    if job is None:
        return ""
    sheets = list_job_images(job)
    if job.is_open and not sheets:
        return render_progress([job])
    if sheets and Path(sheets[0]["path"]).is_file():
        return images.render_denoise_strip(file_url(Path(sheets[0]["path"])))
    return render_outcome(job)
