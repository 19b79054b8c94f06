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
    last = Progress(message="asking what is there")

    def check_stop() -> None:
        report(last)

    report(last)
    client = SafeClient(check_stop=check_stop)
    plan = look_up(client, wanted)
    meter, next_time = RateMeter(), 0.0

    def on_progress(num_bytes: int, total: int) -> None:
        nonlocal last, next_time
        if time.monotonic() < next_time and num_bytes < total:
            return
        next_time = time.monotonic() + REPORT_SECONDS
        last = describe_progress(num_bytes, total, meter.add(num_bytes))
        report(last)

    placed = download(
        context.settings,
        plan,
        client,
        is_confirmed=wanted.is_host_confirmed,
        on_progress=on_progress,
    )
    return {
        "name": placed.name,
        "folder": placed.folder,
        "title": placed.title,
        "was_there": placed.was_there,
    }


def describe_progress(num_bytes: int, total: int, bytes_per_second: float) -> Progress:
    """Return how far a download is, in words and numbers."""
    message = f"{format_size(num_bytes)} of {format_size(total)}"
    eta = None
    if bytes_per_second > 0:
        message += f", {format_size(bytes_per_second)}/s"
        eta = round((total - num_bytes) / bytes_per_second, 1)
    rate = {"bytes_per_second": round(bytes_per_second)}
    return Progress(num_bytes, total, message, eta_seconds=eta, metrics=rate)
