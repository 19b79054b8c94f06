"""The job table: the only thing that the web process and the workers share.

Knows: rows, states, order, whose a job is, how a stop travels, what a worker says of itself.
Does not know: what a job does; torch; gradio.

    queued ──claim──▶ running ──finish──▶ done | failed | cancelled
       └──cancel──▶ cancelled   └──(its worker died)──▶ interrupted      retry: a new row with the same spec

Every verb is one SQL statement, so none can be half done and none needs a transaction. A worker has a device by
holding its `Lock`, which the system drops when the process dies, however it dies: no heartbeat, no pid to compare.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from studio.errors import BadFile, Cancelled

VERSION = 1  # of the tables; a file of a later one is refused
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, spec TEXT NOT NULL, owner TEXT NOT NULL, key TEXT UNIQUE,
    state TEXT NOT NULL DEFAULT 'queued', rank REAL NOT NULL DEFAULT 0, device TEXT, stop INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL, started REAL, ended REAL, error TEXT, result TEXT,
    beat INTEGER NOT NULL DEFAULT 0, progress TEXT NOT NULL DEFAULT '{}', preview BLOB
);
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, rank, id);
CREATE INDEX IF NOT EXISTS by_owner ON jobs (owner, ended);
CREATE TABLE IF NOT EXISTS workers (device TEXT PRIMARY KEY, said TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
OPEN = ("running", "queued")


@dataclass(frozen=True)
class Progress:
    """The latest word of a running job; `preview` is a small JPEG, `pictures` are those that are saved already, `numbers` what a
    training has measured last."""

    step: int = 0
    total: int = 0
    note: str = ""
    left: float | None = None  # seconds
    pictures: tuple[dict[str, Any], ...] = ()
    preview: bytes | None = field(default=None, repr=False)
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One row as it was when it was read; `beat` grows with every change."""

    id: int
    kind: str
    spec: dict[str, Any]
    owner: str
    state: str
    device: str | None
    error: str | None
    result: Any
    beat: int
    progress: Progress
    created: float
    started: float | None
    ended: float | None

    @property
    def open(self) -> bool:
        return self.state in OPEN


class Jobs:
    """The table. One connection behind one lock: a call takes some 50 microseconds, and any thread may make it."""

    def __init__(self, path: Path) -> None:
        """Raises BadFile for a file that is no job table, or one of a later studio."""
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=5.0
            )
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")  # readers never wait for the writer
            self._db.execute(
                "PRAGMA synchronous = NORMAL"
            )  # kill -9 loses nothing; a power cut loses the last moment
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise BadFile(
                    f"{path} was written by a later studio (tables {version}, this one knows {VERSION})."
                )
            self._db.executescript(SCHEMA)
            self._db.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.DatabaseError as error:
            raise BadFile(
                f"{path} cannot be used: {error}. Move it away; the pictures are not in it."
            ) from None

    def close(self) -> None:
        self._db.close()

    def _do(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(
                sql, values
            ).fetchall()  # to the end: only then is an UPDATE … RETURNING committed

    # ---- who asks for work --------------------------------------------------------------------------------------

    def submit(
        self, kind: str, spec: dict[str, Any], owner: str = "", key: str | None = None
    ) -> int:
        """Put a job in the queue. `owner` is whose it is; the same `key` twice is the same job."""
        sql = """INSERT INTO jobs (kind, spec, owner, key, created) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (key) DO UPDATE SET key = key RETURNING id"""
        return int(self._do(sql, kind, json.dumps(spec), owner, key, time.time())[0]["id"])

    def cancel(self, id: int) -> None:
        """A waiting job is cancelled at once; a running one hears it at its next report."""
        sql = """UPDATE jobs SET stop = 1, beat = beat + 1, ended = iif(state = 'queued', ?, NULL),
                 state = iif(state = 'queued', 'cancelled', state) WHERE id = ? AND state IN ('queued', 'running')"""
        self._do(sql, time.time(), id)

    def retry(self, id: int, owner: str | None = None) -> int | None:
        """Queue an ended job once more, as a new row; None if there is no such ended job."""
        sql = """INSERT INTO jobs (kind, spec, owner, created)
                 SELECT kind, spec, coalesce(?, owner), ? FROM jobs WHERE id = ? AND ended IS NOT NULL RETURNING id"""
        rows = self._do(sql, owner, time.time(), id)
        return int(rows[0]["id"]) if rows else None

    def first(self, id: int) -> None:
        """Put a waiting job before all other waiting ones."""
        sql = """UPDATE jobs SET rank = (SELECT min(rank) FROM jobs WHERE state = 'queued') - 1, beat = beat + 1
                 WHERE id = ? AND state = 'queued'"""
        self._do(sql, id)

    def last_in_line(self, id: int) -> None:
        """Put a waiting job behind all other waiting ones."""
        sql = """UPDATE jobs SET rank = (SELECT max(rank) FROM jobs WHERE state = 'queued') + 1, beat = beat + 1
                 WHERE id = ? AND state = 'queued'"""
        self._do(sql, id)

    def get(self, id: int) -> Job | None:
        rows = self._do("SELECT * FROM jobs WHERE id = ?", id)
        return _job(rows[0]) if rows else None

    def waiting(self, owner: str | None = None, kind: str | None = None) -> list[Job]:
        """Running and queued jobs, in the order in which they will be done."""
        sql = """SELECT * FROM jobs WHERE state IN ('running', 'queued') AND owner = coalesce(?, owner)
                 AND kind = coalesce(?, kind) ORDER BY state DESC, rank, id"""
        return [_job(row) for row in self._do(sql, owner, kind)]

    def last(self, owner: str, kind: str) -> Job | None:
        """The job of this owner that ended last."""
        sql = "SELECT * FROM jobs WHERE owner = ? AND kind = ? AND ended IS NOT NULL ORDER BY ended DESC, id DESC LIMIT 1"
        rows = self._do(sql, owner, kind)
        return _job(rows[0]) if rows else None

    def history(self, limit: int = 50, owner: str | None = None) -> list[Job]:
        """The latest jobs in whatever state, newest first."""
        sql = "SELECT * FROM jobs WHERE owner = coalesce(?, owner) ORDER BY id DESC LIMIT ?"
        return [_job(row) for row in self._do(sql, owner, limit)]

    def specs(self, page: int = 1000) -> Iterator[str]:
        """What every job asks for, as JSON."""
        last = 0
        while rows := self._do(
            "SELECT id, spec FROM jobs WHERE id > ? ORDER BY id LIMIT ?", last, page
        ):
            last = rows[-1]["id"]
            yield from (row["spec"] for row in rows)

    def beat(self) -> int:
        """A number that changes whenever any process changes anything here: whoever shows the table looks at it first."""
        return int(self._do("PRAGMA data_version")[0][0]) + self._db.total_changes * 1_000_003

    async def watch(self, id: int, every: float = 0.05) -> AsyncIterator[Job]:
        """The job now, and again whenever it has changed, until it has ended. What happens in between is skipped."""
        beat = -1
        while job := self.get(id):
            if job.beat != beat:
                beat = job.beat
                yield job
            if not job.open:
                return
            await asyncio.sleep(every)

    # ---- who works ----------------------------------------------------------------------------------------------

    def claim(self, device: str, id: int | None = None) -> Job | None:
        """Take the first waiting job, or that one if it still waits. One UPDATE: two workers can never take the same one."""
        if not self._do(
            "SELECT 1 FROM jobs WHERE state = 'queued' LIMIT 1"
        ):  # looking takes no write lock
            return None
        sql = """UPDATE jobs SET state = 'running', device = ?, started = ?, beat = beat + 1 WHERE id =
                 (SELECT id FROM jobs WHERE state = 'queued' AND id = coalesce(?, id) ORDER BY rank, id LIMIT 1) RETURNING *"""
        rows = self._do(sql, device, time.time(), id)
        return _job(rows[0]) if rows else None

    def next(self, kind: str) -> Job | None:
        """The first waiting job of a kind, left where it is."""
        rows = self._do(
            "SELECT * FROM jobs WHERE state = 'queued' AND kind = ? ORDER BY rank, id LIMIT 1", kind
        )
        return _job(rows[0]) if rows else None

    def report(self, id: int, progress: Progress) -> None:
        """Say how far it is, and hear whether to stop, in one statement. Raises Cancelled."""
        said = asdict(progress)
        preview = said.pop("preview")
        sql = """UPDATE jobs SET progress = ?, preview = coalesce(?, preview), beat = beat + 1
                 WHERE id = ? AND state = 'running' RETURNING stop"""
        rows = self._do(sql, json.dumps(said), preview, id)
        if not rows or rows[0]["stop"]:
            raise Cancelled

    def finish(self, id: int, state: str, result: Any = None, error: str | None = None) -> None:
        """Close a running job as done, failed or cancelled."""
        sql = """UPDATE jobs SET state = ?, result = ?, error = ?, ended = ?, preview = NULL, beat = beat + 1
                 WHERE id = ? AND state = 'running'"""
        self._do(sql, state, json.dumps(result), error, time.time(), id)

    def interrupt(self, device: str, why: str) -> None:
        """Close what a dead worker left running. Only for who holds the lock of that device."""
        sql = """UPDATE jobs SET state = 'interrupted', error = ?, ended = ?, preview = NULL, beat = beat + 1
                 WHERE state = 'running' AND device = ?"""
        self._do(sql, why, time.time(), device)
        self._do("DELETE FROM workers WHERE device = ?", device)

    def say(self, device: str, said: dict[str, Any]) -> None:
        """What a worker tells of itself: what it runs on, what it has loaded."""
        sql = "INSERT INTO workers VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET said = excluded.said, at = excluded.at"
        self._do(sql, device, json.dumps(said), time.time())

    def workers(self) -> dict[str, dict[str, Any]]:
        """What each living worker last said."""
        return {
            row["device"]: json.loads(row["said"])
            for row in self._do("SELECT * FROM workers ORDER BY device")
        }

    def note(self, name: str, value: str) -> None:
        """Keep a word for the other processes."""
        self._do(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            name,
            value,
        )

    def noted(self, name: str) -> str | None:
        rows = self._do("SELECT value FROM meta WHERE name = ?", name)
        return str(rows[0]["value"]) if rows else None


def _job(row: sqlite3.Row) -> Job:
    said = json.loads(row["progress"])
    said["pictures"] = tuple(said.get("pictures", ()))
    return Job(
        id=row["id"],
        kind=row["kind"],
        spec=json.loads(row["spec"]),
        owner=row["owner"],
        state=row["state"],
        device=row["device"],
        error=row["error"],
        result=json.loads(row["result"] or "null"),
        beat=row["beat"],
        progress=Progress(**said, preview=row["preview"]),
        created=row["created"],
        started=row["started"],
        ended=row["ended"],
    )


class Lock:
    """`name` belongs to this process until it ends.

    It is an exclusive SQLite transaction held open: that works on every system and ends with the process on kill -9. An
    flock would be inherited by forked children, so that a data loader could keep its dead worker alive.
    """

    def __init__(self, home: Path, name: str) -> None:
        self._db = sqlite3.connect(
            home / f"{name.replace(':', '-')}.lock", isolation_level=None, check_same_thread=False
        )

    def take(self, wait: float = 0.0) -> bool:
        """True if it is ours now; False if somebody alive still holds it after `wait` seconds."""
        self._db.execute(f"PRAGMA busy_timeout = {int(wait * 1000)}")
        try:
            self._db.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            return False
        return True

    def drop(self) -> None:
        self._db.execute("ROLLBACK")
