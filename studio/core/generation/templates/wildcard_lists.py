"""The text of wildcard files → their lines.

Knows: lists of text lines, and of JSON and YAML as dynamicprompts reads them: maps in each other
are folders, lists are lines, an entry may have a weight (`0.5::red`, `{text: red, weight: 0.5}`).
Does not know: files, YAML's and JSON's own grammar.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from studio.core.generation.templates.prompt_files import WildcardLine

MAX_LINES = 100_000  # of a file
MAX_LINE_CHARS = 10_000
MAX_DEPTH = 20  # of maps in each other
_WEIGHT_PATTERN = re.compile(r"\s*(\d{1,9}\.?\d{0,9}|\.\d{1,9})\s*::(.*)", re.DOTALL)


def parse_text_list(text: str) -> list[WildcardLine]:
    """Read one text a line; empty ones and comments (`# …`) are left out."""
    lines = []
    for line in text.removeprefix("\ufeff").replace("\0", "").splitlines():
        words = line.strip()
        if words and not words.startswith("#") and len(words) <= MAX_LINE_CHARS:
            lines.append(_parse_line(words))
        if len(lines) >= MAX_LINES:
            break
    return lines


def collect_lists(data: Any, name: str) -> dict[str, list[WildcardLine]]:
    """Return the lists of a JSON or YAML file by name.

    Args:
        data: What the file holds.
        name: The file's, without its ending: that of a list which is the whole file.

    Raises:
        ValueError: There are too many, or maps are nested too deep.
    """
    if isinstance(data, list):
        data = {name: data}
    lists: dict[str, list[WildcardLine]] = {}
    if isinstance(data, Mapping):
        _collect(data, (), lists)
    return {key: lines for key, lines in lists.items() if lines}


def _collect(
    data: Mapping[Any, Any], folders: tuple[str, ...], lists: dict[str, list[WildcardLine]]
) -> None:
    if len(folders) > MAX_DEPTH:
        raise ValueError(f"maps are nested more than {MAX_DEPTH} deep")
    for key, value in data.items():
        if not isinstance(key, str) or not key.strip("/ "):
            continue
        path = (*folders, key.strip("/ "))
        if isinstance(value, Mapping):
            _collect(value, path, lists)
        elif isinstance(value, list | str):
            entries = [value] if isinstance(value, str) else value
            lines = [line for entry in entries if (line := _read_entry(entry))]
            lists["/".join(path)] = lines
        if sum(map(len, lists.values())) > MAX_LINES:
            raise ValueError(f"it has more than {MAX_LINES:,} lines")


def _read_entry(entry: Any) -> WildcardLine | None:
    if isinstance(entry, Mapping):
        words, weight = entry.get("text") or entry.get("content"), entry.get("weight", 1)
        is_number = isinstance(weight, int | float) and math.isfinite(weight)
        if isinstance(words, str) and is_number and 0 <= weight <= 1e9:
            return WildcardLine(words[:MAX_LINE_CHARS], float(weight))
        return None
    if isinstance(entry, str) and entry.strip() and len(entry) <= MAX_LINE_CHARS:
        return _parse_line(entry)
    is_number = isinstance(entry, int | float) and not isinstance(entry, bool)
    return WildcardLine(f"{entry}"[:MAX_LINE_CHARS]) if is_number else None


def _parse_line(words: str) -> WildcardLine:
    weighted = _WEIGHT_PATTERN.fullmatch(words)
    if weighted and weighted[2].strip():
        return WildcardLine(weighted[2].strip(), float(weighted[1]))
    return WildcardLine(words)
