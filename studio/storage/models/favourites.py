"""Which models, LoRAs and other files somebody marked as favourites: home/favourites.json.

Knows: kinds and names. Does not know: whether they are there; how a star is drawn.
"""

from __future__ import annotations

import json
import threading

from studio.errors import BadFile
from studio.settings import Settings
from studio.storage import atomic, odd_files

MAX_FAVOURITES = 10_000
MAX_FILE_BYTES = 4 * 2**20


class Favourites:
    """The favourites of one home; any thread may call."""

    def __init__(self, settings: Settings) -> None:
        self._file = settings.home / "favourites.json"
        self._lock = threading.Lock()

    def load(self) -> frozenset[str]:
        """Return the keys, each a kind and a name; none of a list that cannot be read."""
        try:
            keys = odd_files.read_json(self._file, MAX_FILE_BYTES)["favourites"]
            return frozenset(key for key in keys if isinstance(key, str))
        except (OSError, ValueError, TypeError, KeyError):
            return frozenset()

    def toggle(self, key: str) -> bool:
        """Mark a favourite, or no longer; return whether it is one now.

        Raises BadFile for one too many, DiskError where the disk does not take the list.
        """
        with self._lock:
            keys = set(self.load())
            keys.symmetric_difference_update([key])
            if len(keys) > MAX_FAVOURITES:
                raise BadFile(f"You already have {MAX_FAVOURITES:,} favourites; remove some first.")
            stored = {"favourites": sorted(keys)}
            atomic.write(self._file, json.dumps(stored, indent=1).encode())
            return key in keys
