"""What other programs wrote beside a file of weights: trigger words, base model, notes, a preview.

Knows: `.civitai.info` and `.json` as A1111, its Civitai helpers and InvokeAI's users have them, the
names that previews go by. Does not know: what a file of weights is; how a preview is shown.

Sources: A1111's "Edit metadata" dialogue (activation text, description, sd version), the files of
Civitai Helper (a version as Civitai's API gives it).
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.generation.lora_use import MAX_LORA_WEIGHT
from studio.storage import odd_files

MAX_SIDECAR_BYTES = 2**20  # Civitai's answers are below 100 kB
MAX_WORDS = 30
MAX_TEXT_CHARS = 200
MAX_NOTES_CHARS = 1000
_UNSHOWN = re.compile(
    r"<!--.*?(?:-->|$)|<(script|style)\b.*?(?:</\1\s*>|$)", re.IGNORECASE | re.DOTALL
)
INFO_SUFFIX = ".civitai.info"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
# In the order in which other programs look; `foo.thumb.jpg` is ComfyUI's and Stability Matrix'.
PREVIEW_ENDINGS = tuple(
    f"{ending}{suffix}" for ending in (".preview", "", ".thumb") for suffix in IMAGE_SUFFIXES
)


@dataclass(frozen=True)
class Sidecar:
    """What is said beside a file.

    Attributes:
        trigger_words: Words that call what a LoRA or an embedding learned.
        base_model: What it was made for, in the words of its page.
        notes: A description, without markup.
        title: What its page calls it.
        preferred_weight: The strength that the person noted for it in A1111; 0 if none.
    """

    trigger_words: tuple[str, ...] = ()
    base_model: str = ""
    notes: str = ""
    title: str = ""
    preferred_weight: float = 0.0


def read_sidecar(path: Path) -> Sidecar:
    """Return what is said beside a file; nothing where that is broken, huge or of another kind."""
    civitai = _read_object(path.with_name(path.stem + INFO_SUFFIX))
    user = _read_object(path.with_suffix(".json"))
    model = civitai.get("model")
    model_name = model.get("name") if isinstance(model, Mapping) else ""
    trained_words = civitai.get("trainedWords")
    words = trained_words if isinstance(trained_words, list) else []
    activation_text = user.get("activation text")
    if isinstance(activation_text, str) and activation_text.strip():
        words = [activation_text, *words]  # the person's own come first
    notes = _first_text(user, "notes", "description") or _first_text(civitai, "description")
    base_model = _first_text(civitai, "baseModel") or _first_text(user, "sd version", "baseModel")
    return Sidecar(
        trigger_words=_clean_words(words),
        base_model="" if base_model == "Unknown" else clean_text(base_model),
        notes=clean_text(_strip_markup(notes), MAX_NOTES_CHARS),
        title=clean_text(model_name if isinstance(model_name, str) else ""),
        preferred_weight=_read_weight(user.get("preferred weight")),
    )


def read_civitai_names(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return Civitai's number of a file's version, and the hashes that it states, lower case.

    Of a version with several files those are named that the file itself may be.
    """
    civitai = _read_object(path.with_name(path.stem + INFO_SUFFIX))
    version = civitai.get("id")
    entries = civitai.get("files")
    files = entries[:MAX_WORDS] if isinstance(entries, list) else []
    hashes: list[str] = []
    for file in files:
        stated = file.get("hashes") if isinstance(file, Mapping) else None
        is_other = isinstance(file, Mapping) and file.get("name", path.name) != path.name
        if isinstance(stated, Mapping) and (not is_other or len(files) == 1):
            hashes += [text.lower() for text in stated.values() if isinstance(text, str)]
    return str(version) if type(version) is int else "", tuple(hashes)


def find_preview(path: Path) -> Path | None:
    """Return the image that lies beside a file to show what it does, if there is one."""
    for ending in PREVIEW_ENDINGS:
        candidate = path.with_name(path.stem + ending)
        if os.path.isfile(candidate):
            return candidate
    return None


def clean_text(text: str, max_chars: int = MAX_TEXT_CHARS) -> str:
    """Return text fit to be shown: one line, no control characters, no half surrogates."""
    characters = (char if char.isprintable() else " " for char in text[: 4 * max_chars])
    return " ".join("".join(characters).split())[:max_chars]


def _clean_words(values: list[Any]) -> tuple[str, ...]:
    """Return trigger words one by one; Civitai's authors also write several into one."""
    words: dict[str, None] = {}
    for value in values[:MAX_WORDS]:
        if isinstance(value, str):
            for word in value[: MAX_WORDS * MAX_TEXT_CHARS].split(","):
                words[clean_text(word)] = None
    return tuple(word for word in words if word)[:MAX_WORDS]


def _first_text(values: Mapping[str, Any], *names: str) -> str:
    for name in names:
        value = values.get(name)
        if isinstance(value, str) and value.strip():
            return value
    return ""


def _read_weight(value: object) -> float:
    """Return a strength as A1111 writes it; 0, which there stands for none, for anything else.

    A weight that no request takes is none: it could not be put to use.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if 0 < abs(value) <= MAX_LORA_WEIGHT else 0.0


def _strip_markup(text: str) -> str:
    """Return the text of a page: no tags, nor what only a browser reads."""
    text = _UNSHOWN.sub(" ", text[: 10 * MAX_NOTES_CHARS])
    return html.unescape(re.sub(r"<[^<>]*>", " ", text))


def _read_object(path: Path) -> Mapping[str, Any]:
    if not os.path.isfile(path):
        return {}
    try:
        values = json.loads(odd_files.read_file(path, MAX_SIDECAR_BYTES).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, Mapping) else {}
