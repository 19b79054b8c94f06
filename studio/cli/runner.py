"""The work of a command: in the queue of a studio that runs on the same home, else in place.

Knows: who holds the device, Ctrl + C, the progress line of a terminal. Does not know: what the work
is.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from studio import settings as settings_module
from studio.cli.parser import HOME_FLAGS
from studio.core.jobs import JobKind
from studio.errors import Cancelled, StudioError
from studio.services.visitor import Visitor
from studio.settings import Settings
from studio.storage.home import Home
from studio.storage.jobs import Jobs, Progress
from studio.storage.locks import Lock
from studio.ui.views.common import format_eta

JobRunner = Callable[[JobKind, dict[str, Any]], dict[str, Any]]  # a kind and its spec → the result
COMMAND_LINE = Visitor("command-line", is_guest=False)


def load_settings(arguments: argparse.Namespace, *extra_flags: str) -> Settings:
    """Return the settings behind the flags that say which home and device. Raises InvalidSpec."""
    names = (*HOME_FLAGS, *extra_flags)
    return settings_module.load(**{name: getattr(arguments, name, None) for name in names})


@contextmanager
def job_runner(home: Home) -> Iterator[JobRunner]:
    """Yield what does jobs, one after the other.

    Where a studio runs on the home they go through its queue, else they are done in place while
    holding the device.
    """
    settings = home.settings
    studio = Lock(settings.home, "studio")
    device = Lock(settings.home, f"worker-{settings.device}")
    is_announced = False
    # No page is open; one may open meanwhile, and its worker then waits for the device.
    while studio.acquire():
        studio.release()
        if device.acquire(timeout_seconds=1.0):
            break
        if not is_announced:  # another command, or a worker that is about to leave
            log("another job is using the device; waiting for it")
            is_announced = True
    else:
        yield partial(_run_in_queue, home.jobs)
        return
    from studio.engine.worker import import_object, resolve_device_name, set_allocator

    set_allocator()
    from studio.engine.context import WorkerContext

    # Another setting may mean the same card, and somebody compute on it.
    card = Lock(settings.home, f"card-{resolve_device_name(settings.device)}")
    while not card.acquire(timeout_seconds=1.0):
        if not is_announced:
            log("another job is using the device; waiting for it")
            is_announced = True
    try:
        context = WorkerContext.for_home(home)
        with _listening_reporter() as report:
            yield lambda kind, spec: dict(import_object(kind.function)(context, spec, report))
    finally:
        card.release()
        device.release()


@contextmanager
def _listening_reporter() -> Iterator[Callable[[Progress], None]]:
    """Yield what works report to.

    Ctrl + C stops them as a Stop button does, so that what is finished is kept; a second one at
    once. After the block it does what it did before.
    """
    stopped = threading.Event()

    def stop(signal_number: int, frame: FrameType | None) -> None:
        if stopped.is_set() and callable(former_handler):
            former_handler(signal_number, frame)
        stopped.set()

    is_main_thread = threading.current_thread() is threading.main_thread()
    former_handler = signal.getsignal(signal.SIGINT)

    def report(progress: Progress) -> None:
        if stopped.is_set():
            raise Cancelled
        if not sys.stderr.isatty():
            return
        steps = f"{progress.message} {progress.step}/{progress.total}"
        line = ", ".join(filter(None, (steps, format_eta(progress.eta_seconds))))
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    if is_main_thread:
        signal.signal(signal.SIGINT, stop)
    try:
        yield report
    finally:
        if is_main_thread:
            signal.signal(signal.SIGINT, former_handler)


def _run_in_queue(jobs: Jobs, kind: JobKind, spec: dict[str, Any]) -> dict[str, Any]:
    job_id = jobs.submit(kind.name, spec, owner=COMMAND_LINE.id)
    try:
        while (job := jobs.get(job_id)) and job.is_open:
            time.sleep(0.05)
    except KeyboardInterrupt:
        jobs.cancel(job_id)
        raise
    if job is None:
        raise StudioError("The job was removed.")
    if job.state != "done":
        raise StudioError(f"The job was {job.state}: {job.error or 'it was stopped'}")
    return dict(job.result)


def log(message: str) -> None:
    """Print one line for the person at the terminal."""
    print(f"studio: {message}", file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, whatever texts are in it and whatever stdout can write.

    What it cannot write, half surrogates included, is written as JSON's own escapes.
    """
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value)
    print(text, flush=True)
