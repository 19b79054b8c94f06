"""What lies about in a home: files that nobody needs any more, found by kind.

Knows: the names of temporary files, which files are only there to save work, how long each kind is
kept and how much of it. Does not know: images that are worked on (inputs.py), the bin
(gallery/bin.py), when to clean up and what of it is safe beside a running worker (cleanup.py).

Nothing is followed out of the home.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from studio.settings import Settings

LeftoverKind = Literal[
    "temporary files",
    "unused inputs",
    "uploads",
    "thumbnails",
    "training caches",
    "caption caches",
    "embeddings",
    "logs",
    "damaged files",
    "history of edits",
    "partial downloads",
    "images in the bin",
]
DAY_SECONDS = 24 * 3600.0
MIN_TEMPORARY_SECONDS = 60.0  # of a process that is no more; another machine's may just be writing
MAX_TEMPORARY_SECONDS = DAY_SECONDS  # nothing is written for longer, whatever its process
MAX_UPLOAD_SECONDS = DAY_SECONDS
MAX_THUMBNAIL_SECONDS = 90 * DAY_SECONDS  # of datasets' images, since it was last shown
MAX_CACHE_SECONDS = 90 * DAY_SECONDS  # of a cached file, since it was last used
MAX_TRAINING_CACHE_BYTES = 50 * 2**30
MAX_CAPTION_CACHE_BYTES = 200 * 2**20
MAX_EMBEDDINGS_BYTES = 2 * 2**30
MAX_LOG_BYTES = 10 * 2**20
KEPT_LOG_BYTES = 2**20  # of a log that has grown larger
MIN_DOWNLOAD_SECONDS = 600.0  # since anything came: one that is still being fetched is left alone
MAX_DAMAGED_SECONDS = 90 * DAY_SECONDS
# As storage/atomic.py names them: .NAME.PROCESS-THREAD.tmp
_TEMPORARY_NAME = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)-\d+\.(?P<ending>tmp|old)")
_INCOMING_NAME = re.compile(r"\.incoming-(?P<pid>\d+)-[0-9a-f]{8}")
_CHECKPOINT_NAME = re.compile(r"\.step-\d{8}\.old")  # renamed to be deleted


@dataclass(frozen=True)
class Leftover:
    """A file or folder that can go, or be shortened."""

    kind: LeftoverKind
    path: Path
    size_bytes: int


def find_temporary_files(settings: Settings) -> Iterator[Leftover]:
    """Find what killed processes left half written, anywhere in the home."""
    for folder, subfolders, names in os.walk(settings.home):
        for name in (*subfolders, *names):
            path = Path(folder, name)
            if name.startswith(".") and _is_abandoned(path):
                yield Leftover("temporary files", path, measure(path))
                if name in subfolders:
                    subfolders.remove(name)


def find_uploads(settings: Settings) -> Iterator[Leftover]:
    """Find what pages sent more than a day ago."""
    uploads = settings.home / "uploads"
    return _find_old("uploads", uploads, MAX_UPLOAD_SECONDS)


def find_thumbnails(settings: Settings) -> Iterator[Leftover]:
    """Find thumbnails whose image was deleted, and of datasets and models those long unused."""
    folders = [settings.thumbs / name for name in ("datasets", "models")]
    for folder in folders:
        yield from _find_old("thumbnails", folder, MAX_THUMBNAIL_SECONDS)
    for path in _walk(settings.thumbs):
        if any(map(path.is_relative_to, folders)) or path.suffix != ".webp":
            continue
        image = settings.outputs / path.relative_to(settings.thumbs).with_suffix(".png")
        if not os.path.lexists(image) and _seconds_since_use(path) > MIN_TEMPORARY_SECONDS:
            yield Leftover("thumbnails", path, measure(path))


def find_caches(settings: Settings) -> Iterator[Leftover]:
    """Find cached work that is long unused, or beyond what is kept of its kind."""
    cache = settings.home / "cache"
    for kind, name, max_bytes in (
        ("training caches", "training", MAX_TRAINING_CACHE_BYTES),
        ("caption caches", "captions", MAX_CAPTION_CACHE_BYTES),
    ):
        kept_bytes = 0
        for path in sorted(_walk(cache / name), key=_seconds_since_use):
            size_bytes = measure(path)
            kept_bytes += size_bytes
            if kept_bytes > max_bytes or _seconds_since_use(path) > MAX_CACHE_SECONDS:
                kept_bytes -= size_bytes
                yield Leftover(kind, path, size_bytes)  # type: ignore[arg-type]
    vectors = cache / "vectors.sqlite"
    if vectors.is_file() and measure(vectors) > MAX_EMBEDDINGS_BYTES:
        for path in (vectors, *(cache / f"vectors.sqlite{ending}" for ending in ("-wal", "-shm"))):
            if path.is_file():
                yield Leftover("embeddings", path, measure(path))


def find_logs(settings: Settings) -> Iterator[Leftover]:
    """Find workers' logs that have grown too large; their end is kept."""
    for path in settings.home.glob("worker-*.log"):
        size_bytes = measure(path)
        if path.is_file() and not path.is_symlink() and size_bytes > MAX_LOG_BYTES:
            yield Leftover("logs", path, size_bytes - KEPT_LOG_BYTES)


def find_damaged_files(settings: Settings) -> Iterator[Leftover]:
    """Find what was set aside months ago because it was damaged (sqlite_repair.py)."""
    for folder in (settings.home, settings.home / "cache"):
        for path in folder.glob("*.damaged-*"):
            if _seconds_since_use(path) > MAX_DAMAGED_SECONDS:
                yield Leftover("damaged files", path, measure(path))


def find_unfinished_downloads(settings: Settings) -> Iterator[Leftover]:
    """Find what came of downloads that were stopped; who asks for them again goes on from there."""
    for path in settings.home.glob("downloads/*.part"):
        if path.is_symlink() or not path.is_dir():
            continue
        changes = [_seconds_since_change(file) for file in (path, *_walk(path))]
        if min(changes) > MIN_DOWNLOAD_SECONDS:
            yield Leftover("partial downloads", path, measure(path))


def measure(path: Path) -> int:
    """Return the bytes of a file, or of all in a folder; 0 for what is not there."""
    if path.is_dir() and not path.is_symlink():
        return sum(measure(file) for file in _walk(path))
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def remove(leftover: Leftover) -> bool:
    """Remove what was found, and return whether it is gone.

    A log is shortened to its end. A folder that a killed process was about to replace goes back to
    its name where nothing has that name.
    """
    path = leftover.path
    try:
        if leftover.kind == "logs":
            _shorten(path)
        elif (target := _find_replaced(path)) and not os.path.lexists(target):
            os.rename(path, target)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _find_replaced(path: Path) -> Path | None:
    """Return the name that an old version had (`atomic.replace_folder`); None for all else."""
    match = _TEMPORARY_NAME.fullmatch(path.name)
    return path.with_name(match["name"]) if match and match["ending"] == "old" else None


def _shorten(path: Path) -> None:
    """Leave the last lines of a log; whoever has it open goes on writing behind them."""
    with open(path, "rb") as file:
        file.seek(-KEPT_LOG_BYTES, os.SEEK_END)
        tail = file.read().partition(b"\n")[2]
    os.truncate(path, 0)
    with open(path, "ab") as file:
        file.write(tail)


def _is_abandoned(path: Path) -> bool:
    """Return whether a path is named as a temporary one, and nobody writes it any more."""
    name = path.name
    match = _TEMPORARY_NAME.fullmatch(name) or _INCOMING_NAME.fullmatch(name)
    if match is None and not _CHECKPOINT_NAME.fullmatch(name):
        return False
    age = _seconds_since_change(path)
    if match and not psutil.pid_exists(int(match["pid"][:9])):
        return age > MIN_TEMPORARY_SECONDS
    return age > MAX_TEMPORARY_SECONDS


def _find_old(kind: LeftoverKind, folder: Path, max_seconds: float) -> Iterator[Leftover]:
    for path in _walk(folder):
        if _seconds_since_use(path) > max_seconds:
            yield Leftover(kind, path, measure(path))


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, links as themselves; none of one that a link leads to."""
    if os.path.realpath(folder) != str(folder):  # the home's own path has no links in it
        return
    for parent, _, names in os.walk(folder):
        for name in names:
            yield Path(parent, name)


def _seconds_since_change(path: Path) -> float:
    with suppress(OSError):
        return time.time() - path.lstat().st_mtime
    return 0.0


def _seconds_since_use(path: Path) -> float:
    """Return how long ago a file was written or read; systems note reading once a day or never."""
    with suppress(OSError):
        status = path.lstat()
        return time.time() - max(status.st_mtime, status.st_atime)
    return 0.0
