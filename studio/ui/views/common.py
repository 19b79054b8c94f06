"""Numbers and texts as a person reads them.

Knows: units, plurals, ellipses, shares. Does not know: HTML; what is counted.
"""

from __future__ import annotations

KIB = 2**10
MIB = 2**20
GIB = 2**30


def format_duration(seconds: float) -> str:
    """Return a duration in its largest sensible unit: `3.2 s`, `45 s`, `12 min`, `1.6 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def format_eta(eta_seconds: float | None) -> str:
    """Return how long a work still takes: `about 12 min left`; empty where nobody knows yet."""
    return "" if eta_seconds is None else f"about {format_duration(eta_seconds)} left"


def format_bytes(num_bytes: float) -> str:
    """Return a size in its largest binary unit: `5 KiB`, `1.0 MiB`, `8.0 GiB`."""
    if num_bytes < MIB:
        return f"{num_bytes / KIB:.0f} KiB"
    if num_bytes < GIB:
        return f"{num_bytes / MIB:.1f} MiB"
    return f"{num_bytes / GIB:.1f} GiB"


def format_kib(num_bytes: int) -> str:
    """Return a file's size in KiB, at least one: `1,234 KiB`."""
    return f"{max(1, round(num_bytes / KIB)):,} KiB"


def compute_fraction(step: int, total: int) -> float:
    """Return how far `step` of `total` is, 0 to 1; 0 where `total` is not known yet."""
    return step / total if total else 0.0


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun: `1 picture`, `3,000 pictures`."""
    ending = "" if count == 1 else "s"
    return f"{count:,} {noun}{ending}"


def shorten(text: str, limit: int) -> str:
    """Return a text of less than `limit` characters, cut with an ellipsis if need be."""
    return text if len(text) < limit else f"{text[: limit - 3]}…"
