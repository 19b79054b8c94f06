"""Names of files as other programs write them, without anybody's folders.

Knows: paths of every system, endings of files, Civitai's words for kinds of files. Does not know:
which files there are.
"""

from __future__ import annotations

import re

from studio.core.generation.recipes.recipe import FileKind

MAX_NAME_CHARS = 300
_WEIGHTS_ENDING = re.compile(r"\.(safetensors|ckpt|pt|pth|bin|gguf|sft)$", re.IGNORECASE)

# ---- what a path looks like ----------------------------------------------------------------------
# Also inside of JSON (C:\\Users, \/home) and of addresses (%2Fhome, quoted twice %252Fhome). All
# repeats are possessive or short: a long line of letters or slashes is read in one go.

_SLASH = r"(?:[\\/]|%(?:25){0,3}(?:2f|5c))"
_ANY_SLASH = re.compile(_SLASH, re.IGNORECASE)
_SLASHES = rf"{_SLASH}{{1,8}}+"
_END = rf"{_SLASH}++(?!\")"  # of a folder's name; \" is the end of a text inside of JSON
_ANY_PERCENT = r"%(?!(?:25){0,3}(?:2f|5c))"  # but a slash in disguise
# Behind a letter no path begins, unless that belongs to an escape: "\n/home", "%3D%2Fhome".
_NO_LETTER_BEFORE = r"(?:(?<![a-z0-9_])|(?<=\\[nrt])|(?<=%[0-9a-f]{2}))"
_TOP_FOLDERS = (
    r"(?:home|users|root|mnt|media|volumes|opt|usr|var|tmp|srv|etc|run|data|private|workspace|"
    r"content|kaggle|storage|sdcard|applications|library|documents and settings|"
    r"program files(?: \(x86\))?|programdata)"
)
_ADDRESS = r"(?<![a-z0-9])(?:https?|ftp|wss?)://[^\s\"'<>|=,;\\]*+"
# What begins so is a path, whatever its folders are called.
_CERTAIN_ROOTS = "|".join(
    (
        rf"{_NO_LETTER_BEFORE}file(?::|%(?:25){{0,3}}3a){_SLASHES}",
        rf"{_NO_LETTER_BEFORE}[a-z](?::|%(?:25){{0,3}}3a){_SLASHES}(?!\)*+,?(?:\s|$))",  # a drive
        rf"(?:(?<![a-z0-9_.\\])|(?<=\\[nrt]))\\{{2,8}}+[a-z0-9][\w.$-]*+{_SLASHES}",  # a share
        rf"\\{{2,8}}+[?.]{_SLASHES}(?:(?:unc|[a-z]:){_SLASHES})?",  # Windows' long paths
        rf"{_NO_LETTER_BEFORE}{_SLASHES}{_TOP_FOLDERS}{_SLASHES}",
        rf"(?:(?<![a-z0-9_/.~])|(?<=\\[nrt]))~(?:[a-z][\w.-]{{0,32}}+)?{_SLASHES}(?=\S)",  # a home
        rf"(?:(?<![a-z0-9_/.])|(?<=\\[nrt]))\.\.?{_SLASHES}(?=\S)",  # from where somebody stood
        rf"(?:\$\{{?home\}}?|%(?:userprofile|appdata|localappdata|homepath|te?mp)%){_SLASHES}",
    )
)
_PLAIN = r"[^\s\\/%\x00-\x1f\"'<>|:*?,;()\[\]{}&=#]"
_JOINED = rf"{_PLAIN}|{_ANY_PERCENT}|[',](?=\w)"
_INNER = rf"{_JOINED}|[()\[\]{{}}&=#]"
# From the root on, through a folder that only some machine has: without blanks at names' ends.
_LIKELY_ROOT = (
    r"(?:(?<![\w/\\.)\]}>*%~-])|(?<=\\[nrt]))(?:\\?/|%(?:25){0,3}2f){1,4}+"
    rf"(?=[^\\/\s]{{0,99}}[a-z])(?:{_JOINED})(?:{_INNER})*+{_SLASHES}"
)
_START = re.compile(
    f"(?P<address>{_ADDRESS})|(?P<certain>{_CERTAIN_ROOTS})|(?P<likely>{_LIKELY_ROOT})",
    re.IGNORECASE,
)
_CERTAIN_FOLDER = re.compile(
    rf"((?:[^\\/%\x00-\x1f\"<>|:]|{_ANY_PERCENT}|:(?=\S))++){_END}", re.IGNORECASE
)
_QUOTED_FOLDER = re.compile(
    rf"((?:[^\\/%\x00-\x1f\"<>|:']|{_ANY_PERCENT}|:(?=\S)|'(?=\w))++){_END}", re.IGNORECASE
)
_LIKELY_FOLDER = re.compile(rf"((?:{_INNER}|(?<=[^\s\\/]) (?=[^\s\\/]))++){_END}", re.IGNORECASE)
# A file's name in the middle of what would be a folder's: "C:\a\ink.safetensors, and/or".
_ENDINGS = (
    r"\.(?:safetensors|ckpt|pth?|bin|gguf|sft|onnx|png|jpe?g|webp|avif|gif|bmp|mp4|txt|json|ya?ml|"
    r"csv|toml|py|log|zip)"
)
_FILE_BEFORE_MORE = re.compile(rf"{_ENDINGS}[\s,;)\]}}']", re.IGNORECASE)
_FILE_ENDING = re.compile(rf"{_ENDINGS}$", re.IGNORECASE)
_HOMES_BEFORE = re.compile(
    rf"(?:^|{_SLASH})(?:home|users|documents and settings){_SLASHES}$", re.IGNORECASE
)
_PERSON = re.compile(r"[\w.\-]++(?: [A-Z][\w.\-]*+)*+")
_LONGEST_HOMES_CHARS = 60
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
    """Return a text in which files are called by their names, wherever they lay.

    Addresses of the web stay, and words with slashes between them. Where a path ends that has
    blanks in it nobody can say for sure: in doubt a word too many goes, no folder stays.
    """
    if not _ANY_SLASH.search(text):
        return text
    pieces = []
    position = 0
    while start := _START.search(text, position):
        end = start.end() if start["address"] else _find_name(text, start)
        if end is None or start["address"]:
            pieces.append(text[position : start.end()])
            position = start.end()
        else:
            pieces.append(text[position : start.start()])
            position = end
    pieces.append(text[position:])
    return "".join(pieces)


def _find_name(text: str, root: re.Match[str]) -> int | None:
    """Return where a path's last name begins; None where it is no path.

    Args:
        text: What it stands in.
        root: How it begins.
    """
    position = root.end()
    folder = _LIKELY_FOLDER
    if root["certain"]:
        is_quoted = text[root.start() - 1 : root.start()] == "'"
        folder = _QUOTED_FOLDER if is_quoted else _CERTAIN_FOLDER
    num_folders = 0
    while match := folder.match(text, position):
        if _FILE_BEFORE_MORE.search(match[1]):
            break
        position = match.end()
        num_folders += 1
    if root["likely"] and not num_folders and not _names_file(text, position):
        return None
    before = text[max(root.start(), position - _LONGEST_HOMES_CHARS) : position]
    person = _PERSON.match(text, position) if _HOMES_BEFORE.search(before) else None
    if person is None or _FILE_ENDING.search(person[0]):
        return position
    return person.end()


def _names_file(text: str, position: int) -> bool:
    following = text[position : position + 1]
    return following.isalnum() or following in ("_", "$", "@", "(", "[")
