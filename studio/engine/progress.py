"""How far a work is, and how long it will take.

Knows: the remaining-time estimate, what a report holds. Does not know: what a step is; who hears
    it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from studio.storage.jobs import Progress

ProgressCallback = Callable[[Progress], None]  # raises Cancelled to stop the work


class ProgressTracker:
    """Reports steps of a work with the time that is left.

    The estimate is the mean time of the steps that were done since `start`, times those to come;
    steps that cost nothing, such as results that were found, are left out by `skip`.
    """

    def __init__(self, report: ProgressCallback, total: int = 0) -> None:
        self.total = total
        self._report = report
        self._start_time: float | None = None
        self._num_skipped = 0

    @property
    def is_started(self) -> bool:
        """Whether the clock runs."""
        return self._start_time is not None

    def start(self, step: int = 0) -> None:
        """Start the clock at a step: what was before, such as loading, does not count."""
        self._start_time = time.perf_counter()
        self._num_skipped = step

    def exclude(self, seconds: float) -> None:
        """Leave time out of the estimate that was spent on something else."""
        if self._start_time is not None:
            self._start_time += seconds

    def skip(self, count: int = 1) -> None:
        """Count steps that took no time."""
        self._num_skipped += count

    def estimate_eta(self, step: int) -> float | None:
        """Return the seconds that are left after a step; None before anything was timed."""
        timed = step - self._num_skipped
        if self._start_time is None or timed <= 0:
            return None
        elapsed = time.perf_counter() - self._start_time
        return round(elapsed / timed * (self.total - step), 1)

    def report(self, step: int, message: str, **details: Any) -> None:
        """Report a step of the total; raise Cancelled to stop.

        `details` are further fields of `Progress`.
        """
        eta = self.estimate_eta(step)
        self._report(Progress(step, self.total, message, eta_seconds=eta, **details))
