"""The one who lends models.

Knows: what a request needs, what is loaded, what to say when memory does not suffice.
Does not know: what is done with what it lends.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from studio.core.generation.request import GenerationRequest
from studio.core.generation.rules import passes
from studio.engine.models import devices, families
from studio.engine.models.adapters import lora
from studio.engine.models.cache import GIB, Residency
from studio.engine.models.devices import FORMATS
from studio.engine.models.families import Parts
from studio.errors import OutOfMemory
from studio.settings import Settings
from studio.storage import timings
from studio.storage.models.library import Library, LoraInfo, ModelInfo
from studio.storage.models.transformers_models import Networks


class PipelineManager:
    """One per worker: all that lies in the device's memory is here."""

    def __init__(
        self, settings: Settings, library: Library, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self.device = devices.resolve(settings.device, settings.precision)
        self.networks = Networks(settings)
        self.on_change = on_change  # called whenever something was loaded, lent again or thrown out
        self._settings, self._library, self._keep_free = (
            settings,
            library,
            int(settings.keep_free * GIB),
        )
        self._residency = Residency(self._limit, lambda: self.on_change())

    @property
    def loaded(self) -> list[dict[str, Any]]:
        """What is in memory: key, name, bytes, lent; the least recently used first."""
        return self._residency.listing()

    @contextmanager
    def borrow(self, request: GenerationRequest, *others: GenerationRequest) -> Iterator[Parts]:
        """A request's model with its LoRAs, ready, and with those of others for the same model, off.

        Out of memory inside the block becomes one that says what to lower.
        """
        info = self._library.check(request)
        content = self._library.content(info)
        full = self._library.inputs.resolved(request, info.side, 0)
        size = f"{full.width} × {full.height}" + (
            f" and {full.hires_scale:g} times that" if full.hires else ""
        )
        what = f"{request.model} at {size}" + (
            f", {min(request.batch, request.count)} at once" if request.batch > 1 else ""
        )
        key = f"model {content} {self.device.dtype_name}"
        with (
            self._memory(what),
            self._residency.lend(
                key, lambda: self._load(info, content), self._expected(info), info.name
            ) as parts,
            self._with_loras(parts, key, (request, *others)),
        ):
            yield parts
            timings.note(self._settings, info.name, encode=parts.encoding)

    @contextmanager
    def hold(
        self, key: str, load: Callable[[], Any], expected_bytes: int = 0, name: str = ""
    ) -> Iterator[Any]:
        """Anything else that has to lie on the device: a captioner, CLIP, a judge. `name` is what people read."""
        with (
            self._memory(name or key),
            self._residency.lend(key, load, expected_bytes, name) as thing,
        ):
            yield thing

    def fits(self, request: GenerationRequest, needed: int) -> bool:
        """Whether a request's picture can be made while somebody else keeps what is lent, and will need so many bytes more."""
        info = self._library.model(request.model)
        idle = sum(held["bytes"] for held in self.loaded if not held["lent"])
        full = self._library.inputs.resolved(request, info.side, 0)
        largest = max(
            min(request.batch, request.count), *(area for _, area in passes(full))
        )  # second passes run one by one
        pixels = (full.width or 0) * (full.height or 0) * largest
        return (
            self._expected(info) + 2 * info.working * pixels * self.device.dtype.itemsize + needed
            <= self.room + idle
        )

    def unload(self, name: str) -> bool:
        """Throw out all of that name; False if there was none, or it is lent."""
        dropped = [
            self._residency.drop(held["key"]) for held in self.loaded if held["name"] == name
        ]
        self.device.empty_cache()
        return any(dropped)

    def contents(self, request: GenerationRequest) -> dict[str, str]:
        """What a request's digest is made over: hashes of all that it names, and how it is run. Loads nothing."""
        found = {
            f"lora {use.name}": self._library.content(self._library.lora(use.name))
            for use in request.untagged().loras
        }
        return {
            "model": self._library.content(self._library.check(request)),
            "dtype": self.device.dtype_name,
            "device": self.device.kind,
            **found,
        }

    @property
    def room(self) -> int:
        """Bytes that are free for what is computed, beyond what others are to keep."""
        return max(0, self.device.memory()[1] - self._keep_free)

    @contextmanager
    def _with_loras(
        self, parts: Parts, key: str, requests: Sequence[GenerationRequest]
    ) -> Iterator[None]:
        """Each is attached once, under its content; here the first request's are switched on, and off again."""

        def adapter(info: LoraInfo, content: str) -> Any:
            return self._residency.lend(
                f"lora {content} on {key}",
                lambda: lora.attach(parts, info, content),
                info.bytes,
                f"LoRA {info.name}",
                of=key,
                undo=lambda adapter: lora.detach(parts, adapter),
            )

        before = parts.adapters
        with ExitStack() as lent:
            adapters: dict[str, tuple[str, Any]] = {}
            for use in dict.fromkeys(
                use for request in requests for use in request.untagged().loras
            ):
                info = self._library.lora(use.name)
                content, held = adapters.get(use.name) or (self._library.content(info), None)
                adapters[use.name] = (
                    content,
                    held or (None if use.off else lent.enter_context(adapter(info, content))),
                )
            parts.adapters = adapters
            lent.callback(setattr, parts, "adapters", before)
            with lora.switched(parts, lora.active(parts, requests[0])):
                yield

    def _load(self, info: ModelInfo, content: str) -> Parts:
        began = time.perf_counter()
        parts = families.load(info, content, self.device)
        timings.note(self._settings, info.name, load=time.perf_counter() - began)
        return parts

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
            traceback.clear_frames(
                error.__traceback__
            )  # they hold the very tensors that have to go
        # Out of the except block: only now is the error, and all it held, gone.
        self._residency.clear()
        self.device.empty_cache()
        raise OutOfMemory(
            f"The memory of {self.device.title} did not suffice for {what}. Choose a smaller size, fewer pictures "
            "at once, a smaller model or a lower --precision."
        )
