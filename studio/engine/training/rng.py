"""Chance that is no accident: every draw is a pure function of what it is for.

Knows: how (seed, step, sample, purpose) becomes a generator, a number or an order. Does not know: what is drawn, or global state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


def generator(seed: int, step: int, sample: str, purpose: str) -> torch.Generator:
    """A generator on the CPU, so that all devices draw the same: for noise, timesteps and whatever else a step needs."""
    return torch.Generator().manual_seed(
        int.from_bytes(_digest(seed, step, sample, purpose)[:8], "big") >> 1
    )


def number(seed: int, step: int, sample: str, purpose: str) -> float:
    """A number from 0 up to, but not including, 1."""
    return (int.from_bytes(_digest(seed, step, sample, purpose)[:8], "big") >> 11) / 2**53


def choice(count: int, seed: int, step: int, sample: str, purpose: str) -> int:
    """A whole number from 0 to `count` - 1."""
    return int(number(seed, step, sample, purpose) * count)


def shuffled(
    things: Sequence[T], key: Callable[[T], str], seed: int, step: int, purpose: str
) -> list[T]:
    """`things` in another order; it depends on their keys, not on the order in which they come."""
    common = _digest(seed, step, "", purpose)
    return sorted(
        things,
        key=lambda thing: hashlib.sha256(
            common + key(thing).encode("utf-8", "surrogatepass")
        ).digest(),
    )


def normal(
    shape: tuple[int, ...], seed: int, step: int, samples: Sequence[str], purpose: str
) -> torch.Tensor:
    """Normal noise, a row of `shape` for each sample, in float32 on the CPU."""
    return torch.stack(
        [torch.randn(shape, generator=generator(seed, step, sample, purpose)) for sample in samples]
    )


def _digest(seed: int, step: int, sample: str, purpose: str) -> bytes:
    return hashlib.sha256(
        f"{seed}\0{step}\0{purpose}\0{sample}".encode("utf-8", "surrogatepass")
    ).digest()
