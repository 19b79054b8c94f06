"""The job that downloads: looks the link up again, fetches it, says how far it is.

Knows: progress in words. Does not know: how anything is fetched (storage/downloads).

It is done in a thread of the worker beside images and trainings. Each kill leaves what has come;
the same job again goes on from there.
"""

from __future__ import annotations

import time
from typing import Any

from studio.core.base import validate
from studio.core.downloads.plan import DownloadSpec, format_size
from studio.engine.progress import ProgressCallback
from studio.storage.downloads.fetching import RateMeter, download
from studio.storage.downloads.safe_http import SafeClient
from studio.storage.downloads.sources import look_up
from studio.storage.jobs import Progress

REPORT_SECONDS = 0.25  # each says other bytes, so the job table would have a row for each


def download_model(context: Any, spec: dict[str, Any], report: ProgressCallback) -> dict[str, Any]:
    """Fetch what is behind a link into the home.

    Args:
        context: The worker's.
        spec: Of a DownloadSpec.
        report: Hears the bytes as steps.

    Returns:
        What it is called, where it lies and what it is.

    Raises:
        StudioError: What `look_up` and `download` raise.
    """
    wanted = validate(DownloadSpec, spec)
    reporter = _BytesReporter(report)
    client = SafeClient(check_stop=reporter.report)
    plan = look_up(client, wanted)
    placed = download(
        context.settings,
        plan,
        client,
        is_confirmed=wanted.is_host_confirmed,
        on_progress=reporter.add,
    )
    return {
        "name": placed.name,
        "folder": placed.folder,
        "title": placed.title,
        "was_there": placed.was_there,
    }


class _BytesReporter:
    """Reports how far a download is, a few times a second, whether anything comes or not."""

    def __init__(self, report: ProgressCallback) -> None:
        self._report = report
        self._meter = RateMeter()
        self._num_bytes = self._total = 0
        self._next_time = 0.0
        self._last = Progress(message="checking the file")

    def add(self, num_bytes: int, total: int) -> None:
        """Take how many bytes there are now. Raises Cancelled for a stop."""
        self._num_bytes, self._total = num_bytes, total
        self.report()

    def report(self) -> None:
        """Report what there is. Raises Cancelled for a stop."""
        now = time.monotonic()
        if self._total and now >= self._next_time:
            self._next_time = now + REPORT_SECONDS
            rate = self._meter.add(self._num_bytes)
            self._last = describe_progress(self._num_bytes, self._total, rate)
        self._report(self._last)


def describe_progress(num_bytes: int, total: int, bytes_per_second: float) -> Progress:
    """Return how far a download is, in words and numbers."""
    message = f"{format_size(num_bytes)} of {format_size(total)}"
    eta = None
    if bytes_per_second > 0:
        message += f", {format_size(bytes_per_second)}/s"
        eta = round((total - num_bytes) / bytes_per_second, 1)
    rate = {"bytes_per_second": float(round(bytes_per_second))}
    return Progress(num_bytes, total, message, eta_seconds=eta, metrics=rate)
