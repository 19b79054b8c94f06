"""Keeps a worker alive on a device, buries the dead ones, and says why nothing runs.

Knows: how a worker's process is started, when to wait before the next, what keeps one from working.
Does not know: what a worker does; who is told (ui/components/notice.py); torch.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from studio import __version__
from studio.errors import StudioError
from studio.settings import Settings
from studio.storage import atomic
from studio.storage.jobs import Jobs
from studio.storage.locks import Lock, lengthen_pause

LOOK_SECONDS = 1.0  # between two looks at how a worker is
MIN_FREE_DISK_BYTES = 16 * 2**20  # below it an image of 4 megapixels may not fit any more
MAX_LOG_BYTES = 5 * 2**20  # a log that is larger is put aside when a worker starts
PEACEFUL_CODES = (0, 3)  # nobody needed it, or another had the device already
UNKNOWN_END = "The worker died."
log = logging.getLogger(__name__)


class Supervisor:
    """Keeps one worker on the settings' device, whatever happens.

    A worker that an earlier studio left behind is adopted: taking its lock waits until it ends, in
    whatever way.
    """

    def __init__(
        self, settings: Settings, jobs: Jobs, advise_on_space: Callable[[], str] = str
    ) -> None:
        self._settings, self._jobs = settings, jobs
        self._advise_on_space = advise_on_space  # says what of the home can go, where it is full
        self._device = settings.device
        self._lock: Lock | None = None
        self._last_end = UNKNOWN_END  # what the jobs of the last worker are told
        self._pause_seconds = 0.0
        self._problem = ""
        self._problem_lock = threading.Lock()

    @property
    def problem(self) -> str:
        """Why nothing runs, as sentences for the owner; empty while all is well. For any thread."""
        with self._problem_lock:
            return self._problem

    def run(self) -> NoReturn:
        """Supervise until the process ends, in a daemon thread of the web process.

        No error ends it: a disk that is full now may have space in a minute.
        """
        while True:
            try:
                self._take_device()
                self._run_worker()
            except Exception as error:
                self._handle_error(error)
            time.sleep(self._pause_seconds)

    def _take_device(self) -> None:
        """Wait until no worker has the device, and close the jobs of the last one."""
        self._jobs.set_meta("version", __version__)  # a worker of another one leaves
        if self._lock is None:
            self._lock = Lock(self._settings.home, f"worker-{self._device}")
        while not self._lock.acquire(timeout_seconds=LOOK_SECONDS):
            self._set_problem(self._find_problem())
        try:
            self._jobs.interrupt(self._device, self._last_end)
        finally:
            self._lock.release()
        self._last_end = UNKNOWN_END

    def _run_worker(self) -> None:
        """Start a worker and wait for its end."""
        process = self._start_worker()
        was_ready = False
        while (code := _wait(process, LOOK_SECONDS)) is None:
            problem = self._find_problem()
            was_ready = was_ready or self._is_ready()
            if was_ready:
                self._pause_seconds = 0.0
            # Until it is ready, what befell the last one still holds.
            if was_ready or problem:
                self._set_problem(problem)
        if code in PEACEFUL_CODES:
            return
        self._last_end = _describe_end(code)
        if was_ready:
            return
        self._pause_seconds = lengthen_pause(self._pause_seconds)
        self._set_problem(
            f"Nothing is running. {self._last_end} It had not started working yet; "
            f"{_log_path(self._settings).name} in the home folder may say why. Another one is "
            f"started every {math.ceil(self._pause_seconds)} s."
        )

    def _start_worker(self) -> subprocess.Popen[bytes]:
        """Start a worker's process; without a log where the disk takes none."""
        with _open_log(_log_path(self._settings)) as log_file:  # a pipe would break with this one
            return subprocess.Popen(
                worker_command(self._settings),
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                **_build_detaching_flags(),
            )

    def _is_ready(self) -> bool:
        try:
            status = self._jobs.get_worker_status().get(self._device, {})
        except StudioError:
            return False
        return status.get("state") in ("ready", "broken")

    def _find_problem(self) -> str:
        """Return what keeps a living worker from its work; empty if nothing does."""
        try:
            status = self._jobs.get_worker_status().get(self._device, {})
        except StudioError as error:
            return str(error)
        if status.get("state") == "broken":
            return str(status.get("error"))
        try:
            free_bytes = shutil.disk_usage(self._settings.home).free
        except OSError as error:
            return (
                f"{self._settings.home} cannot be reached: {error.strerror}. Is its disk connected?"
            )
        if free_bytes < MIN_FREE_DISK_BYTES:
            state = "nearly full" if free_bytes >= 2**20 else "full"
            return (
                f"The disk is {state}: {free_bytes // 2**20} MB are left for "
                f"{self._settings.home}. Free some space; waiting jobs then continue on their "
                f"own. {self._describe_space()}".rstrip()
            )
        return ""

    def _describe_space(self) -> str:
        """Return what of the home can go; empty where nothing can, or it cannot be seen."""
        with suppress(StudioError):
            return self._advise_on_space()
        return ""

    def _handle_error(self, error: Exception) -> None:
        """Say what went wrong, and begin anew with the lock after a pause that grows."""
        self._pause_seconds = lengthen_pause(self._pause_seconds)
        known = error if isinstance(error, StudioError) else atomic.find_disk_error(error)
        sentence = str(known or f"No worker could be started: {type(error).__name__}: {error}.")
        if not known:
            log.exception("the supervisor of %s goes on", self._device)
        self._set_problem(
            f"Nothing is running. {sentence} It is tried again every "
            f"{math.ceil(self._pause_seconds)} s."
        )
        lock, self._lock = self._lock, None
        if lock:
            lock.close()

    def _set_problem(self, problem: str) -> None:
        with self._problem_lock:
            is_new, self._problem = problem != self._problem, problem
        if is_new and problem:
            log.warning("%s", problem)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Return the status of a process that ends within this time, else None."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _describe_end(code: int) -> str:
    if code >= 0:
        return f"The worker ended ({code})."
    try:
        return f"The worker was killed ({signal.Signals(-code).name})."
    except ValueError:  # one of those that have no name
        return f"The worker was killed (signal {-code})."


def _log_path(settings: Settings) -> Path:
    return settings.home / f"worker-{settings.device.replace(':', '-')}.log"


def _open_log(path: Path) -> IO[bytes]:
    """Open a log for appending; put one aside that has grown large, in place of an older one."""
    with suppress(OSError):  # then it grows on
        if path.stat().st_size > MAX_LOG_BYTES:
            os.replace(path, path.with_suffix(".old.log"))
    try:
        return open(path, "ab")
    except OSError as error:
        log.warning("%s: the worker starts without a log", atomic.write_error(path, error))
        return open(os.devnull, "ab")


def _build_detaching_flags() -> dict[str, Any]:
    """Return what keeps Ctrl+C in the terminal from the worker: it ends the page, not the job."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def worker_command(settings: Settings) -> list[str]:
    """Return the command line of a worker with these settings."""
    switches = {"--mark-ai": settings.mark_ai, "--comfyui-graphs": settings.comfyui_graphs}
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
        "--memory",
        settings.memory,
        "--preview-every",
        str(settings.preview_every),
        "--pictures-carry",
        settings.pictures_carry,
        *(
            word
            for flag, value in switches.items()
            if value is not None
            for word in (flag, "yes" if value else "no")
        ),
    ]
