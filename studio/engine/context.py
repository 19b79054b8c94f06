"""What a worker works with.

Knows: how the pieces are put together. Does not know: any work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from studio.engine.models.manager import PipelineManager
from studio.settings import Settings
from studio.storage.home import Home


@dataclass(frozen=True)
class WorkerContext:
    """Handed to every work.

    Attributes:
        home: The stores.
        pipelines: What lends models.
        owner: Whose job it is.
        interleave_job: A preemptible work calls it where it can wait, with the bytes that it will
            need itself; the worker may run one short job then, and returns whether it did.
    """

    home: Home
    pipelines: PipelineManager
    owner: str = "local"
    interleave_job: Callable[[int], bool] = lambda _required_bytes: False

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        return self.home.settings

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open the home and its models. Raises InvalidSpec for a device that is not there."""
        return cls.for_home(Home(settings))

    @classmethod
    def for_home(cls, home: Home) -> Self:
        """Open the models of a home. Raises InvalidSpec for a device that is not there."""
        return cls(home, PipelineManager(home.settings, home.library))
