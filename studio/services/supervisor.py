"""Keeps a worker alive on a device, and buries the dead ones.

Knows: how a worker's process is started, when to wait before the next. Does not know: what a worker
does; torch.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import Any

from studio.settings import Settings
from studio.storage.jobs import Jobs, Lock

MAX_RESTART_PAUSE_SECONDS = 30.0
MIN_HEALTHY_SECONDS = 5.0  # a worker that ends sooner is broken from the start


def supervise(settings: Settings, jobs: Jobs) -> None:
    """Keep one worker on the settings' device. Runs in a daemon thread of the web process.

    A worker that an earlier studio left behind is adopted: taking its lock waits until it ends, in
    whatever way.
    """
    device = settings.device
    reason = "The worker died."
    pause = 0.0
    lock = Lock(settings.home, f"worker-{device}")
    while True:
        while not lock.acquire(timeout_seconds=60.0):
            pass
        jobs.interrupt(device, reason)
        lock.release()
        time.sleep(pause)
        started = time.monotonic()
        log_path = settings.home / f"worker-{device.replace(':', '-')}.log"
        with open(log_path, "ab") as log:  # a pipe would break with this process
            process = subprocess.Popen(
                worker_command(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **_build_detaching_flags(),
            )
        code = process.wait()
        reason = f"The worker ended ({code})."
        if code < 0:
            reason = f"The worker was killed ({signal.Signals(-code).name})."
        if time.monotonic() - started < MIN_HEALTHY_SECONDS:
            pause = min(MAX_RESTART_PAUSE_SECONDS, 2 * pause + 0.5)
        else:
            pause = 0.0


def _build_detaching_flags() -> dict[str, Any]:
    """Return what keeps Ctrl+C in the terminal from the worker: it ends the page, not the job."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def worker_command(settings: Settings) -> list[str]:
    """Return the command line of a worker with these settings."""
    return [
        sys.executable,
        "-m",
        "studio.engine.worker",
        "--home",
        str(settings.home),
        "--device",
        settings.device,
        "--precision",
        settings.precision,
        "--keep-free",
        str(settings.keep_free),
        "--preview-every",
        str(settings.preview_every),
    ]
