"""Every change of a dataset, written down before it is made: undo and redo across restarts, and nothing torn by a kill.

Knows: steps and their changes (home/captions.sqlite), how they are carried out forwards and backwards, what a kill left half done.
Does not know: what a caption should say (spec/caption_*.py), which pictures there are (album.py).

A step is first stored with what each file held before and what it is to hold; then the files are written aside and renamed, one by
one; then the step is marked as done. Whoever comes after a kill finds the mark missing and completes it, so a step is either not
begun or done. A file that holds neither what it should have held before nor what it is to hold was changed by another program: it
is left as it is and named. One writer at a time: a lock that ends with its process (storage/jobs.py).

    kind     file                      before, after
    file     a caption's own           its bytes; None where there is no file
    record   a metadata file           the text of one record, with its line's end; None where there is none
    move     a picture or caption      before: its name below the folder; after: the new one; without a key: a whole folder
    source   (none)                    Source as JSON, None for none; kept in the journal itself
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from studio.core.captions.provenance import Source, Writer
from studio.errors import BadFile, Busy
from studio.settings import Settings
from studio.storage.datasets import file_changes
from studio.storage.datasets.file_changes import Change
from studio.storage.jobs import Lock

WAIT = 30.0  # seconds for another writer
AT_ONCE = 8  # files written at the same time: each waits for the disk
SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (
    id INTEGER PRIMARY KEY AUTOINCREMENT, folder BLOB NOT NULL, title TEXT NOT NULL, made REAL NOT NULL, writer TEXT NOT NULL,
    state TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_folder ON steps (folder, id);
CREATE TABLE IF NOT EXISTS changes (
    step INTEGER NOT NULL, number INTEGER NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL, file TEXT NOT NULL, before BLOB,
    after BLOB, old TEXT NOT NULL, new TEXT NOT NULL, made INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (step, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sources (folder BLOB, key TEXT, said TEXT NOT NULL, PRIMARY KEY (folder, key)) WITHOUT ROWID;
"""
State = Literal["done", "undone", "dropped"]


@dataclass(frozen=True)
class Step:
    """A change of a dataset that can be undone as one. `changed` counts its changes, `left` names (key, why) what was left alone.

    `dropped`: it was undone, and then something else was done; it stays in the history but cannot be done again.
    """

    id: int
    title: str
    made: float
    writer: Writer
    state: State
    changed: int
    left: tuple[tuple[str, str], ...] = ()


class Journal:
    """The journal of a home, for all its datasets. Web process and worker each open their own."""

    def __init__(self, settings: Settings) -> None:
        self._lock, self._writers = threading.RLock(), Lock(settings.home, "captions")
        self._db = sqlite3.connect(
            settings.home / "captions.sqlite",
            isolation_level=None,
            check_same_thread=False,
            timeout=WAIT,
        )
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(
            "PRAGMA synchronous = FULL"
        )  # a step has to be on the disk before its files are
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        self._db.close()

    def make(
        self, folder: Path, title: str, writer: Writer, changes: Sequence[Change], into: int = 0
    ) -> Step:
        """Do something new. What was undone before can no longer be done again.

        `into`: the id of a step that this goes on with, if that is still the last thing done; they are undone as one. Raises Busy
        where another program keeps writing, BadFile when the disk does not take the journal.
        """
        with self._writing(folder):
            last = self._newest(folder, "done")
            with self._saving():
                self._db.execute(
                    "UPDATE steps SET state = 'dropped' WHERE folder = ? AND state = 'undone'",
                    (_blob(folder),),
                )
                if into and last == into:
                    id = into
                    self._db.execute("UPDATE steps SET state = 'doing' WHERE id = ?", (id,))
                else:
                    id = int(
                        self._db.execute(
                            "INSERT INTO steps (folder, title, made, writer, state) VALUES (?, ?, ?, ?, 'doing')",
                            (_blob(folder), title, time.time(), writer.model_dump_json()),
                        ).lastrowid
                        or 0
                    )
                first = self._db.execute(
                    "SELECT count(*) FROM changes WHERE step = ?", (id,)
                ).fetchone()[0]
                self._db.executemany(
                    "INSERT INTO changes (step, number, key, kind, file, before, after, old, new) VALUES (?,?,?,?,?,?,?,?,?)",
                    [
                        (
                            id,
                            first + number,
                            one.key,
                            one.kind,
                            one.file,
                            one.before,
                            one.after,
                            one.old,
                            one.new,
                        )
                        for number, one in enumerate(changes)
                    ],
                )
            self._carry(folder, id, forwards=True)
        return self._step(id)

    def begin(self, folder: Path) -> None:
        """Forget a dataset of that name which is no more: its steps cannot be undone, and what was said of its pictures goes."""
        with self._writing(folder), self._saving():
            self._db.execute(
                "UPDATE steps SET state = 'dropped' WHERE folder = ?", (_blob(folder),)
            )
            self._db.execute("DELETE FROM sources WHERE folder = ?", (_blob(folder),))

    def undo(self, folder: Path) -> Step | None:
        """Take the last step back; None if there is none."""
        return self._turn(folder, "done", "undoing")

    def redo(self, folder: Path) -> Step | None:
        """Do again what was undone last; None if there is nothing."""
        return self._turn(folder, "undone", "doing")

    def history(self, folder: Path, limit: int = 100) -> list[Step]:
        """The newest first."""
        return [
            self._step(row["id"])
            for row in self._do(
                "SELECT id FROM steps WHERE folder = ? ORDER BY id DESC LIMIT ?",
                _blob(folder),
                limit,
            )
        ]

    def changes(self, id: int) -> list[Change]:
        """What a step changed (or left, see Step.left), in order."""
        return [
            _change(row)
            for row in self._do("SELECT * FROM changes WHERE step = ? ORDER BY number", id)
        ]

    def written(self, folder: Path) -> Iterator[tuple[str, str, Step]]:
        """(key, caption, step) of everything that stands done, the oldest first; by the keys that pictures have now."""
        rows = self._do(
            """SELECT c.key, c.new, c.step, c.before, c.after FROM changes c JOIN steps s ON s.id = c.step
                           WHERE s.folder = ? AND s.state = 'done' AND c.made
                             AND (c.kind IN ('file', 'record') OR c.kind = 'move' AND c.key = '')
                           ORDER BY c.step, c.number""",
            _blob(folder),
        )
        names, told = (
            dict[str, str](),
            list[tuple[str, str, int]](),
        )  # names: what a folder was called then → what it is called now
        for row in reversed(rows):
            if row["key"]:
                part, slash, below = row["key"].partition("/")
                told.append(
                    (
                        f"{names.get(part, part)}{slash}{below}" if slash else part,
                        row["new"],
                        row["step"],
                    )
                )
            else:
                old, new = (os.fsdecode(name) for name in (row["before"], row["after"]))
                names[old] = names.pop(new, new)
        steps = {id: self._step(id) for id in {id for _, _, id in told}}
        for key, caption, id in reversed(told):
            yield key, caption, steps[id]

    def sources(self, folder: Path) -> dict[str, Source]:
        """What is said of pictures' origins, by key."""
        return {
            row["key"]: Source.model_validate_json(row["said"])
            for row in self._do("SELECT key, said FROM sources WHERE folder = ?", _blob(folder))
        }

    def recover(self, folder: Path) -> None:
        """Complete what a killed process began; nothing happens while another process is writing."""
        if self._open(folder) and self._writers.take():
            try:
                self._recover(folder)
            finally:
                self._writers.drop()

    # ---- carrying out ---------------------------------------------------------------------------------------------

    def _turn(self, folder: Path, state: str, way: str) -> Step | None:
        with self._writing(folder):
            # undone steps are done again in the order in which they were first done: the oldest of them first
            id = self._newest(folder, state) if way == "undoing" else self._oldest_undone(folder)
            if not id:
                return None
            with self._saving():
                self._db.execute("UPDATE steps SET state = ? WHERE id = ?", (way, id))
            self._carry(folder, id, forwards=way == "doing")
        return self._step(id)

    def _carry(self, folder: Path, id: int, forwards: bool) -> None:
        """Bring the files to what the step says, then mark it. It can be done again from anywhere."""
        rows = self._do(
            "SELECT * FROM changes WHERE step = ? AND made = ? ORDER BY number",
            id,
            int(not forwards),
        )
        groups: dict[tuple[str, str], list[sqlite3.Row]] = {}
        for row in rows if forwards else rows[::-1]:
            groups.setdefault((row["kind"], row["file"]), []).append(row)

        def work(group: tuple[tuple[str, str], list[sqlite3.Row]]) -> list[str]:
            (kind, file), members = group
            return file_changes.out(
                folder,
                kind,
                file,
                [_change(row) if forwards else _change(row).back() for row in members],
            )

        files = [group for group in groups.items() if group[0][0] != "source"]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            told = list(pool.map(work, files))
        file_changes.settle(folder, [file for (_, file), _ in files])
        reasons = {
            row["number"]: reason
            for (_, members), each in zip(files, told)
            for row, reason in zip(members, each)
        }
        with self._saving():
            self._mark(folder, id, rows if forwards else rows[::-1], reasons, forwards)

    def _mark(
        self,
        folder: Path,
        id: int,
        rows: Sequence[sqlite3.Row],
        reasons: Mapping[int, str],
        forwards: bool,
    ) -> None:
        """Say of a step and its changes that they are done, or why not; sources are changed here, with the mark."""
        for row in rows:
            if row["kind"] == "source":
                self._set_source(folder, row["key"], row["after"] if forwards else row["before"])
        self._db.executemany(
            "UPDATE changes SET made = ?, reason = ? WHERE step = ? AND number = ?",
            [
                (int(forwards == (not reason)), reason, id, number)
                for number, reason in (
                    (row["number"], reasons.get(row["number"], "")) for row in rows
                )
            ],
        )
        self._db.execute(
            "UPDATE steps SET state = ? WHERE id = ?", ("done" if forwards else "undone", id)
        )

    def _set_source(self, folder: Path, key: str, said: bytes | None) -> None:
        if said is None:
            self._db.execute(
                "DELETE FROM sources WHERE folder = ? AND key = ?", (_blob(folder), key)
            )
        else:
            self._db.execute(
                "INSERT OR REPLACE INTO sources VALUES (?, ?, ?)",
                (_blob(folder), key, said.decode()),
            )

    def _recover(self, folder: Path) -> None:
        for row in self._open(folder):
            for change in self.changes(row["id"]):
                file_changes.tidy(folder, change)
            self._carry(folder, row["id"], forwards=row["state"] == "doing")

    def _open(self, folder: Path) -> list[sqlite3.Row]:
        return self._do(
            "SELECT id, state FROM steps WHERE folder = ? AND state IN ('doing', 'undoing') ORDER BY id",
            _blob(folder),
        )

    @contextmanager
    def _writing(self, folder: Path) -> Iterator[None]:
        """Nobody else writes meanwhile, and what a kill left half done is done first."""
        with self._lock:
            if not self._writers.take(wait=WAIT):
                raise Busy(
                    "Another program of this studio is writing captions; try again in a moment."
                )
            try:
                self._recover(folder)
                yield
            finally:
                self._writers.drop()

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """One transaction."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise BadFile(
                    f"The journal of captions could not be written ({error}). Is the disk full?"
                ) from None
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    # ---- reading --------------------------------------------------------------------------------------------------

    def _do(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def _newest(self, folder: Path, state: str) -> int:
        return int(
            self._do(
                "SELECT max(id) AS id FROM steps WHERE folder = ? AND state = ?",
                _blob(folder),
                state,
            )[0]["id"]
            or 0
        )

    def _oldest_undone(self, folder: Path) -> int:
        return int(
            self._do(
                "SELECT min(id) AS id FROM steps WHERE folder = ? AND state = 'undone'",
                _blob(folder),
            )[0]["id"]
            or 0
        )

    def _step(self, id: int) -> Step:
        row = self._do("SELECT * FROM steps WHERE id = ?", id)[0]
        count = self._do("SELECT count(*) AS n FROM changes WHERE step = ? AND reason = ''", id)[0][
            "n"
        ]
        left = self._do(
            "SELECT key, reason FROM changes WHERE step = ? AND reason != '' ORDER BY number", id
        )
        state = {"doing": "done", "undoing": "undone"}.get(row["state"], row["state"])
        return Step(
            row["id"],
            row["title"],
            row["made"],
            Writer(**json.loads(row["writer"])),
            state,
            count,
            tuple((one["key"], one["reason"]) for one in left),
        )


def _blob(folder: Path) -> bytes:
    return os.fsencode(folder)


def _change(row: sqlite3.Row) -> Change:
    return Change(
        row["key"], row["kind"], row["file"], row["before"], row["after"], row["old"], row["new"]
    )
