"""A damaged SQLite file: how it is recognised, set aside, and what of it can be saved.

Knows: SQLite's header, its checks, rows that can still be read; names of what was set aside. Does
not know: any table; who opens the file (database.py).

Nothing is deleted: a damaged file is renamed to NAME.damaged-20261127-134500, and a text of that
name plus .txt says what happened. Of each file the newest MAX_SET_ASIDE are kept.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil

from studio.errors import Busy

log = logging.getLogger(__name__)

MAX_SET_ASIDE = 3
MAX_QUICK_CHECK_BYTES = 8 * 2**20  # of a file that is checked at each opening: 20 ms
MAX_GAP_ROWS = 10_000  # that are tried one by one between two damaged places
WAIT_FOR_OTHERS_SECONDS = 3.0
LOCK_TIMEOUT_SECONDS = 60.0
SIGNATURE = b"SQLite format 3\0"
SIDE_FILES = ("-wal", "-shm", "-journal")
_DAMAGE_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class DamagedDatabase(sqlite3.DatabaseError):
    """A file whose tables cannot be used; the text says why and continues "It"."""


def is_damage(path: Path, error: Exception) -> bool:
    """Return whether an error speaks of the file itself, not of the disk or of another program."""
    if isinstance(error, DamagedDatabase) or path.is_dir():
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE_CODES


def remember_damage(path: Path, error: sqlite3.Error) -> None:
    """Note that a statement met damage: the next opening checks the whole file."""
    if is_damage(path, error):
        log.error("%s is damaged (%s); it is mended when the studio is next opened", path, error)
        with suppress(OSError):
            _mark(path).touch()


def check_file(path: Path, connection: sqlite3.Connection) -> None:
    """Check a file that was just opened.

    Small files are read as a whole, large ones only where a statement met damage before.

    Raises:
        DamagedDatabase: It is cut off or damaged.
    """
    num_bytes = path.stat().st_size
    has_side_files = any(_side_file(path, suffix).exists() for suffix in SIDE_FILES)
    if not has_side_files and num_bytes < _read_stated_bytes(path):
        raise DamagedDatabase("was cut off")
    is_marked = _mark(path).exists()
    if num_bytes > MAX_QUICK_CHECK_BYTES and not is_marked:
        return
    problem = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    if problem != "ok":
        log.error("%s: %s", path, problem)
        raise DamagedDatabase("is damaged")
    if is_marked:
        _mark(path).unlink(missing_ok=True)


def check_tables(connection: sqlite3.Connection, scripts: Sequence[str]) -> None:
    """Check that a file has the tables and columns that these scripts make.

    Raises:
        DamagedDatabase: One is missing.
    """
    with closing(sqlite3.connect(":memory:")) as expected:
        run_scripts(expected, scripts)
        for table in _list_tables(expected):
            missing = set(_list_columns(expected, table)) - set(_list_columns(connection, table))
            if missing:
                raise DamagedDatabase(f"lacks {min(missing)} in its table {table}")


def run_scripts(connection: sqlite3.Connection, scripts: Sequence[str]) -> None:
    """Run SQL scripts, statement by statement; `executescript` would commit before it begins."""
    for script in scripts:
        statement = ""
        for piece in script.split(";"):
            statement += f"{piece};"
            if sqlite3.complete_statement(statement):
                if statement.strip() != ";":
                    connection.execute(statement)
                statement = ""


@contextmanager
def repair_lock(path: Path) -> Iterator[None]:
    """Let one process at a time mend files of a folder. Raises Busy."""
    lock_path = path.with_name("repair.lock")
    with closing(sqlite3.connect(lock_path, timeout=LOCK_TIMEOUT_SECONDS)) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error:
            raise Busy(f"Another program is repairing {path}; try again in a moment.") from None
        yield


def repair(
    path: Path, scripts: Sequence[str], reason: str, *, rebuildable: bool, holds: str
) -> str:
    """Set a damaged file aside; what cannot be made again is saved from it as far as it is there.

    Args:
        path: The file, or a folder in its place.
        scripts: That make its tables, one per version.
        reason: What is wrong with it; continues "It".
        rebuildable: Whether all that is in it can be made again from other files.
        holds: What is in it, for people.

    Returns:
        The sentence that says what happened.

    Raises:
        Busy: Another process has the file open.
        OSError: It cannot be renamed, or the disk does not take the new one.
    """
    _wait_for_others(path)
    salvaged = 0
    version = _read_version(path, len(scripts))
    aside = set_aside(path)
    if not rebuildable and aside.is_file():
        salvaged = _salvage(aside, path, scripts[:version])
    sentence = f"{path.name} {reason}. "
    if rebuildable:
        sentence += f"It is rebuilt from the files ({holds}); nothing is lost."
    else:
        kept = f"with the {salvaged:,} entries that could" if salvaged else "empty: nothing could"
        sentence += f"It starts over {kept} still be read. Some or all of {holds} may be lost."
    sentence += f" The old one is kept as {aside.name}."
    log.warning("%s", sentence)
    with suppress(OSError):
        aside.with_name(f"{aside.name}.txt").write_text(sentence, "utf-8")
    return sentence


def set_aside(path: Path) -> Path:
    """Rename a file or folder, with what SQLite keeps beside it; return its new path."""
    names = [file.name for file in _list_aside(path)]
    seconds = time.time()
    while True:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(seconds))
        aside = path.with_name(f"{path.name}.damaged-{stamp}")
        if not names or aside.name > names[-1] or seconds > time.time() + 60:
            break
        seconds += 1  # the second one of this moment
    for suffix in SIDE_FILES:
        side_file = _side_file(path, suffix)
        if os.path.lexists(side_file):
            os.rename(side_file, _side_file(aside, suffix))
    os.rename(path, aside)
    _mark(path).unlink(missing_ok=True)
    _drop_oldest(path)
    return aside


def clear_lock(path: Path) -> None:
    """Set aside what is in the place of a lock and can be none: a folder, or a file of anything."""
    with suppress(OSError):
        is_other = path.is_dir()
        if path.is_file() and path.stat().st_size:
            is_other = not _read_header(path)
        if is_other:
            aside = set_aside(path)
            sentence = f"{path.name} was not a lock of the studio and is kept as {aside.name}."
            log.warning("%s", sentence)
            aside.with_name(f"{aside.name}.txt").write_text(sentence, "utf-8")


def list_notices(folder: Path) -> list[str]:
    """Return what happened to files of a folder that were set aside and are still kept."""
    notices = []
    for file in sorted(folder.glob("*.damaged-*.txt")):
        with suppress(OSError, ValueError):
            notices.append(file.read_text("utf-8"))
    return notices


# ---- saving rows --------------------------------------------------------------------------------


def _salvage(damaged: Path, path: Path, scripts: Sequence[str]) -> int:
    """Make a new file with the rows of a damaged one that can be read; return how many."""
    temporary_path = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    temporary_path.unlink(missing_ok=True)
    num_rows = 0
    if damaged.stat().st_size < _read_stated_bytes(damaged):
        # SQLite opens no file that is shorter than it says
        padded = path.with_name(f".{path.name}.padded.{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            shutil.copyfile(damaged, padded)
            os.truncate(padded, _read_stated_bytes(damaged))
            return _salvage(padded, path, scripts)
        finally:
            padded.unlink(missing_ok=True)
    with (
        closing(sqlite3.connect(temporary_path, isolation_level=None)) as target,
        closing(sqlite3.connect(damaged, isolation_level=None)) as source,
    ):
        source.text_factory = lambda data: data.decode("utf-8", "replace")
        target.execute("BEGIN")
        run_scripts(target, scripts)
        for table in _list_tables(target):
            num_rows += _copy_rows(source, target, table)
        target.execute(f"PRAGMA user_version = {len(scripts)}")
        target.execute("COMMIT")
    os.replace(temporary_path, path)
    return num_rows


def _copy_rows(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> int:
    """Copy all rows of a table that can be read; return how many are there then."""
    try:
        present = set(_list_columns(source, table))
    except sqlite3.Error:
        return 0  # not even the list of tables can be read
    columns = [column for column in _list_columns(target, table) if column in present]
    if not columns:
        return 0
    names = ", ".join(f'"{column}"' for column in columns)
    insert = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})"
    for row in _read_rows(source, table, names, _find_key(target, table)):
        with suppress(sqlite3.Error):  # a value that the table does not take
            target.execute(insert, row)
    return int(target.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _read_rows(
    source: sqlite3.Connection, table: str, names: str, key: str
) -> Iterator[tuple[object, ...]]:
    """Yield rows from the beginning to the first damaged place, from the end, and between."""
    select = f"SELECT {key}, {names} FROM {table} NOT INDEXED"
    ends: list[object] = []
    for direction in ("ASC", "DESC"):
        last: object = None
        try:
            for row in source.execute(f"{select} ORDER BY {key} {direction}"):
                last = row[0]
                yield row[1:]
            return  # nothing of this table is damaged
        except sqlite3.Error:
            ends.append(last)
    first, last = ends
    if key != "rowid" or not isinstance(first, int) or not isinstance(last, int):
        return
    for rowid in range(first + 1, min(last, first + MAX_GAP_ROWS)):
        with suppress(sqlite3.Error):
            for row in source.execute(f"{select} WHERE rowid = ?", (rowid,)):
                yield row[1:]


def _find_key(connection: sqlite3.Connection, table: str) -> str:
    """Return what a table is ordered by on the disk: rowid, or the first column of its key."""
    sql = str(
        connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    )
    if "WITHOUT ROWID" not in sql.upper():
        return "rowid"
    rows = connection.execute(f"PRAGMA table_info({table})").fetchall()
    return str(min((row[5], row[1]) for row in rows if row[5])[1])


# ---- files --------------------------------------------------------------------------------------


def _list_tables(connection: sqlite3.Connection) -> list[str]:
    sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return [str(row[0]) for row in connection.execute(sql)]


def _list_columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")]


def _side_file(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _mark(path: Path) -> Path:
    """Return the empty file that says: check this database when it is next opened."""
    return path.with_name(f"{path.name}.check")


def _read_header(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            header = file.read(100)
    except OSError:
        return b""
    return header if len(header) == 100 and header.startswith(SIGNATURE) else b""


def _read_stated_bytes(path: Path) -> int:
    """Return how large a file says that it is; 0 where it says nothing."""
    header = _read_header(path)
    if not header:
        return 0
    page_bytes = struct.unpack(">H", header[16:18])[0]
    num_pages = int(struct.unpack(">I", header[28:32])[0])
    return num_pages * (65_536 if page_bytes == 1 else int(page_bytes))


def _read_version(path: Path, newest: int) -> int:
    """Return of which version the tables of a damaged file are; the newest if it is not known."""
    header = _read_header(path)
    version = int(struct.unpack(">I", header[60:64])[0]) if header else newest
    return version if 1 <= version <= newest else newest


def _wait_for_others(path: Path) -> None:
    """Raise Busy while another process has the file open: what it writes would be lost."""
    end = time.monotonic() + WAIT_FOR_OTHERS_SECONDS
    while pid := _find_user(path):
        if time.monotonic() > end:
            raise Busy(
                f"{path} is damaged, and process {pid} has it open: a studio, or the worker of "
                "one that was closed, which ends within a minute. Close it and open the studio "
                "again to repair the file."
            )
        time.sleep(0.2)


def _find_user(path: Path) -> int:
    """Return the id of another process that has a file open; 0 if there is none to be seen."""
    name = str(path.resolve())
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and any(
                file.path == name for file in process.open_files()
            ):
                return int(process.pid)
    return 0


def _list_aside(path: Path) -> list[Path]:
    """List what was set aside of a file, the oldest first."""
    files = path.parent.glob(f"{path.name}.damaged-*")
    return sorted(file for file in files if not file.name.endswith((".txt", *SIDE_FILES)))


def _drop_oldest(path: Path) -> None:
    """Keep the newest of what was set aside of a file."""
    for file in _list_aside(path)[:-MAX_SET_ASIDE]:
        for name in (file.name, f"{file.name}.txt", *(file.name + suffix for suffix in SIDE_FILES)):
            discarded = file.with_name(name)
            if discarded.is_dir():
                shutil.rmtree(discarded, ignore_errors=True)
            discarded.unlink(missing_ok=True)
