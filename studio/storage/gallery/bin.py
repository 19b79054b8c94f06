"""The bin: images that were thrown away, and can be had back until it is emptied.

Knows: which rows are binned, since when; in which order files and rows go for good. Does not know:
who may bin what (services/visitor.py), how long images stay (bin_options.py), when it is emptied by
itself (cleanup.py).

A binned image stays where it lies: to bin it and to have it back is one statement each, so a
process that is killed on the way leaves it here or there, and whole. If the index is lost, images
of the bin are back in the gallery.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from studio.storage.database import Database

MAX_SQL_VALUES = 500


class Bin:
    """The bin of one gallery.

    Args:
        database: The gallery's index.
        delete_files: Deletes a listed image's file and thumbnail.
    """

    def __init__(self, database: Database, delete_files: Callable[[Path], None]) -> None:
        self._database = database
        self._delete_files = delete_files
        self._binned_paths: tuple[int, frozenset[str]] = (-1, frozenset())

    def put(self, image_ids: Iterable[int], owner: str | None = None) -> list[int]:
        """Put images into the bin; return which were put there now.

        Args:
            image_ids: Their numbers in the index.
            owner: Whose may go; others' stay. None is anybody's.
        """
        return self._set_binned(image_ids, owner, binned=time.time(), condition="binned = 0")

    def restore(self, image_ids: Iterable[int], owner: str | None = None) -> list[int]:
        """Take images out of the bin; return which were in it. Arguments as for `put`."""
        return self._set_binned(image_ids, owner, binned=0.0, condition="binned > 0")

    def empty(self, owner: str | None = None, *, binned_before: float | None = None) -> int:
        """Delete images of the bin for good; return how many.

        Args:
            owner: Whose; None is everybody's.
            binned_before: Only those that were put there before this Unix time.

        Raises:
            DiskError: The disk does not let one be deleted.
        """
        rows = self._list_rows(owner, binned_before)
        deleted: list[int] = []
        try:
            for image_id, path in rows:
                # The file first: a row without a file goes at the next look, a file without a row
                # would come back. And on a full disk the table has no room for a change before.
                self._delete_files(path)
                deleted.append(image_id)
        finally:
            self._forget(deleted)
        return len(deleted)

    def list_paths(
        self, owner: str | None = None, binned_before: float | None = None
    ) -> list[Path]:
        """Return the files of the bin, or those that were put there before a time."""
        return [path for _, path in self._list_rows(owner, binned_before)]

    def count(self, owner: str | None = None) -> int:
        """Return how many images are in the bin."""
        sql = "SELECT count(*) AS num FROM images WHERE binned > 0 AND owner = coalesce(?, owner)"
        return int(self._database.execute(sql, owner)[0]["num"])

    def describe_space(self) -> str:
        """Say how much of the disk emptying the bin would free; empty where it holds nothing."""
        paths = self.list_paths()
        if not paths:
            return ""
        num_bytes = sum(_measure(path) for path in paths)
        images = "1 image" if len(paths) == 1 else f"{len(paths):,} images"
        megabytes = max(1, round(num_bytes / 1e6))
        return f"The bin holds {images} ({megabytes:,} MB): empty it in the Gallery."

    def get_paths(self) -> frozenset[str]:
        """Return the files of the bin; asked anew only when the index has changed."""
        with self._database.lock:
            revision = self._database.revision
            if revision != self._binned_paths[0]:
                sql = "SELECT path FROM images WHERE binned > 0"
                paths = frozenset(row["path"] for row in self._database.execute(sql))
                self._binned_paths = revision, paths
            return self._binned_paths[1]

    def _set_binned(
        self, image_ids: Iterable[int], owner: str | None, *, binned: float, condition: str
    ) -> list[int]:
        changed: list[int] = []
        with self._database.transaction():
            for numbers in _split(image_ids):
                marks = ", ".join("?" * len(numbers))
                sql = f"""UPDATE images SET binned = ? WHERE {condition} AND id IN ({marks})
                          AND owner = coalesce(?, owner) RETURNING id"""
                rows = self._database.execute(sql, binned, *numbers, owner)
                changed += [int(row["id"]) for row in rows]
        return changed

    def _list_rows(self, owner: str | None, binned_before: float | None) -> list[tuple[int, Path]]:
        sql = """SELECT id, path FROM images WHERE binned > 0 AND binned < coalesce(?, 1e12)
                 AND owner = coalesce(?, owner) ORDER BY binned"""
        rows = self._database.execute(sql, binned_before, owner)
        return [(int(row["id"]), Path(row["path"])) for row in rows]

    def _forget(self, image_ids: Sequence[int]) -> None:
        """Remove rows whose files are gone."""
        with self._database.transaction():
            for image_id in image_ids:
                for table in ("images", "image_metadata", "image_loras"):
                    self._database.execute(f"DELETE FROM {table} WHERE id = ?", image_id)


def _measure(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _split(image_ids: Iterable[int]) -> Iterator[list[int]]:
    """Yield numbers in lists that one SQL statement takes."""
    numbers = list(dict.fromkeys(image_ids))
    for start in range(0, len(numbers), MAX_SQL_VALUES):
        yield numbers[start : start + MAX_SQL_VALUES]
