"""Archives that people upload: what is in them, without believing any of it.

Knows: zip files and all that can be wrong with one. Does not know: datasets; where things go (intake.py).

Nothing is ever written where a name says: members are read as streams with limits, under names that have been judged. Refused as a
whole: too many entries, a directory that is too large, more than RATIO times its size. Refused by name: ways out of the folder,
links, pipes and devices, passwords, odd packings, names that no system takes. `__MACOSX` and hidden files are passed over.
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

MOST_ENTRIES = 50_000
MOST_DIRECTORY = 8 * 2**20  # bytes of the list of entries, which is read as a whole
MOST_TOTAL = 16 * 2**30  # bytes, unpacked
RATIO, FREE_RATIO = 200, 64 * 2**20  # unpacked to packed, and what is unpacked before that is asked
LEAST_FREE = 512 * 2**20  # bytes that stay free on the disk
CHUNK = 2**20
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may take any amount of memory


@dataclass(frozen=True)
class Member:
    """A file that was brought: `name` as its owner knows it, `path` as it may be used, below some folder."""

    name: str
    path: PurePosixPath
    open: Callable[[], BinaryIO]


class Budget:
    """How much may still be written. `packed`: bytes of what is unpacked; None for plain files."""

    def __init__(self, name: str, packed: int | None, folder: Path) -> None:
        self._name, self._folder, self._done = name, folder, 0
        self._most = MOST_TOTAL if packed is None else min(MOST_TOTAL, packed * RATIO + FREE_RATIO)

    def take(self, count: int) -> None:
        """Raises BadFile where it is used up."""
        self._done += count
        if self._done > self._most:
            raise BadFile(
                f"{self._name} unpacks to more than {self._most / 2**20:,.0f} MiB, which no set of pictures of its size "
                "does; it is not taken."
            )
        if shutil.disk_usage(self._folder).free < LEAST_FREE:
            raise BadFile(
                f"The disk is nearly full, so {self._name} is not taken; free some space and try again."
            )


def members(archive: Path, name: str, left: list[tuple[str, str]]) -> Iterator[Member]:
    """The files in a zip; what cannot be taken is added to `left` with the reason. Raises BadFile for an archive that is none."""
    try:
        _judge_directory(archive, name)
        packed = zipfile.ZipFile(archive)
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        NotImplementedError,
        struct.error,
        EOFError,
    ) as error:
        raise BadFile(
            f"{name} is no zip file that can be read, or was cut off; pack it again."
        ) from error
    with packed:
        if len(packed.infolist()) > MOST_ENTRIES:
            raise BadFile(
                f"{name} has {len(packed.infolist()):,} entries; at most {MOST_ENTRIES:,} are taken."
            )
        for info in packed.infolist():
            spelled = _spelled(info)
            if spelled.endswith(("/", "\\")):
                continue
            try:
                path = judged(spelled)
                if path is None:
                    continue
                if fault := _fault(info):
                    raise BadFile(fault)
            except BadFile as error:
                left.append((spelled or "a file", str(error)))
                continue
            yield Member(spelled, path, partial(_opened, packed, info))


def copied(member: Member, to: Path, most: int, budget: Budget) -> None:
    """Write a member to a new file. Raises BadFile, whose sentence goes on after its name, or the budget's own."""
    written = 0
    try:
        with member.open() as source, open(to, "xb") as out:
            while chunk := source.read(CHUNK):
                written += len(chunk)
                budget.take(len(chunk))
                if written > most:
                    raise Refused(f"is larger than {most / 2**20:,.2g} MiB.")
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        struct.error,
    ):
        raise Refused("is damaged in the archive.") from None
    except OSError as error:
        raise Refused(f"could not be copied: {error.strerror or error}.") from None


class Refused(BadFile):
    """One file is not taken; the others may be."""


def judged(name: str) -> PurePosixPath | None:
    """A name from outside as a path that stays below a folder, every part a name that all systems take; None to pass it over.

    Raises BadFile, whose sentence goes on after the name.
    """
    if not name:
        raise BadFile("has no name.")
    if "\0" in name:
        raise BadFile("has a NUL in its name.")
    if any(0xD800 <= ord(letter) < 0xE000 for letter in name):
        raise BadFile("has a name that is no text.")
    name = unicodedata.normalize("NFC", name.replace("\\", "/"))
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if (
        name.startswith("/")
        or ".." in parts
        or (parts and len(parts[0]) > 1 and parts[0][1] == ":")
    ):
        raise BadFile("leads out of the archive.")
    if not parts or any(
        part.startswith(".") or part in ("__MACOSX", "Thumbs.db", "desktop.ini") for part in parts
    ):
        return None
    if len(parts) > 20:
        raise BadFile("lies more than 20 folders deep.")
    stem, end = os.path.splitext(parts[-1])
    try:
        return PurePosixPath(
            *[atomic.safe_name(part) for part in parts[:-1]], f"{atomic.safe_name(stem)}{end}"
        )
    except BadFile:
        raise BadFile("has a name that no system takes; rename it.") from None


def _opened(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> BinaryIO:
    return cast(BinaryIO, packed.open(info))


def _spelled(info: zipfile.ZipInfo) -> str:
    """An entry's whole name: `filename` ends at a NUL, and names without the UTF-8 flag are mostly UTF-8 all the same."""
    name = info.orig_filename
    if not info.flag_bits & 0x800:
        try:
            return name.encode("cp437").decode("utf-8")
        except UnicodeError:
            return name
    return name


def _fault(info: zipfile.ZipInfo) -> str:
    """Why an entry is not taken; usually empty."""
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "is a link."
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "is no file."
    if info.flag_bits & 0x1:
        return "has a password; pack it without."
    if info.compress_type not in _PACKINGS:
        return "is packed in an unusual way; pack it as a plain zip."
    return ""


def _judge_directory(archive: Path, name: str) -> None:
    """Refuse a list of entries that is too large before it is read. PKWARE's APPNOTE 4.3.14 to 4.3.16."""
    with open(archive, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 65_557))
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < 22:
            raise zipfile.BadZipFile
        count, directory = struct.unpack_from("<HI", tail, at + 10)
        if (
            (count == 0xFFFF or directory == 0xFFFFFFFF)
            and at >= 20
            and tail[at - 20 : at - 16] == b"PK\x06\x07"
        ):
            (offset,) = struct.unpack_from("<Q", tail, at - 12)
            file.seek(min(offset, size))
            record = file.read(56)
            if record[:4] != b"PK\x06\x06":
                raise zipfile.BadZipFile
            count, directory = struct.unpack_from("<QQ", record, 32)
    if count > MOST_ENTRIES or directory > MOST_DIRECTORY:
        raise BadFile(
            f"{name} has {count:,} entries in a list of {directory / 2**20:.1f} MiB; at most {MOST_ENTRIES:,} and "
            f"{MOST_DIRECTORY / 2**20:g} MiB are taken. Pack fewer at a time."
        )
