"""What a tab of a browser shows when it opens: its own, or what belongs to no other tab.

Knows: that a job remembers the tab in which it was asked for. Does not know: which tabs are open
(ui/static/browser_tab.js); what a sweep or a run is.
"""

from __future__ import annotations

from collections.abc import Sequence

from studio.core.jobs import JobKind
from studio.services.visitor import Visitor
from studio.storage.jobs import Jobs

MAX_HISTORY_JOBS = 200  # jobs back to look


def find_shown_subject(
    jobs: Jobs, kind: JobKind, subject_key: str, candidates: Sequence[str], visitor: Visitor
) -> str:
    """Return the id of the sweep or run that a tab shows when it opens; empty for none.

    Args:
        jobs: The job table.
        kind: The kind of jobs that work on it.
        subject_key: Where its id stands in their specs.
        candidates: The ids of the visitor's sweeps or runs, the newest first.
        visitor: Who opens the tab.

    Returns:
        What the tab's open job works on, else what its last one did, else the first candidate that
        no other tab has asked for.
    """
    recent_jobs = [
        job for job in jobs.list_recent(MAX_HISTORY_JOBS, visitor.id) if job.kind == kind.name
    ]
    open_jobs = jobs.list_open(visitor.id, kind.name, visitor.tab, limit=MAX_HISTORY_JOBS)
    own_jobs = [*open_jobs, *(job for job in recent_jobs if job.tab == visitor.tab)]
    own_subjects = [str(job.spec.get(subject_key)) for job in own_jobs]
    others = {str(job.spec.get(subject_key)) for job in recent_jobs} - set(own_subjects)
    for subject in own_subjects:
        if subject in candidates:
            return subject
    return next((subject for subject in candidates if subject not in others), "")
