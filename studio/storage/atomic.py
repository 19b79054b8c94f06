"""Write files whole or not at all.

Knows: a temporary file in the same folder, fsync, rename; the header of a safetensors file; names
that are safe on every system. Does not know: what is in the files.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from studio.errors import BadFile, DiskError, quote

MAX_HEADER_BYTES = 32 * 2**20  # the largest real ones are below 2 MB
MAX_TENSORS = 20_000
COPY_BYTES = 2**20  # at a time
_MAX_NAME_BYTES = 120
_PICKLE_SIGNATURES = (b"\x80", b"PK")
_RESERVED_NAMES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{name}{number}" for name in ("com", "lpt") for number in range(1, 10)),
}


_WRITE_ADVICE = {
    errno.ENOSPC: "Is the disk full?",
    errno.EDQUOT: "Is the disk full?",
    errno.EACCES: "Give this user permission to write there.",
    errno.EPERM: "Give this user permission to write there.",
    errno.EROFS: "The disk is read-only; use a home on another.",
    errno.EEXIST: "There is a file where a folder should be; move it away.",
    errno.ENOTDIR: "There is a file where a folder should be; move it away.",
    errno.EISDIR: "There is a folder where the file should be; move it away.",
    errno.ENOTEMPTY: "There is a folder where the file should be; move it away.",
    errno.ENAMETOOLONG: "Use a shorter name.",
    errno.ENOENT: "Its folder is gone.",
    errno.EIO: "The disk may be failing.",
}


# Whatever was being done, these are the disk's own doing.
_DISK_ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
)


def write_error(path: Path, error: OSError) -> DiskError:
    """Return what to raise where a disk does not take a file: what happened, and what helps.

    Of the path the last two names are said: a guest may read it, whom the others do not concern.
    """
    name = "/".join(path.parts[-2:])
    advice = _WRITE_ADVICE.get(error.errno or 0, "")
    return DiskError(f"{name} could not be written: {error.strerror or error}. {advice}".rstrip())


def find_disk_error(error: BaseException) -> DiskError | None:
    """Return what to say where an error, or what it came of, is a full or failing disk; else None.

    For the borders at which everything is caught: a library that writes has errors of its own, and
    says in their text, if anything, what the system said.
    """
    for cause in (error, error.__cause__, error.__context__):
        if isinstance(cause, OSError) and cause.errno in _DISK_ERRNOS:
            return write_error(Path(str(cause.filename or "A file")), cause)
        if cause is not None and f"(os error {errno.ENOSPC})" in str(cause):  # as Rust says it
            return write_error(Path("A file"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    return None


@contextmanager
def open_for_writing(path: Path, replace: bool = True, durable: bool = True) -> Iterator[BinaryIO]:
    """Open `path` for writing through a temporary file beside it.

    After a kill or on a full disk the old file or the new one is there, never half of one.

    Args:
        path: The file; its folder is created.
        replace: Whether an existing file is replaced.
        durable: Whether the folder is synced at once. Who writes many files leaves it out and calls
            `fsync_folder` at the end; until then a power cut may bring the old file back.

    Raises:
        FileExistsError: The file exists and `replace` is False.
        BadFile: The disk does not take it.
    """
    temporary_path = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Before anything is written; `_move_without_replacing` sees one that comes meanwhile.
        if not replace and path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        with open(temporary_path, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary_path, path)
        else:
            _move_without_replacing(temporary_path, path)
        if durable:
            fsync_folder(path.parent)
    except OSError as error:
        if isinstance(error, FileExistsError) and not replace and path.exists():
            raise
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):
            os.unlink(temporary_path)


def write(path: Path, data: bytes, replace: bool = True, durable: bool = True) -> None:
    """Write a whole file; arguments and errors are those of `open_for_writing`."""
    with open_for_writing(path, replace, durable) as file:
        file.write(data)


def make_folder(folder: Path, mode: int = 0o700) -> None:
    """Create a folder, by default one that only this user reads, and those above it.

    Raises DiskError when the disk does not take it.
    """
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error


def fsync_folder(folder: Path) -> None:
    """Have the disk remember which files a folder has."""
    if os.name != "posix":  # a folder cannot be opened there; the rename alone has to do
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(temporary_folder: Path, target_folder: Path) -> None:
    """Rename a finished folder to its name, in place of a folder that has it already.

    Raises BadFile when the disk does not take it.
    """
    suffix = f"{os.getpid()}-{threading.get_ident()}.old"
    old_folder = target_folder.with_name(f".{target_folder.name}.{suffix}")
    try:
        if target_folder.exists():
            os.rename(target_folder, old_folder)
        os.rename(temporary_folder, target_folder)
        fsync_folder(target_folder.parent)
    except OSError as error:
        raise write_error(target_folder, error) from error
    shutil.rmtree(old_folder, ignore_errors=True)


def move_file(source: Path, target: Path) -> None:
    """Rename a file within one disk, never over another one.

    After a kill it lies at its old place, at the new one, or has both names; nothing is lost.

    Raises:
        FileExistsError: There is something of that name.
        OSError: The disk does not take it; then nothing has changed.
    """
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    if os.stat(source).st_dev != os.stat(target.parent).st_dev:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(target))
    _move_without_replacing(source, target)
    with suppress(FileNotFoundError):  # where the disk knows no links it is gone already
        os.unlink(source)
    for folder in {source.parent, target.parent}:
        fsync_folder(folder)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file whole or not at all, never over another one.

    Raises:
        FileExistsError: There is something of that name.
        OSError: `source` cannot be read.
        DiskError: The disk does not take it.
    """
    with open_for_writing(target, replace=False) as copy, open(source, "rb") as file:
        shutil.copyfileobj(file, copy, COPY_BYTES)


def transfer_file(source: Path, target: Path) -> None:
    """Move a file, never over another one, also to another disk. Raises as the two above do."""
    try:
        move_file(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy_file(source, target)
        source.unlink()


def safe_name(name: str) -> str:
    """Return `name` as a single file name that every system takes.

    Raises BadFile where nothing sensible remains.
    """
    cleaned = re.sub(r'[\x00-\x1f<>:"/\\|?*\x7f]+', "-", name).strip(" .-")
    shortened = cleaned.encode("utf-8", "ignore")[:_MAX_NAME_BYTES]
    cleaned = shortened.decode("utf-8", "ignore").strip(" .-")
    if not cleaned or cleaned.split(".")[0].strip().casefold() in _RESERVED_NAMES:
        raise BadFile(f"{quote(name)} is not a valid file name; use letters and digits.")
    return cleaned


def resolve_inside(folder: Path, path: str | Path) -> Path:
    """Return `path` resolved. Raises BadFile unless it is a file below `folder`."""
    try:
        resolved = Path(path).resolve()
        is_inside = resolved.is_relative_to(folder.resolve()) and resolved.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL in it, links in a circle
        is_inside = False
    if not is_inside:
        raise BadFile(f"There is no such file here: {quote(Path(path).name)}.")
    return resolved


def read_safetensors_header(path: Path) -> dict[str, Any]:
    """Return names, dtypes and shapes of a safetensors file without reading its tensors.

    Raises BadFile for what is no safetensors file.
    """
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(_read_header_length(path, file)))
    except (OSError, ValueError, RecursionError) as error:
        reason = "its header is damaged; copy the file again"
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
        raise BadFile(f"{path.name} cannot be read as a safetensors file: {reason}.") from None
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise BadFile(f"{path.name} is not a model's safetensors file: its header is invalid.")
    return header


def _read_header_length(path: Path, file: BinaryIO) -> int:
    """Read the first eight bytes, which say how long the JSON after them is."""
    size = os.fstat(file.fileno()).st_size
    length = 0
    if size >= 8:
        prefix = file.read(8)
        (length,) = struct.unpack("<Q", prefix)
        if length > size and prefix.startswith(_PICKLE_SIGNATURES):
            raise BadFile(
                f"{path.name} is a pickle under another name, which can contain programs; it is "
                "not opened."
            )
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise BadFile(f"{path.name} is not a safetensors file, or was cut off while copying.")
    return int(length)


def _move_without_replacing(temporary_path: Path, path: Path) -> None:
    """Rename a file; unlike `os.rename`, fail where the name is taken."""
    try:
        os.link(temporary_path, path)
    except FileExistsError:
        raise
    except OSError:  # a disk that knows no links, such as exFAT: take the name first, then fill it
        open(path, "xb").close()
        try:
            os.replace(temporary_path, path)
        except OSError:
            os.unlink(path)
            raise


def sync_disk(folder: Path) -> None:
    """Have the disk keep all that was written below a folder, in one go.

    For who has written many files: `os.fsync` after each takes 10 ms a file.

    Raises:
        OSError: The disk did not take all of it.
    """
    descriptor = os.open(folder, os.O_RDONLY) if os.name == "posix" else -1
    try:
        if sys.platform == "linux":
            library = ctypes.CDLL(None, use_errno=True)
            if hasattr(library, "syncfs"):  # unlike `os.sync`, of this disk alone, and it can fail
                if library.syncfs(descriptor) != 0:
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code), str(folder))
                return
        if hasattr(os, "sync"):
            os.sync()
            return
        for path in folder.rglob("*"):
            if path.is_file():
                with open(path, "rb+") as file:
                    os.fsync(file.fileno())
    finally:
        if descriptor >= 0:
            os.close(descriptor)
