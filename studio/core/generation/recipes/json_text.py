"""JSON out of image files: read within bounds, and values of whatever type taken for what they say.

Knows: how large a text may be, numbers written as text. Does not know: any program.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from studio.core.decimals import replace_decimal_comma

MAX_JSON_CHARS = 32_000_000  # a graph of 10⁵ nodes has about 20 million
MAX_SETTINGS_CHARS = 2_000_000  # of settings without a graph; every program's reader parses them
MAX_NUMBER_CHARS = 40
MAX_PROMPT_CHARS = 100_000
_SIZE_PATTERN = re.compile(r"^\D{0,3}(\d{1,5})\D{1,5}(\d{1,5})\b")


def parse_json(text: str) -> Any:
    """Return what a text holds as JSON; None where it holds none, or more than anybody writes.

    NaN and infinities, which ComfyUI writes, become None; zeros at the end, which Tensor.Art
    writes, are left out.
    """
    if not text or len(text) > MAX_JSON_CHARS:
        return None
    try:
        return json.loads(text.strip("\0 \t\r\n\ufeff"), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None


def parse_object(text: str) -> dict[str, Any]:
    """Return the JSON object in a text of settings; an empty one where there is none."""
    is_object = len(text) <= MAX_SETTINGS_CHARS and text.lstrip("\0 \t\r\n\ufeff").startswith("{")
    value = parse_json(text) if is_object else None
    return value if isinstance(value, dict) else {}


def as_object(value: Any) -> dict[str, Any]:
    """Return an object, also one that is written as a text; an empty one for anything else."""
    if isinstance(value, str):
        return parse_object(value)
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return a list; an empty one for anything else."""
    return value if isinstance(value, list) else []


def as_text(value: Any) -> str | None:
    """Return a text that could be a prompt or a name; None for anything else."""
    if not isinstance(value, str) or len(value) > MAX_PROMPT_CHARS:
        return None
    return value


def as_number(value: Any) -> float | None:
    """Return a finite number, also one that is written as a text; None for anything else."""
    if isinstance(value, str):
        if len(value) > MAX_NUMBER_CHARS:
            return None
        try:
            value = float(replace_decimal_comma(value))
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_whole_number(value: Any) -> int | None:
    """Return a whole number to its last digit; None for anything else."""
    if isinstance(value, str):
        value = value.strip()
        if len(value) <= MAX_NUMBER_CHARS and re.fullmatch(r"[+-]?[0-9]+", value):
            return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = as_number(value)
    return int(number) if number is not None and number.is_integer() else None


def as_size(value: Any) -> tuple[int, int] | None:
    """Return width and height of "832x1216", "(832, 1216)", "832 × 1216 …" or [832, 1216]."""
    if isinstance(value, list) and len(value) == 2:
        width, height = (as_whole_number(side) for side in value)
        return (width, height) if width and height else None
    match = _SIZE_PATTERN.match(value.strip()) if isinstance(value, str) else None
    return (int(match[1]), int(match[2])) if match else None
