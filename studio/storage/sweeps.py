"""Stored sweeps: their specs, the results of their cells, people's verdicts.

Knows: SQLite rows. A sweep is stored whole before its first cell is rendered. A cell is identified
by the key of its request, whatever its place, so a sweep that gets more values keeps all its
results. Stars and favourites are of images and of the cells that show them, and always the same in
both. Does not know: how cells are rendered (engine/sweeps/job.py).
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from studio.core.base import validate_stored
from studio.core.sweeps.spec import SweepSpec
from studio.errors import StudioError
from studio.settings import Settings
from studio.storage.database import Database, Row
from studio.storage.gallery import Gallery
from studio.storage.odd_files import explain_odd_file
from studio.storage.verdicts import NO_VERDICT, Verdict, check_verdict

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
    """
    CREATE TABLE image_verdicts (
        image TEXT PRIMARY KEY, stars INTEGER NOT NULL, best INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX cells_by_path ON cells (path);
    """,
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
class CellResult:
    """The result of a cell: an image or an error. `metrics` were measured afterwards."""

    path: Path | None = None
    digest: str = ""
    seconds: float = 0.0
    error: str = ""
    metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    verdict: Verdict = NO_VERDICT
    is_binned: bool = False

    @property
    def has_image(self) -> bool:
        """Whether the image's file exists, and is not in the bin."""
        return self.path is not None and not self.is_binned and self.path.is_file()


class Sweeps:
    """All sweeps of a home, behind one connection; worker and web process each open their own.

    Args:
        settings: Of the home.
        gallery: Where the cells' images are, which lists what people think of them.

    Raises BadFile for a file that is no table of sweeps.
    """

    def __init__(self, settings: Settings, gallery: Gallery) -> None:
        self._folder = settings.home / "sweeps"
        self._gallery = gallery
        self._database = Database(
            settings.home / "sweeps.sqlite", MIGRATIONS, holds="the sweeps and your ratings"
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
        if result.path:
            self._share_verdict(sweep_id, key, result.path)

    def set_metric(self, sweep_id: str, name: str, values: Mapping[str, float]) -> None:
        """Store a metric of some cells by their keys, in place of all values of that name."""
        self._database.execute("DELETE FROM metrics WHERE sweep = ? AND name = ?", sweep_id, name)
        for key, value in values.items():
            self._database.execute(
                "INSERT INTO metrics VALUES (?, ?, ?, ?)", sweep_id, key, name, value
            )

    def set_verdict(self, sweep_id: str, key: str, verdict: Verdict) -> None:
        """Store a verdict on a cell. Raises InvalidSpec for what is no verdict."""
        check_verdict(verdict)
        self._write_verdict(sweep_id, key, verdict)
        sql = "SELECT path FROM cells WHERE sweep = ? AND key = ? AND path <> ''"
        for row in self._database.execute(sql, sweep_id, key):
            self.set_image_verdict(Path(row["path"]), verdict)

    def set_image_verdict(self, path: Path, verdict: Verdict) -> None:
        """Store stars and mark of an image, and of all cells that show it; their notes stay.

        Raises InvalidSpec for what is no verdict.
        """
        check_verdict(verdict)
        with self._database.transaction():
            sql = "INSERT OR REPLACE INTO image_verdicts VALUES (?, ?, ?)"
            self._database.execute(sql, self._name_image(path), verdict.stars, verdict.best)
            self._database.execute(
                """INSERT INTO verdicts SELECT sweep, key, ?, '', ? FROM cells WHERE path = ?
                   ON CONFLICT (sweep, key) DO UPDATE SET
                   stars = excluded.stars, best = excluded.best""",
                verdict.stars,
                verdict.best,
                str(path),
            )
        self._gallery.set_opinion(path, stars=verdict.stars, is_favourite=verdict.best)

    def get_image_verdict(self, path: Path) -> Verdict:
        """Return stars and mark of an image."""
        sql = "SELECT * FROM image_verdicts WHERE image = ?"
        rows = self._database.execute(sql, self._name_image(path))
        if not rows:  # of a studio that kept only those of cells
            sql = """SELECT verdicts.* FROM cells JOIN verdicts USING (sweep, key)
                     WHERE path = ? ORDER BY stars DESC LIMIT 1"""
            rows = self._database.execute(sql, str(path))
        return Verdict(rows[0]["stars"], "", bool(rows[0]["best"])) if rows else NO_VERDICT

    def find_maker(self, path: Path, created: float) -> str:
        """Return the id of the sweep that an image was made for; empty if it was for none.

        One that a sweep only took is older than the sweep.
        """
        sql = """SELECT id FROM cells JOIN sweeps ON sweeps.id = cells.sweep
                 WHERE path = ? AND created <= ? ORDER BY created LIMIT 1"""
        rows = self._database.execute(sql, str(path), created)
        return str(rows[0]["id"]) if rows else ""

    def _share_verdict(self, sweep_id: str, key: str, path: Path) -> None:
        """Give a cell what people think of its image, or its new image what they think of it."""
        sql = "SELECT * FROM verdicts WHERE sweep = ? AND key = ?"
        rows = self._database.execute(sql, sweep_id, key)
        if rows:
            verdict = Verdict(rows[0]["stars"], rows[0]["note"], bool(rows[0]["best"]))
            if verdict.stars or verdict.best:
                self.set_image_verdict(path, verdict)
        elif verdict := self.get_image_verdict(path):
            self._write_verdict(sweep_id, key, verdict)

    def _write_verdict(self, sweep_id: str, key: str, verdict: Verdict) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?)",
            sweep_id,
            key,
            verdict.stars,
            verdict.note,
            verdict.best,
        )

    def _name_image(self, path: Path) -> str:
        """Return what an image is called here: a home that is moved keeps its stars."""
        outputs = self._gallery.outputs
        return path.relative_to(outputs).as_posix() if path.is_relative_to(outputs) else str(path)

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
        binned_paths = self._gallery.bin.get_paths()
        for row in self._database.execute("SELECT * FROM cells WHERE sweep = ?", sweep_id):
            key = row["key"]
            results[key] = CellResult(
                path=Path(row["path"]) if row["path"] else None,
                digest=row["digest"],
                seconds=row["seconds"],
                error=row["error"],
                metrics=metrics.get(key, {}),
                verdict=verdicts.get(key, NO_VERDICT),
                is_binned=row["path"] in binned_paths,
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


@lru_cache(maxsize=256)
def _parse_spec(text: str) -> SweepSpec:
    return validate_stored(SweepSpec, json.loads(text))


def _sweep_from_row(row: Row) -> Sweep:
    with explain_odd_file(Path(str(row["id"])), f"The sweep {row['id']!s:.40}"):
        spec = _parse_spec(row["spec"])
        return Sweep(
            str(row["id"]), str(row["owner"]), float(row["created"]), float(row["changed"]), spec
        )


def deterministic_id_and_seed(spec: SweepSpec) -> tuple[str, SweepSpec]:
    """Return an id, and the spec with its seed drawn, from nothing but the spec.

    So the same file is the same sweep and goes on where it was.
    """
    digest = hashlib.sha256(json.dumps(spec.stable_dump(), sort_keys=True).encode()).hexdigest()
    return digest[:12], spec.resolve_seeds(int(digest[12:20], 16))
