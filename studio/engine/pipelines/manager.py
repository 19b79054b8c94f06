"""The one who lends models.

Knows: what a request needs, what is loaded, what to say when memory does not suffice.
Does not know: what is done with what it lends.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from studio.engine.pipelines import devices, families
from studio.engine.pipelines.devices import FORMATS
from studio.engine.pipelines.families import Parts
from studio.engine.pipelines.residency import GIB, Residency
from studio.errors import OutOfMemory
from studio.settings import Settings
from studio.spec.request import GenerationRequest
from studio.store.library import Library, ModelInfo


class PipelineManager:
    """One per worker: all that lies in the device's memory is here."""

    def __init__(self, settings: Settings, library: Library, on_change: Callable[[], None] = lambda: None) -> None:
        self.device = devices.resolve(settings.device, settings.precision)
        self.on_change = on_change  # called whenever something was loaded, lent again or thrown out
        self._library, self._keep_free = library, int(settings.keep_free * GIB)
        self._residency = Residency(self._limit, lambda: self.on_change())

    @property
    def loaded(self) -> list[dict[str, Any]]:
        """What is in memory: key, name, bytes, lent; the least recently used first."""
        return self._residency.listing()

    @contextmanager
    def borrow(self, request: GenerationRequest) -> Iterator[Parts]:
        """A request's model, ready. Out of memory inside the block becomes an OutOfMemory that says what to lower."""
        info = self._library.model(request.model)
        content = self._library.content(info)
        size = f"{request.width or info.side} × {request.height or info.side}"
        what = f"{request.model} at {size}" + (f", {min(request.batch, request.count)} at once" if request.batch > 1 else "")
        with self._memory(what), self._residency.lend(f"model {content} {self.device.dtype_name}",
                                                      lambda: families.load(info, content, self.device),
                                                      self._expected(info), info.name) as parts:
            yield parts

    @contextmanager
    def hold(self, key: str, load: Callable[[], Any], expected_bytes: int = 0) -> Iterator[Any]:
        """Anything else that has to lie on the device: a captioner, CLIP, a judge."""
        with self._memory(key), self._residency.lend(key, load, expected_bytes) as thing:
            yield thing

    def unload(self, name: str) -> bool:
        """Throw out all of that name; False if there was none, or it is lent."""
        dropped = [self._residency.drop(held["key"]) for held in self.loaded if held["name"] == name]
        self.device.empty_cache()
        return any(dropped)

    def _limit(self) -> int:
        """What all things together may take: what they take now, and what is free beyond what others are to keep."""
        return self._residency.bytes + self.device.memory()[1] - self._keep_free

    def _expected(self, info: ModelInfo) -> int:
        saved = FORMATS.get(info.dtype, torch.float32)
        return info.bytes * self.device.dtype.itemsize // saved.itemsize

    @contextmanager
    def _memory(self, what: str) -> Iterator[None]:
        try:
            yield
            return
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)  # they hold the very tensors that have to go
        # Out of the except block: only now is the error, and all it held, gone.
        self._residency.clear()
        self.device.empty_cache()
        raise OutOfMemory(f"The memory of {self.device.title} did not suffice for {what}. Choose a smaller size, fewer pictures "
                          "at once, a smaller model or a lower --precision.")
