"""Which memory plan a request gets on this device, and what is said where none fits.

Knows: the device, the setting, what the cache could give up. Does not know: the plans themselves
(core/generation/memory_policy.py), how parts are put where they say (part_placement.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from studio.core.families.family import VAE
from studio.core.generation.memory_policy import (
    MemoryPlan,
    MemoryState,
    ModelBytes,
    choose_plan,
    list_plans,
)
from studio.core.generation.request import GenerationRequest
from studio.engine.models.cache import GIB, ModelCache
from studio.engine.models.devices import Device, get_free_host_bytes
from studio.errors import OutOfMemory
from studio.settings import Settings
from studio.storage.models.library import Library, ModelInfo
from studio.storage.models.model_bytes import measure_part, measure_request


class MemoryPlanner:
    """The choice of plans for one device."""

    def __init__(
        self, settings: Settings, library: Library, device: Device, cache: ModelCache
    ) -> None:
        """Take what plans depend on.

        Args:
            settings: The memory to keep free, and how sparing to be.
            library: Where LoRAs and inputs are looked up.
            device: Where models compute.
            cache: What lies there; all that is idle in it counts as free.
        """
        self._setting = settings.memory
        self._reserved_bytes = int(settings.keep_free * GIB)
        self._library = library
        self._device = device
        self._cache = cache

    @property
    def advice(self) -> str:
        """The flag that saves more than the present setting, after an "or"; empty if none does."""
        if self._setting == "auto":
            return " or --memory low"
        is_last = self._setting == "lowest" or self._device.shares_memory
        return "" if is_last else " or --memory lowest"

    def measure(self, info: ModelInfo, requests: Sequence[GenerationRequest]) -> ModelBytes:
        """Return what a model takes for the largest of some requests."""
        resolved = [
            self._library.inputs.resolve(request, info.native_size, 0) for request in requests
        ]
        uses = dict.fromkeys(
            use.name
            for request in requests
            for use in request.with_inline_loras().loras
            if not use.is_inactive
        )
        return measure_request(
            info,
            resolved,
            dtype_bytes=self._device.dtype.itemsize,
            vae_dtype_bytes=self._device.vae_dtype.itemsize,
            adapter_bytes=sum(self._library.get_lora(name).size_bytes for name in uses),
        )

    def list_plans(self, info: ModelInfo, request: GenerationRequest) -> list[MemoryPlan]:
        """Return the plans for a request in the order of preference, whether they fit or not."""
        return list_plans(self.measure(info, [request]), self.get_state(), self._setting)

    def get_state(self) -> MemoryState:
        """Return what the device has, if all that is idle were gone."""
        free_bytes = self._device.get_memory()[1] - self._reserved_bytes
        return MemoryState(
            free=free_bytes + self._cache.idle_bytes,
            host_free=get_free_host_bytes() + self._cache.idle_host_bytes,
            is_shared=self._device.shares_memory,
            stores_fp8=self._device.stores_fp8,
        )

    def choose(self, info: ModelInfo, requests: Sequence[GenerationRequest]) -> MemoryPlan:
        """Choose the plan for a model that nobody has at the moment.

        Args:
            info: The model.
            requests: They are made with it one after the other.

        Raises:
            OutOfMemory: No plan fits.
        """
        sizes, state = self.measure(info, requests), self.get_state()
        plan = choose_plan(sizes, state, self._setting)
        if plan is None:
            raise self._build_out_of_memory(info, sizes, state)
        return plan

    def choose_below(
        self, info: ModelInfo, requests: Sequence[GenerationRequest], failed: MemoryPlan
    ) -> MemoryPlan | None:
        """Choose the next plan after one that turned out not to fit; None if there is none."""
        return choose_plan(
            self.measure(info, requests), self.get_state(), self._setting, below=failed
        )

    def measure_part(self, info: ModelInfo, part: str, plan: MemoryPlan) -> int:
        """Return the bytes of a part's weights that will lie on the device under a plan."""
        if plan.is_streamed(part):
            return 0
        weight_bytes = self._measure_whole_part(info, part)
        if plan.describe_form(part) == "fp8" and not self._device.shares_memory:
            return weight_bytes // self._device.dtype.itemsize
        return weight_bytes

    def make_host_room(self, info: ModelInfo, part: str, plan: MemoryPlan) -> None:
        """Make room in the machine's memory for a part that passes through it, or stays there.

        Raises:
            OutOfMemory: There is not enough.
        """
        if self._device.shares_memory or not plan.describe_form(part):
            return
        required_bytes = self._measure_whole_part(info, part)
        self._cache.evict_from_host(get_free_host_bytes, required_bytes)
        free_bytes = get_free_host_bytes()
        if free_bytes < required_bytes:
            raise self._build_host_error(info, required_bytes, free_bytes)

    def _measure_whole_part(self, info: ModelInfo, part: str) -> int:
        """Return the bytes of a part's weights in the format to compute in."""
        dtype = self._device.vae_dtype if part == VAE else self._device.dtype
        return measure_part(info, part, dtype_bytes=dtype.itemsize)

    def _build_host_error(
        self, info: ModelInfo, required_bytes: int, free_bytes: int
    ) -> OutOfMemory:
        return OutOfMemory(
            f"To save memory on {self._device.title}, {required_bytes / GIB:.2f} GiB of "
            f"{info.name} must be kept in the machine's main memory, where "
            f"{max(0, free_bytes) / GIB:.2f} GiB are free. Close other programs, or choose a "
            "smaller model."
        )

    def _build_out_of_memory(
        self, info: ModelInfo, sizes: ModelBytes, state: MemoryState
    ) -> OutOfMemory:
        """Build the error for a model of which nothing helps; it names what is short."""
        plans = list_plans(sizes, state, self._setting)
        fitting = [plan for plan in plans if plan.peak_bytes <= state.free]
        if fitting:
            host_bytes = min(plan.host_bytes for plan in fitting)
            return self._build_host_error(info, host_bytes, state.host_free)
        needed_bytes = min(plan.peak_bytes for plan in plans)
        return OutOfMemory(
            f"{info.name} needs {needed_bytes / GIB:.2f} GiB at this size even when saving "
            f"memory, but only {max(0, state.free) / GIB:.2f} GiB are available on "
            f"{self._device.title}. Choose a smaller size, a smaller model, a lower --precision "
            "or a smaller --keep-free, or close other programs."
        )
