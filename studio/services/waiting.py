"""What a waiting job waits for, in words.

Knows: the queue's order, what may be let in between, what a visitor may hear of others' jobs.
Does not know: when a worker really lets a job in (engine/interleaving.py), components.
"""

from __future__ import annotations

from studio.core.jobs import BACKGROUND_KINDS, JOB_KINDS, describe_job
from studio.services.visitor import Visitor
from studio.storage.jobs import Job, Jobs

MAX_TITLE_CHARS = 60


def describe_wait(jobs: Jobs, job: Job, visitor: Visitor) -> str:
    """Say what a queued job waits for and for about how long.

    Args:
        jobs: The job table.
        job: A queued job.
        visitor: Who reads it; others' jobs are not named.

    Returns:
        A sentence without its full stop, such as `Waiting for “training of moon: 250 steps” (about
        3 min left)`; "Starting" where nothing is before it.
    """
    running, num_ahead = _find_what_is_ahead(jobs, job)
    others = "1 other job" if num_ahead == 1 else f"{num_ahead:,} other jobs"
    if running is None:
        return f"Waiting for {others}" if num_ahead else "Starting"
    text = f"Waiting for {_name_job(running, visitor)}{_describe_rest(running)}"
    if num_ahead:
        text += f" and {others}"
    kinds = [JOB_KINDS.get(entry.kind) for entry in (running, job)]
    if kinds[0] and kinds[1] and kinds[0].is_preemptible and kinds[1].is_interleavable:
        text += ". It runs sooner if it is short and fits into memory"
    return text


def _find_what_is_ahead(jobs: Jobs, job: Job) -> tuple[Job | None, int]:
    """Return the running job that holds up this one, and how many wait before it."""
    running: Job | None = None
    num_ahead = 0
    for entry in jobs.list_open():
        if entry.id == job.id:
            break
        if entry.kind in BACKGROUND_KINDS:
            continue
        if entry.state != "running":
            num_ahead += 1
        elif running is None or entry.id < running.id:  # what is let in between is younger
            running = entry
    return running, num_ahead


def _name_job(job: Job, visitor: Visitor) -> str:
    if not visitor.may_see(job.owner):
        return "another job"
    title = describe_job(job.kind, job.spec)
    if len(title) > MAX_TITLE_CHARS:
        title = title[: MAX_TITLE_CHARS - 1].rstrip() + "…"
    return f"“{title}”"


def _describe_rest(job: Job) -> str:
    """Return how long a running job still takes, as ` (about 3 min left)`."""
    seconds = job.progress.eta_seconds
    if seconds is None:
        return ""
    if seconds < 90:
        return f" (about {max(1, round(seconds))} s left)"
    if seconds < 5400:
        return f" (about {round(seconds / 60)} min left)"
    return f" (about {seconds / 3600:.1f} h left)"
