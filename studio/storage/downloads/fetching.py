"""A whole download: the files of a plan one after the other, then to the place of their kind.

Knows: the folder where it grows, what is there already, progress. Does not know: how one file is
transferred (part_file.py); what is behind a link (sources.py); jobs.

    home/downloads/NAME-0123abcd.part/files/…   what has come, until it is whole
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from studio.core.downloads.plan import DownloadPlan, RemoteFile
from studio.errors import BadFile, Busy, SiteRefusal
from studio.settings import Settings
from studio.storage import atomic
from studio.storage.downloads.part_file import PART_SUFFIX, Transfer, check_free_disk
from studio.storage.downloads.placing import Placed, Places, identify_start
from studio.storage.downloads.safe_http import SafeClient
from studio.storage.downloads.sources import build_request, explain_refusal
from studio.storage.downloads.weights_gate import SAFETENSORS_SUFFIX, check_suffix
from studio.storage.locks import Lock

RATE_SECONDS = 8.0  # over which the rate is measured
ProgressCallback = Callable[[int, int], None]  # bytes there are, bytes in all


class RateMeter:
    """How fast bytes come, over the last seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, num_bytes: int) -> float:
        """Note how many bytes there are now; return how many come a second, 0 at first."""
        now = self._clock()
        self._samples.append((now, num_bytes))
        while len(self._samples) > 2 and now - self._samples[0][0] > RATE_SECONDS:
            self._samples.popleft()
        start, first_bytes = self._samples[0]
        return (num_bytes - first_bytes) / (now - start) if now > start else 0.0


def download_folder(settings: Settings) -> Path:
    """Return where downloads grow."""
    return settings.home / "downloads"


def part_folder(settings: Settings, plan: DownloadPlan) -> Path:
    """Return where this download grows: the same for the same files of the same version."""
    identity = [plan.source, plan.title, plan.version, *sorted(file.url for file in plan.files)]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
    stem = atomic.safe_name(plan.name)[:60].rstrip(" .")
    # Without the name it is called by here, which may be changed between two tries.
    title = atomic.safe_name(plan.title.replace("/", "-"))[:60].rstrip(" .") or stem
    return download_folder(settings) / f"{title}-{digest}{PART_SUFFIX}"


def download(
    settings: Settings,
    plan: DownloadPlan,
    client: SafeClient,
    *,
    is_confirmed: bool = False,
    on_progress: ProgressCallback = lambda _num_bytes, _total: None,
) -> Placed:
    """Fetch what a plan says, and put it where it belongs.

    Args:
        settings: Whose home.
        plan: What `look_up` said.
        client: Who asks.
        is_confirmed: Whether a site that is not known was confirmed by a person.
        on_progress: Hears the bytes there are, and those in all; what it raises stops all, and what
            has come is kept.

    Raises:
        BadFile: It is not what was announced, nothing of use, or its name is taken.
        DownloadError: It could not be fetched; what has come is kept.
        Busy: It is being fetched already.
    """
    places = Places(settings)
    if plan.is_folder:
        there = places.check_model_name(plan)
        if there:
            return there
    else:
        check_suffix(plan.files[0].path)
    folder = part_folder(settings, plan)
    with _held(folder):
        run = _Download(
            plan,
            client,
            places,
            folder,
            is_confirmed=is_confirmed,
            on_progress=on_progress,
        )
        try:
            placed = run.fetch_model() if plan.is_folder else run.fetch_file()
        except SiteRefusal as error:
            raise explain_refusal(error, plan) from None
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()  # if nothing else grows there
    return placed


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Have a download for this process alone; a folder in which nothing came to lie goes again."""
    atomic.make_folder(folder)
    lock = Lock(folder, "download")
    try:
        if not lock.acquire():
            raise Busy("It is already being downloaded; the list of downloads shows its progress.")
        try:
            yield
        finally:
            _remove_if_empty(folder)
    finally:
        lock.close()


def _remove_if_empty(folder: Path) -> None:
    files = folder / "files"
    if any(path.is_file() for path in files.rglob("*")):
        return
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()


class _AlreadyThere(BadFile):
    """The beginning of a file shows that it is here already."""

    def __init__(self, placed: Placed) -> None:
        self.placed = placed
        super().__init__(f"{placed.name} is already there.")


class _Download:
    def __init__(
        self,
        plan: DownloadPlan,
        client: SafeClient,
        places: Places,
        folder: Path,
        *,
        is_confirmed: bool,
        on_progress: ProgressCallback,
    ) -> None:
        self._plan, self._client, self._places = plan, client, places
        self._folder, self._files = folder, folder / "files"
        self._is_confirmed, self._on_progress = is_confirmed, on_progress
        self._finished_bytes = 0
        self._total = plan.size_bytes or 0

    def fetch_file(self) -> Placed:
        """Fetch one file and place it."""
        file = self._plan.files[0]
        path = self._files / file.path
        suffix = path.suffix.lower()

        def look_at_start(start: bytes, total: int) -> None:
            self._total = total
            if suffix == SAFETENSORS_SUFFIX:
                identified = identify_start(start, total, self._folder, file.path)
                same = self._places.find_same_file(
                    identified.folder, self._plan.name, suffix, file.sha256
                )
                if same:
                    title = identified.title
                    raise _AlreadyThere(
                        Placed(self._plan.name, identified.folder, same, title, was_there=True)
                    )
                # Where nobody said the sha256, the end shows whether it is the same file.
                if file.sha256 or not self._places.begins_alike(
                    identified.folder, self._plan.name + suffix, start, total
                ):
                    self._places.check_file_name(identified.folder, self._plan.name, suffix)

        sha256 = self._hash_whole(path)
        if not sha256 or file.sha256.lower() not in ("", sha256):
            try:
                sha256 = self._fetch(file, path, look_at_start)
            except _AlreadyThere as there:
                return there.placed
        return self._places.place_file(self._plan, path, sha256)

    def _hash_whole(self, path: Path) -> str:
        """Return the sha256 of a file that had come but could not be placed; empty if none has."""
        if not path.is_file():
            return ""
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def fetch_model(self) -> Placed:
        """Fetch the files of a model, small ones first, and place their folder."""
        done = {file.path for file in self._plan.files if self._is_there(file)}
        missing = [file for file in self._plan.files if file.path not in done]
        self._finished_bytes = sum(
            file.size_bytes or 0 for file in self._plan.files if file.path in done
        )
        parts = sum(_measure(self._files / f"{file.path}{PART_SUFFIX}") for file in missing)
        needed = sum(file.size_bytes or 0 for file in missing) - parts
        atomic.make_folder(self._files)
        check_free_disk(self._files, needed, self._plan.title)
        for file in sorted(missing, key=lambda file: file.size_bytes or 0):
            self._fetch(file, self._files / file.path)
            self._finished_bytes += file.size_bytes or 0
        self._remove_strangers()
        return self._places.place_model(self._plan, self._files)

    def _fetch(
        self,
        file: RemoteFile,
        path: Path,
        look_at_start: Callable[[bytes, int], None] = lambda _start, _total: None,
    ) -> str:
        def report(num_bytes: int) -> None:
            done = self._finished_bytes + num_bytes
            self._on_progress(done, max(self._total, done))

        transfer = Transfer(
            self._client,
            build_request(self._plan, file, is_confirmed=self._is_confirmed),
            file,
            path,
            on_bytes=report,
            on_start=look_at_start,
            is_weights=not self._plan.is_folder or file.path.endswith(SAFETENSORS_SUFFIX),
        )
        return transfer.run()

    def _is_there(self, file: RemoteFile) -> bool:
        return _measure(self._files / file.path) == file.size_bytes

    def _remove_strangers(self) -> None:
        """Remove what an earlier list of the same version had and this one has not."""
        known = {self._files / file.path for file in self._plan.files}
        for path in self._files.rglob("*"):
            if path.is_file() and path not in known:
                path.unlink()


def _measure(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1 if path.suffix != PART_SUFFIX else 0
