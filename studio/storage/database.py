"""One SQLite file: its connection, its lock, its transactions, its migrations.

Knows: SQLite's modes and versions, and its errors that are the disk's. Does not know: any table;
what is stored; how a damaged file is mended (sqlite_repair.py).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from studio.errors import BadFile, DiskError
from studio.storage import sqlite_repair
from studio.storage.sqlite_repair import DamagedDatabase

Row = sqlite3.Row
# What helps, by SQLite's primary code. Any other code is a mistake in a statement, hence a bug.
_DISK_ADVICE = {
    sqlite3.SQLITE_FULL: "Is the disk full?",
    sqlite3.SQLITE_BUSY: "Another program is writing there; try again in a moment.",
    sqlite3.SQLITE_LOCKED: "Another program is writing there; try again in a moment.",
    sqlite3.SQLITE_PROTOCOL: "Another program is writing there; try again in a moment.",
    sqlite3.SQLITE_READONLY: "Give this user permission to write there.",
    sqlite3.SQLITE_PERM: "Give this user permission to write there.",
    sqlite3.SQLITE_CANTOPEN: "Does its folder exist, and can this user write in it?",
    sqlite3.SQLITE_IOERR: "The disk may be full or failing.",
    sqlite3.SQLITE_CORRUPT: "The file is damaged; restart the studio.",
    sqlite3.SQLITE_NOTADB: "The file is damaged; restart the studio.",
}
Synchronous = Literal["OFF", "NORMAL", "FULL"]


class Database:
    """A file of tables, with one connection behind one lock: any thread may call.

    A call takes some 50 microseconds.

    `migrations` are SQL scripts; the n-th makes tables of version n out of those of version n - 1.
    A new file runs all of them, so the first one creates the tables and has to bear that they exist
    (files of the first version have the number 0).
    """

    def __init__(
        self,
        path: Path,
        migrations: Sequence[str],
        *,
        busy_seconds: float = 5.0,
        synchronous: Synchronous = "NORMAL",
        advice: str = "Move it away; the images are not in it.",
        rebuildable: bool = False,
        holds: str = "what it held",
    ) -> None:
        """Open the file and bring its tables up to date.

        Args:
            path: The file, which is created where there is none.
            migrations: One SQL script per version of the tables.
            busy_seconds: How long to wait for another process that writes.
            synchronous: NORMAL loses nothing by kill -9 and the last moment by a power cut; FULL
                loses nothing.
            advice: What to do with a file that cannot be used, as a sentence.
            rebuildable: Whether all in it can be made again from other files. A damaged file, and
                then also one of a later studio, is set aside and begins anew; of others, what can
                still be read is kept.
            holds: What is in it, for the sentence that says so.

        Raises:
            BadFile: It cannot be opened, or is one of a later studio.
            DiskError: The disk does not let it be opened.
            Busy: It is damaged, and another process has it open.
        """
        self.path = path
        self.notice = ""  # what happened where the file was damaged
        self._lock = threading.RLock()
        self._rebuildable = rebuildable
        self._is_closed = False

        def connect() -> None:
            self._connect(migrations, busy_seconds, synchronous)

        try:
            try:
                connect()
            except sqlite3.DatabaseError as error:
                if not sqlite_repair.is_damage(path, error):
                    raise
                self._repair(connect, migrations, holds)
        except (OSError, sqlite3.DatabaseError) as error:
            # A full disk is no reason to move the file away.
            code = get_primary_code(error)
            is_damaged = code in (0, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            help_text = _advise(path, advice if is_damaged else _DISK_ADVICE.get(code, advice))
            error_class = BadFile if is_damaged else DiskError
            raise error_class(f"{path} cannot be used: {error}. {help_text}") from None

    def _connect(
        self, migrations: Sequence[str], busy_seconds: float, synchronous: Synchronous
    ) -> None:
        self._connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=busy_seconds
        )
        try:
            self._connection.row_factory = Row
            # readers never wait for the writer
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(f"PRAGMA synchronous = {synchronous}")
            if str(self.path) != ":memory:":
                sqlite_repair.check_file(self.path, self._connection)
            self._migrate(migrations)
        except BaseException:
            self._connection.close()
            raise

    def _repair(self, connect: Callable[[], None], migrations: Sequence[str], holds: str) -> None:
        """Set a damaged file aside and open one that takes its place."""
        with sqlite_repair.repair_lock(self.path):
            try:
                connect()  # another process may have mended it while this one waited
            except sqlite3.DatabaseError as error:
                if not sqlite_repair.is_damage(self.path, error):
                    raise
                reason = _describe_damage(self.path, error)
                self.notice = sqlite_repair.repair(
                    self.path, migrations, reason, rebuildable=self._rebuildable, holds=holds
                )
                connect()

    def close(self) -> None:
        """Close the connection; nothing can be asked afterwards.

        A statement of another thread ends first: SQLite crashes the process otherwise.
        """
        with self._lock:
            self._is_closed = True
            self._connection.close()

    @property
    def lock(self) -> threading.RLock:
        """Held by whoever needs several statements to see the same tables."""
        return self._lock

    @property
    def revision(self) -> int:
        """A number that changes whenever any process changes anything in the file."""
        with self._lock, self._reported_errors():
            version = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
            return version + self._connection.total_changes * 1_000_003

    def execute(self, sql: str, *values: object) -> list[Row]:
        """Run one statement, which is a transaction of its own outside `transaction`.

        All rows are fetched: only then is an UPDATE … RETURNING committed.

        Raises DiskError, like all that follow.
        """
        with self._lock, self._reported_errors():
            return self._connection.execute(sql, values).fetchall()

    def execute_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement for each row of values.

        Call it inside `transaction`, or a kill leaves half of them.
        """
        with self._lock, self._reported_errors():
            self._connection.executemany(sql, rows)

    @contextmanager
    def _reported_errors(self) -> Iterator[None]:
        with report_disk_errors(self.path):
            try:
                yield
            except sqlite3.DatabaseError as error:
                if self._is_closed:
                    raise DiskError(f"{self.path.name} was closed.") from None
                sqlite_repair.remember_damage(self.path, error)
                raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all statements of the block happen or none.

        Whatever fails, COMMIT included, rolls back and is raised on.
        """
        with self._reported_errors(), self._transaction():
            yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):  # what went wrong first is what is said
                        self._connection.execute("ROLLBACK")
                raise

    def _migrate(self, migrations: Sequence[str]) -> None:
        version = self._read_version()
        if version <= len(migrations):
            sqlite_repair.check_tables(self._connection, migrations[:version])
        if version == len(migrations):
            return
        with self._transaction():  # another process may have done it while this one waited
            version = self._read_version()
            if version > len(migrations) and self._rebuildable:
                raise DamagedDatabase("was written by a newer studio")
            if version > len(migrations):
                raise BadFile(
                    f"{self.path} was written by a newer studio (tables {version}, this one knows "
                    f"{len(migrations)}): install that studio, or use another --home."
                )
            sqlite_repair.run_scripts(self._connection, migrations[version:])
            self._connection.execute(f"PRAGMA user_version = {len(migrations)}")

    def _read_version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def report_disk_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite says of the disk under `path` into a DiskError that says what helps.

    A statement that is wrong, or a connection that is closed, is a bug and raised on as it is.
    """
    try:
        yield
    except sqlite3.Error as error:
        advice = _DISK_ADVICE.get(get_primary_code(error))
        if advice is None:
            raise
        sentence = f"{path.name} could not be read or written: {error}. {advice}"
        raise DiskError(sentence) from error


def get_primary_code(error: Exception) -> int:
    """Return SQLite's code of an error without its details; 0 for one of Python's own."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _advise(path: Path, advice: str) -> str:
    """Return what helps where a file cannot be opened; `advice` is for what is no database."""
    if not path.parent.is_dir():
        return f"There is no folder {path.parent}; create it."
    if path.is_dir():
        return "It is a folder; move it away."
    if not os.access(path if path.exists() else path.parent, os.R_OK | os.W_OK):
        return "Give this user permission to read and write it."
    return advice


def _describe_damage(path: Path, error: sqlite3.DatabaseError) -> str:
    """Return what is wrong with a file, as the end of a sentence that begins with its name."""
    if path.is_dir():
        return "is a folder"
    if isinstance(error, DamagedDatabase):
        return str(error)
    return "is not a table of the studio" if "not a database" in str(error) else "is damaged"
