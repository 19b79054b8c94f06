"""Archives that people upload: their files, with nothing in them taken on trust.

Knows: zip files and all that can be wrong with one. Does not know: datasets; where files go
(importer.py).

Nothing is ever written where a name says: members are read as streams with limits, under names that
have been checked. An archive is rejected for too many entries, a directory that is too large, or
more than MAX_COMPRESSION_RATIO times its size. Single entries are rejected for ways out of the
folder, links, pipes and devices, passwords, unusual compression, names that some system does not
take. `__MACOSX` and hidden files are passed over.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from studio.errors import BadFile
from studio.storage import atomic

MAX_ENTRIES = 50_000
MAX_DIRECTORY_BYTES = 8 * 2**20  # of the list of entries, which is read in one piece
MAX_UNPACKED_BYTES = 16 * 2**30
MAX_COMPRESSION_RATIO = 200  # unpacked bytes to packed ones
RATIO_ALLOWANCE_BYTES = 64 * 2**20  # unpacked bytes that any archive may have beyond the ratio
MIN_FREE_DISK_BYTES = 512 * 2**20
CHUNK_BYTES = 2**20
# other methods may take any amount of memory
_COMPRESSION_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_IGNORED_NAMES = ("__MACOSX", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Member:
    """An uploaded file: `name` as its owner knows it, `path` as it may be used in some folder.

    `num_entries` are those of its archive, 1 for a plain file.
    """

    name: str
    path: PurePosixPath
    open: Callable[[], BinaryIO]
    num_entries: int = 1


class Budget:
    """How many more bytes may be written for one upload.

    Args:
        name: what messages call the upload.
        packed_bytes: size of the archive that is unpacked; None for a plain file.
        folder: where it is written, for the free space of its disk.
    """

    def __init__(self, name: str, packed_bytes: int | None, folder: Path) -> None:
        self._name = name
        self._folder = folder
        self._used_bytes = 0
        self._max_bytes = MAX_UNPACKED_BYTES
        if packed_bytes is not None:
            ratio_limit = packed_bytes * MAX_COMPRESSION_RATIO + RATIO_ALLOWANCE_BYTES
            self._max_bytes = min(MAX_UNPACKED_BYTES, ratio_limit)

    def spend(self, num_bytes: int) -> None:
        """Count bytes that are about to be written; raise BadFile where that is too many."""
        self._used_bytes += num_bytes
        if self._used_bytes > self._max_bytes:
            raise BadFile(
                f"{self._name} unpacks to more than {self._max_bytes / 2**20:,.0f} MiB, too much "
                "for its size; it was not imported."
            )
        if shutil.disk_usage(self._folder).free < MIN_FREE_DISK_BYTES:
            raise BadFile(
                f"The disk is nearly full, so {self._name} was not imported; free some space and "
                "try again."
            )


def iter_members(archive: Path, name: str, skipped: list[tuple[str, str]]) -> Iterator[Member]:
    """Iterate over the files in a zip archive.

    Args:
        archive: the zip file.
        name: what messages call it.
        skipped: receives (name, reason) of every entry that is rejected.

    Raises:
        BadFile: it cannot be read as a zip file, or has too many entries.
    """
    try:
        _check_directory(archive, name)
        zip_file = zipfile.ZipFile(archive)
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        NotImplementedError,
        struct.error,
        EOFError,
    ) as error:
        raise BadFile(
            f"{name} is not a readable zip file, or was cut off; pack it again."
        ) from error
    with zip_file:
        entries = zip_file.infolist()
        if len(entries) > MAX_ENTRIES:
            raise BadFile(
                f"{name} has {len(entries):,} entries; at most {MAX_ENTRIES:,} are allowed."
            )
        for info in entries:
            member_name = _decode_name(info)
            if member_name.endswith(("/", "\\")):
                continue
            try:
                path = safe_member_path(member_name)
                if path is None:
                    continue
                _check_entry(info)
            except BadFile as error:
                skipped.append((member_name or "a file", str(error)))
                continue
            yield Member(member_name, path, partial(_open_entry, zip_file, info), len(entries))


def copy_member(member: Member, target: Path, max_bytes: int, budget: Budget) -> None:
    """Copy a member to a new file, which is not on the disk before `atomic.sync_disk`.

    Args:
        member: what to copy.
        target: a file that does not exist yet.
        max_bytes: limit for this file.
        budget: limit for all files of the upload.

    Raises:
        RejectedEntry: this file cannot be taken; its sentence continues the file's name.
        BadFile: the budget is used up.
    """
    num_bytes = 0
    try:
        with member.open() as source, open(target, "xb") as target_file:
            while chunk := source.read(CHUNK_BYTES):
                num_bytes += len(chunk)
                budget.spend(len(chunk))
                if num_bytes > max_bytes:
                    raise RejectedEntry(f"is larger than {max_bytes / 2**20:,.2g} MiB.")
                target_file.write(chunk)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        struct.error,
    ):
        raise RejectedEntry("is damaged in the archive.") from None
    except OSError as error:
        raise RejectedEntry(f"could not be copied: {error.strerror or error}.") from None


class RejectedEntry(BadFile):
    """One file is rejected; the others may be taken."""


def safe_member_path(name: str) -> PurePosixPath | None:
    r"""Turn a name from outside into a path that stays below a folder on every system.

    Args:
        name: relative, with "/" or "\".

    Returns:
        The path, or None for a file to pass over: hidden, or one that systems put there.

    Raises:
        BadFile: it cannot be used; the sentence continues the file's name.
    """
    if not name:
        raise BadFile("has no name.")
    if "\0" in name:
        raise BadFile("has a NUL in its name.")
    if any(0xD800 <= ord(char) < 0xE000 for char in name):
        raise BadFile("has a name that is not text.")
    name = unicodedata.normalize("NFC", name.replace("\\", "/"))
    parts = [part for part in name.split("/") if part not in ("", ".")]
    has_drive = bool(parts) and parts[0][1:2] == ":"
    if name.startswith("/") or ".." in parts or has_drive:
        raise BadFile("points outside the archive.")
    if not parts or any(part.startswith(".") or part in _IGNORED_NAMES for part in parts):
        return None
    if len(parts) > 20:
        raise BadFile("is more than 20 folders deep.")
    stem, suffix = os.path.splitext(parts[-1])
    try:
        folders = [atomic.safe_name(part) for part in parts[:-1]]
        return PurePosixPath(*folders, f"{atomic.safe_name(stem)}{suffix}")
    except BadFile:
        raise BadFile("has a name that is not allowed on every system; rename it.") from None


def _open_entry(zip_file: zipfile.ZipFile, info: zipfile.ZipInfo) -> BinaryIO:
    return cast(BinaryIO, zip_file.open(info))


def _decode_name(info: zipfile.ZipInfo) -> str:
    """Return an entry's full name; without the UTF-8 flag it is mostly UTF-8 all the same."""
    name = info.orig_filename  # `filename` ends at a NUL
    if info.flag_bits & 0x800:
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _check_entry(info: zipfile.ZipInfo) -> None:
    """Raise BadFile for an entry that is not taken; the sentence continues its name."""
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        raise BadFile("is a link.")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise BadFile("is not a file.")
    if info.flag_bits & 0x1:
        raise BadFile("has a password; pack it without one.")
    if info.compress_type not in _COMPRESSION_METHODS:
        raise BadFile("uses an unsupported compression; pack it as a standard zip.")


def _check_directory(archive: Path, name: str) -> None:
    """Reject a list of entries that is too large before it is read.

    The records are described in PKWARE's APPNOTE 4.3.14 to 4.3.16.
    """
    with open(archive, "rb") as file:
        num_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(0, num_bytes - 65_557))  # the end record and the longest comment
        tail = file.read()
        end_record = tail.rfind(b"PK\x05\x06")
        if end_record < 0 or len(tail) - end_record < 22:
            raise zipfile.BadZipFile
        num_entries, directory_bytes = struct.unpack_from("<HI", tail, end_record + 10)
        is_zip64 = num_entries == 0xFFFF or directory_bytes == 0xFFFFFFFF
        locator = end_record - 20
        if is_zip64 and locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
            (record_offset,) = struct.unpack_from("<Q", tail, locator + 8)
            file.seek(min(record_offset, num_bytes))
            zip64_record = file.read(56)
            if zip64_record[:4] != b"PK\x06\x06":
                raise zipfile.BadZipFile
            num_entries, directory_bytes = struct.unpack_from("<QQ", zip64_record, 32)
    if num_entries > MAX_ENTRIES or directory_bytes > MAX_DIRECTORY_BYTES:
        raise BadFile(
            f"{name} has {num_entries:,} entries in a list of {directory_bytes / 2**20:.1f} MiB; "
            f"at most {MAX_ENTRIES:,} and {MAX_DIRECTORY_BYTES / 2**20:g} MiB are allowed. Pack "
            "fewer at a time."
        )
