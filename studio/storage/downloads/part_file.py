"""One file on its way: what has come lies in a .part file, and the next try goes on from there.

Knows: how a transfer is taken up, counted and checked. Does not know: which file it is and what
becomes of it (fetching.py); how a site is asked (safe_http.py).

    moon.safetensors.part         what has come
    moon.safetensors.part.json    of which version of the file that is, as the site marks it
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from studio.core.downloads.plan import RemoteFile, format_size
from studio.errors import BadFile, DiskError, DownloadError
from studio.storage import atomic
from studio.storage.downloads.network import LostConnection
from studio.storage.downloads.safe_http import Answer, SafeClient
from studio.storage.downloads.site_rules import Request
from studio.storage.downloads.weights_gate import WeightsGate

RESERVED_DISK_BYTES = 2 * 10**9  # that a download leaves free
MAX_UNSAID_BYTES = 64 * 2**20  # of a text file whose size nobody says
MIN_PROGRESS_BYTES = 2**16  # that a try has to bring for the next not to count
CHUNK_BYTES = 2**20
FLUSH_BYTES = 64 * 2**20  # after so many the disk is told to keep what came
PART_SUFFIX = ".part"
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


class DamagedTransfer(BadFile):
    """What came is not what was announced; it may have been damaged on its way."""

    may_pass = True


@dataclass
class Transfer:
    """A file that is fetched to a path.

    Attributes:
        client: Who asks.
        request: For what.
        file: What is known of it.
        path: Where it will lie.
        on_bytes: Hears how many bytes of it there are.
        on_start: Hears of weights what was seen first and how large the whole is, before the rest
            is taken; what it raises refuses the file.
        is_weights: Whether it has to be a file of weights; others are small texts.
    """

    client: SafeClient
    request: Request
    file: RemoteFile
    path: Path
    on_bytes: Callable[[int], None] = lambda _num_bytes: None
    on_start: Callable[[bytes, int], None] = lambda _start, _total: None
    is_weights: bool = True

    def __post_init__(self) -> None:
        self.part_path = self.path.with_name(self.path.name + PART_SUFFIX)
        self._state_path = self.part_path.with_name(self.part_path.name + ".json")
        self._hash = hashlib.sha256()
        self._num_bytes = 0
        self._gate: WeightsGate | None = None

    def run(self) -> str:
        """Fetch the file; return its sha256.

        Raises:
            DownloadError: It could not be fetched; what came is kept.
            BadFile: It is not what was announced, or nothing that the studio takes; then nothing
                is kept.
            DiskError: The disk does not take it; what came is kept.
        """
        atomic.make_folder(self.path.parent)
        try:
            self.client.retry(self._fetch, measure=lambda: self._num_bytes // MIN_PROGRESS_BYTES)
            self._finish()
        except DiskError:
            raise
        except BadFile:
            self.discard()
            raise
        finally:
            if not self._measure_part():
                self.discard()
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Remove what has come."""
        for path in (self.part_path, self._state_path):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _fetch(self) -> None:
        """Ask for what is missing, and take it."""
        state = self._load_state()
        self._num_bytes = self._measure_part() if state else 0
        headers = {}
        if self._num_bytes and self._num_bytes == state.get("total"):
            self._read_part(self._num_bytes)  # all had come, only the end is missing
            return
        if self._num_bytes:
            headers = {"Range": f"bytes={self._num_bytes}-", "If-Range": state["mark"]}
        request = Request(
            self.request.url,
            token=self.request.token,
            headers=headers,
            is_confirmed=self.request.is_confirmed,
            trusted_host=self.request.trusted_host,
        )
        with self.client.open(request) as answer:
            total = self._check_answer(answer, state)
            self._check_disk(total - self._num_bytes)
            self._read_part(total)
            self._save_state(answer, total)
            self._receive(answer, total)

    def _check_answer(self, answer: Answer, state: dict[str, Any]) -> int:
        """Return how large the whole file is; begin anew where the site does not go on."""
        name, length = self.file.path, answer.length
        if answer.status == 206:
            content_range = _CONTENT_RANGE.fullmatch(answer.header("content-range"))
            numbers = [int(number) for number in content_range.groups()] if content_range else []
            if numbers and numbers[0] == self._num_bytes and numbers[2] == state.get("total"):
                return numbers[2]
        if answer.status != 200:  # another range than the one that was asked for, or none
            self.discard()
            raise LostConnection(
                f"{answer.host} does not resume {name} where it stopped; it starts over."
            )
        self._num_bytes = 0
        if length is None:
            if self.is_weights or self.file.size_bytes is None:
                raise DownloadError(
                    f"{answer.host} does not say how large {name} is, so it is not downloaded."
                )
            length = self.file.size_bytes
        announced = self.file.size_bytes
        if announced is not None and self.file.is_size_exact and length != announced:
            raise BadFile(
                f"{name} has {length:,} bytes at {answer.host}, but {announced:,} were announced; "
                "nothing of it was kept. Look up the link again."
            )
        if not self.is_weights and length > MAX_UNSAID_BYTES:
            raise BadFile(f"{name} has {format_size(length)}, which is too much for a text.")
        return length

    def _check_disk(self, num_bytes: int) -> None:
        check_free_disk(self.path.parent, num_bytes, self.file.path)

    def _read_part(self, total: int) -> None:
        """Count and hash what has come already."""
        self._hash = hashlib.sha256()
        self._gate = WeightsGate(self.file.path, total) if self.is_weights else None
        remaining = self._num_bytes
        if not remaining:
            return
        with open(self.part_path, "rb") as part:
            while remaining and (data := part.read(min(CHUNK_BYTES, remaining))):
                self.client.check_stop()
                self._take(data, total)
                remaining -= len(data)

    def _take(self, data: bytes | memoryview, total: int) -> None:
        self._hash.update(data)
        if self._gate and not self._gate.is_open:
            self._gate.feed(data)
            if self._gate.is_open:
                self.on_start(self._gate.start, total)

    def _receive(self, answer: Answer, total: int) -> None:
        """Write what comes behind what there is, and count it."""
        buffer = memoryview(bytearray(CHUNK_BYTES))
        since_flush = 0
        try:
            with open(self.part_path, "r+b" if self._num_bytes else "wb") as part:
                part.seek(self._num_bytes)
                while self._num_bytes < total:
                    size = self._read_some(answer, buffer)
                    if not size:
                        raise LostConnection(
                            f"{answer.host} closed the connection after {self._num_bytes:,} of "
                            f"{total:,} bytes of {self.file.path}."
                        )
                    if self._num_bytes + size > total:
                        raise BadFile(
                            f"{answer.host} sent more of {self.file.path} than it announced; "
                            "nothing of it was kept."
                        )
                    self._take(buffer[:size], total)
                    part.write(buffer[:size])
                    self._num_bytes += size
                    since_flush += size
                    if since_flush >= FLUSH_BYTES:
                        _sync(part)
                        since_flush = 0
                    self.on_bytes(self._num_bytes)
                _sync(part)
        except OSError as error:
            raise atomic.write_error(self.part_path, error) from error

    def _read_some(self, answer: Answer, buffer: memoryview) -> int:
        try:
            return answer.response.readinto(buffer[: 2**18])
        except (OSError, http.client.HTTPException) as error:
            raise LostConnection(
                f"The connection to {answer.host} broke ({type(error).__name__})."
            ) from None

    def _finish(self) -> None:
        """Check what came, and give it its name."""
        if self._gate and not self._gate.is_open:
            raise BadFile(f"{self.file.path} ends before its header does; it is damaged.")
        announced = self.file.sha256.lower()
        if announced and self._hash.hexdigest() != announced:
            raise DamagedTransfer(
                f"{self.file.path} arrived with different content than announced: its sha256 is "
                f"{self._hash.hexdigest()[:12]} instead of {announced[:12]}. Nothing of it was "
                "kept; try again."
            )
        try:
            os.replace(self.part_path, self.path)
            atomic.fsync_folder(self.path.parent)
        except OSError as error:
            raise atomic.write_error(self.path, error) from error
        with suppress(OSError):
            self._state_path.unlink(missing_ok=True)

    def _measure_part(self) -> int:
        try:
            return self.part_path.stat().st_size
        except OSError:
            return 0

    def _load_state(self) -> dict[str, Any]:
        """Return of which file the part is; nothing if that is not known or was another one."""
        try:
            state = json.loads(self._state_path.read_bytes())
            if (
                state["url"] == self.file.url
                and isinstance(state["mark"], str)
                and state["mark"].isascii()
                and state["mark"].isprintable()
                and isinstance(state["total"], int)
                and state["sha256"] == self.file.sha256
            ):
                return dict(state)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
        return {}

    def _save_state(self, answer: Answer, total: int) -> None:
        """Note which file it is; one without a mark is not taken up again but begins anew."""
        mark = answer.header("etag")
        if not mark or mark.startswith("W/"):
            mark = answer.header("last-modified")
        if not mark:
            with suppress(OSError):
                self._state_path.unlink(missing_ok=True)
            return
        state = {
            "url": self.file.url,
            "mark": mark,
            "total": total,
            "sha256": self.file.sha256,
        }
        atomic.write(self._state_path, json.dumps(state).encode(), durable=False)


def check_free_disk(folder: Path, num_bytes: int, name: str) -> None:
    """Raise DiskError unless a disk has room for so much, and 2 GB more."""
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        raise atomic.write_error(folder, error) from error
    if num_bytes > max(0, free_bytes - RESERVED_DISK_BYTES):
        raise DiskError(
            f"{name} needs {format_size(num_bytes)} more, but the disk has "
            f"{format_size(free_bytes)} free, of which {format_size(RESERVED_DISK_BYTES)} are "
            "reserved. Free some space, then start again; the part already downloaded is kept."
        )


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
