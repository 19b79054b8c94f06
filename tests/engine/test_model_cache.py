"""What stays in memory, under a small budget that is made up; the things are real modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from studio.engine.models.cache import ModelCache, measure_bytes
from studio.errors import OutOfMemory
from support.sentences import refused

pytestmark = pytest.mark.smoke

KB = 1024


def thing(kilobytes: int) -> Callable[[], torch.nn.Module]:
    def load() -> torch.nn.Module:
        module = torch.nn.Module()
        module.register_buffer("weight", torch.zeros(kilobytes * KB // 4))
        return module

    return load


def keys(residency: ModelCache) -> list[str]:
    return [held["key"] for held in residency.list_residents()]


def test_the_least_recently_used_goes_first() -> None:
    changes: list[int] = []
    residency = ModelCache(lambda: 100 * KB, lambda: changes.append(1))
    for key in ("a", "b", "c"):
        residency.get(key, thing(30), 30 * KB)
    first = residency.get("a", thing(30))
    assert residency.get("a", thing(30)) is first  # not loaded again
    residency.get("d", thing(30), 30 * KB)
    assert keys(residency) == ["c", "a", "d"]
    assert residency.used_bytes == 90 * KB
    assert changes


def test_what_is_lent_stays() -> None:
    residency = ModelCache(lambda: 100 * KB)
    with residency.lend("a", thing(60), expected_bytes=60 * KB):
        assert residency.list_residents() == [
            {"key": "a", "name": "a", "bytes": 60 * KB, "lent": True}
        ]
        assert not residency.evict("a")
        with refused(OutOfMemory):
            residency.get("b", thing(60), 60 * KB)
        assert keys(residency) == ["a"]
    residency.get("b", thing(60), 60 * KB)
    assert keys(residency) == ["b"]
    assert residency.evict("b")
    assert not residency.evict("b")


def test_measured_not_believed() -> None:
    """A thing that is larger than it said pushes others out; one that cannot fit at all is not kept."""
    residency = ModelCache(lambda: 100 * KB)
    residency.get("a", thing(60), 1)
    residency.get("b", thing(80), 1)
    assert keys(residency) == ["b"]
    with pytest.raises(OutOfMemory):
        residency.get("c", thing(120), 1)
    assert keys(residency) == []


def test_a_failed_load_leaves_nothing() -> None:
    residency = ModelCache(lambda: 100 * KB)

    def broken() -> torch.nn.Module:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        residency.get("a", broken)
    with pytest.raises(ValueError, match="mine"), residency.lend("b", thing(1)):
        raise ValueError("mine")
    assert residency.list_residents() == [{"key": "b", "name": "b", "bytes": KB, "lent": False}]


def test_shared_weights_count_once() -> None:
    one = thing(10)()

    @dataclass
    class Pair:
        first: torch.nn.Module
        others: list[torch.nn.Module]
        note: str = ""

    assert measure_bytes(Pair(one, [one, thing(5)()])) == 15 * KB
