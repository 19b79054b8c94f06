"""What lies in a folder, and what leads out of it.

Knows: names, links, times. Does not know: pictures, captions (layout.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from studio.errors import DatasetError
from studio.storage.datasets.caption_files import shown


def listing(folder: Path) -> list[os.DirEntry[str]]:
    """A folder's entries by name, without hidden ones (which systems put there for themselves). Raises DatasetError."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if not entry.name.startswith(".")),
                key=lambda entry: entry.name,
            )
    except OSError as error:
        raise DatasetError(
            f"The folder {shown(str(folder))} cannot be read ({error.strerror or error})."
        ) from None


def is_dir(one: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; links in a circle are none."""
    try:
        return one.is_dir()
    except OSError:
        return False


def ending(name: str) -> str:
    """`a.PNG` → `.png`."""
    return os.path.splitext(name)[1].lower()


def tree(folder: Path) -> list[str]:
    """A dataset's folder and those directly below."""
    with os.scandir(folder) as entries:
        return [str(folder), *(one.path for one in entries if one.is_dir(follow_symlinks=False))]


def changed(folders: Iterable[str]) -> dict[str, int]:
    """When each was last changed: a file came, went, or was replaced by one that was written aside. 0: it is no more."""
    found = dict.fromkeys(folders, 0)
    for one in found:
        with suppress(OSError):
            found[one] = os.stat(one).st_mtime_ns
    return found


class Fence:
    """A folder that nothing is followed out of."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._root = folder, folder.resolve()
        self._known: dict[Path, bool] = {}

    def holds(self, path: Path) -> bool:
        """Whether a path, with all its links followed, stays in the folder."""
        if path == self._folder:
            return True
        if path.is_symlink():
            return self._leads_inside(path)
        if path.parent not in self._known:
            self._known[path.parent] = self._leads_inside(path.parent)
        return self._known[path.parent]

    def _leads_inside(self, path: Path) -> bool:
        try:
            return path.resolve().is_relative_to(self._root)
        except (OSError, RuntimeError):  # links in a circle
            return False
