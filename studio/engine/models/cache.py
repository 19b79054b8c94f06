"""What stays in a device's memory: things under keys, by measured bytes, least recently used out first.

Knows: sizes, who was used when, what is lent at the moment (which is never thrown out).
Does not know: diffusion; devices: `limit` tells it how many bytes all things together may take right now.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from studio.errors import OutOfMemory

GIB = 2**30


@dataclasses.dataclass
class Resident:
    """One loaded thing; `lent` counts who uses it now. With `of` it hangs on another and goes with it, undone by `undo`."""

    key: str
    name: str
    thing: Any
    bytes: int
    of: str = ""
    undo: Callable[[Any], None] | None = None
    lent: int = 0


class Residency:
    """A cache without locks: a worker is one thread."""

    def __init__(
        self, limit: Callable[[], int], on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._limit, self._on_change = limit, on_change
        self._held: dict[str, Resident] = {}  # in the order of their last use

    @property
    def bytes(self) -> int:
        return sum(held.bytes for held in self._held.values())

    def get(
        self, key: str, load: Callable[[], Any], expected_bytes: int = 0, name: str = ""
    ) -> Any:
        """The thing of that key, loaded if it is not there. Raises OutOfMemory if it cannot fit."""
        return self._get(key, load, expected_bytes, name).thing

    @contextmanager
    def lend(
        self,
        key: str,
        load: Callable[[], Any],
        expected_bytes: int = 0,
        name: str = "",
        of: str = "",
        undo: Callable[[Any], None] | None = None,
    ) -> Iterator[Any]:
        """The same, and it stays at least until the block is left.

        `of` is the key of what it hangs on (an adapter on a model), `undo` what takes it off.
        """
        held = self._get(key, load, expected_bytes, name, of, undo)
        held.lent += 1
        try:
            yield held.thing
        finally:
            held.lent -= 1

    def drop(self, key: str) -> bool:
        """Throw one out, and all that hangs on it; False if it is not there or lent."""
        held = self._held.get(key)
        if held is None or held.lent:
            return False
        for part in [other.key for other in self._held.values() if other.of == key]:
            self.drop(part)
        del self._held[key]
        if held.undo:
            held.undo(held.thing)
        self._on_change()
        return True

    def clear(self) -> None:
        """Throw out all that is not lent."""
        for key in list(self._held):
            self.drop(key)

    def listing(self) -> list[dict[str, Any]]:
        """What is here, the least recently used first."""
        return [
            {"key": held.key, "name": held.name, "bytes": held.bytes, "lent": bool(held.lent)}
            for held in self._held.values()
        ]

    def _get(
        self,
        key: str,
        load: Callable[[], Any],
        expected_bytes: int,
        name: str,
        of: str = "",
        undo: Callable[[Any], None] | None = None,
    ) -> Resident:
        held = self._held.pop(key, None)
        if held is None:
            self._make_room(expected_bytes, name or key)
            thing = load()
            held = self._held[key] = Resident(key, name or key, thing, measure(thing), of, undo)
            try:
                self._make_room(0, held.name, keep=held)  # it may be larger than expected
            except OutOfMemory:
                self.drop(key)
                raise
        self._held[key] = held
        if of:  # used with it, and dearer to load again
            self._held[of] = self._held.pop(of)
        self._on_change()
        return held

    def _make_room(self, more: int, name: str, keep: Resident | None = None) -> None:
        """Throw out the least recently used until `more` bytes than now are within the limit."""
        while self.bytes + more > (limit := self._limit()):
            idle = next(
                (key for key, held in self._held.items() if not held.lent and held is not keep),
                None,
            )
            if idle is None:
                needed, others = (
                    (keep.bytes if keep else more),
                    self.bytes - (keep.bytes if keep else 0),
                )
                raise OutOfMemory(
                    f"{name} needs {needed / GIB:.2f} GiB and {max(0, limit - others) / GIB:.2f} GiB are left for "
                    "it. Choose a smaller model, a lower --precision or a smaller --keep-free, or close other "
                    "programs."
                )
            self.drop(idle)


def measure(thing: Any) -> int:
    """Bytes of parameters and buffers in a module, or in the modules of a dataclass or a collection; shared ones once."""
    return sum(size for _, size in set(_storages(thing)))


def _storages(thing: Any) -> Iterator[tuple[int, int]]:
    if isinstance(thing, torch.nn.Module):
        for tensor in (*thing.parameters(), *thing.buffers()):
            yield tensor.data_ptr(), tensor.numel() * tensor.element_size()
    elif dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            yield from _storages(getattr(thing, field.name))
    elif isinstance(thing, (list, tuple)):
        for item in thing:
            yield from _storages(item)
