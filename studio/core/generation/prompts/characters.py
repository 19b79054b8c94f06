"""What no prompt may hold, whichever grammar reads it.

Knows: characters that are no text, tags of networks that the studio does not have. Does not know:
the grammars.
"""

from __future__ import annotations

import re

from studio.errors import quote

_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_HYPERNETWORK_TAG = re.compile(r"<\s*hypernet\s*:[^<>]*>", re.IGNORECASE)


def reject_bad_characters(text: str) -> None:
    """Raise ValueError that names the first character that is not text, and its place from 1."""
    match = _NO_TEXT.search(text)
    if match:
        raise ValueError(
            f"character {match.start() + 1} is not text (U+{ord(match[0]):04X}); take it out."
        )


def reject_unknown_tags(text: str) -> None:
    """Raise ValueError that names a tag of a hypernetwork, which the studio cannot use."""
    match = _HYPERNETWORK_TAG.search(text)
    if match:
        raise ValueError(
            f"Hypernetworks cannot be used: take out {quote(match[0])} at character "
            f"{match.start() + 1}."
        )
