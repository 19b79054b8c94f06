"""What lies in a folder, and what leads out of it.

Knows: names, links, times. Does not know: images, captions (layout.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from studio.errors import DatasetError
from studio.storage.datasets.caption_files import display_name


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """List a folder's entries by name, without hidden ones (which systems put there).

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DatasetError(
            f"The folder {display_name(str(folder))} cannot be read ({error.strerror or error})."
        ) from None
    return sorted(visible, key=lambda entry: entry.name)


def is_dir(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or links to one; circular links do not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def file_suffix(name: str) -> str:
    """Return the ending of a file name in lower case: `a.PNG` → `.png`."""
    return os.path.splitext(name)[1].lower()


def list_folder_tree(folder: Path) -> list[str]:
    """List a dataset's folder and the folders directly below it."""
    with os.scandir(folder) as entries:
        subfolders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return [str(folder), *subfolders]


def read_mtimes(folders: Iterable[str]) -> dict[str, int]:
    """Return when each folder last changed, in nanoseconds; 0 if it is not there.

    It changes when a file is added, removed, or replaced by one that was written aside.
    """
    mtimes = dict.fromkeys(folders, 0)
    for folder in mtimes:
        with suppress(OSError):
            mtimes[folder] = os.stat(folder).st_mtime_ns
    return mtimes


class ContainedFolder:
    """A folder that no link is followed out of."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = folder.resolve()
        self._parents_inside: dict[Path, bool] = {}

    def contains(self, path: Path) -> bool:
        """Return whether a path, with all its links followed, stays in the folder."""
        if path == self._folder:
            return True
        if path.is_symlink():
            return self._resolves_inside(path)
        if path.parent not in self._parents_inside:
            self._parents_inside[path.parent] = self._resolves_inside(path.parent)
        return self._parents_inside[path.parent]

    def _resolves_inside(self, path: Path) -> bool:
        try:
            return path.resolve().is_relative_to(self._root)
        except (OSError, RuntimeError):  # circular links
            return False
