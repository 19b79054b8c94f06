"""Regular expressions that people type, so that none of them can hold the studio up.

Knows: which patterns are taken, and for how long one may run. Does not know: captions, edits (caption_edits.py).

The `regex` library runs them: unlike `re` it stops after a given time. What could take all memory before that is refused by name:
repeats of repeats beyond MOST_REPEATS, patterns that contain themselves, approximate matching.
"""

from __future__ import annotations

import re
from typing import Any

import regex

LONGEST = 1000  # characters of a pattern
MOST_REPEATS = 10_000  # the product of all {counts}
_BRACES = re.compile(r"(\\[pPN]?)?\{([^{}]*)\}")
_COUNT = re.compile(r"(\d*)(?:,(\d*))?")
_RECURSION = re.compile(r"\(\?(?:R|[+-]?\d|&|P>|\(DEFINE\))")


def compiled(find: str, pattern: bool, capitals: bool, words: bool) -> Any:
    """What is looked for: text, or a pattern. Raises ValueError with what is wrong."""
    if pattern and (reason := _refused(find)):
        raise ValueError(reason)
    body = find if pattern else regex.escape(find)
    body = rf"(?<!\w)(?:{body})(?!\w)" if words else body
    try:
        return regex.compile(body, 0 if capitals else regex.IGNORECASE)
    except (
        regex.error,
        RecursionError,
        IndexError,
        ValueError,
        MemoryError,
        OverflowError,
    ) as error:
        raise ValueError(f"{error!s:.100}") from None


def check(find: str, to: str, capitals: bool = True, words: bool = False) -> None:
    """Whether a pattern and its replacement can be used. Raises ValueError with what is wrong."""
    compiled(find, True, capitals, words)
    try:  # a replacement is only looked at where something is found: here that is nothing
        regex.compile(f"(?:{find})|").sub(to, "", timeout=0.2)
    except TimeoutError:
        pass
    except (
        regex.error,
        RecursionError,
        IndexError,
        ValueError,
        MemoryError,
        OverflowError,
    ) as error:
        raise ValueError(f"{error!s:.100}") from None


def _refused(find: str) -> str:
    """Why a pattern is not taken; usually empty."""
    if _RECURSION.search(find):
        return "it contains itself"
    repeats = 1
    for before, inside in _BRACES.findall(find):
        if before:
            continue
        found = _COUNT.fullmatch(inside)
        if found is None or not inside:
            return rf"braces hold a number, such as {{2}} or {{2,5}}; write \{{ and \}} for the letters, not {{{inside:.20}}}"
        repeats *= max([1, *(int(number[:9]) for number in found.groups() if number)])
    return f"it repeats more than {MOST_REPEATS:,} times" if repeats > MOST_REPEATS else ""
