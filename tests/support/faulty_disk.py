"""A disk that fails at the n-th thing that is written to a folder, as a full one does.

Counted are, in the order in which they come: every file that is opened for writing, every write, fsync, rename, link
and folder, and every statement of SQLite that changes something, COMMIT included. What reads is never refused.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors import safe_open

CHANGING = ("INSERT", "UPDATE", "DELETE", "REPLACE", "BEGIN", "COMMIT", "CREATE", "ALTER", "DROP")
# What SQLite says where the system says this.
SQLITE_ERRORS: dict[int, tuple[int, str]] = {
    errno.ENOSPC: (sqlite3.SQLITE_FULL, "database or disk is full"),
    errno.EIO: (sqlite3.SQLITE_IOERR, "disk I/O error"),
    errno.EACCES: (sqlite3.SQLITE_READONLY, "attempt to write a readonly database"),
}
PATH_CALLS = ("replace", "rename", "link", "symlink", "mkdir")
FILE_CALLS = ("fsync", "sendfile", "write")
# Of one open file: a file of weights has a hundred, and after the first it does not matter which of them fails.
MAX_COUNTED_WRITES = 2


class FaultyDisk:
    """Counts what is written below `folder`, and fails once at the n-th while it is armed."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder.resolve())
        self.count = 0
        self.failed = ""
        self._limit: int | None = None
        self._errno = errno.ENOSPC
        self._armed_at = 0.0

    def arm(self, limit: int, number: int = errno.ENOSPC) -> None:
        """Fail at the n-th from now on."""
        self.count, self.failed, self._limit, self._errno = 0, "", limit, number
        self._armed_at = time.time()

    def arm_for_good(self, number: int = errno.ENOSPC) -> None:
        """Fail at every one from now on."""
        self.arm(0, number)

    def disarm(self) -> None:
        """Take everything from now on."""
        self._limit = None

    def holds(self, path: Any) -> bool:
        """Whether a path, or an open file's number, is below the folder."""
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return False
        try:
            return os.path.abspath(os.fspath(path)).startswith(self.folder)
        except TypeError:
            return False

    def is_due(self, act: str) -> bool:
        """Count one; whether it has to fail."""
        if self._limit is None:
            return False
        self.count += 1
        if self._limit not in (0, self.count):
            return False
        self.failed = act
        return True

    def take(self, act: str, path: Any) -> None:
        """Count one; raise if it has to fail."""
        if self.holds(path) and self.is_due(f"{act} {path}"):
            raise OSError(self._errno, os.strerror(self._errno), str(path))

    def take_statement(self, sql: str) -> None:
        """The same for a statement of SQLite."""
        if sql.lstrip().upper().startswith(CHANGING) and self.is_due(f"SQL {sql.split()[0]}"):
            code, text = SQLITE_ERRORS[self._errno]
            error = sqlite3.OperationalError(text)
            error.sqlite_errorcode = code
            raise error

    def list_halves(self) -> list[str]:
        """What was left behind half written or with a temporary name since the disk was armed."""
        halves = []
        for path in Path(self.folder).rglob("*"):
            if not path.is_file() or path.stat().st_mtime < self._armed_at - 1:
                continue
            if path.name.endswith((".tmp", ".partial", ".incoming")):
                halves.append(f"{path} is a leftover")
            elif not path.is_symlink():
                try:
                    _read_whole(path)
                except Exception as error:
                    halves.append(f"{path}: {type(error).__name__}: {error}")
        return halves


def _read_whole(path: Path) -> None:
    """Raise what is wrong with a file of a known kind."""
    match path.suffix:
        case ".png" | ".webp" | ".jpg":
            with Image.open(path) as image:
                image.load()
        case ".safetensors":
            with safe_open(path, "np") as file:
                assert file.metadata() is None or isinstance(file.metadata(), dict)
        case ".json":
            json.loads(path.read_bytes())
        case (
            ".jsonl"
        ):  # only the last line of what is appended to may be cut off; readers leave it out
            for line in path.read_bytes().split(b"\n")[:-1]:
                json.loads(line)
        case ".sqlite":
            with closing(sqlite3.connect(path, timeout=5)) as database:
                ((verdict,),) = database.execute("PRAGMA integrity_check").fetchall()
                assert verdict == "ok", verdict


def _make_file(disk: FaultyDisk, path: Any, mode: str) -> io.IOBase:
    """A real file, every write of which is counted; the one that fails leaves half of itself."""

    class Counted:
        num_writes = 0

        def write(self, data: Any) -> int:
            self.num_writes += 1
            if self.num_writes <= MAX_COUNTED_WRITES and disk.is_due(f"write {path}"):
                with memoryview(data) as view:
                    super().write(view.cast("B")[: view.nbytes // 2])  # type: ignore[misc]
                super().flush()  # type: ignore[misc]
                raise OSError(disk._errno, os.strerror(disk._errno), str(path))
            return int(super().write(data))  # type: ignore[misc]

    kinds: dict[bool, Any] = {False: io.BufferedWriter, True: io.BufferedRandom}
    base = kinds["+" in mode]
    return type("CountedFile", (Counted, base), {})(
        io.FileIO(path, mode.replace("b", "").replace("t", ""))
    )  # type: ignore[no-any-return]


@contextmanager
def faulty_disk(folder: Path) -> Iterator[FaultyDisk]:
    """Put the disk under a folder; connections that were opened before are not counted."""
    disk = FaultyDisk(folder)
    real_open, real_connect = builtins.open, sqlite3.connect

    def open_counted(
        file: Any, mode: str = "r", buffering: int = -1, *others: Any, **more: Any
    ) -> Any:
        if not set(mode) & set("wax+") or not disk.holds(file) or isinstance(file, int):
            return real_open(file, mode, buffering, *others, **more)
        disk.take("open", file)
        raw = _make_file(disk, file, mode)
        return raw if "b" in mode else io.TextIOWrapper(raw, *others, **more)  # type: ignore[type-var]

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **more: Any) -> Any:
            disk.take(
                name, values[1] if name in ("link", "replace", "rename", "symlink") else values[0]
            )
            return real(*values, **more)

        return call

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            disk.take_statement(sql)
            return super().execute(sql, *values)

        def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
            disk.take_statement(sql)
            return super().executemany(sql, *values)

    def connect(path: Any, *others: Any, **more: Any) -> sqlite3.Connection:
        if disk.holds(path) and not str(path).endswith(".lock"):
            more["factory"] = Connection
        return real_connect(path, *others, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", open_counted)
        patch.setattr(io, "open", open_counted)
        patch.setattr(sqlite3, "connect", connect)
        for name in (*PATH_CALLS, *FILE_CALLS):
            patch.setattr(os, name, counted(name, getattr(os, name)))
        yield disk
