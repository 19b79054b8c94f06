"""The journal of datasets: every change is written down before it is made.

Knows: undo and redo across restarts; steps and their changes (home/captions.sqlite), how they are
carried out forwards and backwards, what a kill left half done. Does not know: what a caption should
say (core/captions/), which images there are (dataset.py).

A step is first stored with what each file held before and what it is to hold; then the files are
written aside and renamed, one by one; then the step is marked as done. Whoever comes after a kill
finds the mark missing and completes the step, so a step is either not begun or done. A file that
holds neither its old content nor its new one was changed by another program: it is left as it is,
and reported. One writer at a time: a lock that ends with its process (storage/locks.py).

    kind     file                 before, after
    file     a caption's own      its bytes; None where there is no file
    record   a metadata file      the text of one record, with its line's end; None: there is none
    move     an image or caption  before: its name below the folder; after: the new one;
                                  without a key: a whole folder
    source   (none)               Source as JSON, None for none; kept in the journal itself
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from studio.core.captions.provenance import Source, Writer
from studio.errors import Busy
from studio.settings import Settings
from studio.storage.database import Database, Row
from studio.storage.datasets import file_changes
from studio.storage.datasets.file_changes import Change
from studio.storage.locks import Lock

LOCK_TIMEOUT_SECONDS = 30.0  # waiting for another writer
WRITE_THREADS = 8  # files that are written at the same time: each waits for the disk
MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS steps (
        id INTEGER PRIMARY KEY AUTOINCREMENT, folder BLOB NOT NULL, title TEXT NOT NULL,
        made REAL NOT NULL, writer TEXT NOT NULL, state TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS by_folder ON steps (folder, id);
    CREATE TABLE IF NOT EXISTS changes (
        step INTEGER NOT NULL, number INTEGER NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL,
        file TEXT NOT NULL, before BLOB, after BLOB, old TEXT NOT NULL, new TEXT NOT NULL,
        made INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (step, number)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS sources (
        folder BLOB, key TEXT, said TEXT NOT NULL, PRIMARY KEY (folder, key)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE steps RENAME COLUMN made TO created;
    ALTER TABLE changes RENAME COLUMN made TO is_applied;
    ALTER TABLE changes RENAME COLUMN before TO old_data;
    ALTER TABLE changes RENAME COLUMN after TO new_data;
    ALTER TABLE changes RENAME COLUMN old TO old_caption;
    ALTER TABLE changes RENAME COLUMN new TO new_caption;
    ALTER TABLE sources RENAME COLUMN said TO source;
    """,
)
MAX_DROPPED_STEPS = 100  # of a dataset, which the history still lists
StepState = Literal["done", "undone", "dropped"]


@dataclass(frozen=True)
class Step:
    """A change of a dataset that can be undone as one.

    `num_changes` counts what it changed, `skipped` are (key, why it was left as it is). A step that
    was undone before something else was done is "dropped": it stays in the history but cannot be
    redone.
    """

    id: int
    title: str
    created: float
    writer: Writer
    state: StepState
    num_changes: int
    skipped: tuple[tuple[str, str], ...] = ()


class Journal:
    """The journal of a home, for all its datasets; web process and worker each open their own.

    In all methods `folder` is the dataset's resolved folder.
    """

    def __init__(self, settings: Settings) -> None:
        self._writer_lock = Lock(settings.home, "captions")
        self._database = Database(
            settings.home / "captions.sqlite",
            MIGRATIONS,
            busy_seconds=LOCK_TIMEOUT_SECONDS,
            synchronous="FULL",  # a step has to be on the disk before its files are
            advice="Move it away; it holds only the history, no captions or images.",
            holds="the history of edits, used for undo,",
        )

    def close(self) -> None:
        """Close the file and the writers' lock."""
        self._database.close()
        self._writer_lock.close()

    def add_step(
        self,
        folder: Path,
        title: str,
        writer: Writer,
        changes: Sequence[Change],
        append_to: int = 0,
    ) -> Step:
        """Carry out a new step; steps that are undone can no longer be redone.

        Args:
            folder: of the dataset.
            title: for the history.
            writer: who changes it.
            changes: what to change.
            append_to: id of a step that this one continues if it is still the last; both are undone
                as one.

        Raises:
            Busy: another program keeps writing.
            BadFile: the disk does not take the journal.
        """
        with self._write_access(folder):
            last = self._newest_step_id(folder, "done")
            with self._database.transaction():
                self._database.execute(
                    "UPDATE steps SET state = 'dropped' WHERE folder = ? AND state = 'undone'",
                    _encode_path(folder),
                )
                if append_to and last == append_to:
                    step_id = append_to
                    self._database.execute("UPDATE steps SET state = 'doing' WHERE id = ?", step_id)
                else:
                    step_id = self._insert_step(folder, title, writer)
                self._insert_changes(step_id, changes)
                self._delete_old_dropped_steps(folder)
            self._apply_step(folder, step_id, forwards=True)
        return self._load_step(step_id)

    def _delete_old_dropped_steps(self, folder: Path) -> None:
        """Delete steps that can be neither undone nor redone, but for the latest ones."""
        old_steps = """SELECT id FROM steps WHERE folder = ? AND state = 'dropped'
                       ORDER BY id DESC LIMIT -1 OFFSET ?"""
        values = (_encode_path(folder), MAX_DROPPED_STEPS)
        self._database.execute(f"DELETE FROM changes WHERE step IN ({old_steps})", *values)
        self._database.execute(f"DELETE FROM steps WHERE id IN ({old_steps})", *values)

    def _insert_step(self, folder: Path, title: str, writer: Writer) -> int:
        sql = """INSERT INTO steps (folder, title, created, writer, state)
                 VALUES (?, ?, ?, ?, 'doing') RETURNING id"""
        values = (_encode_path(folder), title, time.time(), writer.model_dump_json())
        return int(self._database.execute(sql, *values)[0]["id"])

    def _insert_changes(self, step_id: int, changes: Sequence[Change]) -> None:
        """Add changes to a step, behind those that it has."""
        sql = "SELECT count(*) AS count FROM changes WHERE step = ?"
        first = self._database.execute(sql, step_id)[0]["count"]
        sql = """INSERT INTO changes
                 (step, number, key, kind, file, old_data, new_data, old_caption, new_caption)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
        rows = [
            (
                step_id,
                first + number,
                change.key,
                change.kind,
                change.file,
                change.old_data,
                change.new_data,
                change.old_caption,
                change.new_caption,
            )
            for number, change in enumerate(changes)
        ]
        self._database.execute_many(sql, rows)

    def forget_folder(self, folder: Path) -> None:
        """Forget a dataset that was in this folder: its steps cannot be undone, its sources go.

        Raises:
            Busy: another program keeps writing.
            BadFile: the disk does not take the journal.
        """
        with self._write_access(folder), self._database.transaction():
            self._database.execute(
                "UPDATE steps SET state = 'dropped' WHERE folder = ?", _encode_path(folder)
            )
            self._database.execute("DELETE FROM sources WHERE folder = ?", _encode_path(folder))

    def list_folders(self) -> list[Path]:
        """List the folders that anything is stored of."""
        sql = "SELECT folder FROM steps UNION SELECT folder FROM sources"
        return [Path(os.fsdecode(row["folder"])) for row in self._database.execute(sql)]

    def measure(self, folder: Path) -> int:
        """Return about how many bytes are stored of a dataset's edits."""
        sql = """SELECT sum(length(c.key) + coalesce(length(c.old_data), 0)
                            + coalesce(length(c.new_data), 0) + length(c.old_caption)
                            + length(c.new_caption)) AS bytes
                 FROM changes c JOIN steps s ON s.id = c.step WHERE s.folder = ?"""
        return int(self._database.execute(sql, _encode_path(folder))[0]["bytes"] or 0)

    def delete_history(self, folder: Path) -> None:
        """Delete all that is stored of a dataset that is no more.

        Raises:
            Busy: another program keeps writing.
            BadFile: the disk does not take the journal.
        """
        name = _encode_path(folder)
        with self._only_writer(), self._database.transaction():
            self._database.execute(
                "DELETE FROM changes WHERE step IN (SELECT id FROM steps WHERE folder = ?)", name
            )
            self._database.execute("DELETE FROM steps WHERE folder = ?", name)
            self._database.execute("DELETE FROM sources WHERE folder = ?", name)

    def undo(self, folder: Path) -> Step | None:
        """Undo the last step; None if there is none.

        Raises:
            Busy: another program keeps writing.
            BadFile: the disk does not take the journal.
        """
        return self._undo_or_redo(folder, "done", "undoing")

    def redo(self, folder: Path) -> Step | None:
        """Redo the step that was undone last; None if there is none.

        Raises:
            Busy: another program keeps writing.
            BadFile: the disk does not take the journal.
        """
        return self._undo_or_redo(folder, "undone", "doing")

    def history(self, folder: Path, limit: int = 100) -> list[Step]:
        """List at most `limit` steps, the newest first."""
        return [
            self._load_step(row["id"])
            for row in self._database.execute(
                "SELECT id FROM steps WHERE folder = ? ORDER BY id DESC LIMIT ?",
                _encode_path(folder),
                limit,
            )
        ]

    def list_changes(self, step_id: int) -> list[Change]:
        """List what a step changed (or skipped, see Step.skipped), in order."""
        return [
            _change_from_row(row)
            for row in self._database.execute(
                "SELECT * FROM changes WHERE step = ? ORDER BY number", step_id
            )
        ]

    def iter_written_captions(self, folder: Path) -> Iterator[tuple[str, str, Step]]:
        """Iterate over (key, caption, step) of all captions in done steps, the oldest first.

        Keys are those that the images have now.
        """
        rows = self._database.execute(
            """SELECT c.key, c.new_caption, c.step, c.old_data, c.new_data
               FROM changes c JOIN steps s ON s.id = c.step
               WHERE s.folder = ? AND s.state = 'done' AND c.is_applied
                 AND (c.kind IN ('file', 'record') OR c.kind = 'move' AND c.key = '')
               ORDER BY c.step, c.number""",
            _encode_path(folder),
        )
        current_names: dict[str, str] = {}  # of folders, by the name that they had at the time
        captions: list[tuple[str, str, int]] = []
        for row in reversed(rows):
            if not row["key"]:  # a folder was renamed
                old_name = os.fsdecode(row["old_data"])
                new_name = os.fsdecode(row["new_data"])
                current_names[old_name] = current_names.pop(new_name, new_name)
                continue
            key = row["key"]
            folder_name, slash, name = key.partition("/")
            if slash:
                key = f"{current_names.get(folder_name, folder_name)}/{name}"
            captions.append((key, row["new_caption"], row["step"]))
        steps: dict[int, Step] = {}
        for key, caption, step_id in reversed(captions):
            if step_id not in steps:
                steps[step_id] = self._load_step(step_id)
            yield key, caption, steps[step_id]

    def read_sources(self, folder: Path) -> dict[str, Source]:
        """Return where images come from, by key, as far as it was recorded."""
        sources = {}
        sql = "SELECT key, source FROM sources WHERE folder = ?"
        for row in self._database.execute(sql, _encode_path(folder)):
            with suppress(ValueError):  # a damaged row: the picture's source is not known
                sources[row["key"]] = Source.model_validate_json(row["source"])
        return sources

    def recover(self, folder: Path) -> None:
        """Complete what a killed process began; do nothing while another process is writing."""
        if self._list_unfinished(folder) and self._writer_lock.acquire():
            try:
                self._complete_steps(folder)
            finally:
                self._writer_lock.release()

    # ---- carrying out --------------------------------------------------------------------------

    def _undo_or_redo(self, folder: Path, state: str, transition: str) -> Step | None:
        with self._write_access(folder):
            if transition == "undoing":
                step_id = self._newest_step_id(folder, state)
            else:  # steps are redone in the order in which they were first done
                step_id = self._oldest_undone_step_id(folder)
            if not step_id:
                return None
            with self._database.transaction():
                self._database.execute(
                    "UPDATE steps SET state = ? WHERE id = ?", transition, step_id
                )
            self._apply_step(folder, step_id, forwards=transition == "doing")
        return self._load_step(step_id)

    def _apply_step(self, folder: Path, step_id: int, forwards: bool) -> None:
        """Apply a step to the files, then mark it; after a kill it can be applied again."""
        rows = self._database.execute(
            "SELECT * FROM changes WHERE step = ? AND is_applied = ? ORDER BY number",
            step_id,
            int(not forwards),
        )
        if not forwards:
            rows.reverse()
        rows_by_file: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            if row["kind"] != "source":
                rows_by_file.setdefault((row["kind"], row["file"]), []).append(row)

        def apply_to_file(kind: str, file: str, file_rows: list[Row]) -> list[str]:
            changes = [_change_from_row(row) for row in file_rows]
            if not forwards:
                changes = [change.invert() for change in changes]
            return file_changes.apply(folder, kind, file, changes)

        kinds = [kind for kind, _ in rows_by_file]
        files = [file for _, file in rows_by_file]
        with ThreadPoolExecutor(WRITE_THREADS) as pool:
            reasons_by_file = list(pool.map(apply_to_file, kinds, files, rows_by_file.values()))
        file_changes.fsync_parents(folder, files)
        reasons: dict[int, str] = {}
        for file_rows, file_reasons in zip(rows_by_file.values(), reasons_by_file):
            for row, reason in zip(file_rows, file_reasons):
                reasons[row["number"]] = reason
        with self._database.transaction():
            self._mark_step(folder, step_id, rows, reasons, forwards)

    def _mark_step(
        self,
        folder: Path,
        step_id: int,
        rows: Sequence[Row],
        reasons: Mapping[int, str],
        forwards: bool,
    ) -> None:
        """Mark a step and its changes as done, or why not; sources change with the mark."""
        for row in rows:
            if row["kind"] == "source":
                self._set_source(
                    folder, row["key"], row["new_data"] if forwards else row["old_data"]
                )
        results = [(row["number"], reasons.get(row["number"], "")) for row in rows]
        self._database.execute_many(
            "UPDATE changes SET is_applied = ?, reason = ? WHERE step = ? AND number = ?",
            [
                (int(forwards == (not reason)), reason, step_id, number)
                for number, reason in results
            ],
        )
        self._database.execute(
            "UPDATE steps SET state = ? WHERE id = ?", "done" if forwards else "undone", step_id
        )

    def _set_source(self, folder: Path, key: str, source_json: bytes | None) -> None:
        if source_json is None:
            self._database.execute(
                "DELETE FROM sources WHERE folder = ? AND key = ?", _encode_path(folder), key
            )
        else:
            self._database.execute(
                "INSERT OR REPLACE INTO sources VALUES (?, ?, ?)",
                _encode_path(folder),
                key,
                source_json.decode(),
            )

    def _complete_steps(self, folder: Path) -> None:
        for row in self._list_unfinished(folder):
            for change in self.list_changes(row["id"]):
                file_changes.remove_temp_files(folder, change)
            self._apply_step(folder, row["id"], forwards=row["state"] == "doing")

    def _list_unfinished(self, folder: Path) -> list[Row]:
        return self._database.execute(
            "SELECT id, state FROM steps WHERE folder = ?"
            " AND state IN ('doing', 'undoing') ORDER BY id",
            _encode_path(folder),
        )

    @contextmanager
    def _write_access(self, folder: Path) -> Iterator[None]:
        """Keep other writers out, and complete first what a kill left half done."""
        with self._only_writer():
            self._complete_steps(folder)
            yield

    @contextmanager
    def _only_writer(self) -> Iterator[None]:
        """Keep other threads and programs from writing. Raises Busy."""
        with self._database.lock:
            if not self._writer_lock.acquire(timeout_seconds=LOCK_TIMEOUT_SECONDS):
                raise Busy(
                    "Another process of this studio is writing captions; try again in a moment."
                )
            try:
                yield
            finally:
                self._writer_lock.release()

    # ---- reading -------------------------------------------------------------------------------

    def _newest_step_id(self, folder: Path, state: str) -> int:
        return int(
            self._database.execute(
                "SELECT max(id) AS id FROM steps WHERE folder = ? AND state = ?",
                _encode_path(folder),
                state,
            )[0]["id"]
            or 0
        )

    def _oldest_undone_step_id(self, folder: Path) -> int:
        return int(
            self._database.execute(
                "SELECT min(id) AS id FROM steps WHERE folder = ? AND state = 'undone'",
                _encode_path(folder),
            )[0]["id"]
            or 0
        )

    def _load_step(self, step_id: int) -> Step:
        row = self._database.execute("SELECT * FROM steps WHERE id = ?", step_id)[0]
        count = self._database.execute(
            "SELECT count(*) AS n FROM changes WHERE step = ? AND reason = ''", step_id
        )[0]["n"]
        skipped_rows = self._database.execute(
            "SELECT key, reason FROM changes WHERE step = ? AND reason != '' ORDER BY number",
            step_id,
        )
        state = {"doing": "done", "undoing": "undone"}.get(row["state"], row["state"])
        return Step(
            id=row["id"],
            title=row["title"],
            created=row["created"],
            writer=_parse_writer(row["writer"]),
            state=state,
            num_changes=count,
            skipped=tuple((row["key"], row["reason"]) for row in skipped_rows),
        )


def _parse_writer(text: str) -> Writer:
    """Return who made a step; of a damaged row somebody who is not known."""
    try:
        return Writer.model_validate_json(text)
    except ValueError:
        return Writer(by="file")


def _encode_path(folder: Path) -> bytes:
    return os.fsencode(folder)


def _change_from_row(row: Row) -> Change:
    return Change(
        key=row["key"],
        kind=row["kind"],
        file=row["file"],
        old_data=row["old_data"],
        new_data=row["new_data"],
        old_caption=row["old_caption"],
        new_caption=row["new_caption"],
    )
