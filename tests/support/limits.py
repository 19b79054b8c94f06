"""What a test may ask of speed without a clock that fails on a busy machine: counted calls, and an end to what hangs."""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

HANG_SECONDS = 120.0  # of what takes a second or two


@dataclass
class CallCount:
    """How many functions were called, Python's and C's."""

    calls: int = 0


@contextmanager
def count_calls() -> Iterator[CallCount]:
    """Count the calls that this thread makes in the block: what is quadratic makes far too many."""
    count = CallCount()

    def on_event(frame: Any, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            count.calls += 1

    before = sys.getprofile()
    sys.setprofile(on_event)
    try:
        yield count
    finally:
        sys.setprofile(before)


@contextmanager
def hang_limit(seconds: float = HANG_SECONDS) -> Iterator[None]:
    """End the whole process with its traceback if the block hangs, in C as well (a pattern, a quadratic join)."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
