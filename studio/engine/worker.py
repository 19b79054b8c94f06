"""One worker process: one device, claim → work → record, until nobody needs it.

Knows: the job table, which work belongs to which kind, how a worker begins and ends.
Does not know: gradio; who submitted a job; what a work does inside.

`supervise` is the web process's half: it keeps one worker alive per device and buries the dead ones. The web process
imports this module for it, so torch is imported only in `main`, by name.

    python -m studio.engine.worker --home DIR --device auto
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio import __version__
from studio.core.base import check
from studio.core.generation.request import GenerationRequest
from studio.core.generation.rules import all_steps
from studio.errors import Cancelled, StudioError
from studio.settings import Settings, load
from studio.storage.jobs import Job, Jobs, Lock, Progress

Work = Callable[[Any, dict[str, Any], Callable[[Progress], None]], Any]
WORKS = {
    "generate": "studio.engine.generation.job:generate",
    "unload": "studio.engine.worker:unload",
    "sweep": "studio.engine.sweeps.job:run_sweep",
    "export": "studio.engine.sweeps.export:export",
    "strip": "studio.engine.sweeps.denoise_strip:strip",
    "train": "studio.engine.training.job:train",
    "probe": "studio.engine.training.job:probe",
    "export_checkpoint": "studio.engine.training.job:export_checkpoint",
    "report": "studio.engine.evaluation.job:report",
    "caption": "studio.engine.captioning.job:caption_folder",
    "see": "studio.engine.clip_search.job:see",
}
LONG = ("train", "caption")  # works that let a short job in between
SHORT = 500  # steps of all pictures of a job that may be done between two steps of a long work
POLL = 0.02  # seconds; a waiting job starts 10 ms later on average, an idle worker costs under 1 % of a core
REPORT = 0.1  # seconds between two rows of progress
GLANCE = 0.05  # seconds between two looks for such a job
LINGER = 10.0  # seconds without a studio after which an idle worker leaves
log = logging.getLogger("worker")


def main(settings: Settings, linger: float = LINGER) -> int:
    """Serve the queue until it is empty and no studio has lived for `linger` seconds, or a studio of another version came."""
    label, jobs = settings.device, Jobs(settings.home / "jobs.sqlite")
    mine, studio = Lock(settings.home, f"worker-{label}"), Lock(settings.home, "studio")
    if not mine.take(wait=1.0):
        return 3  # another worker has the device
    jobs.interrupt(label, "The worker died.")
    jobs.say(label, {"state": "starting", "version": __version__, "loaded": []})
    worker = _Worker(
        label, jobs, settings
    )  # slow (torch), and before the first claim: a waiting job can be cancelled
    last_needed = last_look = time.monotonic()
    while worker.sound:
        if (job := jobs.claim(label)) is not None:
            worker.run(job)
            last_needed = time.monotonic()
            continue
        time.sleep(POLL)
        if (now := time.monotonic()) - last_look < 1.0:
            continue
        last_look = now
        worker.tell()
        if jobs.noted("version") not in (None, __version__):
            return 0  # a newer studio lives: its own worker comes next
        if studio.take():  # it was free: no web process lives
            studio.drop()
            if now - last_needed > linger:
                return 0
        else:
            last_needed = now
    return 4  # the device is lost to this process: the next one begins afresh


class _Worker:
    """The engine behind the table."""

    def __init__(self, label: str, jobs: Jobs, settings: Settings) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched behind the owner's back
        self._works: dict[str, Work] = {kind: work_of(place) for kind, place in WORKS.items()}
        self._label, self._jobs = label, jobs
        self._said: dict[str, Any] = {}
        self._glanced = 0.0
        self._fault: StudioError | None = None
        self.sound = True
        try:
            self._bench = work_of("studio.engine.context:Bench").open(settings)
            self._bench.pipelines.on_change = self.tell
        except StudioError as error:  # such as a device that is not there: every job has to hear it
            log.error("%s", error)
            self._fault = error
        self.tell()

    def tell(self) -> None:
        """Tell the other processes what this one runs on and has loaded, if that has changed."""
        said: dict[str, Any] = {
            "state": "broken",
            "error": str(self._fault),
            "version": __version__,
            "loaded": [],
        }
        if not self._fault:
            pipelines = self._bench.pipelines
            total, free = pipelines.device.memory()
            said = {
                "state": "ready",
                "device": pipelines.device.title,
                "dtype": pipelines.device.dtype_name,
                "version": __version__,
                "loaded": pipelines.loaded,
                "memory": {"total": total, "free": round(free / 2**28) * 2**28},
            }
        if said != self._said:
            self._said = said
            self._jobs.say(self._label, said)

    def run(self, job: Job) -> None:
        """Do one job and record how it ended. Only here is everything caught: a bug fails its job, not the worker."""
        try:
            if self._fault:
                raise self._fault
            if job.kind not in self._works:
                raise StudioError(
                    f"This studio cannot do {job.kind!r} jobs; it is version {__version__}."
                )
            bench = replace(
                self._bench,
                owner=job.owner,
                **({"between": self.between} if job.kind in LONG else {}),
            )
            result = self._works[job.kind](bench, job.spec, Reporter(self._jobs, job.id))
            self._jobs.finish(job.id, "done", result)
        except Cancelled:
            self._jobs.finish(job.id, "cancelled")
        except StudioError as error:
            self._jobs.finish(job.id, "failed", error=str(error))
        except Exception as error:
            log.exception("job %d (%s)", job.id, job.kind)
            self.sound = (
                type(error).__name__ != "AcceleratorError"
            )  # after one, CUDA fails this process for good
            place = f"worker-{self._label.replace(':', '-')}.log"
            self._jobs.finish(
                job.id,
                "failed",
                error=f"Something went wrong inside the studio ({type(error).__name__}: "
                f"{error!s:.200}). {place} in the home folder has the details.",
            )
        self.tell()

    def between(self, needed: int) -> bool:
        """Do the next waiting picture if it is short and there is memory for it beside what the long work will need.

        True if there was one. The long work has a model of its own and draws nothing from global state, so it does not notice.
        """
        if time.monotonic() - self._glanced < GLANCE:
            return False
        self._glanced = time.monotonic()
        waiting = self._jobs.next("generate")
        if (
            waiting is None
            or not self._short(waiting, needed)
            or (job := self._jobs.claim(self._label, waiting.id)) is None
        ):
            return False
        self.run(job)
        return True

    def _short(self, job: Job, needed: int) -> bool:
        try:
            request = check(GenerationRequest, job.spec)
            return all_steps(request) * request.count <= SHORT and bool(
                self._bench.pipelines.fits(request, needed)
            )
        except StudioError:
            return True  # it says so itself, at once


class Reporter:
    """What a work reports through: at most ten rows a second, more only for a finished picture or a new phase."""

    def __init__(self, jobs: Jobs, id: int) -> None:
        self._jobs, self._id, self._at = jobs, id, 0.0
        self._last = Progress()
        self._preview: bytes | None = None

    def __call__(self, progress: Progress) -> None:
        """Raises Cancelled once somebody has asked for a stop; it is heard within REPORT seconds."""
        self._preview = progress.preview or self._preview
        same = progress.note == self._last.note and len(progress.pictures) == len(
            self._last.pictures
        )
        if same and time.monotonic() - self._at < REPORT:
            return
        self._last, self._at = progress, time.monotonic()
        self._jobs.report(self._id, replace(progress, preview=self._preview))
        self._preview = None


def unload(bench: Any, spec: dict[str, Any], report: Callable[[Progress], None]) -> dict[str, Any]:
    """The work behind Unload: throw the named models out of memory."""
    return {
        "unloaded": [name for name in spec.get("models", []) if bench.pipelines.unload(str(name))]
    }


def supervise(settings: Settings, jobs: Jobs) -> None:
    """Keep one worker on the settings' device. Runs in a daemon thread of the web process.

    A worker that an earlier studio left behind is adopted: taking its lock waits until it ends, in whatever way.
    """
    label, why, pause = settings.device, "The worker died.", 0.0
    lock = Lock(settings.home, f"worker-{label}")
    while True:
        while not lock.take(wait=60.0):
            pass
        jobs.interrupt(label, why)
        lock.drop()
        time.sleep(pause)
        begun = time.monotonic()
        with open(
            settings.home / f"worker-{label.replace(':', '-')}.log", "ab"
        ) as out:  # a pipe would break with this process
            child = subprocess.Popen(
                command(settings),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        code = child.wait()  # its own session: Ctrl+C in the terminal ends the page, not the job
        why = (
            f"The worker was killed ({signal.Signals(-code).name})."
            if code < 0
            else f"The worker ended ({code})."
        )
        pause = (
            min(30.0, 2 * pause + 0.5) if time.monotonic() - begun < 5.0 else 0.0
        )  # broken from the start: do not spin


def command(settings: Settings) -> list[str]:
    """The command line of a worker with these settings."""
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


def work_of(place: str) -> Any:
    """What WORKS names, imported."""
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studio.engine.worker", description="Serve the queue of a home folder."
    )
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision")
    parser.add_argument("--keep-free", type=float)
    parser.add_argument("--preview-every", type=int)
    parser.add_argument(
        "--linger", type=float, default=LINGER, help="seconds to stay when idle and no studio lives"
    )
    return parser


if __name__ == "__main__":
    flags = vars(_parser().parse_args())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stay = flags.pop("linger")
    sys.exit(main(load(**flags), stay))
