"""One odd file never breaks a list: whatever goes wrong with it becomes a sentence of its own.

Knows: that only regular files are opened, how large a file of settings may be, what is said and
logged of an error that nobody foresaw. Does not know: what is in any file.

Everything that walks over the files of a home reads each of them inside `explain_odd_file`, and
opens them with the functions below: a pipe would never answer, and a device never end.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from studio.errors import BadFile, StudioError
from studio.storage import atomic

log = logging.getLogger(__name__)

MAX_SETTINGS_BYTES = 64 * 2**20  # the largest real one is a tokenizer of 20 MB


@contextmanager
def explain_odd_file(path: Path, subject: str = "") -> Iterator[None]:
    """Turn whatever the block raises about one file into BadFile.

    Args:
        path: The file, for the log.
        subject: What the sentence begins with; the file's name by default.

    Raises:
        StudioError: What the block said itself.
        BadFile: In place of any other exception. Its traceback is in the log, unless the system
            refused the file.
    """
    name = subject or make_printable(path.name)
    try:
        yield
    except StudioError:
        raise
    except OSError as error:
        raise BadFile(f"{name} cannot be read ({error.strerror or error}).") from None
    except Exception as error:
        log.exception("%s could not be read", path)
        raise BadFile(
            f"{name} cannot be read: it is malformed in an unexpected way ({type(error).__name__})."
        ) from None


def make_printable(name: str) -> str:
    """Return a file's name fit to be written: its bytes need not be text."""
    return name.encode(errors="replace").decode()


def list_folder(folder: Path) -> list[Path]:
    """List a folder by name; nothing where there is none that may be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    Raises:
        OSError: It cannot be opened, or is a folder, pipe, socket or device.
    """
    _check_is_regular(os.stat(path).st_mode, path)  # merely opening a device can do something
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 (the caller closes it)
    try:
        _check_is_regular(os.fstat(file.fileno()).st_mode, path)  # it may have been replaced
    except BaseException:
        file.close()
        raise
    return file


def read_file(path: Path, max_bytes: int = MAX_SETTINGS_BYTES) -> bytes:
    """Return what is in a regular file.

    Raises:
        OSError: It cannot be read, is no regular file, or is larger than `max_bytes`.
    """
    with open_file(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than {max_bytes:,} bytes", str(path))
    return data


def read_json(path: Path, max_bytes: int = MAX_SETTINGS_BYTES) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        OSError: What `read_file` raises.
        ValueError: It is no JSON, or no object; 1,000 lists in each other count as none.
    """
    try:
        # as text: of bytes json would take UTF-16, which no other program does
        values = json.loads(read_file(path, max_bytes).decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError(f"it is a {type(values).__name__}, not an object")
    return values


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # which Windows does not have


def _check_is_regular(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a pipe, socket or device, not a file", str(path))


def write_cache(path: Path, data: bytes) -> None:
    """Write a file that only saves work; where the disk does not take it, that is logged alone."""
    try:
        atomic.write(path, data)
    except BadFile as error:
        log.warning("%s", error)
