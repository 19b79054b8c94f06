"""The job table: one row per wish, one taker per row, a stop that arrives, and nothing lost by a kill."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from studio.errors import BadFile, Busy, Cancelled
from studio.storage.jobs import MIGRATIONS, GuestLimits, Job, Jobs, Progress
from studio.storage.locks import Lock
from support.sentences import refused


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    table = Jobs(tmp_path / "jobs.sqlite")
    yield table
    table.close()


def python(code: str, *words: object) -> subprocess.Popen[str]:
    """A process that runs `code` and talks back line by line."""
    start = "import os, sys, time\nfrom pathlib import Path\nfrom studio.storage.jobs import Jobs, Progress\nfrom studio.storage.locks import Lock\n"
    command = [sys.executable, "-c", start + code, *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def state(jobs: Jobs, id: int) -> str:
    job = jobs.get(id)
    assert job
    return job.state


def line(jobs: Jobs) -> list[int]:
    return [job.id for job in jobs.list_open()]


@pytest.mark.smoke
def test_a_job_from_wish_to_result(jobs: Jobs) -> None:
    assert jobs.claim("cpu") is None
    assert jobs.get(1) is None
    id = jobs.submit("generate", {"prompt": "größe"}, owner="ann")
    job = jobs.claim("cpu")
    assert job
    assert (job.id, job.kind, job.spec, job.owner, job.device) == (
        id,
        "generate",
        {"prompt": "größe"},
        "ann",
        "cpu",
    )
    assert job.is_open
    assert job.started
    assert jobs.claim("cpu") is None
    progress = Progress(3, 20, "painting", 1.5, ({"path": "a.png"},), b"jpeg")
    jobs.report_progress(id, progress)
    told = jobs.get(id)
    assert told
    assert told.progress == progress
    assert told.revision > job.revision
    jobs.report_progress(id, Progress(4, 20))
    assert jobs.get(id).progress.preview == b"jpeg"  # type: ignore[union-attr]  # the last one stays until the end
    jobs.finish(id, "done", {"pictures": [1]})
    end = jobs.get(id)
    assert end
    assert (end.state, end.result, end.error, end.is_open) == (
        "done",
        {"pictures": [1]},
        None,
        False,
    )
    assert end.ended
    assert end.progress.preview is None
    assert jobs.get_last_ended("ann", "generate") == end
    assert jobs.list_recent() == [end]
    jobs.finish(id, "failed", error="late")
    assert jobs.get(id) == end  # an ended job stays as it ended


def test_the_same_key_is_the_same_job(jobs: Jobs) -> None:
    first = jobs.submit("generate", {"seed": 1}, key="click")
    assert [jobs.submit("generate", {"seed": seed}, key="click") for seed in (1, 2, 3)] == [
        first
    ] * 3
    assert jobs.get(first).spec == {"seed": 1}  # type: ignore[union-attr]
    assert jobs.submit("generate", {"seed": 1}, key="other") != first
    assert jobs.submit("generate", {}) != jobs.submit(
        "generate", {}
    )  # without a key each is its own
    assert len(jobs.list_recent()) == 4


def test_order(jobs: Jobs) -> None:
    a, b, c, d = (jobs.submit("generate", {"k": k}) for k in range(4))
    jobs.move_to_front(c)
    assert line(jobs) == [c, a, b, d]
    jobs.move_to_front(d)
    jobs.move_to_back(a)
    assert line(jobs) == [d, c, b, a]
    e = jobs.submit("generate", {})
    assert line(jobs) == [
        d,
        c,
        b,
        e,
        a,
    ]  # put last behind those that wait; who comes later does not overtake them
    taken = [jobs.claim("cpu") for _ in range(5)]
    assert [job.id for job in taken if job] == [d, c, b, e, a]
    assert line(jobs) == [d, c, b, e, a]  # running ones come first


LIMITS = GuestLimits(own_jobs=8, all_jobs=24)


def ask(jobs: Jobs, guest: str, limits: GuestLimits = LIMITS) -> int:
    return jobs.submit("generate", {}, owner=guest, guest_limits=limits)


def test_guests_wait_behind_the_owner_and_take_turns(jobs: Jobs) -> None:
    ann1, ann2, ann3, bob1, bob2 = (ask(jobs, guest) for guest in ("ann",) * 3 + ("bob",) * 2)
    mine, late = jobs.submit("generate", {}), jobs.submit("generate", {})
    assert line(jobs) == [mine, late, ann1, bob1, ann2, bob2, ann3]
    jobs.move_to_back(mine)
    jobs.move_to_back(ann1)
    assert line(jobs) == [late, mine, bob1, ann2, bob2, ann3, ann1]
    jobs.move_to_front(ann3)  # by the owner, who alone may
    assert line(jobs) == [ann3, late, mine, bob1, ann2, bob2, ann1]
    assert [job.id for job in (jobs.claim("cpu") for _ in range(3)) if job] == [ann3, late, mine]
    peeked = jobs.peek("generate")
    assert peeked
    assert peeked.id == bob1


def test_a_guest_has_few_jobs_and_so_have_all_guests(jobs: Jobs) -> None:
    limits = GuestLimits(own_jobs=2, all_jobs=3)
    first = ask(jobs, "ann", limits)
    ask(jobs, "ann", limits)
    with refused(Busy):
        ask(jobs, "ann", limits)
    ask(jobs, "bob", limits)
    with refused(Busy):
        ask(jobs, "cleo", limits)
    for _ in range(4):  # the owner is not counted
        jobs.submit("generate", {}, owner="me")
    jobs.cancel(first)
    again = jobs.retry(first, guest_limits=limits)
    assert again
    with refused(Busy):
        jobs.retry(first, guest_limits=limits)
    jobs.cancel(again)
    same = jobs.submit("generate", {}, owner="ann", key="click", guest_limits=limits)
    assert same == jobs.submit("generate", {}, owner="ann", key="click", guest_limits=limits)
    assert jobs.retry(first) is not None  # whoever may ask for any number


def test_two_requests_at_once_are_not_both_the_last(jobs: Jobs, tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    tables = [jobs, Jobs(path)]
    admitted: list[int] = []

    def flood(table: Jobs) -> None:
        for _ in range(10):
            with suppress(Busy):
                admitted.append(ask(table, "ann"))

    threads = [threading.Thread(target=flood, args=(table,)) for table in tables * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tables[1].close()
    assert len(admitted) == len(line(jobs)) == 8


@pytest.mark.smoke
def test_cancel(jobs: Jobs) -> None:
    running, waiting = jobs.submit("generate", {}), jobs.submit("generate", {})
    jobs.claim("cpu")
    jobs.cancel(waiting)
    assert state(jobs, waiting) == "cancelled"
    assert jobs.claim("cpu") is None
    jobs.report_progress(running, Progress(1, 9))
    jobs.cancel(running)
    assert state(jobs, running) == "running"  # it is told, and ends on its own
    with pytest.raises(Cancelled):
        jobs.report_progress(running, Progress(2, 9))
    jobs.finish(running, "cancelled")
    assert state(jobs, running) == "cancelled"
    before = jobs.get(running)
    jobs.cancel(running)
    assert jobs.get(running) == before


def test_report_of_a_job_that_is_not_running_stops_it(jobs: Jobs) -> None:
    id = jobs.submit("generate", {})
    for ghost in (id, 999):
        with pytest.raises(Cancelled):
            jobs.report_progress(ghost, Progress(1, 1))
    assert state(jobs, id) == "queued"


def test_interrupt_and_retry(jobs: Jobs) -> None:
    dead, alive, waiting = (
        jobs.submit("generate", {"k": k}, owner="ann", key=f"{k}") for k in range(3)
    )
    jobs.claim("cuda:0")
    jobs.claim("cuda:1")
    jobs.set_worker_status("cuda:0", {"name": "gone"})
    assert [jobs.retry(id) for id in (dead, waiting, 999)] == [
        None,
        None,
        None,
    ]  # none of them has ended
    jobs.interrupt("cuda:0", "the worker died")
    assert [state(jobs, id) for id in (dead, alive, waiting)] == [
        "interrupted",
        "running",
        "queued",
    ]
    assert jobs.get_worker_status() == {}
    again = jobs.retry(dead)
    assert again
    assert again not in (dead, alive, waiting)
    job = jobs.get(again)
    assert job
    assert (job.state, job.spec, job.owner, job.progress) == (
        "queued",
        {"k": 0},
        "ann",
        Progress(),
    )
    assert jobs.get(jobs.retry(dead, "bob") or 0).owner == "bob"  # type: ignore[union-attr]


def test_watch_tells_each_change_and_ends(jobs: Jobs) -> None:
    id = jobs.submit("generate", {})

    async def watched() -> list[Job]:
        seen = []
        async for job in jobs.watch(id, poll_seconds=0):
            seen.append(job)
            match len(seen):  # the next change is made when the last has been seen
                case 1:
                    jobs.claim("cpu")
                case 2:
                    jobs.report_progress(id, Progress(1, 2))
                case 3:
                    jobs.finish(id, "done")
        return seen

    seen = asyncio.run(watched())
    assert [(job.state, job.progress.step) for job in seen] == [
        ("queued", 0),
        ("running", 0),
        ("running", 1),
        ("done", 1),
    ]


def test_a_beat_for_each_change(jobs: Jobs, tmp_path: Path) -> None:
    other = Jobs(tmp_path / "jobs.sqlite")
    beats = [jobs.get_revision(), jobs.get_revision()]
    assert beats[0] == beats[1]
    for change in (
        lambda: jobs.submit("generate", {}),
        lambda: other.submit("generate", {}),
        lambda: other.claim("cpu"),
    ):
        change()
        beats.append(jobs.get_revision())
    assert len(set(beats)) == 4
    other.set_meta("word", "one")
    other.set_meta("word", "two")
    assert jobs.get_meta("word") == "two"
    assert jobs.get_meta("none") is None
    other.close()


def test_four_processes_take_each_job_once(jobs: Jobs, tmp_path: Path) -> None:
    """None takes more than 60, so that all four are needed for 200, and really meet."""
    ids = [jobs.submit("generate", {}) for _ in range(200)]
    code = (
        "jobs = Jobs(Path(sys.argv[1]))\nprint('ready', flush=True)\nsys.stdin.readline()\n"
        "for _ in range(60):\n    job = jobs.claim(sys.argv[2])\n    if not job: break\n"
        "    jobs.report_progress(job.id, Progress(1, 1, preview=b'x' * 5000))\n    jobs.finish(job.id, 'done')\n    print(job.id)"
    )
    takers = [python(code, tmp_path / "jobs.sqlite", f"cuda:{k}") for k in range(4)]
    for taker in takers:
        assert taker.stdout
        assert taker.stdout.readline() == "ready\n"
    for taker in takers:
        assert taker.stdin
        taker.stdin.write("go\n")
        taker.stdin.flush()
    taken = [int(id) for taker in takers for id in taker.communicate()[0].split()]
    assert [taker.returncode for taker in takers] == [0] * 4
    assert sorted(taken) == ids
    assert {job.state for job in jobs.list_recent(300)} == {"done"}


def test_threads_share_one_table(jobs: Jobs) -> None:
    def work() -> None:
        for _ in range(50):
            jobs.submit("generate", {})
            job = jobs.claim("cpu")
            assert job
            taken.append(job.id)

    taken: list[int] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 201))


def test_a_long_history_costs_nothing(jobs: Jobs) -> None:
    """What each frequent verb really asks of SQLite, with 100,000 ended jobs: an index each time, nothing sorted or scanned."""
    jobs._database._connection.execute("BEGIN")
    jobs._database._connection.executemany(
        "INSERT INTO jobs (kind, spec, owner, state, created, started, ended) "
        "VALUES ('generate', '{}', ?, 'done', 1, 1, ?)",
        ((f"{k % 50}", k) for k in range(100_000)),
    )
    jobs._database._connection.execute("COMMIT")
    ids = [jobs.submit("generate", {}) for _ in range(20)]
    verbs: dict[str, Callable[[], Any]] = {
        "claim": lambda: jobs.claim("cpu"),
        "report": lambda: jobs.report_progress(ids[0], Progress()),
        "get": lambda: jobs.get(ids[0]),
        "first": lambda: jobs.move_to_front(ids[9]),
        "last": lambda: jobs.move_to_back(ids[8]),
        "finish": lambda: jobs.finish(ids[0], "done"),
        "latest": lambda: jobs.get_last_ended("7", "generate"),
        "interrupt": lambda: jobs.interrupt("cpu", "why"),
        "waiting": jobs.list_open,
        "cancel": lambda: jobs.cancel(ids[7]),
        "retry": lambda: jobs.retry(ids[7]),
    }
    for name, verb in verbs.items():
        said: list[str] = []
        jobs._database._connection.set_trace_callback(said.append)
        verb()
        jobs._database._connection.set_trace_callback(None)
        assert said
        plan = [
            row["detail"]
            for sql in said
            for row in jobs._database._connection.execute(f"EXPLAIN QUERY PLAN {sql}")
        ]
        assert plan, name
        assert not [step for step in plan if step.startswith("SCAN")], name
        if name == "claim":
            assert "SEARCH jobs USING COVERING INDEX by_state (state=?)" in plan
            assert not any("TEMP" in step for step in plan)
    assert state(jobs, ids[0]) == "done"


def test_a_later_studios_table_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with sqlite3.connect(path) as later:
        later.executescript(
            f"CREATE TABLE jobs (future TEXT); PRAGMA user_version = {len(MIGRATIONS) + 1}"
        )
    later.close()
    with pytest.raises(BadFile, match=rf"{len(MIGRATIONS) + 1}.*{len(MIGRATIONS)}"):
        Jobs(path)  # its sentence is that of storage/test_database.py
    later = sqlite3.connect(path)
    assert [row[0] for row in later.execute("SELECT name FROM sqlite_master")] == ["jobs"]
    later.close()


def test_no_table_at_all_is_said_plainly(tmp_path: Path) -> None:
    with refused(BadFile):
        Jobs(tmp_path / "nowhere" / "jobs.sqlite")


def test_a_kill_loses_no_row(jobs: Jobs, tmp_path: Path) -> None:
    writer = python(
        "jobs = Jobs(Path(sys.argv[1]))\nwhile True: print(jobs.submit('generate', {'a': 'x' * 500}), flush=True)",
        tmp_path / "jobs.sqlite",
    )
    assert writer.stdout
    told = [int(writer.stdout.readline()) for _ in range(100)]
    writer.kill()  # SIGKILL, wherever it is
    told += [
        int(word) for word in writer.stdout if word.endswith("\n")
    ]  # communicate() would lose what was read ahead
    writer.communicate()
    assert len(told) >= 100
    assert all(state(jobs, id) == "queued" for id in told)
    check = sqlite3.connect(tmp_path / "jobs.sqlite")
    assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check.close()
    assert len(line(jobs)) - len(told) in (
        0,
        1,
    )  # it may have died between writing a row and saying so


@pytest.mark.slow
def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    holder = python(
        "lock = Lock(Path(sys.argv[1]), 'cuda:0')\nassert lock.acquire()\nprint(os.getpid(), flush=True)\n"
        "time.sleep(600)",
        tmp_path,
    )
    assert holder.stdout
    assert int(holder.stdout.readline()) == holder.pid != os.getpid()
    lock = Lock(tmp_path, "cuda:0")
    assert not lock.acquire()
    assert Lock(tmp_path, "cuda:1").acquire()
    holder.kill()
    holder.communicate()
    assert lock.acquire(timeout_seconds=10)
    assert not Lock(tmp_path, "cuda:0").acquire()
    lock.release()
    assert Lock(tmp_path, "cuda:0").acquire()


def test_a_job_can_be_taken_out_of_turn(jobs: Jobs) -> None:
    first, picture, other = (jobs.submit(kind, {}) for kind in ("sweep", "generate", "generate"))
    waiting = jobs.peek("generate")
    assert waiting
    assert (waiting.id, waiting.state) == (picture, "queued")
    assert jobs.peek("train") is None
    taken = jobs.claim("cpu", picture)
    assert taken
    assert (taken.id, taken.state) == (picture, "running")
    assert jobs.claim("cpu", picture) is None  # it does not wait any more
    assert [job.id for _ in range(2) if (job := jobs.claim("cpu"))] == [first, other]


def test_numbers_travel(jobs: Jobs) -> None:
    id = jobs.submit("train", {})
    jobs.claim("cpu")
    jobs.report_progress(id, Progress(1, 9, metrics={"loss": 0.25}))
    assert jobs.get(id).progress.metrics == {"loss": 0.25}  # type: ignore[union-attr]


def test_a_tab_of_a_browser_has_its_own_jobs(jobs: Jobs) -> None:
    first, second = (jobs.submit("generate", {}, owner="ann", tab=tab) for tab in ("a", "b"))
    assert [job.id for job in jobs.list_open("ann", tab="a")] == [first]
    assert [job.id for job in jobs.list_recent(owner="ann", tab="b")] == [second]
    assert [job.id for job in jobs.list_recent(owner="ann")] == [second, first]
    jobs.cancel(first)
    again = jobs.retry(first)
    assert again
    assert [job.id for job in jobs.list_open("ann", tab="a")] == [again]


def test_long_lists_come_in_pieces(jobs: Jobs) -> None:
    ids = [jobs.submit("generate", {"prompt": str(number)}) for number in range(9)]
    for id in ids[:4]:
        jobs.cancel(id)
    assert (jobs.count(is_open=True), jobs.count(is_open=False)) == (5, 4)
    assert (jobs.count("ann", is_open=True), jobs.count("", is_open=True)) == (0, 5)
    assert [job.id for job in jobs.list_open(limit=2, offset=1)] == ids[5:7]
    assert [job.id for job in jobs.list_ended(2, 1)] == [ids[2], ids[1]]


@pytest.mark.smoke
def test_two_lanes_take_each_their_kinds_in_order(jobs: Jobs) -> None:
    kinds = ["download", "generate", "download", "bake", "generate"]
    ids = [jobs.submit(kind, {}) for kind in kinds]
    jobs.move_to_front(ids[2])
    lane = {"kinds": ("download",)}
    others = {"other_than": ("download",)}
    assert [job.id for _ in range(3) if (job := jobs.claim("cpu", **lane))] == [ids[2], ids[0]]
    taken = [job.id for _ in range(4) if (job := jobs.claim("cpu", **others))]
    assert taken == [ids[1], ids[3], ids[4]]
    assert jobs.claim("cpu", ids[0], **lane) is None
