"""Whose the files are that visitors sent to the page or were handed by it.

Knows: home/uploads, which guest may read which of its files, how much guests keep there. Does not
know: HTTP, gradio, what a file is for.

The table is home/uploads.sqlite, outside of the folder that the page serves from. What is not in it
is the owner's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from studio.errors import BadFile
from studio.settings import Settings
from studio.storage.database import Database

MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS uploads (
        path TEXT NOT NULL, guest TEXT NOT NULL, bytes INTEGER NOT NULL, created REAL NOT NULL,
        PRIMARY KEY (path, guest)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS uploads_of_guest ON uploads (guest);
    """,
)
IMAGE_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM")
AVIF_SIGNATURES = (b"ftypavif", b"ftypavis")  # behind the length of the first box
TEXT_SUFFIXES = (".toml", ".json", ".txt")
MAX_TEXT_BYTES = 2**20  # a viewer's verdicts about some thousand cells
SIGNATURE_BYTES = 12
RETENTION_SECONDS = 24 * 3600.0  # of a row, and of its file


class Uploads:
    """The files in the folder of uploads, by who may read them; any thread may call."""

    def __init__(self, settings: Settings) -> None:
        """Open the table. Raises BadFile for one that cannot be used."""
        self.folder = Path(os.path.realpath(settings.uploads))
        self._prefix = f"{self.folder}{os.sep}"
        self._database = Database(
            settings.home / "uploads.sqlite",
            MIGRATIONS,
            synchronous="OFF",
            advice="Move it away; guests have to send their files again.",
            holds="the list of who sent which file",
        )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def record(self, path: Path, guest_id: str) -> None:
        """Note that a guest sent a file. An empty id is the owner's, whose bytes do not count."""
        resolved = self._resolve(str(path))
        if resolved:
            self._add(resolved, guest_id, resolved.stat().st_size if guest_id else 0)

    def delete_unknown(self, path: Path) -> None:
        """Delete a file that nobody is recorded to have sent or been handed."""
        resolved = self._resolve(str(path))
        sql = "SELECT 1 FROM uploads WHERE path = ?"
        if resolved and not self._database.execute(sql, self._key(resolved)):
            resolved.unlink(missing_ok=True)

    def record_handed_out(self, paths: Iterable[str], guest_id: str) -> None:
        """Note that the page hands these files to a guest; those elsewhere are left out."""
        for path in paths:
            resolved = self._resolve(path)
            if resolved:
                self._add(resolved, guest_id, 0)

    def may_read(self, path: str, guest_id: str) -> bool:
        """Return whether a guest sent a file or was handed it; True for one that lies elsewhere."""
        resolved = self._resolve(path)
        if resolved is None:
            return True
        sql = "SELECT 1 FROM uploads WHERE path = ? AND guest = ?"
        return bool(self._database.execute(sql, self._key(resolved), guest_id))

    def count_kept_bytes(self, guest_id: str) -> tuple[int, int]:
        """Return the bytes of the files that are still there: this guest's, and all guests'."""
        own_bytes = 0
        all_bytes = 0
        rows = self._database.execute("SELECT path, guest, bytes FROM uploads WHERE bytes > 0")
        for row in rows:
            if not (self.folder / row["path"]).exists():
                self._forget(row["path"])
                continue
            all_bytes += row["bytes"]
            own_bytes += row["bytes"] if row["guest"] == guest_id else 0
        return own_bytes, all_bytes

    def delete_expired(self) -> int:
        """Delete what guests sent a day ago or earlier; return how many files."""
        before = time.time() - RETENTION_SECONDS
        sql = "SELECT path FROM uploads GROUP BY path HAVING max(created) < ?"
        rows = self._database.execute(sql, before)
        for row in rows:
            (self.folder / row["path"]).unlink(missing_ok=True)
            self._forget(row["path"])
        return len(rows)

    def _add(self, path: Path, guest_id: str, num_bytes: int) -> None:
        sql = """INSERT INTO uploads VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE
                 SET bytes = max(bytes, excluded.bytes), created = excluded.created"""
        self._database.execute(sql, self._key(path), guest_id, num_bytes, time.time())

    def _forget(self, key: str) -> None:
        self._database.execute("DELETE FROM uploads WHERE path = ?", key)

    def _key(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _resolve(self, path: str) -> Path | None:
        """Return where a path leads, if that is inside the folder."""
        try:
            resolved = os.path.realpath(path)
        except (OSError, ValueError):
            return None
        return Path(resolved) if resolved.startswith(self._prefix) else None


def check_kind(path: Path) -> None:
    """Raise BadFile unless a file is of a kind that a guest's page has a use for.

    Pictures are known by their first bytes, settings and verdicts by their name and size.
    """
    with open(path, "rb") as file:
        start = file.read(SIGNATURE_BYTES)
    is_image = start.startswith(IMAGE_SIGNATURES) or (start[:4], start[8:]) == (b"RIFF", b"WEBP")
    is_image = is_image or start[4:] in AVIF_SIGNATURES
    is_text = path.suffix.lower() in TEXT_SUFFIXES and b"\0" not in start
    if not is_image and not (is_text and path.stat().st_size <= MAX_TEXT_BYTES):
        raise BadFile(
            f"{path.name:.80} is not a file that guests can send: use an image (PNG, JPEG, WebP, "
            "AVIF, BMP or GIF), or settings as TOML or JSON."
        )
