"""Jobs as HTML and words: how far they are, how they ended, the queue.

Knows: how a job is described (templates/jobs.html). Does not know: gradio, who may see a job.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from studio.core.jobs import describe_job
from studio.storage.gallery import STOPPED_KEY
from studio.storage.jobs import Job
from studio.ui.views.common import compute_fraction, format_duration, format_eta
from studio.ui.views.images import RESULT_PLACEHOLDER
from studio.ui.views.templates import render_macro

STATE_LABELS = {
    "running": "running",
    "queued": "waiting",
    "done": "done",
    "failed": "failed",
    "cancelled": "stopped",
    "interrupted": "interrupted",
}


@dataclass(frozen=True)
class JobRow:
    """A job as the queue shows it; `title` is None where the visitor may not know more."""

    id: int
    state: str
    duration: str
    fraction: float
    title: str | None = None
    error: str = ""
    buttons: Sequence[tuple[str, str]] = ()

    @property
    def state_label(self) -> str:
        return STATE_LABELS[self.state]


def render_progress(jobs: list[Job]) -> str:
    """Render a visitor's open jobs: the first with its image so far, a bar, and the time left."""
    job = jobs[0]
    progress = job.progress
    message = _describe_progress(job)
    if len(jobs) > 1:
        message += f" · {len(jobs) - 1} more after this"
    return render_macro(
        "jobs.html",
        "progress",
        state=job.state,
        preview=base64.b64encode(progress.preview or b"").decode(),
        fraction=compute_fraction(progress.step, progress.total),
        message=message,
    )


def _describe_progress(job: Job) -> str:
    progress = job.progress
    if job.state == "queued":
        return "waiting in the queue"
    if not progress.total:
        return progress.message or "starting"
    parts = [f"step {progress.step} of {progress.total}"]
    if progress.message:
        parts.append(progress.message)
    parts.append(format_eta(progress.eta_seconds))
    return " · ".join(filter(None, parts))


def render_outcome(job: Job | None) -> str:
    """Render how a visitor's last job ended; without one, what stands where an image will be."""
    if job is None:
        return RESULT_PLACEHOLDER
    notes = job.result.get("notes", ()) if isinstance(job.result, dict) else ()
    return render_macro(
        "jobs.html", "outcome", state=job.state, message=_describe_outcome(job), notes=notes
    )


def _describe_outcome(job: Job) -> str:
    images = list_job_images(job)
    stops = list_stops(job)
    num_images = len(images) - len(stops)
    match job.state:
        case "done":
            plural = "" if num_images == 1 else "s"
            duration = format_duration((job.ended or 0) - (job.started or 0))
            return f"{num_images} image{plural} in {duration}"
        case "cancelled":
            sentences = [f"Stopped at {stops[0]}." if stops else "Stopped."]
            if num_images:
                sentences.append(f"{num_images} finished before that.")
            if stops:
                subject = "The unfinished image is"
                if len(stops) > 1:
                    subject = f"The {len(stops)} unfinished images are"
                sentences.append(f"{subject} in the gallery, marked as stopped.")
            return " ".join(sentences)
        case "interrupted":
            return f"Interrupted: {job.error}. Repeat it from the Queue tab."
    return job.error or "failed"


def list_job_images(job: Job) -> list[dict[str, Any]]:
    """Return the images that a job has saved so far, finished or not, each with its `path`."""
    if isinstance(job.result, dict):
        return list(job.result.get("pictures", ()))
    return list(job.progress.images)


def list_stops(job: Job) -> list[str]:
    """Return where a stop cut images of a job short, such as "step 7 of 20"."""
    return [str(image[STOPPED_KEY]) for image in list_job_images(job) if STOPPED_KEY in image]


def render_queue(
    jobs: list[tuple[Job, bool]], may_prioritize: bool, *, page: int = 0, num_pages: int = 1
) -> str:
    """Render a page of the job table as two lists.

    Args:
        jobs: Each job, and whether the visitor may know and change it.
        may_prioritize: Whether the visitor may move jobs to the front.
        page: Counts from 0.
        num_pages: How many there are.
    """
    open_jobs = [(job, may_see) for job, may_see in jobs if job.is_open]
    open_jobs.sort(key=lambda entry: entry[0].state != "running")
    past_jobs = [(job, may_see) for job, may_see in jobs if not job.is_open]
    return render_macro(
        "jobs.html",
        "queue",
        open_rows=[_build_row(job, may_see, may_prioritize) for job, may_see in open_jobs],
        past_rows=[_build_row(job, may_see, may_prioritize) for job, may_see in past_jobs],
        page=page,
        num_pages=num_pages,
    )


def _build_row(job: Job, may_see: bool, may_prioritize: bool) -> JobRow:
    duration = ""
    if job.started and job.ended:
        duration = format_duration(job.ended - job.started)
    fraction = 0.0
    if job.state == "running":
        fraction = compute_fraction(job.progress.step, job.progress.total)
    row = JobRow(job.id, job.state, duration, fraction)
    if not may_see:
        return row
    return replace(
        row,
        title=describe_job(job.kind, job.spec),
        error=job.error or "",
        buttons=_list_buttons(job, may_prioritize),
    )


def _list_buttons(job: Job, may_prioritize: bool) -> list[tuple[str, str]]:
    """Return action and label of each button of a job."""
    if job.state == "running":
        return [("cancel", "Stop")]
    if job.state != "queued":
        return [("retry", "Repeat")]
    buttons = [("last", "↓ Last"), ("cancel", "Cancel")]
    if may_prioritize:
        buttons.insert(0, ("first", "↑ First"))
    return buttons
