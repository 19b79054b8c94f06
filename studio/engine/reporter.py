"""What a work reports through: rows of progress, a stop that arrives.

Knows: how often the job table hears of a work. Does not know: any work; torch.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

from studio.errors import DiskError
from studio.storage.jobs import Jobs, Progress

REPORT_SECONDS = 0.1  # between two rows of progress


class Reporter:
    """What a work reports through.

    At most ten rows a second are written, more only for a finished image or a new phase.
    """

    def __init__(self, jobs: Jobs, job_id: int) -> None:
        self._jobs, self._job_id, self._last_report_time = jobs, job_id, 0.0
        self._last_progress = Progress()
        self._pending_preview: bytes | None = None

    def __call__(self, progress: Progress) -> None:
        """Write the progress; raise Cancelled within REPORT_SECONDS after a stop was asked for.

        A report that the disk does not take is left out: the work itself may well go on.
        """
        self._pending_preview = progress.preview or self._pending_preview
        last = self._last_progress
        is_same = progress.message == last.message and len(progress.images) == len(last.images)
        if is_same and time.monotonic() - self._last_report_time < REPORT_SECONDS:
            return
        self._last_progress, self._last_report_time = progress, time.monotonic()
        report = replace(progress, preview=self._pending_preview)
        try:
            self._jobs.report_progress(self._job_id, report)
        except DiskError:
            with suppress(DiskError):
                self._jobs.check_stop(self._job_id)
            return
        self._pending_preview = None
