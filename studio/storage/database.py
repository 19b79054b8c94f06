"""One SQLite file: its connection, its lock, its transactions, its migrations.

Knows: SQLite's modes and versions, and its errors that are the disk's. Does not know: any table;
what is stored.
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

Row = sqlite3.Row
# What helps, by SQLite's primary code. Any other code is a mistake in a statement, hence a bug.
_DISK_ADVICE = {
    sqlite3.SQLITE_FULL: "Is the disk full?",
    sqlite3.SQLITE_BUSY: "Another program is writing there; try again in a moment.",
    sqlite3.SQLITE_LOCKED: "Another program is writing there; try again in a moment.",
    sqlite3.SQLITE_PROTOCOL: "Another program is writing there; try again in a moment.",
    sqlite3.SQLITE_READONLY: "Allow this user to write there.",
    sqlite3.SQLITE_PERM: "Allow this user to write there.",
    sqlite3.SQLITE_CANTOPEN: "Is its folder there, and may this user write in it?",
    sqlite3.SQLITE_IOERR: "The disk may be full or failing.",
    sqlite3.SQLITE_CORRUPT: "The file is damaged; open the studio anew.",
    sqlite3.SQLITE_NOTADB: "The file is damaged; open the studio anew.",
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
        advice: str = "Move it away; the pictures are not in it.",
    ) -> None:
        """Open the file and bring its tables up to date.

        Args:
            path: The file, which is created where there is none.
            migrations: One SQL script per version of the tables.
            busy_seconds: How long to wait for another process that writes.
            synchronous: NORMAL loses nothing by kill -9 and the last moment by a power cut; FULL
                loses nothing.
            advice: What to do with a file that cannot be used, as a sentence.

        Raises:
            BadFile: It is no database, or one of a later studio.
            DiskError: The disk does not let it be opened.
        """
        self.path = path
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=busy_seconds
            )
            self._connection.row_factory = Row
            self._connection.execute(
                "PRAGMA journal_mode = WAL"
            )  # readers never wait for the writer
            self._connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._migrate(migrations)
        except (OSError, sqlite3.DatabaseError) as error:
            # A full disk is no reason to move the file away.
            code = get_primary_code(error)
            is_damaged = code in (0, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            help_text = _advise(path, advice if is_damaged else _DISK_ADVICE.get(code, advice))
            error_class = BadFile if is_damaged else DiskError
            raise error_class(f"{path} cannot be used: {error}. {help_text}") from None

    def close(self) -> None:
        """Close the connection; nothing can be asked afterwards."""
        self._connection.close()

    @property
    def lock(self) -> threading.RLock:
        """Held by whoever needs several statements to see the same tables."""
        return self._lock

    @property
    def revision(self) -> int:
        """A number that changes whenever any process changes anything in the file."""
        with self._lock, report_disk_errors(self.path):
            version = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
            return version + self._connection.total_changes * 1_000_003

    def execute(self, sql: str, *values: object) -> list[Row]:
        """Run one statement, which is a transaction of its own outside `transaction`.

        All rows are fetched: only then is an UPDATE … RETURNING committed.

        Raises DiskError, like all that follow.
        """
        with self._lock, report_disk_errors(self.path):
            return self._connection.execute(sql, values).fetchall()

    def execute_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement for each row of values.

        Call it inside `transaction`, or a kill leaves half of them.
        """
        with self._lock, report_disk_errors(self.path):
            self._connection.executemany(sql, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all statements of the block happen or none.

        Whatever fails, COMMIT included, rolls back and is raised on.
        """
        with report_disk_errors(self.path), self._transaction():
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
        if self._read_version() == len(migrations):
            return
        with self._transaction():  # another process may have done it while this one waited
            version = self._read_version()
            if version > len(migrations):
                raise BadFile(
                    f"{self.path} was written by a later studio (tables {version}, this one knows "
                    f"{len(migrations)}): install that studio, or use another --home."
                )
            for script in migrations[version:]:
                for statement in _split_statements(script):
                    self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {len(migrations)}")

    def _read_version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def report_disk_errors(path: Path, advise: Callable[[], str] = str) -> Iterator[None]:
    """Turn what SQLite says of the disk under `path` into a DiskError that says what helps.

    A statement that is wrong, or a connection that is closed, is a bug and raised on as it is.

    Args:
        path: The file.
        advise: What helps, if there is more to say than SQLite's code lets one guess; else empty.
    """
    try:
        yield
    except sqlite3.Error as error:
        advice = _DISK_ADVICE.get(get_primary_code(error))
        if advice is None:
            raise
        sentence = f"{path.name} could not be read or written: {error}. {advise() or advice}"
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
        return "Allow this user to read and write it."
    return advice


def _split_statements(script: str) -> Iterator[str]:
    """Yield the statements of a script; `executescript` would commit before it begins."""
    statement = ""
    for piece in script.split(";"):
        statement += f"{piece};"
        if sqlite3.complete_statement(statement):
            if statement.strip() != ";":
                yield statement
            statement = ""
