"""Names of files as other programs write them, without anybody's folders.

Knows: paths of every system, endings of weights, Civitai's words for kinds of files. Does not know:
which files there are.
"""

from __future__ import annotations

import re

from studio.core.generation.recipes.recipe import FileKind

_WEIGHTS_ENDING = re.compile(r"\.(safetensors|ckpt|pt|pth|bin|gguf|sft)$", re.IGNORECASE)
# What looks like a place on somebody's disk: a drive, a share, or a folder from the root on.
# Each name is bounded: with an open end a long line of letters takes hours.
_PATH = re.compile(
    r"(?<![\w/\\.:<])(?:[A-Za-z]:[\\/]+|\\\\|~/|/)(?:[^\\/\n\r\"'<>|:*?,;]{1,100}[\\/]+){1,30}"
)
MAX_NAME_CHARS = 300
# In resources, hashes and URNs, whatever their case and blanks.
_KINDS_BY_CIVITAI_TYPE: dict[str, FileKind] = {
    "checkpoint": "model",
    "model": "model",
    "lora": "lora",
    "locon": "lora",
    "lycoris": "lora",
    "dora": "lora",
    "embed": "embedding",
    "embedding": "embedding",
    "textualinversion": "embedding",
    "vae": "vae",
    "upscaler": "upscaler",
}


def get_civitai_kind(word: str) -> FileKind | None:
    """Return which kind of file Civitai calls so; None for what is no file of weights here."""
    return _KINDS_BY_CIVITAI_TYPE.get(word.casefold().replace(" ", ""))


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
