"""The worker process and the job table together: real processes, real kills."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from studio.engine.demand import Demand
from studio.engine.reporter import Reporter
from studio.engine.worker import _build_parser, _Worker, main
from studio.errors import Cancelled
from studio.services.supervisor import worker_command
from studio.settings import Settings, load
from studio.storage.jobs import Job, Jobs, Progress
from studio.storage.locks import Lock
from support.faulty_disk import faulty_disk

QUICK: dict[str, Any] = {"prompt": "a boat", "steps": 2, "width": 64, "height": 64, "seed": 1}
LONG: dict[str, Any] = QUICK | {"steps": 150, "count": 50}
QUICK_STOP_STEPS = 60  # far fewer than a picture has: a stop is not heard between pictures only


@pytest.fixture
def jobs(settings: Settings) -> Iterator[Jobs]:
    table = Jobs(settings.home / "jobs.sqlite")
    yield table
    table.close()


@pytest.fixture
def studio(settings: Settings) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """`studio()` starts a process that lives as a studio does: holds its lock and supervises. All are ended at the end."""
    code = (
        "import sys; from pathlib import Path; from studio.services.supervisor import Supervisor; from studio.settings import load; "
        "from studio.storage.jobs import Jobs; from studio.storage.locks import Lock; home = Path(sys.argv[1]); lock = Lock(home, 'studio'); "
        "assert lock.acquire(timeout_seconds=5); Supervisor(load(home=home, device='cpu', keep_free=0), Jobs(home / 'jobs.sqlite')).run()"
    )
    started: list[subprocess.Popen[bytes]] = []

    def studio() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", code, str(settings.home)]))
        return started[-1]

    yield studio
    for process in started:
        process.kill()
        process.wait()
    for worker in workers(settings):
        worker.kill()


def workers(settings: Settings) -> list[psutil.Process]:
    """The worker processes of this home and no other's."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "studio.engine.worker" in line and str(settings.home) in line:
            found.append(process)
    return found


def until(true: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def ended(jobs: Jobs, id: int) -> Job:
    until(lambda: not jobs.get(id).is_open)  # type: ignore[union-attr]
    job = jobs.get(id)
    assert job
    return job


def start(settings: Settings, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*worker_command(settings), *more], stderr=subprocess.DEVNULL)


def test_a_worker_has_its_studios_settings(tmp_path: Path) -> None:
    settings = load(
        home=tmp_path,
        device="cpu",
        precision="bfloat16",
        keep_free=2.5,
        memory="low",
        preview_every=7,
        pictures_carry="text",
        mark_ai=False,
        comfyui_graphs=True,
    )
    flags = vars(_build_parser().parse_args(worker_command(settings)[3:]))
    assert load(**{name: value for name, value in flags.items() if name != "linger"}) == settings


def test_works_until_nobody_needs_it(settings: Settings, jobs: Jobs) -> None:
    """Done, failed and unknown jobs, each with its word; then it leaves, for no studio lives."""
    made = jobs.submit("generate", QUICK, owner="ann")
    wrong = jobs.submit("generate", QUICK | {"model": "pokket"}, owner="ann")
    bug = jobs.submit("unload", {"models": 7})
    unknown = jobs.submit("bake", {})
    nothing = jobs.submit("unload", {"models": []})
    freed = jobs.submit("unload", {"models": ["pocket"]})
    assert main(settings, idle_timeout=0.1) == 0
    job = jobs.get(made)
    assert job
    assert job.state == "done"
    assert Path(job.result["pictures"][0]["path"]).is_file()
    assert job.progress.step == job.progress.total == 2
    failures = {id: jobs.get(id) for id in (wrong, bug, unknown)}
    assert {one.state for one in failures.values() if one} == {"failed"}
    said = {id: one.error or "" for id, one in failures.items() if one}
    assert said[wrong].startswith("There is no model 'pokket'")
    assert said[bug].startswith("Something went wrong inside the studio (TypeError")
    assert "\n" not in said[bug]
    assert "cannot run 'bake' jobs" in said[unknown]
    assert [jobs.get(id).result for id in (nothing, freed)] == [
        {"unloaded": []},
        {"unloaded": ["pocket"]},
    ]  # type: ignore[union-attr]
    from studio.storage.gallery import Gallery

    gallery = Gallery(settings)
    assert [picture.owner for picture in gallery.search()] == ["ann"]
    gallery.close()


@pytest.mark.slow
def test_a_device_has_one_worker_a_stop_is_heard_and_a_dead_one_is_replaced(
    settings: Settings, jobs: Jobs, studio: Callable[[], subprocess.Popen[bytes]]
) -> None:
    web = studio()
    assert ended(jobs, jobs.submit("unload", {"models": []})).state == "done"
    said = jobs.get_worker_status()["cpu"]
    assert (said["state"], said["dtype"]) == ("ready", "float32")
    (first,) = workers(settings)
    assert start(settings).wait(30) == 3  # a second one leaves at once

    id = jobs.submit("generate", LONG)
    until(lambda: jobs.get(id).progress.step > 2)  # type: ignore[union-attr]
    assert "pocket" in [held["name"] for held in jobs.get_worker_status()["cpu"]["loaded"]]
    web.kill()  # the studio dies, its worker works on, and the next studio finds it
    web.wait()
    web = studio()
    step = jobs.get(id).progress.step  # type: ignore[union-attr]
    until(lambda: jobs.get(id).progress.step > step)  # type: ignore[union-attr]
    assert workers(settings) == [first]
    step = jobs.get(id).progress.step  # type: ignore[union-attr]
    jobs.cancel(id)
    stopped = ended(jobs, id)
    assert stopped.state == "cancelled"
    assert stopped.progress.step - step < QUICK_STOP_STEPS

    id, behind = jobs.submit("generate", LONG), jobs.submit("generate", QUICK)
    until(lambda: jobs.get(id).progress.step > 2)  # type: ignore[union-attr]
    first.kill()
    job = ended(jobs, id)
    assert (job.state, job.error) == (
        "interrupted",
        "The worker died.",
    )  # not this studio's child: it cannot know how
    assert ended(jobs, behind).state == "done"  # by the next one, which this studio started

    id = jobs.submit("generate", LONG)
    until(lambda: jobs.get(id).progress.step > 2)  # type: ignore[union-attr]
    (second,) = workers(settings)
    second.kill()
    job = ended(jobs, id)
    assert (job.state, job.error) == ("interrupted", "The worker was killed (SIGKILL).")
    jobs.set_meta(
        "version", "0.0.0"
    )  # another studio has come: this one's worker leaves when it is idle
    assert ended(jobs, jobs.submit("generate", QUICK)).state == "done"
    (third,) = workers(settings)
    until(lambda: not third.is_running() or third.status() == psutil.STATUS_ZOMBIE)


def test_a_device_that_is_not_there_is_said_in_every_job(settings: Settings, jobs: Jobs) -> None:
    id = jobs.submit("generate", QUICK)
    assert main(settings.model_copy(update={"device": "cuda:7"}), idle_timeout=0.1) == 0
    job = jobs.get(id)
    assert job
    assert job.state == "failed"
    assert "cuda:7 is not on this machine" in (job.error or "")


def test_ten_rows_a_second_but_nothing_lost(jobs: Jobs) -> None:
    id = jobs.submit("generate", {})
    claimed = jobs.claim("cpu")
    assert claimed
    report = Reporter(jobs, id)
    report(Progress(0, 99, "Generating"))
    beat = jobs.get(id).revision  # type: ignore[union-attr]
    for step in range(50):
        report(Progress(step, 99, "Generating", preview=b"jpeg" if step == 1 else None))
    assert jobs.get(id).revision - beat <= 1  # type: ignore[union-attr]
    report(Progress(50, 99, "Generating", images=({"path": "a"},)))  # at once: a picture is ready
    job = jobs.get(id)
    assert job
    assert (job.progress.step, job.progress.preview, len(job.progress.images)) == (50, b"jpeg", 1)
    jobs.cancel(id)
    report(Progress(51, 99, "Generating", images=({"path": "a"},)))  # too soon to ask the table
    time.sleep(0.11)
    with pytest.raises(Cancelled):
        report(Progress(52, 99, "Generating", images=({"path": "a"},)))


def test_a_report_that_the_disk_does_not_take_is_left_out_and_a_stop_is_heard_all_the_same(
    settings: Settings,
) -> None:
    with faulty_disk(settings.home) as disk:
        jobs = Jobs(settings.home / "jobs.sqlite")
        id = jobs.submit("generate", {})
        assert jobs.claim("cpu")
        report = Reporter(jobs, id)
        disk.arm_for_good()
        report(Progress(1, 9, "Generating", preview=b"jpeg"))
        disk.disarm()
        jobs.cancel(id)
        disk.arm_for_good()
        with pytest.raises(Cancelled):
            report(Progress(2, 9, "Decoding"))
        disk.disarm()
        job = jobs.get(id)
        assert job
        assert (job.state, job.progress) == ("running", Progress())
        jobs.close()


def test_a_preview_that_was_not_taken_comes_with_the_next_report(settings: Settings) -> None:
    with faulty_disk(settings.home) as disk:
        jobs = Jobs(settings.home / "jobs.sqlite")
        id = jobs.submit("generate", {})
        assert jobs.claim("cpu")
        report = Reporter(jobs, id)
        disk.arm_for_good()
        report(Progress(1, 9, "Generating", preview=b"jpeg"))
        disk.disarm()
        report(Progress(2, 9, "Decoding"))
        assert jobs.get(id).progress.preview == b"jpeg"  # type: ignore[union-attr]
        jobs.close()


def test_a_worker_waits_for_a_disk_that_takes_neither_claim_nor_end(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work is done once; only its record has to wait."""
    pauses: list[float] = []

    def pause(seconds: float) -> float:
        pauses.append(seconds)
        if len(pauses) == 3:
            disk.disarm()
        return 0.01

    monkeypatch.setattr("studio.engine.worker.lengthen_pause", pause)
    with faulty_disk(settings.home) as disk:
        jobs = Jobs(settings.home / "jobs.sqlite")
        worker = _Worker("cpu", jobs, settings)
        studio = Lock(settings.home, "studio")
        assert studio.acquire()  # somebody still waits for the job
        id = jobs.submit("unload", {"models": []})
        disk.arm_for_good()
        assert not worker.run_next_job()
        assert jobs.get(id).state == "queued"  # type: ignore[union-attr]
        disk.disarm()
        worker._job_functions["unload"] = lambda *_: disk.arm_for_good() or {"unloaded": ["it"]}  # type: ignore[func-returns-value]
        assert worker.run_next_job()
        job = jobs.get(id)
        assert job
        assert (job.state, job.result, len(pauses)) == ("done", {"unloaded": ["it"]}, 3)
        studio.close()
        jobs.close()


def test_a_job_whose_end_nobody_can_record_or_waits_for_is_left_to_the_next_worker(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.engine.worker.lengthen_pause", lambda _seconds: 0.01)
    with faulty_disk(settings.home) as disk:
        jobs = Jobs(settings.home / "jobs.sqlite")
        demand = Demand(settings, jobs, idle_timeout=0.05)
        worker = _Worker("cpu", jobs, settings, demand)
        id = jobs.submit("unload", {"models": []})
        worker._job_functions["unload"] = lambda *_: disk.arm_for_good()
        assert worker.run_next_job()  # it ends, though the disk takes nothing
        assert jobs.get(id).state == "running"  # type: ignore[union-attr]
        disk.disarm()
        jobs.interrupt("cpu", "The worker died.")
        assert jobs.get(id).state == "interrupted"  # type: ignore[union-attr]
        jobs.close()


def test_the_web_process_gets_no_torch() -> None:
    code = (
        "import sys, studio.engine.worker, studio.storage.jobs, studio.storage.gallery, studio.storage.models.library; "
        "heavy = {'torch', 'diffusers', 'transformers', 'peft', 'compel', 'gradio'} & set(sys.modules); "
        "sys.exit(f'{heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
