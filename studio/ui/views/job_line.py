"""The job in the header as HTML and words.

Knows: how its place and its time are said (templates/jobs.html), on which tab it is followed.
Does not know: gradio, which job it is (services/job_in_view.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from studio.core import jobs as kinds
from studio.core.base import validate_stored
from studio.core.generation.request import GenerationRequest
from studio.errors import InvalidSpec
from studio.services.job_in_view import JobInView
from studio.ui.views.common import compute_fraction, format_duration, format_eta
from studio.ui.views.templates import render_macro

QUEUE_TAB = "queue"
# Where a job of this tab is followed; others are in the Queue.
KIND_TABS = {
    kinds.SWEEP.name: "sweep",
    kinds.SWEEP_EXPORT.name: "sweep",
    kinds.TRAIN.name: "training",
    kinds.TRAINING_DRY_RUN.name: "training",
    kinds.EXPORT_CHECKPOINT.name: "training",
    kinds.TRAINING_EVALUATION.name: "training",
    kinds.CAPTION.name: "captioning",
    kinds.CLIP_SEARCH.name: "captioning",
    kinds.UPSCALE.name: "upscale",
    kinds.DOWNLOAD.name: "models",
}
TASK_TABS = {
    "txt2img": "txt2img",
    "img2img": "img2img",
    "inpaint": "inpaint",
    "outpaint": "inpaint",
}
_ORDINAL_ENDINGS = {1: "st", 2: "nd", 3: "rd"}


def render_job_line(shown: JobInView | None, tab_titles: Mapping[str, str]) -> str:
    """Render the job in the header; nothing without one.

    Args:
        shown: The job.
        tab_titles: What stands on the tabs, by their ids.
    """
    if shown is None:
        return ""
    job = shown.job
    title = kinds.describe_job(job.kind, job.spec)
    return render_macro(
        "jobs.html",
        "job_line",
        state=job.state,
        tab=find_tab(shown),
        tab_title=tab_titles.get(find_tab(shown), ""),
        title=title[:1].upper() + title[1:],
        fraction=compute_fraction(job.progress.step, job.progress.total),
        status=describe_place(shown),
        num_others=shown.num_others,
    )


def find_tab(shown: JobInView) -> str:
    """Return the id of the tab on which a job is followed."""
    if not shown.is_own:
        return QUEUE_TAB
    if shown.job.kind != kinds.GENERATE.name:
        return KIND_TABS.get(shown.job.kind, QUEUE_TAB)
    try:
        return TASK_TABS.get(validate_stored(GenerationRequest, shown.job.spec).task, QUEUE_TAB)
    except InvalidSpec:
        return QUEUE_TAB


def describe_place(shown: JobInView) -> str:
    """Return how far a job is, or where it stands: `2nd in line, waits for a training, …`."""
    progress = shown.job.progress
    if shown.job.state == "running":
        if not progress.total:
            return progress.message or "Getting ready"
        percent = f"{100 * compute_fraction(progress.step, progress.total):.0f}%"
        return " · ".join(filter(None, (percent, format_eta(progress.eta_seconds))))
    parts = ["Next in line" if shown.place == 1 else f"{format_ordinal(shown.place)} in line"]
    if shown.waits_for:
        parts.append(f"waits for {shown.waits_for}")
    if shown.wait_seconds is not None and shown.waits_for:
        parts.append(f"about {format_duration(shown.wait_seconds)}")
    return ", ".join(parts)


def format_ordinal(number: int) -> str:
    """Return 2 as `2nd`."""
    ending = "th" if number // 10 % 10 == 1 else _ORDINAL_ENDINGS.get(number % 10, "th")
    return f"{number}{ending}"
