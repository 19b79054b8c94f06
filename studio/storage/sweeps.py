"""Stored sweeps: their specs, the results of their cells, people's verdicts.

Knows: SQLite rows. A sweep is stored whole before its first cell is rendered. A cell is identified
by the key of its request, whatever its place, so a sweep that gets more values keeps all its
results. Does not know: how cells are rendered (engine/sweeps/job.py).
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from studio.core.base import validate_stored
from studio.core.sweeps.spec import SweepSpec
from studio.errors import BadFile, InvalidSpec, StudioError, quote
from studio.settings import Settings
from studio.storage.database import Database, Row
from studio.storage.odd_files import explain_odd_file

MAX_STARS = 5
MAX_NOTE_CHARS = 2_000
MAX_EXPORT_CHARS = 16 * 2**20
EXPORT_SUFFIXES = (".png", ".html", ".json", ".csv")
MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS sweeps (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, created REAL NOT NULL, changed REAL NOT NULL,
        spec TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS cells (
        sweep TEXT NOT NULL, key TEXT NOT NULL, path TEXT NOT NULL, digest TEXT NOT NULL,
        seconds REAL NOT NULL, error TEXT NOT NULL, PRIMARY KEY (sweep, key)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS numbers (
        sweep TEXT NOT NULL, key TEXT NOT NULL, name TEXT NOT NULL, value REAL NOT NULL,
        PRIMARY KEY (sweep, key, name)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS verdicts (
        sweep TEXT NOT NULL, key TEXT NOT NULL, stars INTEGER NOT NULL, note TEXT NOT NULL,
        best INTEGER NOT NULL, PRIMARY KEY (sweep, key)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS by_owner ON sweeps (owner, changed);
    """,
    "ALTER TABLE numbers RENAME TO metrics;",
)


@dataclass(frozen=True)
class Sweep:
    """A stored sweep; its spec has no open seed."""

    id: str
    owner: str
    created: float
    changed: float
    spec: SweepSpec


@dataclass(frozen=True)
class Verdict:
    """A person's opinion of a cell; 0 stars is none."""

    stars: int = 0
    note: str = ""
    best: bool = False

    def __bool__(self) -> bool:
        return bool(self.stars or self.note or self.best)


NO_VERDICT = Verdict()


@dataclass(frozen=True)
class CellResult:
    """The result of a cell: an image or an error. `metrics` were measured afterwards."""

    path: Path | None = None
    digest: str = ""
    seconds: float = 0.0
    error: str = ""
    metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    verdict: Verdict = NO_VERDICT

    @property
    def has_image(self) -> bool:
        """Whether the image's file exists."""
        return self.path is not None and self.path.is_file()


class Sweeps:
    """All sweeps of a home, behind one connection; worker and web process each open their own."""

    def __init__(self, settings: Settings) -> None:
        """Open the tables. Raises BadFile for a file that is no table of sweeps."""
        self._folder = settings.home / "sweeps"
        self._database = Database(
            settings.home / "sweeps.sqlite", MIGRATIONS, holds="the sweeps and your verdicts"
        )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # ---- plans ----------------------------------------------------------------------------------

    def save(self, spec: SweepSpec, owner: str, sweep_id: str = "") -> str:
        """Store a sweep, or the new spec of a stored one, whose cells and verdicts stay.

        Args:
            spec: The sweep, its seed drawn.
            owner: Whose it is.
            sweep_id: A stored sweep's; "" gives a new one.

        Returns:
            The sweep's id.
        """
        if spec.has_open_seed:
            raise ValueError("a sweep is stored with its seed drawn")
        sweep_id = sweep_id or secrets.token_hex(6)
        changed = time.time()
        spec_json = json.dumps(spec.model_dump(mode="json"))
        sql = """INSERT INTO sweeps VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (id) DO UPDATE SET spec = excluded.spec, changed = excluded.changed"""
        self._database.execute(sql, sweep_id, owner, changed, changed, spec_json)
        return sweep_id

    def get(self, sweep_id: str) -> Sweep | None:
        """Return a sweep; None if there is no such sweep, or it is one of a later studio."""
        sweeps = self._query_sweeps("SELECT * FROM sweeps WHERE id = ?", sweep_id)
        return sweeps[0] if sweeps else None

    def list_sweeps(self, owner: str | None = None, limit: int = 50) -> list[Sweep]:
        """Return the sweeps of an owner (None is everybody's), the latest changed first."""
        sql = """SELECT * FROM sweeps WHERE owner = coalesce(?, owner)
                 ORDER BY changed DESC, rowid DESC LIMIT ?"""
        return self._query_sweeps(sql, owner, limit)

    def list_specs(self) -> list[str]:
        """Return the specs of all sweeps as JSON texts, those of a later studio too."""
        return [row["spec"] for row in self._database.execute("SELECT spec FROM sweeps")]

    def delete(self, sweep_id: str) -> None:
        """Delete a sweep and its files; its images stay in the gallery."""
        for table in ("cells", "metrics", "verdicts"):
            self._database.execute(f"DELETE FROM {table} WHERE sweep = ?", sweep_id)
        self._database.execute("DELETE FROM sweeps WHERE id = ?", sweep_id)
        shutil.rmtree(self.get_folder(sweep_id), ignore_errors=True)

    def get_folder(self, sweep_id: str) -> Path:
        """Return the folder of a sweep's sheets and viewer."""
        return self._folder / sweep_id

    def list_files(self, sweep_id: str) -> list[Path]:
        """Return sheets, viewer and index, in this order, as far as they were written."""
        files = [
            path
            for path in self.get_folder(sweep_id).glob("*")
            if path.suffix in EXPORT_SUFFIXES and not path.name.startswith(".")
        ]
        return sorted(files, key=lambda path: (EXPORT_SUFFIXES.index(path.suffix), path.name))

    # ---- results --------------------------------------------------------------------------------

    def save_cell_result(self, sweep_id: str, key: str, result: CellResult) -> None:
        """Store the result of a cell in place of an earlier one."""
        self._database.execute(
            "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?)",
            sweep_id,
            key,
            str(result.path or ""),
            result.digest,
            result.seconds,
            result.error,
        )

    def set_metric(self, sweep_id: str, name: str, values: Mapping[str, float]) -> None:
        """Store a metric of some cells by their keys, in place of all values of that name."""
        self._database.execute("DELETE FROM metrics WHERE sweep = ? AND name = ?", sweep_id, name)
        for key, value in values.items():
            self._database.execute(
                "INSERT INTO metrics VALUES (?, ?, ?, ?)", sweep_id, key, name, value
            )

    def set_verdict(self, sweep_id: str, key: str, verdict: Verdict) -> None:
        """Store a verdict on a cell. Raises InvalidSpec for what is no verdict."""
        faults = []
        if not 0 <= verdict.stars <= MAX_STARS:
            faults.append(f"Stars: has to be 0 to {MAX_STARS} (not {verdict.stars}).")
        if len(verdict.note) > MAX_NOTE_CHARS:
            faults.append(
                f"Note: has to be at most {MAX_NOTE_CHARS:,} characters long, but has "
                f"{len(verdict.note):,}."
            )
        if faults:
            raise InvalidSpec(faults)
        self._database.execute(
            "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?)",
            sweep_id,
            key,
            verdict.stars,
            verdict.note,
            verdict.best,
        )

    def load_cell_results(self, sweep_id: str) -> dict[str, CellResult]:
        """Return results and verdicts of a sweep's cells by the keys of their requests."""
        metrics: dict[str, dict[str, float]] = {}
        for row in self._database.execute("SELECT * FROM metrics WHERE sweep = ?", sweep_id):
            metrics.setdefault(row["key"], {})[row["name"]] = row["value"]
        verdicts = {
            row["key"]: Verdict(row["stars"], row["note"], bool(row["best"]))
            for row in self._database.execute("SELECT * FROM verdicts WHERE sweep = ?", sweep_id)
        }
        results = {key: CellResult(verdict=verdict) for key, verdict in verdicts.items()}
        for row in self._database.execute("SELECT * FROM cells WHERE sweep = ?", sweep_id):
            key = row["key"]
            results[key] = CellResult(
                path=Path(row["path"]) if row["path"] else None,
                digest=row["digest"],
                seconds=row["seconds"],
                error=row["error"],
                metrics=metrics.get(key, {}),
                verdict=verdicts.get(key, NO_VERDICT),
            )
        return results

    def _query_sweeps(self, sql: str, *values: object) -> list[Sweep]:
        sweeps = []
        for row in self._database.execute(sql, *values):
            try:
                sweeps.append(_sweep_from_row(row))
            except StudioError:
                continue  # damaged, or from a studio that knows more
        return sweeps


def _sweep_from_row(row: Row) -> Sweep:
    with explain_odd_file(Path(str(row["id"])), f"The sweep {row['id']!s:.40}"):
        spec = validate_stored(SweepSpec, json.loads(row["spec"]))
        return Sweep(
            str(row["id"]), str(row["owner"]), float(row["created"]), float(row["changed"]), spec
        )


def parse_exported_verdicts(text: str, sweep_id: str) -> dict[str, Verdict]:
    """Return the verdicts in a file that a viewer exported, by the keys of cells.

    Raises BadFile for one of another sweep or none of ours.
    """
    try:
        if len(text) > MAX_EXPORT_CHARS:
            raise ValueError(len(text))
        export = json.loads(text)
        verdicts = {str(entry["key"]): _parse_verdict(entry) for entry in export["verdicts"]}
        exported_id = export["sweep"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise BadFile(
            "This is no file of verdicts; use what the viewer's Export button gave."
        ) from None
    if exported_id != sweep_id:
        raise BadFile(f"These verdicts are of another sweep ({quote(exported_id)}).")
    return verdicts


def _parse_verdict(entry: Mapping[str, Any]) -> Verdict:
    stars = int(entry.get("stars", 0))
    note = entry.get("note", "")
    if not 0 <= stars <= MAX_STARS or not isinstance(note, str):
        raise ValueError(stars)
    return Verdict(stars, note[:MAX_NOTE_CHARS], entry.get("best") is True)


def deterministic_id_and_seed(spec: SweepSpec) -> tuple[str, SweepSpec]:
    """Return an id, and the spec with its seed drawn, from nothing but the spec.

    So the same file is the same sweep and goes on where it was.
    """
    digest = hashlib.sha256(json.dumps(spec.stable_dump(), sort_keys=True).encode()).hexdigest()
    return digest[:12], spec.resolve_seeds(int(digest[12:20], 16))
