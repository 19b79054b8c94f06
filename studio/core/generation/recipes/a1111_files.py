"""The files of weights that A1111's text names, with their hashes.

Knows: A1111's keys for hashes of every age, Civitai's list of resources. Does not know: which files
the library has, how a hash is computed.

    Model: ink, Model hash: 6ce0161689, Lora hashes: "moon: 1c5d5a9d4f3e",
    Hashes: {"model": "6ce0161689", "lora:moon": "1c5d5a9d4f3e", "embed:hands": "66a7279a88"}
    Civitai resources: [{"type":"lora","weight":0.4,"modelVersionId":135867}]
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from studio.core.generation.lora_use import MAX_LORA_WEIGHT, LoraUse
from studio.core.generation.recipes.a1111_keys import (
    EMBEDDING_HASH_KEY,
    HASHES_KEY,
    LORA_HASH_KEY,
)
from studio.core.generation.recipes.file_names import clean_file_name, get_civitai_kind
from studio.core.generation.recipes.json_text import as_number
from studio.core.generation.recipes.recipe import FileKind, FileReference

CIVITAI_KEY = "Civitai resources"
MAX_FILES = 100  # of a kind; no picture names more
MAX_FILE_NAME_CHARS = 200
MIN_DIGEST_CHARS = 8
_HASH_PATTERN = re.compile(r": ([0-9a-fA-F]{8,64})\s*(?:,|$)")
_DIGEST = re.compile(r"[0-9a-fA-F]{8,64}")
_KINDS_BY_PREFIX: dict[str, FileKind] = {
    "model": "model",
    "vae": "vae",
    "lora": "lora",
    "lyco": "lora",
    "embed": "embedding",
}


def list_files(pairs: Mapping[str, str], loras: Iterable[LoraUse]) -> list[FileReference]:
    """Return the files that the settings of a text name.

    Args:
        pairs: The settings (a1111_text.py).
        loras: Those that the prompt has tags for.
    """
    hashes = _read_json_hashes(pairs)
    files = [
        FileReference("model", clean_file_name(pairs.get("Model", "")), digest)
        for digest in [_read_digest(pairs.get("Model hash", "")) or hashes.get(("model", ""), "")]
        if digest or pairs.get("Model")
    ]
    vae_digest = _read_digest(pairs.get("VAE hash", "")) or hashes.get(("vae", ""), "")
    if vae_digest and pairs.get("VAE"):
        files.append(FileReference("vae", clean_file_name(pairs["VAE"]), vae_digest))
    lora_hashes = _read_hashes(pairs.get(LORA_HASH_KEY, ""))
    lora_hashes |= {name: digest for (kind, name), digest in hashes.items() if kind == "lora"}
    files += _reference_loras(loras, lora_hashes)
    embedding_hashes = _read_hashes(pairs.get(EMBEDDING_HASH_KEY, ""))
    known = {digest[:MIN_DIGEST_CHARS] for digest in embedding_hashes.values()}
    for (kind, name), digest in hashes.items():  # there the names lack commas and colons
        if kind == "embed" and digest[:MIN_DIGEST_CHARS] not in known:
            embedding_hashes[name] = digest
    files += [FileReference("embedding", *item) for item in embedding_hashes.items()]
    return files[:MAX_FILES]


def list_civitai_resources(
    pairs: Mapping[str, str], files: Iterable[FileReference]
) -> list[FileReference]:
    """Return the files that Civitai lists beside a prompt; often it names only their versions.

    Args:
        pairs: The settings.
        files: What the text names otherwise: these are not listed again.
    """
    known = {(file.kind, file.name.casefold()) for file in files}
    has_model = any(kind == "model" for kind, _ in known)
    resources = []
    for entry in _load_json(pairs.get(CIVITAI_KEY, ""), list)[:MAX_FILES]:
        if not isinstance(entry, dict):
            continue
        kind = get_civitai_kind(str(entry.get("type", ""))[:MAX_FILE_NAME_CHARS])
        name = clean_file_name(str(entry.get("modelName") or entry.get("name") or ""))
        digest = _read_digest(str(entry.get("hash") or ""))
        version = str(entry.get("modelVersionId", ""))
        version = version if version.isdecimal() and len(version) < 20 else ""
        if kind is None or not (name or digest or version):
            continue
        if (kind, name.casefold()) in known or (kind == "model" and has_model):
            continue
        weight = _read_weight(entry.get("weight", entry.get("strength")))
        resources.append(FileReference(kind, name, digest, (weight, weight), version))
    return resources


def _reference_loras(
    loras: Iterable[LoraUse], hashes: Mapping[str, str]
) -> Iterable[FileReference]:
    """Yield the LoRAs of a prompt with their hashes."""
    folded = {name.casefold(): digest for name, digest in hashes.items()}
    for use in loras:
        name = clean_file_name(use.name)
        digest = folded.get(use.name.casefold()) or folded.get(name.casefold(), "")
        yield FileReference("lora", name, digest, (use.unet, use.text_encoder))


def _read_hashes(text: str) -> dict[str, str]:
    """Read `name: hash, name: hash`; a name may hold commas and colons itself."""
    hashes: dict[str, str] = {}
    begin = 0
    for match in _HASH_PATTERN.finditer(text):
        name = text[begin : match.start()].strip()
        begin = match.end()
        if 0 < len(name) <= MAX_FILE_NAME_CHARS and len(hashes) < MAX_FILES:
            hashes[name] = match[1].lower()
    return hashes


def _read_json_hashes(pairs: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Read `Hashes` by (kind, name)."""
    hashes = {}
    for key, value in list(_load_json(pairs.get(HASHES_KEY, ""), dict).items())[:MAX_FILES]:
        prefix, _, name = str(key).partition(":")
        digest = _read_digest(value) if isinstance(value, str) else ""
        if prefix.casefold() in _KINDS_BY_PREFIX and digest:
            kind = "lora" if prefix.casefold() == "lyco" else prefix.casefold()
            hashes[kind, name[:200]] = digest
    return hashes


def _read_digest(text: str) -> str:
    return text.lower() if _DIGEST.fullmatch(text) else ""


def _read_weight(value: Any) -> float:
    """Return a LoRA's weight within what can be asked for here; 1 for what is none."""
    number = as_number(value)
    return 1.0 if number is None else max(-MAX_LORA_WEIGHT, min(MAX_LORA_WEIGHT, number))


def _load_json(text: str, kind: type[Any]) -> Any:
    """Return a JSON value of a kind; an empty one where the text holds none."""
    try:
        value = json.loads(text) if text else None
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, kind) else kind()
