"""What stays in a device's memory: values under keys, least recently used out first.

Knows: measured sizes, the order of use, what is lent at the moment (which is never evicted).
Does not know: diffusion; devices: a callback says how many bytes the cache may take right now.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from studio.errors import OutOfMemory

GIB = 2**30


@dataclasses.dataclass
class Resident:
    """One loaded value.

    With `parent_keys` it depends on other residents and is evicted with any of them; `on_evict`
    undoes it.
    """

    key: str
    name: str
    value: Any
    size_bytes: int
    parent_keys: tuple[str, ...] = ()
    on_evict: Callable[[Any], None] | None = None
    host_bytes: int = 0  # what of it lies elsewhere than on the device
    lend_count: int = 0  # users at the moment


class ModelCache:
    """A cache without locks: a worker is one thread."""

    def __init__(
        self,
        get_limit: Callable[[], int],
        on_change: Callable[[], None] = lambda: None,
        device: torch.device | None = None,
    ) -> None:
        """Create an empty cache.

        Args:
            get_limit: Returns the bytes that all residents together may take right now.
            on_change: Called after a load, a use and an eviction.
            device: Only what lies there is counted; None counts everything.
        """
        self._get_limit = get_limit
        self._on_change = on_change
        self._device = device
        self._residents: dict[str, Resident] = {}  # in the order of their last use

    @property
    def used_bytes(self) -> int:
        return sum(resident.size_bytes for resident in self._residents.values())

    @property
    def idle_bytes(self) -> int:
        """Bytes on the device of what is not lent."""
        return sum(resident.size_bytes for resident in self._list_idle())

    @property
    def idle_host_bytes(self) -> int:
        """Bytes elsewhere of what is not lent."""
        return sum(resident.host_bytes for resident in self._list_idle())

    def get(
        self, key: str, load: Callable[[], Any], expected_bytes: int = 0, name: str = ""
    ) -> Any:
        """Return the value of a key, loaded if it is not in memory.

        Args:
            key: What identifies the value.
            load: Makes the value.
            expected_bytes: Room to make before loading; the value is measured afterwards.
            name: What people read; the key if empty.

        Raises:
            OutOfMemory: It cannot fit.
        """
        return self._get_resident(key, load, expected_bytes=expected_bytes, name=name).value

    @contextmanager
    def lend(
        self,
        key: str,
        load: Callable[[], Any],
        *,
        expected_bytes: int = 0,
        name: str = "",
        parent_keys: tuple[str, ...] = (),
        on_evict: Callable[[Any], None] | None = None,
        working_bytes: int = 0,
    ) -> Iterator[Any]:
        """Yield the value of a key and keep it at least until the block is left.

        Args:
            key: What identifies the value.
            load: Makes the value.
            expected_bytes: Room to make before loading; the value is measured afterwards.
            name: What people read; the key if empty.
            parent_keys: Keys of the residents that it depends on (for an adapter, of networks).
            on_evict: Undoes the value when it is evicted.
            working_bytes: Room to make for what is computed with it, as far as others are idle.

        Raises:
            OutOfMemory: It cannot fit.
        """
        resident = self._get_resident(
            key,
            load,
            expected_bytes=expected_bytes,
            name=name,
            parent_keys=parent_keys,
            on_evict=on_evict,
            working_bytes=working_bytes,
        )
        resident.lend_count += 1
        try:
            yield resident.value
        finally:
            resident.lend_count -= 1

    def evict(self, key: str) -> bool:
        """Evict a value and all that depends on it; False if it is absent or in use."""
        resident = self._residents.get(key)
        if resident is None or self._is_in_use(resident):
            return False
        for child in self._list_children(key):
            self.evict(child.key)
        del self._residents[key]
        if resident.on_evict:
            resident.on_evict(resident.value)
        self._on_change()
        return True

    def clear(self, kept_name: str = "") -> None:
        """Evict all that is not lent, but for what has `kept_name`."""
        for key, resident in list(self._residents.items()):
            if resident.name != kept_name:
                self.evict(key)

    def list_residents(self) -> list[dict[str, Any]]:
        """Return key, name, bytes and lent of each resident, the least recently used first."""
        return [
            {
                "key": resident.key,
                "name": resident.name,
                "bytes": resident.size_bytes,
                "lent": bool(resident.lend_count),
            }
            for resident in self._residents.values()
        ]

    def _get_resident(
        self,
        key: str,
        load: Callable[[], Any],
        *,
        expected_bytes: int,
        name: str,
        parent_keys: tuple[str, ...] = (),
        on_evict: Callable[[Any], None] | None = None,
        working_bytes: int = 0,
    ) -> Resident:
        resident = self._residents.get(key)
        if resident is None:
            self._make_room(expected_bytes, name or key, working_bytes=working_bytes)
            value = load()
            size_bytes = measure_bytes(value, self._device)
            host_bytes = measure_bytes(value) - size_bytes
            resident = Resident(
                key, name or key, value, size_bytes, parent_keys, on_evict, host_bytes
            )
            self._residents[key] = resident
            try:
                self._make_room(0, resident.name, resident)  # it may be larger than expected
            except OutOfMemory:
                self.evict(key)
                raise
        elif working_bytes:
            with suppress(OutOfMemory):  # what others took meanwhile is no reason not to try
                self._make_room(0, resident.name, resident, working_bytes=working_bytes)
        self._residents[key] = self._residents.pop(key)
        for parent_key in parent_keys:  # used with it, and dearer to load again
            self._residents[parent_key] = self._residents.pop(parent_key)
        self._on_change()
        return resident

    def _make_room(
        self,
        required_bytes: int,
        name: str,
        protected: Resident | None = None,
        *,
        working_bytes: int = 0,
    ) -> None:
        """Evict the least recently used until `required_bytes` more are within the limit.

        For `working_bytes` room is made too, but nothing is refused: they are an estimate.
        """
        while True:
            limit = self._get_limit()
            if self.used_bytes + required_bytes + working_bytes <= limit:
                return
            key = self._find_idle_key(protected)
            if key is None and self.used_bytes + required_bytes <= limit:
                return
            if key is None:
                needed_bytes = required_bytes
                occupied_bytes = self.used_bytes
                if protected:
                    needed_bytes = protected.size_bytes
                    occupied_bytes -= protected.size_bytes
                free_bytes = max(0, limit - occupied_bytes)
                raise OutOfMemory(
                    f"{name} needs {needed_bytes / GIB:.2f} GiB, but only {free_bytes / GIB:.2f} "
                    "GiB are available. Choose a smaller model, a lower --precision or a smaller "
                    "--keep-free, or close other programs."
                )
            self.evict(key)

    def evict_from_host(self, get_free_bytes: Callable[[], int], required_bytes: int) -> None:
        """Evict what is idle and lies elsewhere than on the device until enough is free there.

        Args:
            get_free_bytes: Returns the bytes that are free there right now.
            required_bytes: Bytes that have to be.
        """
        for resident in self._list_idle():
            if get_free_bytes() >= required_bytes:
                return
            if resident.host_bytes:
                self.evict(resident.key)

    def _list_idle(self) -> list[Resident]:
        return [resident for resident in self._residents.values() if not self._is_in_use(resident)]

    def _find_idle_key(self, protected: Resident | None) -> str | None:
        protected_keys = () if protected is None else (protected.key, *protected.parent_keys)
        for key, resident in self._residents.items():
            if key not in protected_keys and not self._is_in_use(resident):
                return key
        return None

    def _is_in_use(self, resident: Resident) -> bool:
        """Return whether a value, or one that depends on it, is lent."""
        children = self._list_children(resident.key)
        return bool(resident.lend_count or any(child.lend_count for child in children))

    def _list_children(self, key: str) -> list[Resident]:
        return [child for child in self._residents.values() if key in child.parent_keys]


def measure_bytes(value: Any, device: torch.device | None = None) -> int:
    """Return the bytes of parameters and buffers in a value, shared ones counted once.

    Args:
        value: A module, or a dataclass, list or tuple that holds modules; one that holds others
            too names those that count in `modules`.
        device: Only what lies there counts; None for wherever it lies.
    """
    return sum(
        size
        for _, size in {
            (tensor.data_ptr(), tensor.numel() * tensor.element_size())
            for tensor in _iter_tensors(value)
            if device is None or tensor.device.type == device.type
        }
    )


def _iter_tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.nn.Module):
        yield from value.parameters()
        yield from value.buffers()
    elif hasattr(value, "modules"):
        yield from _iter_tensors(value.modules)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _iter_tensors(getattr(value, field.name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _iter_tensors(item)
