"""How a command gets its work done: through the queue of a studio that runs on the same home, else in place.

Knows: who holds the device, Ctrl + C, the progress line of a terminal. Does not know: what the work is.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from studio.errors import Cancelled, StudioError
from studio.settings import Settings
from studio.storage.jobs import Jobs, Lock, Progress

Work = Callable[[str, dict[str, Any]], dict[str, Any]]  # a job's kind and spec → its result


def done(settings: Settings, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The result of one job."""
    with working(settings) as work:
        return work(kind, spec)


@contextmanager
def working(settings: Settings) -> Iterator[Work]:
    """What does jobs, one after the other: in place, or through the queue where a studio runs."""
    studio, device, told = (
        Lock(settings.home, "studio"),
        Lock(settings.home, f"worker-{settings.device}"),
        False,
    )
    while (
        studio.take()
    ):  # no page is open; one may open meanwhile, and its worker then waits for the device
        studio.drop()
        if device.take(wait=1.0):
            break
        if not told:  # another command, or a worker that is about to leave
            told = not say("somebody else is using the device; waiting for it", 0)
    else:
        yield partial(_through_the_queue, Jobs(settings.home / "jobs.sqlite"))
        return
    from studio.engine.context import Bench
    from studio.engine.worker import WORKS, work_of

    try:
        bench, heard = Bench.open(settings), _heard()
        yield lambda kind, spec: dict(work_of(WORKS[kind])(bench, spec, heard))
    finally:
        device.drop()


def _heard() -> Callable[[Progress], None]:
    """What works report to: Ctrl + C stops them as a Stop button does, so that what is finished is kept; a second one at once."""
    stopped = threading.Event()

    def stop(*_: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, stop)

    def report(progress: Progress) -> None:
        if stopped.is_set():
            raise Cancelled
        if sys.stderr.isatty():
            left = f", about {progress.left:.0f} s left" if progress.left is not None else ""
            print(
                f"\r\033[K{progress.note} {progress.step}/{progress.total}{left}",
                end="",
                file=sys.stderr,
                flush=True,
            )

    return report


def _through_the_queue(jobs: Jobs, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    id = jobs.submit(kind, spec, owner="command-line")
    try:
        while (job := jobs.get(id)) and job.open:
            time.sleep(0.05)
    except KeyboardInterrupt:
        jobs.cancel(id)
        raise
    if job is None or job.state != "done":
        raise StudioError(
            f"The job was {job.state}: {job.error or 'somebody stopped it'}"
            if job
            else "The job was removed."
        )
    return dict(job.result)


def say(text: str, status: int) -> int:
    """One line for the person at the terminal; gives the status back."""
    print(f"studio: {text}", file=sys.stderr)
    return status
