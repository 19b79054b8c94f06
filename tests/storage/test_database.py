"""One SQLite wrapper for all stores: transactions that happen whole or not, tables that are brought up to date."""

from __future__ import annotations

import errno
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from studio.errors import BadFile, DiskError
from studio.storage import database as database_module
from studio.storage.database import Database
from support.faulty_disk import faulty_disk
from support.sentences import refused

pytestmark = pytest.mark.smoke

FIRST = "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL);"
SECOND = "ALTER TABLE notes RENAME COLUMN text TO body; CREATE INDEX by_body ON notes (body);"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes.sqlite"


def bodies(database: Database) -> list[str]:
    return [row["body"] for row in database.execute("SELECT body FROM notes ORDER BY id")]


def test_a_new_file_has_the_newest_tables(path: Path) -> None:
    database = Database(path, (FIRST, SECOND))
    database.execute("INSERT INTO notes (body) VALUES (?)", "a")
    assert bodies(database) == ["a"]


@pytest.mark.parametrize("version", [0, 1])
def test_an_old_file_is_brought_up_to_date(path: Path, version: int) -> None:
    """Files of the first version have the number 0 where nobody wrote one."""
    with sqlite3.connect(path) as old:
        old.executescript(
            FIRST + f"INSERT INTO notes (text) VALUES ('x'); PRAGMA user_version = {version}"
        )
    old.close()
    assert bodies(Database(path, (FIRST, SECOND))) == ["x"]
    assert bodies(Database(path, (FIRST, SECOND))) == ["x"]


def test_a_migration_that_fails_leaves_the_old_tables(path: Path) -> None:
    Database(path, (FIRST,)).close()
    with pytest.raises(BadFile):
        Database(
            path, (FIRST, "ALTER TABLE notes ADD COLUMN more TEXT; SELECT nonsense FROM nowhere;")
        )
    columns = Database(path, (FIRST,)).execute("PRAGMA table_info(notes)")
    assert [column["name"] for column in columns] == ["id", "text"]


def test_a_later_studios_file_is_refused_and_left_alone(path: Path) -> None:
    Database(path, (FIRST, SECOND)).close()
    with refused(BadFile):
        Database(path, (FIRST,))
    assert bodies(Database(path, (FIRST, SECOND))) == []


def test_a_transaction_happens_whole_or_not(path: Path) -> None:
    database = Database(path, (FIRST, SECOND))

    def write_and_fail() -> None:
        with database.transaction():
            database.execute("INSERT INTO notes (body) VALUES ('a')")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    with database.transaction():
        database.execute_many("INSERT INTO notes (body) VALUES (?)", [("b",), ("c",)])
    assert bodies(database) == ["b", "c"]


def test_the_advice_fits_what_keeps_a_file_from_being_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.mkdir()
    with refused(BadFile):
        Database(path / "nowhere" / "notes.sqlite", (FIRST,))
    monkeypatch.setattr(
        database_module.os, "access", lambda path, mode: False
    )  # root may do anything
    monkeypatch.setattr(database_module.sqlite3, "connect", refuse_to_open)
    with refused(BadFile):
        Database(path / "notes.sqlite", (FIRST,))


def refuse_to_open(*arguments: object, **options: object) -> sqlite3.Connection:
    raise sqlite3.OperationalError("unable to open database file")


def test_a_commit_that_fails_rolls_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk: the connection must not stay inside a transaction that nobody ends."""
    database = Database(path, (FIRST, SECOND))
    real = database._connection

    class FullDisk:
        def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
            if sql == "COMMIT":
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
            return real.execute(sql, *values)

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    monkeypatch.setattr(database, "_connection", FullDisk())
    with refused(DiskError), database.transaction():
        database.execute("INSERT INTO notes (body) VALUES ('lost')")
    monkeypatch.undo()
    assert not real.in_transaction
    with database.transaction():
        database.execute("INSERT INTO notes (body) VALUES ('kept')")
    assert bodies(database) == ["kept"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_does_not_take_new_tables_is_no_reason_to_throw_the_old_away(
    path: Path, number: int
) -> None:
    with faulty_disk(path.parent) as disk:
        Database(path, (FIRST,)).close()
        disk.arm_for_good(number)
        with refused(DiskError):
            Database(path, (FIRST, SECOND), advice="Throw it away.")
        disk.disarm()
        Database(path, (FIRST, SECOND)).close()


def test_a_mistake_in_a_statement_is_no_disk_error(path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        Database(path, (FIRST,)).execute("SELECT * FROM nowhere")


def test_the_revision_changes_with_every_change(path: Path) -> None:
    one, other = Database(path, (FIRST, SECOND)), Database(path, (FIRST, SECOND))
    before = one.revision, other.revision
    one.execute("INSERT INTO notes (body) VALUES ('a')")
    assert one.revision != before[0]
    assert other.revision != before[1]


def test_many_threads_write_at_once(path: Path) -> None:
    database = Database(path, (FIRST, SECOND))

    def write(number: int) -> None:
        for _ in range(20):
            with database.transaction():
                database.execute("INSERT INTO notes (body) VALUES (?)", str(number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bodies(database)) == 80


def test_closing_waits_for_the_statement_of_another_thread(tmp_path: Path) -> None:
    """Else SQLite crashes the whole process; whoever asks later is told."""
    for _ in range(20):
        database = Database(tmp_path / "x.sqlite", ["CREATE TABLE t (a)"])
        errors: list[str] = []

        def fill(database: Database = database, errors: list[str] = errors) -> None:
            try:
                while True:
                    with database.transaction():
                        database.execute_many(
                            "INSERT INTO t VALUES (?)", ((n,) for n in range(500))
                        )
            except DiskError as error:
                errors.append(str(error))

        thread = threading.Thread(target=fill)
        thread.start()
        time.sleep(0.01)
        database.close()
        thread.join(10)
        assert errors == ["x.sqlite was closed."]
