"""Regular expressions that people type, so that none of them can hold the studio up.

Knows: which patterns are accepted. Does not know: captions, edits and their time limit (edits.py).

The `regex` library runs them: unlike `re` it stops after a given time. What could take all memory
before that is refused by name: repeats of repeats beyond MAX_REPEATS, patterns that contain
themselves, approximate matching.
"""

from __future__ import annotations

import re
from typing import Any

import regex

MAX_PATTERN_CHARACTERS = 1000  # characters of a pattern
MAX_REPEATS = 10_000  # the product of all {counts}
_BRACES_PATTERN = re.compile(r"(\\[pPN]?)?\{([^{}]*)\}")
_COUNT_PATTERN = re.compile(r"(\d*)(?:,(\d*))?")
_RECURSION_PATTERN = re.compile(r"\(\?(?:R|[+-]?\d|&|P>|\(DEFINE\))")
# What `regex` raises for patterns and replacements that it cannot use.
_REGEX_ERRORS = (
    regex.error,
    RecursionError,
    IndexError,
    ValueError,
    MemoryError,
    OverflowError,
)


def compile_pattern(find: str, is_regex: bool, case_sensitive: bool, whole_words: bool) -> Any:
    """Compile a search text or a regular expression.

    Returns:
        A compiled pattern of the `regex` library, whose methods accept a `timeout`.

    Raises:
        ValueError: The pattern is malformed or refused; the message says why.
    """
    if is_regex and (reason := _explain_refusal(find)):
        raise ValueError(reason)
    body = find if is_regex else regex.escape(find)
    if whole_words:
        body = rf"(?<!\w)(?:{body})(?!\w)"
    flags = 0 if case_sensitive else regex.IGNORECASE
    try:
        return regex.compile(body, flags)
    except _REGEX_ERRORS as error:
        raise ValueError(f"{error!s:.100}") from None


def check_pattern(
    find: str, replacement: str, case_sensitive: bool = True, whole_words: bool = False
) -> None:
    """Check that a regular expression and its replacement can be used.

    Raises:
        ValueError: One of them cannot; the message says why.
    """
    compile_pattern(find, True, case_sensitive, whole_words)
    # A replacement is read only where the pattern matches, so this one also matches the empty text.
    try:
        regex.compile(f"(?:{find})|").sub(replacement, "", timeout=0.2)
    except TimeoutError:
        pass
    except _REGEX_ERRORS as error:
        raise ValueError(f"{error!s:.100}") from None


def _explain_refusal(find: str) -> str:
    """Return why a pattern is refused; empty if it is not."""
    if _RECURSION_PATTERN.search(find):
        return "it contains itself"
    repeats = 1
    for escape, content in _BRACES_PATTERN.findall(find):
        if escape:
            continue
        count_match = _COUNT_PATTERN.fullmatch(content)
        if count_match is None or not content:
            return (
                r"braces hold a number, such as {2} or {2,5}; write \{ and \} for the letters, "
                f"not {{{content:.20}}}"
            )
        counts = [int(number[:9]) for number in count_match.groups() if number]
        repeats *= max([1, *counts])
    if repeats > MAX_REPEATS:
        return f"it repeats more than {MAX_REPEATS:,} times"
    return ""
