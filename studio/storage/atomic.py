"""The one way a file goes out: whole or not at all.

Knows: temporary file in the same folder, fsync, rename; header of a safetensors file; names safe on every system.
Does not know: what is in the files.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from studio.errors import BadFile

MOST_HEADER = 32 * 2**20  # bytes; the largest real ones are below 2 MB
MOST_TENSORS = 20_000
_RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{name}{k}" for name in ("com", "lpt") for k in range(1, 10)),
}


@contextmanager
def writing(path: Path, replace: bool = True, settle: bool = True) -> Iterator[BinaryIO]:
    """Write `path` through a file beside it: after a kill or a full disk there is the old file or the new, never half.

    Without `replace` an existing file raises FileExistsError. Without `settle` the caller calls `sync` on the folder when many are
    written: until then a power cut may bring the old file back. Raises BadFile when the disk does not take it.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if (
            not replace and path.exists()
        ):  # said before anything is written; `_link` says it of one that comes meanwhile
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        with open(aside, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        if replace:
            os.replace(aside, path)
        else:
            _link(aside, path)
        if settle:
            sync(path.parent)
    except OSError as error:
        if isinstance(error, FileExistsError) and not replace and path.exists():
            raise
        raise BadFile(
            f"{path} could not be written: {error.strerror or error}. Is the disk full?"
        ) from error
    finally:
        with suppress(OSError):
            os.unlink(aside)


def write(path: Path, data: bytes, replace: bool = True, settle: bool = True) -> None:
    """`writing` in one call."""
    with writing(path, replace, settle) as out:
        out.write(data)


def sync(folder: Path) -> None:
    """Have the disk remember which files a folder has."""
    if os.name == "posix":  # elsewhere a folder cannot be opened; the rename alone has to do
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def publish(aside: Path, path: Path) -> None:
    """Give a folder that was written aside its name; a folder that has it already is replaced, and never half.

    Raises BadFile when the disk does not take it.
    """
    old = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.old")
    try:
        if path.exists():
            os.rename(path, old)
        os.rename(aside, path)
        sync(path.parent)
    except OSError as error:
        raise BadFile(
            f"{path} could not be written: {error.strerror or error}. Is the disk full?"
        ) from error
    shutil.rmtree(old, ignore_errors=True)


def safe_name(name: str) -> str:
    """`name` as a single file name that every system takes. Raises BadFile where nothing sensible is left."""
    cleaned = re.sub(r'[\x00-\x1f<>:"/\\|?*\x7f]+', "-", name).strip(" .-")
    cleaned = cleaned.encode("utf-8", "ignore")[:120].decode("utf-8", "ignore").strip(" .-")
    if not cleaned or cleaned.split(".")[0].strip().casefold() in _RESERVED:
        raise BadFile(f"{name!r:.60} cannot be a file's name; use letters and digits.")
    return cleaned


def inside(folder: Path, path: str | Path) -> Path:
    """`path` resolved, if it lies below `folder` and is there. Raises BadFile otherwise."""
    try:
        found = Path(path).resolve()
        there = found.is_relative_to(folder.resolve()) and found.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL in it, links in a circle
        there = False
    if not there:
        raise BadFile(f"There is no such file here: {Path(path).name!r:.80}.")
    return found


def safetensors_header(path: Path) -> dict[str, Any]:
    """Names, dtypes and shapes of a safetensors file without reading its tensors. Raises BadFile."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            (length,) = struct.unpack("<Q", first := file.read(8)) if size >= 8 else (size,)
            if size >= 8 and length > size and first.startswith((b"\x80", b"PK")):
                raise BadFile(
                    f"{path.name} is a pickle under another name, which can carry programs; it is not opened."
                )
            if not 2 <= length <= min(MOST_HEADER, size - 8):
                raise BadFile(
                    f"{path.name} is no safetensors file, or was cut off while it was copied."
                )
            header = json.loads(file.read(length))
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(
            f"{path.name} cannot be read as a safetensors file: {type(error).__name__}."
        ) from None
    if not isinstance(header, dict) or len(header) > MOST_TENSORS:
        raise BadFile(f"{path.name} is no safetensors file of a model: its header is odd.")
    return header


def _link(aside: Path, path: Path) -> None:
    """Unlike a rename it fails where the name is taken."""
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except OSError:  # a disk that knows no links, such as exFAT: take the name first, then fill it
        open(path, "xb").close()
        os.replace(aside, path)
