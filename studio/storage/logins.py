"""Who is logged in, and the key that signs what browsers keep.

Knows: a table of hashed session tokens, a file of 32 random bytes. Does not know: passwords
(services/logins.py); cookies (ui/login.py); who is owner and who guest.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from studio.storage.atomic import open_for_writing, write_error
from studio.storage.database import Database

SESSION_SECONDS = 30 * 24 * 3600
MAX_SESSIONS = 10_000  # the oldest go first
SECRET_BYTES = 32
_MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS sessions (
        token_hash TEXT PRIMARY KEY, login TEXT NOT NULL, created REAL NOT NULL
    );
    """,
)


class LoginSessions:
    """The sessions of all who have logged in; they outlive a restart.

    Only a hash of each token is kept: who reads the file can log in with nothing in it.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(
            path,
            _MIGRATIONS,
            advice="Move it away; people log in again.",
            holds="the list of who is logged in",
        )

    def close(self) -> None:
        """Close the table."""
        self._database.close()

    def add(self, login: str) -> str:
        """Begin a session of a login; return its token, which is given to nobody but the browser.

        Args:
            login: What `get` returns for the token.

        Raises:
            DiskError: The disk does not take it.
        """
        token = secrets.token_urlsafe(32)
        now = time.time()
        with self._database.transaction():
            self._database.execute(
                "DELETE FROM sessions WHERE created < ? OR rowid IN "
                "(SELECT rowid FROM sessions ORDER BY created DESC LIMIT -1 OFFSET ?)",
                now - SESSION_SECONDS,
                MAX_SESSIONS - 1,
            )
            self._database.execute(
                "INSERT INTO sessions VALUES (?, ?, ?)", hash_token(token), login, now
            )
        return token

    def get(self, token: str) -> str | None:
        """Return whose session a token is; None if it is nobody's, or too old."""
        rows = self._database.execute(
            "SELECT login FROM sessions WHERE token_hash = ? AND created > ?",
            hash_token(token),
            time.time() - SESSION_SECONDS,
        )
        return str(rows[0]["login"]) if rows else None

    def remove(self, token: str) -> None:
        """End one session, and no other of the same login."""
        self._database.execute("DELETE FROM sessions WHERE token_hash = ?", hash_token(token))


def hash_token(token: str) -> str:
    """Return the sha256 of a session's token."""
    return hashlib.sha256(token.encode()).hexdigest()


def load_secret(path: Path) -> bytes:
    """Return the 32 bytes of a key file, which is made where there is none or a damaged one.

    Raises BadFile where the disk does not take it.
    """
    for _ in range(2):
        try:
            secret = path.read_bytes()
        except FileNotFoundError:
            secret = b""
        except OSError as error:
            raise write_error(path, error) from None
        if len(secret) == SECRET_BYTES:
            return secret
        # Another process may be first: then its key is read.
        with suppress(FileExistsError), open_for_writing(path, replace=bool(secret)) as file:
            if hasattr(os, "fchmod"):  # before a byte is in it
                os.fchmod(file.fileno(), 0o600)
            file.write(secrets.token_bytes(SECRET_BYTES))
    return path.read_bytes()
