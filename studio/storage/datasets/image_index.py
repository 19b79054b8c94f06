"""What is known of image files without opening them again: size, content, why one cannot be used.

Knows: that a file whose size and times are the same is the same file; the difference between
reading a header and examining (decoding and hashing). Does not know: captions, layouts. The index
in home/looks.sqlite may be deleted: it is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from studio.errors import StudioError
from studio.imaging import decode
from studio.settings import Settings
from studio.storage.database import Database
from studio.storage.datasets.caption_files import display_name
from studio.storage.odd_files import explain_odd_file

MIN_TRAINING_SIDE_PX = 64
DECODE_THREADS = 4
BATCH_SIZE = 256  # infos that are stored together: a kill loses no more
MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS looks (
        folder BLOB, name BLOB, size INTEGER, modified INTEGER, changed INTEGER, said TEXT,
        PRIMARY KEY (folder, name)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE looks RENAME TO images;
    ALTER TABLE images RENAME COLUMN said TO info;
    """,
)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What is known of an image file.

    `size` is (width, height) of the upright image in pixels, `content_hash` the sha256 of the file,
    empty where only its header was read; `image_error` says why it cannot be used and continues the
    file's name; `file_size` is in bytes.
    """

    size: tuple[int, int] = (0, 0)
    content_hash: str = ""
    notes: tuple[str, ...] = ()
    image_error: str = ""
    file_size: int = 0

    @property
    def is_examined(self) -> bool:
        """Whether it was decoded and hashed, or is known to be broken."""
        return bool(self.content_hash or self.image_error)


FileStamp = tuple[int, int, int]


class ImageIndex:
    """The index of a home, or one in memory that ends with the process.

    Several threads may use it: one connection behind one lock.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        path = settings.home / "looks.sqlite" if settings else Path(":memory:")
        self._database = Database(
            path,
            MIGRATIONS,
            busy_seconds=10,
            synchronous="OFF",  # what is lost is looked at again
            advice="Delete it; its contents are recreated automatically.",
            rebuildable=True,
            holds="the index of datasets' images",
        )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def get_infos(
        self,
        paths: Sequence[Path],
        examine: bool = True,
        report: Callable[[int, int], None] | None = None,
    ) -> list[ImageInfo]:
        """Return what is known of images; only those that are new or changed are opened.

        Args:
            paths: the image files; several are opened at once.
            examine: decode and hash images; else their headers are enough.
            report: called with (images opened, of how many); what it raises ends the work, and what
                was read so far is stored.

        Returns:
            One info for each path, in their order.
        """
        names = [os.path.abspath(path) for path in paths]
        stored_infos = self._load_infos({os.path.dirname(name) for name in names})
        stamps = [_read_stamp(name) for name in names]
        infos: list[ImageInfo | None] = []
        for name, stamp in zip(names, stamps):
            stored_stamp, info = stored_infos.get(name, (None, None))
            is_current = stamp is not None and stored_stamp == stamp
            is_sufficient = info is not None and (info.is_examined or not examine)
            infos.append(info if is_current and is_sufficient else None)
        open_file = examine_image if examine else read_header
        indices = [index for index, info in enumerate(infos) if info is None]
        for start in range(0, len(indices), BATCH_SIZE):
            batch = indices[start : start + BATCH_SIZE]
            if report:
                report(start, len(indices))
            with ThreadPoolExecutor(DECODE_THREADS) as pool:
                new_infos = list(pool.map(open_file, [paths[index] for index in batch]))
            rows = []
            for index, new_info in zip(batch, new_infos):
                infos[index] = new_info
                rows.append((names[index], stamps[index], new_info))
            self._save_infos(rows)
        if report and indices:
            report(len(indices), len(indices))
        return [info for info in infos if info is not None]

    def _load_infos(self, folders: Iterable[str]) -> dict[str, tuple[FileStamp, ImageInfo]]:
        infos: dict[str, tuple[FileStamp, ImageInfo]] = {}
        for folder in folders:
            rows = self._database.execute(
                "SELECT name, size, modified, changed, info FROM images WHERE folder = ?",
                os.fsencode(folder),
            )
            for name, size, modified, changed, info in rows:
                image_info = _info_from_row(info, size)
                if image_info is not None:
                    path = os.path.join(folder, os.fsdecode(name))
                    infos[path] = ((size, modified, changed), image_info)
        return infos

    def _save_infos(self, infos: Sequence[tuple[str, FileStamp | None, ImageInfo]]) -> None:
        rows = [
            (
                os.fsencode(os.path.dirname(name)),
                os.fsencode(os.path.basename(name)),
                *stamp,
                json.dumps([*info.size, info.content_hash, info.notes, info.image_error]),
            )
            for name, stamp, info in infos
            if stamp and not info.image_error.startswith("cannot be read")
        ]
        with self._database.transaction():
            self._database.execute_many(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?)", rows
            )


def _info_from_row(text: str, file_size: int) -> ImageInfo | None:
    """Return what was stored of an image; None for a damaged row: the image is looked at again."""
    try:
        width, height, content, notes, reason = json.loads(text)
        size = (int(width), int(height))
        return ImageInfo(size, str(content), tuple(map(str, notes)), str(reason), file_size)
    except Exception:
        return None


def examine_image(path: Path) -> ImageInfo:
    """Decode and hash an image, both from the same bytes."""
    name = display_name(path.name)
    try:
        num_bytes = path.stat().st_size
        if not path.is_file():
            return ImageInfo(image_error="is not a file.")
        with explain_odd_file(path, name):
            # of a file that is too large `load_image` says so by itself
            source = path.read_bytes() if num_bytes <= decode.MAX_FILE_BYTES else path
            decoded = decode.load_image(source, name)
    except (StudioError, OSError) as error:
        return _info_from_error(error, name)
    assert isinstance(source, bytes)
    content_hash = hashlib.sha256(source).hexdigest()
    return _build_info(decoded.image.size, content_hash, decoded.notes, len(source))


def read_header(path: Path) -> ImageInfo:
    """Read an image's size from its header; `content_hash` stays empty."""
    name = display_name(path.name)
    try:
        num_bytes = path.stat().st_size
        if not path.is_file():
            return ImageInfo(image_error="is not a file.")
        with explain_odd_file(path, name):
            return _build_info(decode.read_image_size(path, name), "", (), num_bytes)
    except (StudioError, OSError) as error:
        return _info_from_error(error, name)


def _info_from_error(error: StudioError | OSError, name: str) -> ImageInfo:
    if isinstance(error, OSError):
        return ImageInfo(image_error=f"cannot be read ({error.strerror or error}).")
    return ImageInfo(image_error=str(error).removeprefix(f"{name} "))


def _build_info(
    size: tuple[int, int], content_hash: str, notes: tuple[str, ...], file_size: int
) -> ImageInfo:
    if min(size) < MIN_TRAINING_SIDE_PX:
        problem = (
            f"is only {size[0]} x {size[1]} pixels large; each side must be at least "
            f"{MIN_TRAINING_SIDE_PX}."
        )
        return ImageInfo(image_error=problem, file_size=file_size)
    return ImageInfo(size, content_hash, notes, "", file_size)


def _read_stamp(path: str) -> FileStamp | None:
    """Return size and times of a file; None if there is none."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
