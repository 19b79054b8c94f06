"""Datasets as pages share them: opened once, scanned in the background, shown to whom they may be.

Knows: which dataset is open, how far the scan of its images is, whose a dataset is. Does not know:
components, edits.
"""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from studio.errors import DatasetError, NotAllowed, StudioError, quote
from studio.services.urls import file_url
from studio.services.visitor import Visitor
from studio.settings import shipped
from studio.storage.datasets import importer
from studio.storage.datasets.dataset import Dataset, DatasetStore
from studio.storage.datasets.importer import ImportResult

log = logging.getLogger(__name__)


class DatasetRegistry:
    """One for the process. Datasets are shared by pages: each shows one state or the next."""

    def __init__(self, dataset_store: DatasetStore) -> None:
        self.dataset_store = dataset_store
        self._datasets: dict[str, Dataset] = {}
        self._scan_progress: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def list_names(self, visitor: Visitor) -> list[str]:
        """Return the names of what a visitor may look at.

        For guests only what came with the studio: the rest is private.
        """
        names = self.dataset_store.names()
        if not visitor.is_guest:
            return names
        shipped_folder = shipped("assets") / "datasets"
        find_folder = self.dataset_store.registry.find_folder
        return [name for name in names if find_folder(name).is_relative_to(shipped_folder)]

    def open(self, name: str, visitor: Visitor) -> Dataset:
        """Return a dataset as it is now. Raises DatasetError."""
        names = self.list_names(visitor)
        if name not in names:
            known_names = ", ".join(names) or "none yet; add images first"
            raise DatasetError(f"There is no dataset {quote(name)}; available: {known_names}.")
        folder = self.dataset_store.registry.find_folder(name).resolve()
        with self._lock:
            dataset = self._datasets.get(name)
            if dataset is None or dataset.folder != folder:
                dataset = self._datasets[name] = self.dataset_store.open(name)
        if dataset.is_stale():
            dataset.refresh()
        self._start_scan(dataset)
        return dataset

    def open_writable(self, name: str, visitor: Visitor) -> Dataset:
        """Return a dataset that may be written into.

        Raises NotAllowed for one that came with the studio, and DatasetError.
        """
        dataset = self.open(name, visitor)
        if dataset.is_shipped:
            raise NotAllowed(
                f"{name} is built in and cannot be edited; select Copy to edit, and caption "
                "the copy."
            )
        return dataset

    def get_scan_progress(self, name: str) -> tuple[int, int] | None:
        """Return (images decoded, images to decode) of a running scan, else None."""
        return self._scan_progress.get(name)

    def _start_scan(self, dataset: Dataset) -> None:
        """Decode new images in a thread, which finds broken and repeated ones."""
        unseen = dataset.count_images().unexamined
        with self._lock:
            if not unseen or dataset.name in self._scan_progress:
                return
            self._scan_progress[dataset.name] = (0, unseen)
        threading.Thread(target=self._scan, args=(dataset,), daemon=True).start()

    def _scan(self, dataset: Dataset) -> None:
        def report(completed: int, total: int) -> None:
            self._scan_progress[dataset.name] = (completed, total)

        try:
            dataset.examine(report)
        except (StudioError, OSError):
            log.exception("the images of %s could not be read", dataset.name)
        finally:
            self._scan_progress.pop(dataset.name, None)


class RunningImport:
    """Files on their way into a dataset, in a thread of their own: a page asks how far it is.

    It goes on to its end when nobody asks any more.
    """

    def __init__(
        self, dataset_store: DatasetStore, name: str, files: Sequence[tuple[Path, str]]
    ) -> None:
        """Begin to import files.

        Args:
            dataset_store: Of the home.
            name: Of the dataset.
            files: (where it lies, what its owner calls it).
        """
        self.progress: tuple[str, int, int] = (importer.UNPACKING, 0, 0)
        self._outcome: ImportResult | Exception | None = None
        self._thread = threading.Thread(
            target=self._run, args=(dataset_store, name, files), daemon=True
        )
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for the end, at most so long; return whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def get_result(self) -> ImportResult:
        """Return what was added. Raises what the import raised."""
        self._thread.join()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        assert self._outcome
        return self._outcome

    def _run(
        self, dataset_store: DatasetStore, name: str, files: Sequence[tuple[Path, str]]
    ) -> None:
        def report(message: str, completed: int, total: int) -> None:
            self.progress = (message, completed, total)

        try:
            self._outcome = dataset_store.import_files(name, files, report=report)
        except Exception as error:  # it is raised again where somebody hears it
            self._outcome = error


def get_thumbnail_urls(dataset: Dataset, keys: Sequence[str], visitor: Visitor) -> list[str]:
    """Return where the page finds small images; "" for one that cannot be read.

    Guests get them inside the page: none of these files is served to them.
    """
    encode = _encode_data_url if visitor.is_guest else file_url
    return [encode(path) if path else "" for path in dataset.make_thumbnails(keys)]


def _encode_data_url(path: Path) -> str:
    try:
        return f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}"
    except OSError:
        return ""
