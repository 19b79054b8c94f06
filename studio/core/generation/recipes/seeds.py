"""Seeds of other programs: which of them give the same noise here.

Knows: how far seeds go here and there. Does not know: how noise is drawn.
"""

from __future__ import annotations

import re

from studio.core.generation.fields import SEED_LIMIT
from studio.errors import quote

_NUMBER = re.compile(r"\s*[+-]?\d{1,30}(?:\.0+)?\s*")


def read_seed(seed: object, is_cpu_noise: bool) -> tuple[int | None, str]:
    """Return a seed that gives the same noise here, and a note where there is none.

    Args:
        seed: A number, or its digits.
        is_cpu_noise: Whether the program drew its noise on the CPU. There PyTorch seeds its
            generator with the lower 32 bits alone, so larger seeds are taken without the rest; a
            graphics card's counts them all.
    """
    text = str(seed)[:60]
    if isinstance(seed, bool) or not _NUMBER.fullmatch(text):
        return None, f"Seed: {quote(text)} is not a number; left unchanged."
    number = int(text.partition(".")[0])
    if number < 0 or number < SEED_LIMIT:
        return max(-1, number), ""
    if is_cpu_noise and number < 2**64:
        return number % SEED_LIMIT, ""
    return None, (f"Seed {number} is above {SEED_LIMIT - 1}, the maximum here; left unchanged.")
