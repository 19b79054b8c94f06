"""What a worker works with.

Knows: how the pieces are put together. Does not know: any work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from studio.engine.models.manager import PipelineManager
from studio.settings import Settings
from studio.storage.datasets.dataset import Albums
from studio.storage.datasets.training_set import Datasets
from studio.storage.gallery import Gallery
from studio.storage.models.library import Library
from studio.storage.sweeps import Sweeps
from studio.storage.training.runs import Runs


@dataclass(frozen=True)
class Bench:
    """Handed to every work; `owner` is whose job it is.

    A long work calls `between` where it can wait, with the bytes that it will need itself: the worker may run one short job then.
    """

    settings: Settings
    pipelines: PipelineManager
    gallery: Gallery
    library: Library
    sweeps: Sweeps
    runs: Runs
    datasets: Datasets
    albums: Albums
    owner: str = "local"
    between: Callable[[int], bool] = lambda needed: False  # whether it did run one

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Raises InvalidSpec for a device that is not there."""
        library = Library(settings)
        return cls(
            settings,
            PipelineManager(settings, library),
            Gallery(settings),
            library,
            Sweeps(settings),
            Runs(settings),
            Datasets(settings),
            Albums(settings),
        )
