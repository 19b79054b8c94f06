"""The job table: the only thing that the web process and the workers share.

Knows: rows, states, order, whose a job is, how a stop travels, a worker's status.
Does not know: what a job does; torch; gradio.

    queued ──claim──▶ running ──finish──▶ done | failed | cancelled
       └──cancel──▶ cancelled   └──(its worker died)──▶ interrupted
    retry: a new row of the same spec

Every verb changes rows by one SQL statement, so none can be half done; where a guest's jobs are
counted before one is added, both are one transaction. A worker has a device by holding its `Lock`,
which the system drops when the process dies, however it dies: no heartbeat, no pid to compare.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from studio.errors import Busy, Cancelled
from studio.storage.database import Database, Row

MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, spec TEXT NOT NULL,
        owner TEXT NOT NULL, key TEXT UNIQUE, state TEXT NOT NULL DEFAULT 'queued',
        rank REAL NOT NULL DEFAULT 0, device TEXT, stop INTEGER NOT NULL DEFAULT 0,
        created REAL NOT NULL, started REAL, ended REAL, error TEXT, result TEXT,
        beat INTEGER NOT NULL DEFAULT 0, progress TEXT NOT NULL DEFAULT '{}', preview BLOB
    );
    CREATE INDEX IF NOT EXISTS by_state ON jobs (state, rank, id);
    CREATE INDEX IF NOT EXISTS by_owner ON jobs (owner, ended);
    CREATE TABLE IF NOT EXISTS workers (
        device TEXT PRIMARY KEY, said TEXT NOT NULL, at REAL NOT NULL
    );
    CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    """,
    """
    ALTER TABLE jobs RENAME COLUMN rank TO priority;
    ALTER TABLE jobs RENAME COLUMN beat TO revision;
    ALTER TABLE workers RENAME COLUMN said TO status;
    ALTER TABLE workers RENAME COLUMN at TO updated;
    UPDATE jobs SET kind = 'denoise_strip' WHERE kind = 'strip';
    UPDATE jobs SET kind = 'sweep_export' WHERE kind = 'export';
    UPDATE jobs SET kind = 'training_dry_run' WHERE kind = 'probe';
    UPDATE jobs SET kind = 'training_evaluation' WHERE kind = 'report';
    UPDATE jobs SET kind = 'clip_search' WHERE kind = 'see';
    """,
    """
    ALTER TABLE jobs ADD COLUMN tab TEXT NOT NULL DEFAULT '';
    """,
    """
    ALTER TABLE jobs ADD COLUMN is_guest INTEGER NOT NULL DEFAULT 0;
    """,
)
OPEN_STATES = ("running", "queued")
ENDED_STATES = ("done", "failed", "cancelled", "interrupted")
# Guests' jobs wait behind the owner's, who can still move one to the front. Guests take turns: the
# n-th open job of one has n added, so that it waits for everybody's first.
GUEST_PRIORITY = 1_000_000.0


@dataclass(frozen=True)
class Progress:
    """How far a running job is.

    Attributes:
        step: Steps done.
        total: Steps of the whole job.
        message: What it is doing.
        eta_seconds: Seconds that it still takes, where that can be said.
        images: Entries of the images that are saved already.
        preview: A small JPEG.
        metrics: What a training has measured last.
    """

    step: int = 0
    total: int = 0
    message: str = ""
    eta_seconds: float | None = None
    images: tuple[dict[str, Any], ...] = ()
    preview: bytes | None = field(default=None, repr=False)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GuestLimits:
    """How many jobs may run or wait when another one is asked for.

    Attributes:
        own_jobs: Of the guest who asks.
        all_jobs: Of all guests together.
    """

    own_jobs: int
    all_jobs: int


@dataclass(frozen=True)
class Job:
    """One row as it was when it was read; `revision` grows with every change."""

    id: int
    kind: str
    spec: dict[str, Any]
    owner: str
    state: str
    device: str | None
    error: str | None
    result: Any
    revision: int
    progress: Progress
    created: float
    started: float | None
    ended: float | None
    tab: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it runs or waits."""
        return self.state in OPEN_STATES


class Jobs:
    """The job table of a home; any thread may call."""

    def __init__(self, path: Path) -> None:
        """Open the table. Raises BadFile for no job table, or one of a later studio."""
        self._database = Database(path, MIGRATIONS, holds="the queue and its history")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # ---- for who asks for work ------------------------------------------------------------------

    def submit(
        self,
        kind: str,
        spec: dict[str, Any],
        owner: str = "",
        key: str | None = None,
        *,
        tab: str = "",
        guest_limits: GuestLimits | None = None,
    ) -> int:
        """Put a job in the queue; return its id.

        Args:
            kind: A name of core/jobs.py.
            spec: What the work needs, as JSON values.
            owner: Whose it is.
            key: The same key twice is the same job.
            tab: In which tab of their browser it was asked for.
            guest_limits: What a guest may have; None for the owner's jobs.

        Raises:
            Busy: A limit is met.
        """
        is_guest = guest_limits is not None
        priority = self._next_guest_priority(owner) if is_guest else 0.0
        sql = """INSERT INTO jobs (kind, spec, owner, key, created, tab, is_guest, priority)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT (key) DO UPDATE SET key = key RETURNING id"""
        with self._admission(owner, guest_limits, key):
            values = (kind, json.dumps(spec), owner, key, time.time(), tab, is_guest, priority)
            rows = self._database.execute(sql, *values)
        return int(rows[0]["id"])

    def check_guest_limits(self, owner: str, limits: GuestLimits) -> None:
        """Raise Busy if this guest, or all guests together, have as many open jobs as they may."""
        sql = """SELECT count(*) AS all_jobs, coalesce(sum(owner = ?), 0) AS own_jobs FROM jobs
                 WHERE state IN ('running', 'queued') AND (is_guest OR owner = ?)"""
        counts = self._database.execute(sql, owner, owner)[0]
        if counts["own_jobs"] >= limits.own_jobs:
            raise Busy(
                f"You already have {limits.own_jobs} jobs waiting, the most a guest can have; "
                "wait for one to finish."
            )
        if counts["all_jobs"] >= limits.all_jobs:
            raise Busy(
                f"All guests together have {limits.all_jobs} jobs waiting, the most they can "
                "have; try again when one has finished."
            )

    def _next_guest_priority(self, owner: str) -> float:
        sql = """SELECT count(*) AS num_jobs FROM jobs
                 WHERE state IN ('running', 'queued') AND owner = ?"""
        return GUEST_PRIORITY + float(self._database.execute(sql, owner)[0]["num_jobs"])

    @contextmanager
    def _admission(
        self, owner: str, limits: GuestLimits | None, key: str | None = None
    ) -> Iterator[None]:
        """Count a guest's jobs and let one more be added, as one transaction.

        Of two requests at once only one can be the last that is let in.
        """
        if limits is None:
            yield
            return
        with self._database.transaction():
            is_known = self._database.execute("SELECT 1 FROM jobs WHERE key = ?", key)
            if not is_known:
                self.check_guest_limits(owner, limits)
            yield

    def cancel(self, job_id: int) -> None:
        """Cancel a waiting job at once; a running one learns of it at its next report."""
        sql = """UPDATE jobs SET stop = 1, revision = revision + 1,
                 ended = iif(state = 'queued', ?, NULL),
                 state = iif(state = 'queued', 'cancelled', state)
                 WHERE id = ? AND state IN ('queued', 'running')"""
        self._database.execute(sql, time.time(), job_id)

    def retry(
        self,
        job_id: int,
        owner: str | None = None,
        *,
        tab: str | None = None,
        guest_limits: GuestLimits | None = None,
    ) -> int | None:
        """Queue an ended job again as a new row.

        Args:
            job_id: The job.
            owner: Whose the new one is; None is the owner of the old one.
            tab: In which tab of their browser; None is that of the old one.
            guest_limits: What a guest who asks may have; None for the studio's owner.

        Returns:
            The new job's id; None if there is no such ended job.

        Raises:
            Busy: A limit is met.
        """
        job = self.get(job_id)
        if job is None or job.ended is None:
            return None
        new_owner = job.owner if owner is None else owner
        new_tab = job.tab if tab is None else tab
        priority = self._next_guest_priority(new_owner)
        sql = """INSERT INTO jobs (kind, spec, owner, created, tab, is_guest, priority)
                 SELECT kind, spec, ?, ?, ?, is_guest OR ?, iif(is_guest OR ?, ?, 0)
                 FROM jobs WHERE id = ? RETURNING id"""
        is_guest = guest_limits is not None
        values = (new_owner, time.time(), new_tab, is_guest, is_guest, priority, job_id)
        with self._admission(new_owner, guest_limits):
            rows = self._database.execute(sql, *values)
        return int(rows[0]["id"])

    def move_to_front(self, job_id: int) -> None:
        """Put a waiting job before all other waiting ones."""
        sql = """UPDATE jobs SET revision = revision + 1,
                 priority = (SELECT min(priority) FROM jobs WHERE state = 'queued') - 1
                 WHERE id = ? AND state = 'queued'"""
        self._database.execute(sql, job_id)

    def move_to_back(self, job_id: int) -> None:
        """Put a waiting job behind the other waiting ones: the owner's stay before all guests'."""
        sql = """UPDATE jobs SET revision = revision + 1,
                 priority = (SELECT max(others.priority) FROM jobs AS others
                 WHERE others.state = 'queued' AND others.is_guest = jobs.is_guest) + 1
                 WHERE id = ? AND state = 'queued'"""
        self._database.execute(sql, job_id)

    def get(self, job_id: int) -> Job | None:
        """Return a job, or None."""
        rows = self._database.execute("SELECT * FROM jobs WHERE id = ?", job_id)
        return _job_from_row(rows[0]) if rows else None

    def list_open(
        self,
        owner: str | None = None,
        kind: str | None = None,
        tab: str | None = None,
        *,
        limit: int = -1,
        offset: int = 0,
    ) -> list[Job]:
        """Return running and queued jobs in the order in which they will be done.

        Args:
            owner: Whose; None is everybody's.
            kind: Of which kind; None is of any.
            tab: Of which tab of a browser; None is of any.
            limit: How many at most; -1 is all.
            offset: How many to leave out before.
        """
        sql = """SELECT * FROM jobs WHERE state IN ('running', 'queued')
                 AND owner = coalesce(?, owner) AND kind = coalesce(?, kind)
                 AND tab = coalesce(?, tab)
                 ORDER BY state DESC, priority, id LIMIT ? OFFSET ?"""
        rows = self._database.execute(sql, owner, kind, tab, limit, offset)
        return [_job_from_row(row) for row in rows]

    def count(self, owner: str | None = None, *, is_open: bool) -> int:
        """Return how many jobs run or wait, or how many have ended; `owner` None is everybody's."""
        states = OPEN_STATES if is_open else ENDED_STATES
        places = ", ".join("?" * len(states))
        sql = f"""SELECT count(*) AS number FROM jobs WHERE state IN ({places})
                  AND owner = coalesce(?, owner)"""
        return int(self._database.execute(sql, *states, owner)[0]["number"])

    def get_last_ended(self, owner: str, kind: str) -> Job | None:
        """Return the job of an owner and kind that ended last, or None."""
        sql = """SELECT * FROM jobs WHERE owner = ? AND kind = ? AND ended IS NOT NULL
                 ORDER BY ended DESC, id DESC LIMIT 1"""
        rows = self._database.execute(sql, owner, kind)
        return _job_from_row(rows[0]) if rows else None

    def list_recent(
        self, limit: int = 50, owner: str | None = None, tab: str | None = None
    ) -> list[Job]:
        """Return the latest jobs in whatever state, newest first.

        `owner` None is everybody's, `tab` None that of any tab.
        """
        sql = """SELECT * FROM jobs WHERE owner = coalesce(?, owner) AND tab = coalesce(?, tab)
                 ORDER BY id DESC LIMIT ?"""
        return [_job_from_row(row) for row in self._database.execute(sql, owner, tab, limit)]

    def list_ended(self, limit: int, offset: int = 0) -> list[Job]:
        """Return everybody's jobs that have ended, newest first, after leaving out `offset`."""
        sql = f"""SELECT * FROM jobs WHERE state IN ({", ".join("?" * len(ENDED_STATES))})
                  ORDER BY id DESC LIMIT ? OFFSET ?"""
        rows = self._database.execute(sql, *ENDED_STATES, limit, offset)
        return [_job_from_row(row) for row in rows]

    def iter_specs(self, page_size: int = 1000) -> Iterator[str]:
        """Yield the spec of every job as JSON text."""
        sql = "SELECT id, spec FROM jobs WHERE id > ? ORDER BY id LIMIT ?"
        last_id = 0
        while rows := self._database.execute(sql, last_id, page_size):
            last_id = rows[-1]["id"]
            for row in rows:
                yield row["spec"]

    def get_revision(self) -> int:
        """Return a number that changes whenever any process changes anything here.

        Whoever shows the table compares it first.
        """
        return self._database.revision

    async def watch(self, job_id: int, poll_seconds: float = 0.05) -> AsyncIterator[Job]:
        """Yield a job now, and again whenever it has changed, until it has ended.

        Changes between two polls come as one.
        """
        revision = -1
        while job := self.get(job_id):
            if job.revision != revision:
                revision = job.revision
                yield job
            if not job.is_open:
                return
            await asyncio.sleep(poll_seconds)

    # ---- for workers ----------------------------------------------------------------------------

    def claim(
        self,
        device: str,
        job_id: int | None = None,
        *,
        kinds: Sequence[str] = (),
        other_than: Sequence[str] = (),
    ) -> Job | None:
        """Take the first waiting job, or that one if it still waits; None if there is none.

        One UPDATE: two workers can never take the same job.

        Args:
            device: Of the worker.
            job_id: That job alone; None is any.
            kinds: Of these kinds alone; empty is any.
            other_than: Of none of these kinds.
        """
        places = ", ".join("?" * len(kinds or other_than))
        condition = "state = 'queued' AND id = coalesce(?, id)"
        if kinds or other_than:
            condition += f" AND kind {'IN' if kinds else 'NOT IN'} ({places})"
        values = (job_id, *(kinds or other_than))
        # A SELECT takes no write lock.
        if not self._database.execute(f"SELECT 1 FROM jobs WHERE {condition} LIMIT 1", *values):
            return None
        sql = f"""UPDATE jobs SET state = 'running', device = ?, started = ?,
                 revision = revision + 1
                 WHERE id = (SELECT id FROM jobs WHERE {condition}
                             ORDER BY priority, id LIMIT 1) RETURNING *"""
        rows = self._database.execute(sql, device, time.time(), *values)
        return _job_from_row(rows[0]) if rows else None

    def peek(self, kind: str) -> Job | None:
        """Return the first waiting job of a kind without taking it."""
        sql = "SELECT * FROM jobs WHERE state = 'queued' AND kind = ? ORDER BY priority, id LIMIT 1"
        rows = self._database.execute(sql, kind)
        return _job_from_row(rows[0]) if rows else None

    def report_progress(self, job_id: int, progress: Progress) -> None:
        """Store a running job's progress. Raises Cancelled if it has to stop."""
        values = asdict(progress)
        preview = values.pop("preview")
        sql = """UPDATE jobs SET progress = ?, preview = coalesce(?, preview),
                 revision = revision + 1 WHERE id = ? AND state = 'running' RETURNING stop"""
        rows = self._database.execute(sql, json.dumps(values), preview, job_id)
        if not rows or rows[0]["stop"]:
            raise Cancelled

    def check_stop(self, job_id: int) -> None:
        """Raise Cancelled if a job has to stop; a full disk does not keep this from being heard."""
        sql = "SELECT 1 FROM jobs WHERE id = ? AND state = 'running' AND NOT stop"
        if not self._database.execute(sql, job_id):
            raise Cancelled

    def finish(self, job_id: int, state: str, result: Any = None, error: str | None = None) -> None:
        """Close a running job as done, failed or cancelled."""
        sql = """UPDATE jobs SET state = ?, result = ?, error = ?, ended = ?, preview = NULL,
                 revision = revision + 1 WHERE id = ? AND state = 'running'"""
        self._database.execute(sql, state, json.dumps(result), error, time.time(), job_id)

    def interrupt(self, device: str, reason: str) -> None:
        """Close the jobs of a dead worker. Only for who holds the lock of that device."""
        sql = """UPDATE jobs SET state = 'interrupted', error = ?, ended = ?, preview = NULL,
                 revision = revision + 1 WHERE state = 'running' AND device = ?"""
        self._database.execute(sql, reason, time.time(), device)
        self._database.execute("DELETE FROM workers WHERE device = ?", device)

    def set_worker_status(self, device: str, status: dict[str, Any]) -> None:
        """Store a worker's status: what it runs on, what it has loaded."""
        sql = """INSERT INTO workers VALUES (?, ?, ?)
                 ON CONFLICT DO UPDATE SET status = excluded.status, updated = excluded.updated"""
        self._database.execute(sql, device, json.dumps(status), time.time())

    def get_worker_status(self) -> dict[str, dict[str, Any]]:
        """Return the last status of each living worker by its device."""
        rows = self._database.execute("SELECT * FROM workers ORDER BY device")
        return {row["device"]: _load_object(row["status"]) for row in rows}

    def set_meta(self, name: str, value: str) -> None:
        """Store a text for the other processes."""
        sql = "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
        self._database.execute(sql, name, value)

    def get_meta(self, name: str) -> str | None:
        """Return a text that a process stored, or None."""
        rows = self._database.execute("SELECT value FROM meta WHERE name = ?", name)
        return str(rows[0]["value"]) if rows else None


# The names in rows of the first version.
_FORMER_PROGRESS_KEYS = {
    "note": "message",
    "left": "eta_seconds",
    "pictures": "images",
    "numbers": "metrics",
}


_PROGRESS_FIELDS = {item.name for item in fields(Progress)} - {"preview"}


def _load_json(text: str | None) -> Any:
    """Return the value of a stored text; None for a damaged one: it must not hide other jobs."""
    try:
        return json.loads(text or "null")
    except (ValueError, TypeError, RecursionError):
        return None


def _load_object(text: str | None) -> dict[str, Any]:
    value = _load_json(text)
    return value if isinstance(value, dict) else {}


def _job_from_row(row: Row) -> Job:
    stored_progress = _load_object(row["progress"])
    progress = {
        _FORMER_PROGRESS_KEYS.get(key, key): value for key, value in stored_progress.items()
    }
    progress = {key: value for key, value in progress.items() if key in _PROGRESS_FIELDS}
    images = progress.get("images")
    progress["images"] = tuple(images) if isinstance(images, list) else ()
    return Job(
        id=row["id"],
        kind=row["kind"],
        spec=_load_object(row["spec"]),
        owner=row["owner"],
        state=row["state"],
        device=row["device"],
        error=row["error"],
        result=_load_json(row["result"]),
        revision=row["revision"],
        progress=Progress(**progress, preview=row["preview"]),
        created=row["created"],
        started=row["started"],
        ended=row["ended"],
        tab=row["tab"],
    )
