"""Sweeps: what was planned, what each cell came to, what somebody thinks of it.

Knows: SQLite rows. A sweep is stored whole before its first cell is painted. A cell is known by the key of its request, whatever
its place, so a sweep with more values keeps all it has. Does not know: how cells are painted (engine/sweeps/job.py).
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from studio.core.base import check
from studio.core.sweeps.spec import SweepSpec
from studio.errors import BadFile, InvalidSpec
from studio.settings import Settings

MOST_STARS = 5
LONGEST_NOTE = 2_000
MOST_EXPORT = 16 * 2**20  # characters
SCHEMA = """
CREATE TABLE IF NOT EXISTS sweeps (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, created REAL NOT NULL, changed REAL NOT NULL, spec TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS cells (
    sweep TEXT NOT NULL, key TEXT NOT NULL, path TEXT NOT NULL, digest TEXT NOT NULL, seconds REAL NOT NULL, error TEXT NOT NULL,
    PRIMARY KEY (sweep, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS numbers (
    sweep TEXT NOT NULL, key TEXT NOT NULL, name TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (sweep, key, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdicts (
    sweep TEXT NOT NULL, key TEXT NOT NULL, stars INTEGER NOT NULL, note TEXT NOT NULL, best INTEGER NOT NULL,
    PRIMARY KEY (sweep, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_owner ON sweeps (owner, changed);
"""


@dataclass(frozen=True)
class Sweep:
    """A stored sweep; its spec has no seed left open."""

    id: str
    owner: str
    created: float
    changed: float
    spec: SweepSpec


@dataclass(frozen=True)
class Verdict:
    """What somebody thinks of a cell; 0 stars is no opinion."""

    stars: int = 0
    note: str = ""
    best: bool = False

    def __bool__(self) -> bool:
        return bool(self.stars or self.note or self.best)


NONE = Verdict()


@dataclass(frozen=True)
class Kept:
    """What a cell came to: a picture, or an error. `numbers` were measured afterwards."""

    path: Path | None = None
    digest: str = ""
    seconds: float = 0.0
    error: str = ""
    numbers: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    verdict: Verdict = NONE

    @property
    def done(self) -> bool:
        return self.path is not None and self.path.is_file()


class Sweeps:
    """All sweeps of a home. One connection behind one lock; worker and web process each open their own."""

    def __init__(self, settings: Settings) -> None:
        """Raises BadFile for a file that is no table of sweeps."""
        self._folder, self._lock = settings.home / "sweeps", threading.Lock()
        path = settings.home / "sweeps.sqlite"
        try:
            self._db = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=5
            )
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            raise BadFile(
                f"{path} cannot be used: {error}. Move it away; the pictures are not in it."
            ) from None

    def close(self) -> None:
        self._db.close()

    # ---- what is planned ----------------------------------------------------------------------------------------

    def add(self, spec: SweepSpec, owner: str, id: str = "") -> str:
        """Store a sweep, or the new spec of one that is there: its cells and verdicts stay. Its id."""
        if spec.open:
            raise ValueError("a sweep is stored with its seed drawn")
        id, now = id or secrets.token_hex(6), time.time()
        sql = """INSERT INTO sweeps VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (id) DO UPDATE SET spec = excluded.spec, changed = excluded.changed"""
        self._do(sql, id, owner, now, now, json.dumps(spec.model_dump(mode="json")))
        return id

    def get(self, id: str) -> Sweep | None:
        """None if there is no such sweep, or it is one of a later studio."""
        return next(iter(self._listed("SELECT * FROM sweeps WHERE id = ?", id)), None)

    def listing(self, owner: str | None = None, limit: int = 50) -> list[Sweep]:
        """The latest changed first."""
        return self._listed(
            "SELECT * FROM sweeps WHERE owner = coalesce(?, owner) ORDER BY changed DESC, rowid DESC LIMIT ?",
            owner,
            limit,
        )

    def specs(self) -> list[str]:
        """What every sweep asks for, as JSON, those of a later studio too."""
        return [row["spec"] for row in self._do("SELECT spec FROM sweeps")]

    def delete(self, id: str) -> None:
        """Forget a sweep; its pictures stay in the gallery."""
        for table in ("cells", "numbers", "verdicts"):
            self._do(f"DELETE FROM {table} WHERE sweep = ?", id)
        self._do("DELETE FROM sweeps WHERE id = ?", id)
        shutil.rmtree(self.folder(id), ignore_errors=True)

    def folder(self, id: str) -> Path:
        """Where its sheets and its viewer lie."""
        return self._folder / id

    def files(self, id: str) -> list[Path]:
        """Sheets, viewer and index, as far as they were written."""
        kinds = (".png", ".html", ".json", ".csv")
        there = [
            path
            for path in self.folder(id).glob("*")
            if path.suffix in kinds and not path.name.startswith(".")
        ]
        return sorted(there, key=lambda path: (kinds.index(path.suffix), path.name))

    # ---- what came of it ----------------------------------------------------------------------------------------

    def keep(self, id: str, key: str, kept: Kept) -> None:
        """What a cell came to, in place of what it was before."""
        self._do(
            "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?)",
            id,
            key,
            str(kept.path or ""),
            kept.digest,
            kept.seconds,
            kept.error,
        )

    def measured(self, id: str, name: str, values: Mapping[str, float]) -> None:
        """A number for each of some cells, by their keys, in place of all of that name."""
        self._do("DELETE FROM numbers WHERE sweep = ? AND name = ?", id, name)
        for key, value in values.items():
            self._do("INSERT INTO numbers VALUES (?, ?, ?, ?)", id, key, name, value)

    def judge(self, id: str, key: str, verdict: Verdict) -> None:
        """Raises InvalidSpec for what is no verdict."""
        faults = (
            []
            if 0 <= verdict.stars <= MOST_STARS
            else [f"Stars: has to be 0 to {MOST_STARS} (not {verdict.stars})."]
        )
        if len(verdict.note) > LONGEST_NOTE:
            faults.append(
                f"Note: has to be at most {LONGEST_NOTE:,} characters long, but has {len(verdict.note):,}."
            )
        if faults:
            raise InvalidSpec(faults)
        self._do(
            "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?)",
            id,
            key,
            verdict.stars,
            verdict.note,
            verdict.best,
        )

    def cells(self, id: str) -> dict[str, Kept]:
        """What is known of a sweep's cells, by the keys of their requests."""
        numbers: dict[str, dict[str, float]] = {}
        for row in self._do("SELECT * FROM numbers WHERE sweep = ?", id):
            numbers.setdefault(row["key"], {})[row["name"]] = row["value"]
        verdicts = {
            row["key"]: Verdict(row["stars"], row["note"], bool(row["best"]))
            for row in self._do("SELECT * FROM verdicts WHERE sweep = ?", id)
        }
        found = {key: Kept(verdict=verdict) for key, verdict in verdicts.items()}
        for row in self._do("SELECT * FROM cells WHERE sweep = ?", id):
            key, path = row["key"], Path(row["path"]) if row["path"] else None
            found[key] = Kept(
                path,
                row["digest"],
                row["seconds"],
                row["error"],
                numbers.get(key, {}),
                verdicts.get(key, NONE),
            )
        return found

    def _do(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def _listed(self, sql: str, *values: object) -> list[Sweep]:
        found = []
        for row in self._do(sql, *values):
            try:
                spec = check(SweepSpec, json.loads(row["spec"]))
            except InvalidSpec:
                continue  # from a studio that knows more
            found.append(Sweep(row["id"], row["owner"], row["created"], row["changed"], spec))
        return found


def exported_verdicts(text: str, id: str) -> dict[str, Verdict]:
    """The verdicts in a file that a viewer exported, by the keys of cells. Raises BadFile where it is of another sweep or none
    of ours."""
    try:
        read = json.loads(text) if len(text) <= MOST_EXPORT else None
        found = {str(entry["key"]): _verdict(entry) for entry in read["verdicts"]}  # type: ignore[index]
        sweep = read["sweep"]  # type: ignore[index]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise BadFile(
            "This is no file of verdicts; use what the viewer's Export button gave."
        ) from None
    if sweep != id:
        raise BadFile(f"These verdicts are of another sweep ({sweep!r:.80}).")
    return found


def _verdict(entry: Mapping[str, Any]) -> Verdict:
    stars, note = int(entry.get("stars", 0)), entry.get("note", "")
    if not 0 <= stars <= MOST_STARS or not isinstance(note, str):
        raise ValueError(stars)
    return Verdict(stars, note[:LONGEST_NOTE], entry.get("best") is True)


def from_words(spec: SweepSpec) -> tuple[str, SweepSpec]:
    """An id, and the spec with its seed drawn, from nothing but the spec: the same file is the same sweep, and goes on."""
    digest = hashlib.sha256(
        json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode()
    ).hexdigest()
    return digest[:12], spec.settled(int(digest[12:20], 16))
