"""Decimal commas: 7,5 is 7.5 wherever one number is meant.

Knows: when a comma in a text is the point of a number. Does not know: lists of numbers, where a
comma parts two of them (core/sweeps/value_syntax.py).
"""

from __future__ import annotations

import re

_DECIMAL_COMMA = re.compile(r"\s*[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?\s*")
MAX_CHARS = 100  # of a number that is looked at


def replace_decimal_comma(text: str) -> str:
    """Return the text of one number with a point for its comma; any other text as it is.

    >>> replace_decimal_comma("7,5"), replace_decimal_comma("1,234,567")
    ('7.5', '1,234,567')
    """
    if len(text) <= MAX_CHARS and _DECIMAL_COMMA.fullmatch(text):
        return text.replace(",", ".")
    return text
