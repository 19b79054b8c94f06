"""A1111's text taken apart: prompt, negative prompt, and settings as texts.

Knows: which line holds the settings, quotes, JSON among them, what extensions write behind. Does
not know: what a setting means (a1111.py).

    a red boat by a lake
    Negative prompt: fog
    Steps: 20, Sampler: Euler, Hashes: {"model": "6ce0161689"}, Version: v1.10.1
    Template: a {red|blue} boat by a lake                    (of the extension Dynamic Prompts)
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from studio.core.generation.recipes.a1111_keys import (
    MAX_TEXT_CHARS,
    is_telling_key,
    normalize_key,
)

MIN_PAIRS = 3  # fewer are no settings text
MAX_JSON_VALUES = 20
MAX_PAIRS = 1000  # no program writes as many
_OWN_VERSION = re.compile(r"studio \d")
# A1111's pattern in two, with an end to the keys: a key before each colon, the value behind it.
_MAX_KEY_CHARS = 61
_KEY_BACKWARDS = re.compile(r"[\w \-/]*")
# A number with a decimal comma is whole: no program writes a list of them without quotes.
_VALUE_PATTERN = re.compile(
    r'\s*("(?:\\.|[^\\"])+"|[+-]?[0-9]+,[0-9]+(?=\s*(?:,|$))|[^,]*)\s*(?:,|$)'
)
_NEGATIVE_PATTERN = re.compile(r"^Negative prompt:", re.MULTILINE)
_ANY_NEGATIVE_PATTERN = re.compile(_NEGATIVE_PATTERN.pattern, re.MULTILINE | re.IGNORECASE)
_STEPS_PATTERN = re.compile(r"\s*Steps:\s*\d", re.IGNORECASE)


@dataclass
class A1111Text:
    """What stands in a text.

    Attributes:
        prompt: Without the settings.
        negative_prompt: None where nothing is said of it.
        pairs: The settings by A1111's names, unquoted; JSON as it stands.
        is_own: Whether this studio wrote it.
        has_settings: Whether there is a line of settings at all.
        trailer: What follows the settings.
    """

    prompt: str = ""
    negative_prompt: str | None = None
    pairs: dict[str, str] = field(default_factory=dict)
    is_own: bool = False
    has_settings: bool = False
    trailer: str = ""


def split_text(text: str) -> A1111Text:
    """Take a text apart. Raises ValueError where it holds neither settings nor two prompts."""
    if len(text) > MAX_TEXT_CHARS:
        raise ValueError("the settings text is longer than a million characters.")
    if is_json(text):
        raise ValueError("it contains JSON instead of the text A1111 writes.")
    lines = text.strip("\r\n").rstrip().split("\n")
    pairs, trailer = read_pairs(lines[-1]), ""
    if not _are_settings(pairs):
        lines, trailer = _cut_trailer(lines)
        pairs = read_pairs(lines[-1])
    if not _are_settings(pairs):
        return _split_prompts_alone(lines, trailer)
    is_own = bool(_OWN_VERSION.match(pairs.get("Version", "")))
    prompt, negative_prompt = _split_prompts(lines[:-1], is_own)
    return A1111Text(
        prompt, negative_prompt or "", pairs, is_own=is_own, has_settings=True, trailer=trailer
    )


def read_pairs(line: str) -> dict[str, str]:
    """Return the settings in a line by A1111's names; values that are JSON stay so."""
    pairs: dict[str, str] = {}
    position = num_json_values = 0
    colon = line.find(":")
    while colon >= 0:
        key = _find_key(line, position, colon)
        match = _VALUE_PATTERN.match(line, colon + 1) if key else None
        if match is None:
            colon = line.find(":", colon + 1)
            continue
        value, position = match[1], match.end()
        if value.startswith(("{", "[")) and num_json_values < MAX_JSON_VALUES:
            num_json_values += 1
            end = _find_json_end(line, match.start(1))
            if end:
                value, position = line[match.start(1) : end], end
        if len(pairs) < MAX_PAIRS:
            pairs[normalize_key(key)] = _unquote(value)
        colon = line.find(":", position)
    return pairs


def _find_key(line: str, begin: int, colon: int) -> str:
    """Return the key that ends at a colon; empty where none does."""
    before = line[max(begin, colon - _MAX_KEY_CHARS) : colon]
    match = _KEY_BACKWARDS.match(before[::-1])
    key = match[0][::-1].lstrip(" -/") if match else ""
    return key if len(key) > 1 else ""


def is_json(text: str) -> bool:
    """Return whether a text is one JSON object or list, which A1111 never writes."""
    stripped = text.strip()
    if stripped[:1] + stripped[-1:] not in ("{}", "[]"):
        return False
    try:
        return isinstance(json.loads(stripped), dict | list)
    except RecursionError:
        return True  # nobody writes a prompt so
    except ValueError:
        return False


def _are_settings(pairs: dict[str, str]) -> bool:
    return len(pairs) >= MIN_PAIRS and any(map(is_telling_key, pairs))


def _cut_trailer(lines: list[str]) -> tuple[list[str], str]:
    """Return the lines up to the settings, and what extensions wrote behind them."""
    for number in range(len(lines) - 1, 0, -1):
        line = lines[number - 1]
        if line.count(":") < MIN_PAIRS or not _STEPS_PATTERN.match(line):
            continue
        if _are_settings(read_pairs(line)):
            return lines[:number], "\n".join(lines[number:]).strip()
    return lines, ""


def _split_prompts_alone(lines: list[str], trailer: str) -> A1111Text:
    """Return the prompts of a text without settings. Raises ValueError where it names none."""
    prompt, negative_prompt = _split_prompts(lines, is_own=False)
    if negative_prompt is None:
        raise ValueError("it contains no settings.")
    return A1111Text(prompt, negative_prompt, trailer=trailer)


def _split_prompts(lines: list[str], is_own: bool) -> tuple[str, str | None]:
    if is_own:
        words = _NEGATIVE_PATTERN.split("\n".join(lines), 1)
    else:
        words = _ANY_NEGATIVE_PATTERN.split("\n".join(line.strip() for line in lines), 1)
    if len(words) == 1:
        return words[0], None
    return words[0].removesuffix("\n"), words[1].removeprefix(" ")


def _find_json_end(line: str, begin: int) -> int:
    """Return where a JSON value ends that fills its setting; 0 where it is none."""
    try:
        _, end = json.JSONDecoder().raw_decode(line, begin)
    except (ValueError, RecursionError):
        return 0
    rest = line[end : end + 8].lstrip()
    return end if not rest or rest.startswith(",") else 0


def _unquote(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value
