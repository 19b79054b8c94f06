"""What templates and styles ask files for, as values.

Knows: what a wildcard's lines and a style are, how a name is looked for among names. Does not know:
files (storage/prompt_files.py reads them).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

MAX_ALIKE_NAMES = 3


@dataclass(frozen=True)
class WildcardLine:
    """A line of a wildcard's list, and how often it is chosen (1 is neutral)."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Style:
    """Words under a name, in A1111's way: put around a prompt at `{prompt}`, else behind it."""

    name: str
    prompt: str = ""
    negative_prompt: str = ""


class PromptFiles(Protocol):
    """The wildcards and styles that there are."""

    def list_wildcards(self) -> Sequence[str]:
        """Return the names of all lists."""

    def read_wildcard(self, name: str) -> Sequence[WildcardLine]:
        """Return the lines of a list that there is."""

    def list_styles(self) -> Sequence[str]:
        """Return the names of all styles."""

    def get_style(self, name: str) -> Style:
        """Return a style that there is."""


class NoPromptFiles:
    """Stands where there are no files."""

    def list_wildcards(self) -> Sequence[str]:
        """Return none."""
        return ()

    def read_wildcard(self, name: str) -> Sequence[WildcardLine]:
        """Raise KeyError."""
        raise KeyError(name)

    def list_styles(self) -> Sequence[str]:
        """Return none."""
        return ()

    def get_style(self, name: str) -> Style:
        """Raise KeyError."""
        raise KeyError(name)


class WildcardsAlone(NoPromptFiles):
    """Somebody's wildcards without the styles."""

    def __init__(self, files: PromptFiles) -> None:
        self._files = files

    def list_wildcards(self) -> Sequence[str]:
        """Return the names of all lists."""
        return self._files.list_wildcards()

    def read_wildcard(self, name: str) -> Sequence[WildcardLine]:
        """Return the lines of a list that there is."""
        return self._files.read_wildcard(name)


def match_wildcards(pattern: str, names: Sequence[str]) -> list[str]:
    """Return the lists that a wildcard's name stands for, as dynamicprompts finds them.

    Args:
        pattern: A name, or a glob such as `animals/*`; without a folder it is looked for in all.
        names: What there is.
    """
    pattern = pattern.replace("\\", "/").strip("/ ")
    for attempt in (pattern, f"**/{pattern}"):
        matches = [name for name in names if fnmatchcase(name, attempt)]
        if not matches:  # on Windows files are the same in any case
            folded = attempt.casefold()
            matches = [name for name in names if fnmatchcase(name.casefold(), folded)]
        if matches:
            return matches
    return []


def find_alike(name: str, names: Sequence[str]) -> list[str]:
    """Return the names that may be meant by one that there is not."""
    by_folded = {known.casefold(): known for known in names}
    by_folded |= {known.rpartition("/")[2].casefold(): known for known in names}
    alike = difflib.get_close_matches(name.casefold()[:200], by_folded, MAX_ALIKE_NAMES, 0.6)
    return list(dict.fromkeys(by_folded[folded] for folded in alike))


def read_lines(pattern: str, files: PromptFiles) -> list[WildcardLine]:
    """Return the lines that a wildcard's name stands for: each once, sorted by their words."""
    lines: dict[str, WildcardLine] = {}
    for name in match_wildcards(pattern, files.list_wildcards()):
        for line in files.read_wildcard(name):
            lines.setdefault(line.text, line)
    return [lines[text] for text in sorted(lines)]
