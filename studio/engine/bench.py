"""What a worker works with.

Knows: how the pieces are put together. Does not know: any work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from studio.engine.pipelines.manager import PipelineManager
from studio.settings import Settings
from studio.store.gallery import Gallery
from studio.store.library import Library
from studio.store.sweeps import Sweeps


@dataclass(frozen=True)
class Bench:
    """Handed to every work; `owner` is whose job it is."""

    settings: Settings
    pipelines: PipelineManager
    gallery: Gallery
    library: Library
    sweeps: Sweeps
    owner: str = "local"

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Raises InvalidSpec for a device that is not there."""
        library = Library(settings)
        return cls(settings, PipelineManager(settings, library), Gallery(settings), library,
                   Sweeps(settings))
