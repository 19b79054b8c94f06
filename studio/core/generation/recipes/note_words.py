"""Words of notes: names listed and sentences shortened without cutting through one.

Knows: how much of a list is read. Does not know: what is noted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from studio.core.generation.recipes.file_names import hide_paths

MAX_LISTED_NAMES = 12
MAX_NAME_CHARS = 60
MAX_SENTENCE_CHARS = 400


def list_names(names: Iterable[Any], most: int = MAX_LISTED_NAMES) -> str:
    """Return names with commas between them: each once, and how many more there are."""
    listed = list(dict.fromkeys(shorten(str(name), MAX_NAME_CHARS) for name in names))
    listed = [name for name in listed if name]
    words = ", ".join(listed[:most])
    num_more = len(listed) - most
    return f"{words} and {num_more} more" if num_more > 0 else words


def shorten(text: str, max_chars: int = MAX_SENTENCE_CHARS) -> str:
    """Return a text in one line that ends between two words, with an ellipsis where it is cut."""
    line = " ".join(hide_paths(text[: 4 * max_chars]).split())
    if len(line) <= max_chars:
        return line
    cut = line[:max_chars]
    return f"{cut.rpartition(' ')[0] or cut} …"
