"""How many examples a property is tried on: a quarter in quick runs, all of them where slow tests run (see conftest.py)."""

from __future__ import annotations

from hypothesis import settings

ALL, QUICK = 100, 25


def examples(number: int) -> int:
    """For `max_examples`: `number` where slow tests run, a quarter of it in quick runs."""
    return max(1, number * settings.default.max_examples // ALL)
