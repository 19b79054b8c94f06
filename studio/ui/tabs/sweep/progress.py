"""How far a sweep is and how it came out, in words; the files that it left.

Knows: what the jobs of a sweep say. Does not know: components, the grid, whose a sweep is.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from studio.core.jobs import SWEEP, SWEEP_EXPORT
from studio.services.urls import file_url
from studio.storage.jobs import Job
from studio.ui.views import sweep as grid
from studio.ui.views.common import format_duration, format_eta

SWEEP_JOB_KINDS = (SWEEP.name, SWEEP_EXPORT.name)


class SweepStatus(NamedTuple):
    """What the header over the grid says. `fraction` is 0 to 1, or None where there is no bar."""

    message: str
    fraction: float | None
    state: str


def is_job_of(job: Job, sweep_id: str) -> bool:
    """Return whether a job makes the cells or the files of this sweep."""
    return job.kind in SWEEP_JOB_KINDS and job.spec.get("sweep") == sweep_id


def describe_progress(open_jobs: list[Job]) -> SweepStatus:
    """Say what is being done for a sweep.

    Args:
        open_jobs: Its open jobs, at least one; the running one counts, else the first.
    """
    job = next((job for job in open_jobs if job.state == "running"), open_jobs[0])
    if job.state == "queued":
        return SweepStatus("waiting in the queue", 0.0, "queued")
    if job.kind == SWEEP_EXPORT.name:
        return SweepStatus("drawing the sheet", None, "running")
    progress = job.progress
    message = progress.message[:1].lower() + progress.message[1:] or "starting"
    message = " · ".join(filter(None, (message, format_eta(progress.eta_seconds))))
    fraction = progress.step / progress.total if progress.total else 0.0
    return SweepStatus(message, fraction, "running")


def describe_outcome(last_job: Job | None) -> SweepStatus:
    """Say how the last job of a sweep came out."""
    if last_job is None:
        return SweepStatus("", None, "done")
    message = last_job.error or last_job.state
    if last_job.state == "done" and last_job.kind == SWEEP.name:
        end_time = last_job.ended or 0
        start_time = last_job.started or end_time
        message = f"finished in {format_duration(end_time - start_time)}"
    elif last_job.state == "done":
        message = "files ready"
    elif last_job.state == "cancelled":
        message = "stopped; finished cells are kept"
    return SweepStatus(message, None, last_job.state)


def resume_label(num_missing: int, num_failed: int) -> str:
    """Return the label of the button that makes the remaining cells."""
    if not num_missing:
        return f"Retry {num_failed:,} failed"
    label = f"Continue: {num_missing:,} {'cell' if num_missing == 1 else 'cells'} left"
    if num_failed:
        label += f", {num_failed:,} to retry"
    return label


def render_files(folder: Path, open_jobs: Iterable[Job]) -> str:
    """Render links to the exported files of a sweep, or a line that says when there will be some.

    Args:
        folder: Where the sweep's files are written.
        open_jobs: The open jobs of the sweep.
    """
    if any(job.kind == SWEEP_EXPORT.name for job in open_jobs):
        return grid.render_note("Creating sheet, viewer and index …")
    paths = sorted(folder.glob("sheet*.png"))
    paths += [folder / name for name in ("viewer.html", "index.json", "index.csv")]
    downloads = []
    for path in paths:
        if path.is_file():
            stat = path.stat()
            # The time in the address, so that no browser shows an older file.
            url = f"{file_url(path)}?v={stat.st_mtime_ns}"
            downloads.append((url, path.name, stat.st_size))
    if not downloads:
        return grid.render_note("Created when the sweep ends, or when you press Export.")
    return grid.render_downloads(downloads)
