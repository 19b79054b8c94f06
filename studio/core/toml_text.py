"""TOML that somebody sent → plain values, in a time that its length bounds.

Knows: what makes tomllib slow. Does not know: what the values mean, files.

tomllib takes time by the square of a dotted key's length: `[a.a.a…]` of 120 kB takes 16 s.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

MAX_KEY_PARTS = 16  # of a dotted key; settings have three
_KEY_PART = r"(?>[\w-]+|\"[^\"\n]*\"|'[^'\n]*')"
# Atomic groups, and a part begins where no other does: the search itself takes linear time.
_LONG_KEY = re.compile(rf"(?<![\w-]){_KEY_PART}(?>[ \t]*\.[ \t]*{_KEY_PART}){{{MAX_KEY_PARTS},}}")


def load_toml(text: str) -> dict[str, Any]:
    """Return the values of a TOML text.

    Raises:
        ValueError: It is no TOML, is nested too deeply, or has a key of more than `MAX_KEY_PARTS`.
    """
    if _LONG_KEY.search(text):
        raise ValueError(f"a key has more than {MAX_KEY_PARTS} parts with dots between them")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
