"""Names of which only one process has each: the page of a home, a device, a journal.

Knows: how a lock ends with its process, however that ends; how long to wait before the next try.
Does not know: what is locked.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from studio.storage import sqlite_repair
from studio.storage.database import get_primary_code, report_disk_errors

MAX_RETRY_PAUSE_SECONDS = 30.0


class Lock:
    """A name that belongs to this process until the process ends.

    It is an exclusive SQLite transaction held open: that works on every system and ends with the
    process on kill -9. An flock would be inherited by forked children, so that a data loader could
    keep its dead worker alive.

    Something else of its name is set aside. All raise DiskError where the disk does not take the
    file.
    """

    def __init__(self, home: Path, name: str) -> None:
        self._path = home / f"{name.replace(':', '-')}.lock"
        sqlite_repair.clear_lock(self._path)
        with report_disk_errors(self._path):
            self._connection = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False
            )

    def acquire(self, timeout_seconds: float = 0.0) -> bool:
        """Take the name; return False if another process still holds it after the timeout."""
        with report_disk_errors(self._path):
            self._connection.execute(f"PRAGMA busy_timeout = {int(timeout_seconds * 1000)}")
            try:
                self._connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if get_primary_code(error) != sqlite3.SQLITE_BUSY:
                    raise
                return False
        return True

    def release(self) -> None:
        """Give the name back."""
        with report_disk_errors(self._path):
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file; a name that is still held is given back."""
        self._connection.close()


def lengthen_pause(seconds: float) -> float:
    """Return how long to wait before the next try after a pause that was not long enough."""
    return min(MAX_RETRY_PAUSE_SECONDS, 2 * seconds + 0.5)
