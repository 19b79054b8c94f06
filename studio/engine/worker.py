"""One worker process: one device, claim → work → record, until nobody needs it.

Knows: the job table, which work belongs to which kind, how a worker begins and ends.
Does not know: gradio; who submitted a job; what a work does inside; which short job may be done
between the steps of a long one (interleaving.py).

What a kind's work is stands in core/jobs.py by name; torch is imported with it, after the worker
has said that it starts.

    python -m studio.engine.worker --home DIR --device auto
"""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio import __version__
from studio.core.jobs import (
    BACKGROUND_KINDS,
    DOWNLOAD,
    JOB_KINDS,
    TRAIN,
    TRAINING_DRY_RUN,
)
from studio.engine.demand import IDLE_TIMEOUT_SECONDS, Demand
from studio.engine.reporter import Reporter
from studio.errors import Cancelled, DiskError, StudioError
from studio.settings import Settings, load
from studio.storage import atomic
from studio.storage.jobs import Job, Jobs, Progress
from studio.storage.locks import Lock, lengthen_pause

JobFunction = Callable[[Any, dict[str, Any], Callable[[Progress], None]], Any]
# Works that load a model for themselves alone, and leave nothing of it.
KINDS_WITH_OWN_MODEL = (TRAIN.name, TRAINING_DRY_RUN.name)
# Without it torch counts fragments as free that no large tensor fits into; older name, and what
# another system does not know, are left alone.
ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
ALLOCATOR_SETTINGS = "expandable_segments:True"
# A waiting job starts 10 ms later on average, and an idle worker costs under 1 % of a core.
POLL_SECONDS = 0.02
BACKGROUND_POLL_SECONDS = 0.2
MAX_DISK_PAUSE_SECONDS = 5.0  # between two tries to write to a disk that took nothing
log = logging.getLogger("worker")


def main(settings: Settings, idle_timeout: float = IDLE_TIMEOUT_SECONDS) -> int:
    """Serve the queue until nobody needs this worker; the exit status.

    It leaves when no studio has lived for `idle_timeout` seconds, or one of another version came.
    """
    device = settings.device
    jobs = Jobs(settings.home / "jobs.sqlite")
    demand = Demand(settings, jobs, idle_timeout)
    device_lock = Lock(settings.home, f"worker-{device}")
    if not device_lock.acquire(timeout_seconds=1.0):
        return 3  # another worker has the device
    jobs.interrupt(device, "The worker died.")
    jobs.set_worker_status(device, {"state": "starting", "version": __version__, "loaded": []})
    set_allocator()
    # Two settings may mean one card ("auto" and "cuda"), and an earlier studio's worker have it.
    card_lock = Lock(settings.home, f"card-{resolve_device_name(device)}")
    while not card_lock.acquire(timeout_seconds=1.0):
        if demand.is_replaced() or not demand.has_studio():
            return 0
    # Slow (torch), and before the first claim: a waiting job can be cancelled.
    worker = _Worker(device, jobs, settings, demand)
    demand.renew()
    worker.start_background_jobs()
    while worker.is_healthy:
        if worker.run_next_job():
            demand.renew()
            continue
        time.sleep(POLL_SECONDS)
        if demand.is_checked():
            continue
        worker.publish_status()
        if worker.has_background_job and not demand.is_replaced():
            demand.renew()
        if demand.is_over():
            return 0
    return 4  # the device is lost to this process: the next one begins afresh


def set_allocator() -> None:
    """Let torch grow its pieces of a card's memory, unless the user has set how; before torch."""
    if sys.platform == "linux" and not any(name in os.environ for name in ALLOCATOR_VARIABLES):
        os.environ[ALLOCATOR_VARIABLES[0]] = ALLOCATOR_SETTINGS


def resolve_device_name(device: str) -> str:
    """Return the one name of the device that a setting means; the setting if there is none."""
    try:
        name: str = import_object("studio.engine.models.devices:resolve_name")(device)
    except StudioError:  # every job hears it
        return device
    return name


class _Worker:
    """The engine behind the table."""

    def __init__(
        self, device: str, jobs: Jobs, settings: Settings, demand: Demand | None = None
    ) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched behind the owner's back
        self._job_functions: dict[str, JobFunction] = {
            kind.name: import_object(kind.function) for kind in JOB_KINDS.values()
        }
        self._device, self._jobs = device, jobs
        self._demand = demand or Demand(settings, jobs)
        self._disk_pause_seconds = 0.0  # after the last try to take a job
        self._published_status: dict[str, Any] = {}
        self._startup_error: StudioError | None = None
        self._is_device_lost: Callable[[BaseException], bool] = import_object(
            "studio.engine.models.devices:is_device_lost"
        )
        self.has_background_job = False  # whether one runs beside the others
        self._background_thread: threading.Thread | None = None
        self._is_background_over = threading.Event()
        self.is_healthy = True  # False once the device is lost to this process, for good
        try:
            self._context = import_object("studio.engine.context:WorkerContext").open(settings)
            self._context.pipelines.on_change = self.publish_status
            # Imported here, as it stands on torch, which the worker says before that it loads.
            interleaver_class = import_object("studio.engine.interleaving:Interleaver")
            self._interleaver = interleaver_class(self._context, jobs, device, self.run_job)
        except StudioError as error:  # such as a device that is not there: every job has to hear it
            log.error("%s", error)
            self._startup_error = error
        self.publish_status()

    def publish_status(self) -> None:
        """Tell the other processes what this one runs on and has loaded, if that has changed."""
        status: dict[str, Any] = {
            "state": "broken",
            "error": str(self._startup_error),
            "version": __version__,
            "loaded": [],
        }
        if not self._startup_error:
            pipelines = self._context.pipelines
            try:
                total, free = pipelines.device.get_memory()
            except RuntimeError as error:  # a lost device answers no question
                if not self._is_device_lost(error):
                    raise
                self.is_healthy = False
                return
            status = {
                "state": "ready",
                "device": pipelines.device.title,
                "dtype": pipelines.device.dtype_name,
                "version": __version__,
                "loaded": pipelines.loaded,
                "memory": {"total": total, "free": round(free / 2**28) * 2**28},
            }
        if status != self._published_status:
            with suppress(DiskError):  # then the next look publishes it
                self._jobs.set_worker_status(self._device, status)
                self._published_status = status

    def run_next_job(self) -> bool:
        """Do the first waiting job; return whether there was one.

        A disk that does not even take the claim is waited for.
        """
        try:
            job = self._jobs.claim(self._device, other_than=BACKGROUND_KINDS)
        except DiskError as error:
            self._wait_for_disk(error)
            return False
        self._disk_pause_seconds = 0.0
        if job is None:
            return False
        self.run_job(job)
        return True

    def start_background_jobs(self) -> None:
        """Do jobs that need no device in a thread of their own, for as long as this process lives.

        They wait for other machines and do not hold up the queue. What the end of the process cuts
        is found interrupted, and goes on where it was when it is asked for again.
        """
        self._background_thread = threading.Thread(target=self._run_background_jobs, daemon=True)
        self._background_thread.start()

    def stop_background_jobs(self) -> None:
        """Take no more of them, and wait for the one that runs."""
        self._is_background_over.set()
        if self._background_thread:
            self._background_thread.join()

    def _run_background_jobs(self) -> None:
        while not self._is_background_over.wait(BACKGROUND_POLL_SECONDS):
            try:
                self.run_next_background_job()
            except Exception:  # the table itself could not be read; the next look may do
                log.exception("background jobs go on")

    def run_next_background_job(self) -> bool:
        """Do the first waiting job that needs no device; return whether there was one."""
        try:
            job = self._jobs.claim(self._device, kinds=BACKGROUND_KINDS)
        except DiskError:
            time.sleep(MAX_DISK_PAUSE_SECONDS)
            return False
        if job is None:
            return False
        self.has_background_job = True
        try:
            self.run_job(job)
        finally:
            self.has_background_job = False
        return True

    def _wait_for_disk(self, error: DiskError) -> None:
        """Wait after a write that was refused, each time longer."""
        if not self._disk_pause_seconds:
            log.error("%s", error)
        pause = lengthen_pause(self._disk_pause_seconds)
        self._disk_pause_seconds = min(MAX_DISK_PAUSE_SECONDS, pause)
        time.sleep(self._disk_pause_seconds)

    def run_job(self, job: Job) -> None:
        """Do one job and record how it ended.

        Only here is everything caught: a bug fails its job, not the worker.
        """
        try:
            if self._startup_error:
                raise self._startup_error
            if job.kind not in self._job_functions:
                raise StudioError(
                    f"This studio (version {__version__}) cannot run {job.kind!r} jobs."
                )
            self._record_end(job, "done", self._call_job_function(job))
        except Cancelled:
            self._record_end(job, "cancelled")
        except StudioError as error:
            self.is_healthy &= not self._is_device_lost(error)
            # The list of downloads offers another try only where it may do.
            is_final = job.kind == DOWNLOAD.name and not error.may_pass
            result = {"is_final": True} if is_final else None
            self._record_end(job, "failed", result, error=str(error))
        except Exception as error:
            log.exception("job %d (%s)", job.id, job.kind)
            self.is_healthy &= not self._is_device_lost(error)
            self._record_end(job, "failed", error=self._describe_bug(error))
        if job.kind in KINDS_WITH_OWN_MODEL:
            self._release_memory()
        if job.kind not in BACKGROUND_KINDS:  # those change nothing on the device
            self.publish_status()

    def _call_job_function(self, job: Job) -> Any:
        """Do a job's work and return its result; a long one lets short ones in."""
        context = replace(self._context, owner=job.owner)
        function, report = self._job_functions[job.kind], Reporter(self._jobs, job.id)
        if not JOB_KINDS[job.kind].is_preemptible:
            return function(context, job.spec, report)
        context = replace(context, interleave_job=self._interleaver.interleave_job)
        with self._interleaver.hold_open(job.kind):
            return function(context, job.spec, report)

    def _record_end(
        self, job: Job, state: str, result: Any = None, error: str | None = None
    ) -> None:
        """Record how a job ended, and wait for a disk that does not take it: the work is done.

        Where nobody needs this worker any more, it is left to the next one, which finds the job
        interrupted.
        """
        self._demand.renew()
        while True:
            try:
                self._jobs.finish(job.id, state, result, error)
            except DiskError as disk_error:
                self._wait_for_disk(disk_error)
                if not self._demand.is_over():
                    continue
            self._disk_pause_seconds = 0.0
            return

    def _describe_bug(self, error: Exception) -> str:
        """Return what is said of an error that is not written for the user."""
        disk_error = atomic.find_disk_error(error)
        if disk_error:
            return str(disk_error)
        log_name = f"worker-{self._device.replace(':', '-')}.log"
        return (
            f"Something went wrong inside the studio ({type(error).__name__}: {error!s:.200}). "
            f"{log_name} in the home folder has the details."
        )

    def _release_memory(self) -> None:
        """Give back what a training held: its frames are gone only now, some of them in circles."""
        gc.collect()
        if self.is_healthy and not self._startup_error:
            self._context.pipelines.device.empty_cache()


def unload_models(
    context: Any, spec: dict[str, Any], report: Callable[[Progress], None]
) -> dict[str, Any]:
    """Throw the named models out of memory."""
    return {
        "unloaded": [name for name in spec.get("models", []) if context.pipelines.unload(str(name))]
    }


def import_object(import_path: str) -> Any:
    """Import `module:name` and return what it names."""
    module, name = import_path.split(":")
    return getattr(importlib.import_module(module), name)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studio.engine.worker", description="Serve the queue of a home folder."
    )
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision")
    parser.add_argument("--keep-free", type=float)
    parser.add_argument("--memory")
    parser.add_argument("--preview-every", type=int)
    for flag in ("--pictures-carry", "--mark-ai", "--comfyui-graphs"):
        parser.add_argument(flag)
    parser.add_argument(
        "--linger",
        type=float,
        default=IDLE_TIMEOUT_SECONDS,
        help="seconds to stay when idle and no studio lives",
    )
    return parser


if __name__ == "__main__":
    flags = vars(_build_parser().parse_args())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    linger_seconds = flags.pop("linger")
    try:
        sys.exit(main(load(**flags), linger_seconds))
    except StudioError as startup_error:
        sys.exit(f"{startup_error}")
