"""Names for new datasets: what an upload or a copy is called until somebody names it.

Knows: the names that are taken. Does not know: components, how files come into a dataset.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def get_archive_name(uploads: list[tuple[Path, str]]) -> str:
    """Return the name of the only uploaded archive, which names its dataset; "" without one."""
    archives = [name for _, name in uploads if name.lower().endswith(".zip")]
    return Path(archives[0]).stem if len(uploads) == 1 and archives else ""


def propose_name(existing_names: Collection[str], today: time.struct_time | None = None) -> str:
    """Return a new name such as "images 28 Nov".

    Args:
        existing_names: Names that are taken, in whatever case.
        today: The day; None is now.
    """
    day = today or time.localtime()
    return _add_number(f"images {day.tm_mday} {MONTHS[day.tm_mon - 1]}", existing_names)


def choose_copy_name(name: str, existing_names: Collection[str]) -> str:
    """Return the first of `my NAME`, `my NAME 2`, … that does not exist."""
    return _add_number(f"my {name}", existing_names)


def _add_number(name: str, existing_names: Collection[str]) -> str:
    taken = {existing.casefold() for existing in existing_names}
    number = 1
    candidate = name
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{name} {number}"
    return candidate
