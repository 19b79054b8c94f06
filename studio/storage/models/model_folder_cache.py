"""What model folders are, remembered until something in them changes, in memory.

Knows: when a folder may say something else than before. Does not know: what is read in it
(library.py); names, decisions of the owner.

A folder's configs and the header of its denoiser take 6 ms to read, and a job asks seven times for
all models there are; to look whether anything changed takes 0.3 ms.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from studio.storage.models.model_info import ModelInfo

MAX_STAMPED_ENTRIES = 500  # a model has about 30; a folder of more is read each time
MAX_FOLDERS = 1000

FolderStamp = tuple[tuple[str, int, int, int, int], ...]


class ModelFolderCache:
    """The model folders of one home, as their files say."""

    def __init__(self, read: Callable[[Path], ModelInfo]) -> None:
        """Remember nothing yet.

        Args:
            read: Reads a folder; whatever it raises is not remembered.
        """
        self._read = read
        self._known: dict[Path, tuple[FolderStamp, ModelInfo]] = {}

    def read(self, folder: Path) -> ModelInfo:
        """Return what a folder is. Raises what reading it raises."""
        stamp = stamp_folder(folder)
        known = self._known.get(folder)
        if stamp and known and known[0] == stamp:
            return known[1]
        info = self._read(folder)
        if stamp:
            if len(self._known) >= MAX_FOLDERS:
                self._known.clear()
            self._known[folder] = stamp, info
        return info


def stamp_folder(folder: Path) -> FolderStamp:
    """Return what changes with any file in a folder or in one of its folders.

    Empty where that cannot be told: the folder cannot be listed, or has very many files.
    """
    rows: list[tuple[str, int, int, int, int]] = []
    try:
        for path in _iter_paths(folder):
            if len(rows) == MAX_STAMPED_ENTRIES:
                return ()
            rows.append((path, *_stamp_file(path)))
    except (OSError, ValueError):
        return ()
    return tuple(sorted(rows))


def _iter_paths(folder: Path) -> Iterator[str]:
    """Yield what lies in a folder, and in each of its folders."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.path
            if entry.is_dir():
                with os.scandir(entry.path) as files:
                    yield from (file.path for file in files)


def _stamp_file(path: str) -> tuple[int, int, int, int]:
    """Return zeros for a link that leads nowhere."""
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return 0, 0, 0, 0
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino
