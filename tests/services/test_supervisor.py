"""The supervisor outlives what keeps a worker from running, says what it is, and goes on once it is over."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from studio.services import supervisor as module
from studio.services.supervisor import Supervisor
from studio.settings import Settings
from studio.storage.jobs import Jobs
from studio.storage.locks import Lock
from support.faulty_disk import faulty_disk
from support.sentences import check_sentence

READY = (
    "import sys, time; from pathlib import Path; from studio.storage.jobs import Jobs; from studio.storage.locks import Lock; "
    "home = Path(sys.argv[1]); lock = Lock(home, 'worker-cpu'); assert lock.acquire(5); print('alive', flush=True); "
    "Jobs(home / 'jobs.sqlite').set_worker_status('cpu', {'state': 'ready'}); time.sleep(60)"
)


class Stop(BaseException):
    """Ends a supervisor, which nothing else does."""


@pytest.fixture
def jobs(settings: Settings) -> Iterator[Jobs]:
    table = Jobs(settings.home / "jobs.sqlite")
    yield table
    table.close()


@pytest.fixture
def run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Jobs, str], Supervisor]]:
    """`run(jobs, code)` supervises a worker that is such a program, with pauses of a moment. All end with the test."""
    ended = threading.Event()
    threads: list[threading.Thread] = []
    processes: list[subprocess.Popen[bytes]] = []

    def sleep(_seconds: float) -> None:
        if ended.wait(0.02):
            raise Stop

    def start(*values: Any, **more: Any) -> subprocess.Popen[bytes]:
        processes.append(real_popen(*values, **more))
        return processes[-1]

    def supervise(supervisor: Supervisor) -> None:
        with suppress(Stop):
            supervisor.run()

    def run(jobs: Jobs, code: str = READY) -> Supervisor:
        command = [sys.executable, "-c", code, str(settings.home)]
        monkeypatch.setattr(module, "worker_command", lambda _settings: command)
        supervisor = Supervisor(settings, jobs)
        threads.append(threading.Thread(target=supervise, args=(supervisor,), daemon=True))
        threads[-1].start()
        return supervisor

    real_popen = subprocess.Popen
    monkeypatch.setattr(module.subprocess, "Popen", start)
    monkeypatch.setattr(module.time, "sleep", sleep)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(module, "MIN_FREE_DISK_BYTES", 0)  # whatever this machine has
    yield run
    ended.set()
    for process in processes:
        process.kill()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def wait_until(is_true: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    pause = threading.Event()
    while not is_true():
        assert time.monotonic() < end
        pause.wait(0.02)


def is_ready(jobs: Jobs) -> bool:
    return bool(jobs.get_worker_status().get("cpu", {}).get("state") == "ready")


def check_problem(supervisor: Supervisor) -> None:
    """Expect the sentence of the file; how long the pause is by now is chance."""
    wait_until(lambda: supervisor.problem)
    check_sentence(
        supervisor.problem.partition(" It is tried again")[0].partition(" Another one")[0]
    )


def test_a_lock_that_cannot_be_opened(
    settings: Settings, jobs: Jobs, run: Callable[..., Supervisor]
) -> None:
    (settings.home / "worker-cpu.lock").symlink_to("nowhere/at all")
    supervisor = run(jobs)
    check_problem(supervisor)
    (settings.home / "worker-cpu.lock").unlink()
    wait_until(lambda: is_ready(jobs))
    wait_until(lambda: not supervisor.problem)


def test_a_log_that_cannot_be_opened_is_done_without(
    settings: Settings, jobs: Jobs, run: Callable[..., Supervisor]
) -> None:
    (settings.home / "worker-cpu.log").mkdir()
    supervisor = run(jobs)
    wait_until(lambda: is_ready(jobs))
    assert supervisor.problem == ""


def test_a_log_that_has_grown_is_put_aside(
    settings: Settings,
    jobs: Jobs,
    run: Callable[..., Supervisor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_LOG_BYTES", 100)
    log = settings.home / "worker-cpu.log"
    log.write_bytes(b"x" * 101)
    run(jobs)
    wait_until(lambda: is_ready(jobs))
    assert log.read_bytes() == b"alive\n"
    assert (settings.home / "worker-cpu.old.log").read_bytes() == b"x" * 101


def test_a_process_that_cannot_be_started(
    jobs: Jobs, run: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without memory; the message is the system's."""
    has_memory = threading.Event()
    start = module.subprocess.Popen

    def fork(*values: Any, **more: Any) -> Any:
        if has_memory.is_set():
            return start(*values, **more)
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(module.subprocess, "Popen", fork)
    supervisor = run(jobs)
    check_problem(supervisor)
    has_memory.set()
    wait_until(lambda: is_ready(jobs))
    wait_until(lambda: not supervisor.problem)


def test_a_worker_that_dies_at_its_start(jobs: Jobs, run: Callable[..., Supervisor]) -> None:
    supervisor = run(jobs, "import no_such_torch")
    check_problem(supervisor)
    first = supervisor.problem
    wait_until(lambda: supervisor.problem != first)  # the pause grows


def test_a_worker_that_is_broken_says_itself_why(
    jobs: Jobs, run: Callable[..., Supervisor]
) -> None:
    broken = "{'state': 'broken', 'error': 'The device cuda:7 is not on this machine.'}"
    supervisor = run(jobs, READY.replace("{'state': 'ready'}", broken))
    check_problem(supervisor)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_delays_the_burial_of_a_dead_workers_job(
    settings: Settings, run: Callable[..., Supervisor], number: int
) -> None:
    """Where the job table takes nothing, the supervisor alone can say so."""
    with faulty_disk(settings.home) as disk:
        jobs = Jobs(settings.home / "jobs.sqlite")
        job_id = jobs.submit("generate", {})
        jobs.claim("cpu")
        disk.arm_for_good(number)
        supervisor = run(jobs)
        check_problem(supervisor)
        assert jobs.get(job_id).state == "running"  # type: ignore[union-attr]
        disk.disarm()
        wait_until(lambda: is_ready(jobs))
        job = jobs.get(job_id)
        assert job
        assert (job.state, job.error) == ("interrupted", "The worker died.")
        wait_until(lambda: not supervisor.problem)


def test_little_space_is_said_before_work_fails(
    jobs: Jobs, run: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIN_FREE_DISK_BYTES", 2**62)
    supervisor = run(jobs)
    wait_until(lambda: supervisor.problem)
    assert supervisor.problem.startswith("The disk is nearly full: ")


@pytest.mark.slow
def test_a_lock_sets_aside_what_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.lock").write_bytes(b"something else" * 100)
    assert Lock(tmp_path, "a").acquire()
    assert any("something else" in path.read_text("latin-1") for path in tmp_path.glob("a.lock.*"))
    other = Lock(tmp_path, "b")
    assert other.acquire()
    assert not Lock(tmp_path, "b").acquire()  # held is no error
    other.close()
    with pytest.raises(sqlite3.ProgrammingError):
        other.acquire()
