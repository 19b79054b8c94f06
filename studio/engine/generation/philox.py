"""Normal noise as a CUDA card makes it, on any machine: Philox 4x32-10 and Box–Muller.

Knows: the counter-based generator of Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3"
(SC 2011), and how cuRAND turns its words into normal numbers. Does not know: images, torch.

Each number has a counter of its own: its place in the tensor, and how many tensors were drawn
before. torch.randn on a card counts so as long as it has a thread for each number, which holds for
images of usual sizes (65,536 latents are 1024 × 1024 pixels); beyond that a card's numbers depend
on how many cores it has, and these do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL_STEPS = (0x9E3779B9, 0xBB67AE85)  # what is added to the key after each round
_LOW_WORD = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)
# cuRAND's factors, which are float32: 2⁻³² and 2π · 2⁻³². The rest is computed in double, which
# comes nearer to a card's fused operations than single: 1e-6 instead of 1e-5.
_UNIT = float(np.float32(2.3283064e-10))
_UNIT_ANGLE = float(np.float32(2.3283064e-10 * 6.2831855))


class Philox:
    """A stream of normal noise by a seed: each call is one draw of torch.randn on a card."""

    def __init__(self, seed: int) -> None:
        """Begin the stream of a seed, 0 to 2⁶⁴ - 1."""
        self._key = seed % 2**64
        self._num_draws = 0

    def randn(self, shape: Sequence[int]) -> np.ndarray:
        """Return the next draw: float32 of the shape, mean 0, variance 1."""
        size = int(np.prod(shape, dtype=np.int64))
        index = np.arange(size, dtype=np.uint64)
        counter = [
            np.full(size, self._num_draws, np.uint64),
            np.zeros(size, np.uint64),
            index & _LOW_WORD,
            index >> _WORD_BITS,
        ]
        self._num_draws += 1
        words = _encrypt(counter, self._key)
        uniform = words[0] * _UNIT + _UNIT / 2  # never 0, which has no logarithm
        angle = words[1] * _UNIT_ANGLE + _UNIT_ANGLE / 2
        radius = np.sqrt(-2 * np.log(uniform))
        normal: np.ndarray = (radius * np.sin(angle)).astype(np.float32).reshape(shape)
        return normal


def _encrypt(counter: list[np.ndarray], key: int) -> list[np.ndarray]:
    """Return the four random words of each counter, 32 bits in 64."""
    low_key, high_key = key & 0xFFFFFFFF, key >> 32
    first, second, third, fourth = counter
    for _ in range(_ROUNDS):
        product = first * _MULTIPLIERS[0]
        other_product = third * _MULTIPLIERS[1]
        first, second, third, fourth = (
            (other_product >> _WORD_BITS) ^ second ^ np.uint64(low_key),
            other_product & _LOW_WORD,
            (product >> _WORD_BITS) ^ fourth ^ np.uint64(high_key),
            product & _LOW_WORD,
        )
        low_key = (low_key + _WEYL_STEPS[0]) & 0xFFFFFFFF
        high_key = (high_key + _WEYL_STEPS[1]) & 0xFFFFFFFF
    return [first, second, third, fourth]
