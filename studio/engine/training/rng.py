"""Seeded randomness: every draw is a pure function of what it is for.

Knows: how (seed, step, sample, purpose) becomes a generator, a number or an order.
Does not know: what is drawn, or any global random state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


def make_generator(seed: int, step: int, sample: str, purpose: str) -> torch.Generator:
    """Make a generator on the CPU, so that noise and timesteps are the same on all devices."""
    generator_seed = _draw_64_bits(seed, step, sample, purpose) >> 1
    return torch.Generator().manual_seed(generator_seed)


def draw_uniform(seed: int, step: int, sample: str, purpose: str) -> float:
    """Draw a number from 0 up to, but not including, 1."""
    return (_draw_64_bits(seed, step, sample, purpose) >> 11) / 2**53


def draw_index(count: int, seed: int, step: int, sample: str, purpose: str) -> int:
    """Draw a whole number from 0 to `count` - 1."""
    return int(draw_uniform(seed, step, sample, purpose) * count)


def shuffle(
    items: Sequence[T], key: Callable[[T], str], seed: int, step: int, purpose: str
) -> list[T]:
    """Return `items` in another order, which depends on their keys and not on their given order."""
    prefix = _digest(seed, step, "", purpose)

    def sort_key(item: T) -> bytes:
        return hashlib.sha256(prefix + key(item).encode("utf-8", "surrogatepass")).digest()

    return sorted(items, key=sort_key)


def draw_normal(
    shape: tuple[int, ...], seed: int, step: int, samples: Sequence[str], purpose: str
) -> torch.Tensor:
    """Draw normal noise, float32 on the CPU, as (samples, *shape)."""
    rows = []
    for sample in samples:
        generator = make_generator(seed, step, sample, purpose)
        rows.append(torch.randn(shape, generator=generator))
    return torch.stack(rows)


def _draw_64_bits(seed: int, step: int, sample: str, purpose: str) -> int:
    return int.from_bytes(_digest(seed, step, sample, purpose)[:8], "big")


def _digest(seed: int, step: int, sample: str, purpose: str) -> bytes:
    text = f"{seed}\0{step}\0{purpose}\0{sample}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
