"""What a CLIP model saw in pictures and words: kept by content, so that nothing is looked at twice.

Knows: one SQLite table of bytes, by who looked and at what. Does not know: what the bytes mean; torch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from studio.errors import BadFile

SCHEMA = "CREATE TABLE IF NOT EXISTS vectors (by TEXT, content TEXT, data BLOB NOT NULL, PRIMARY KEY (by, content)) WITHOUT ROWID"
AT_ONCE = 500  # rows in one question


class Vectors:
    """The memory of one home. To be used from one thread and closed."""

    def __init__(self, home: Path) -> None:
        """Raises BadFile for a file that is no such table; it can be deleted."""
        path = home / "cache" / "vectors.sqlite"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(SCHEMA)
        except (OSError, sqlite3.DatabaseError) as error:
            raise BadFile(
                f"{path} cannot be used: {error}. Delete it; all in it can be computed again."
            ) from None

    def close(self) -> None:
        self._db.close()

    def get(self, by: str, contents: Iterable[str]) -> dict[str, bytes]:
        """Those that are known."""
        wanted, found = list(dict.fromkeys(contents)), dict[str, bytes]()
        for first in range(0, len(wanted), AT_ONCE):
            some = wanted[first : first + AT_ONCE]
            sql = f"SELECT content, data FROM vectors WHERE by = ? AND content IN ({', '.join('?' * len(some))})"
            found.update(self._db.execute(sql, (by, *some)).fetchall())
        return found

    def put(self, by: str, vectors: Mapping[str, bytes]) -> None:
        """All of them or, after a kill, none."""
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)",
            [(by, content, data) for content, data in vectors.items()],
        )
        self._db.execute("COMMIT")
