"""Names of files as other programs write them, without anybody's folders.

Knows: paths of every system, endings of weights. Does not know: which files there are.
"""

from __future__ import annotations

import re

_WEIGHTS_ENDING = re.compile(r"\.(safetensors|ckpt|pt|pth|bin|gguf|sft)$", re.IGNORECASE)
# What looks like a place on somebody's disk: a drive, a share, or a folder from the root on.
# Each name is bounded: with an open end a long line of letters takes hours.
_PATH = re.compile(
    r"(?<![\w/\\.:<])(?:[A-Za-z]:[\\/]+|\\\\|~/|/)(?:[^\\/\n\r\"'<>|:*?,;]{1,100}[\\/]+){1,30}"
)
MAX_NAME_CHARS = 300


def clean_file_name(name: str) -> str:
    """Return a file's name without folders and without the ending of weights."""
    base = re.split(r"[\\/]", name.strip()[-MAX_NAME_CHARS:])[-1]
    return strip_weights_ending(base).strip()


def strip_weights_ending(name: str) -> str:
    """Return a file's name without the ending of weights."""
    return _WEIGHTS_ENDING.sub("", name)


def hide_paths(text: str) -> str:
    """Return a text in which files are called by their names, wherever they lay."""
    return _PATH.sub("", text)
