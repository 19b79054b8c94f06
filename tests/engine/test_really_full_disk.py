"""A disk that is really full: a small file system in memory, a real supervisor, real workers, a real kill."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from studio.errors import DiskError
from studio.settings import Settings, load
from studio.storage.jobs import Job, Jobs

pytestmark = pytest.mark.slow
DISK_BYTES = 16 * 2**20
LEFT_BYTES = 60 * 2**10
FOUR: dict[str, Any] = {
    "prompt": "a boat",
    "steps": 2,
    "width": 256,
    "height": 256,
    "seed": 1,
    "num_images": 4,
}
STUDIO = """
import sys, threading, time
from pathlib import Path
from studio.services import supervisor as module
from studio.settings import load
from studio.storage.jobs import Jobs
from studio.storage.locks import Lock

home = Path(sys.argv[1])
lock = Lock(home, "studio")
assert lock.acquire(timeout_seconds=5)
module.MIN_FREE_DISK_BYTES = 2**15  # the whole disk is smaller than what is said to be little
supervisor = module.Supervisor(load(home=home, device="cpu", keep_free=0), Jobs(home / "jobs.sqlite"))
threading.Thread(target=supervisor.run, daemon=True).start()
while True:
    Path(sys.argv[2]).write_text(supervisor.problem)
    time.sleep(0.1)
"""


def list_workers(home: Path) -> list[psutil.Process]:
    """The worker processes of a home and no other's."""
    lines = [(one, one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]
    return [one for one, line in lines if "studio.engine.worker" in line and str(home) in line]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs a user who may mount a file system in memory")
    yield folder
    for process in list_workers(folder / "home"):
        process.kill()
        process.wait(10)
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def settings(small_disk: Path) -> Settings:
    return load(home=small_disk / "home", device="cpu", keep_free=0)


@pytest.fixture
def problem_file(settings: Settings, tmp_path: Path) -> Iterator[Path]:
    """What the supervisor of a studio that lives says; the file lies on another disk."""
    file = tmp_path / "problem.txt"
    file.write_text("")
    process = subprocess.Popen([sys.executable, "-c", STUDIO, str(settings.home), str(file)])
    yield file
    process.kill()
    process.wait()


def wait_until(is_true: Callable[[], Any], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.05)


def wait_for_end(jobs: Jobs, job_id: int) -> Job:
    wait_until(lambda: not jobs.get(job_id).is_open)  # type: ignore[union-attr]
    job = jobs.get(job_id)
    assert job
    return job


def fill(settings: Settings, left_bytes: int) -> Path:
    """Write a file that leaves so much of the disk."""
    path = settings.home / "filler"
    with open(path, "ab") as file:
        while (free := shutil.disk_usage(settings.home).free - left_bytes) > 0:
            try:
                file.write(bytes(min(free, 2**16)))
                file.flush()
            except OSError:
                break
    return path


def test_four_images_with_60_kb_left_and_a_kill(settings: Settings, problem_file: Path) -> None:
    """The blocker: the supervisor's thread ended with the first error, and no worker ever came back."""
    jobs = Jobs(settings.home / "jobs.sqlite")
    assert wait_for_end(jobs, jobs.submit("generate", FOUR | {"num_images": 1})).state == "done"

    filler = fill(settings, LEFT_BYTES)
    failing = jobs.submit("generate", FOUR)
    wait_until(lambda: problem_file.read_text().startswith("The disk is full"))
    time.sleep(2)  # the worker cannot even record that the job failed, and waits
    os.unlink(filler)
    job = wait_for_end(jobs, failing)
    assert job.state == "failed"
    assert "Is the disk full?" in (job.error or "")
    for path in settings.outputs.rglob("*.png"):
        with Image.open(path) as image:
            image.load()  # whole, those that were finished before

    # The worker is still alive, and goes on as if nothing had been.
    assert wait_for_end(jobs, jobs.submit("generate", FOUR | {"seed": 2})).state == "done"

    running = jobs.submit("generate", FOUR | {"seed": 3, "steps": 150, "num_images": 20})
    waiting = jobs.submit("generate", FOUR | {"seed": 4})
    wait_until(lambda: jobs.get(running).progress.step > 1)  # type: ignore[union-attr]
    fill(settings, 0)
    for process in list_workers(settings.home):
        process.kill()
    wait_until(lambda: "disk" in problem_file.read_text())
    with suppress(DiskError):  # in words, if SQLite has no page left of its own
        jobs.submit("generate", FOUR | {"num_images": 1})
    time.sleep(2)  # the supervisor tries, and is refused
    os.unlink(filler)
    assert wait_for_end(jobs, waiting).state == "done"
    assert wait_for_end(jobs, running).state == "interrupted"
    wait_until(lambda: not problem_file.read_text())
    jobs.close()
