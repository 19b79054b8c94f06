"""The configs and files of a model's parts, wherever they are: in its folder, or known from a file.

Knows: that what is in `ModelInfo.parts` and `ModelInfo.configs` comes before the folder.
Does not know: what the configs mean, torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.core.families.registry import FAMILIES
from studio.errors import BadFile
from studio.storage import atomic, odd_files
from studio.storage.models.model_info import ModelInfo, PartFile

# Files that decide what a part in a folder does.
DECIDING_SUFFIXES = (".json", ".safetensors", ".txt", ".model")
INDEX = "model_index"  # what `read_config` calls the config of the whole
SCHEDULER = "scheduler"
_CONFIG_FILES = {INDEX: "model_index.json", SCHEDULER: "scheduler/scheduler_config.json"}
_CHUNK_BYTES = 2**22


def read_config(info: ModelInfo, component: str) -> dict[str, Any]:
    """Return the config of a part.

    Args:
        info: The model.
        component: The part's folder in diffusers' layout, such as unet or scheduler; `INDEX` for
            the model_index.json.

    Raises:
        BadFile: It cannot be read, or the model lacks that part.
    """
    if component in info.configs:
        return dict(info.configs[component])
    if component in info.parts:
        return dict(info.parts[component].config)
    check_is_there(info, component)
    file = _CONFIG_FILES.get(component, f"{component}/config.json")
    try:
        return odd_files.read_json(info.path / file)
    except (OSError, ValueError) as error:
        raise BadFile(
            f"The {component} of {info.name} cannot be read ({type(error).__name__}). "
            "Copy the model again."
        ) from None


def check_is_there(info: ModelInfo, *components: str) -> None:
    """Raise BadFile if the model lacks one of these parts, with what to do."""
    for component in components:
        if component in info.missing:
            raise BadFile(f"The model {info.name} cannot be used yet: {info.missing[component]}")


def get_tokenizer_folder(info: ModelInfo, tokenizer: str) -> Path | None:
    """Return the folder of a tokenizer; None where it is CLIP's own, which comes along."""
    return None if tokenizer in info.configs else info.path / tokenizer


def list_content_files(info: ModelInfo) -> list[Path]:
    """List the files at `info.path` that decide what comes out of a model, in a fixed order."""
    if info.is_file:
        return [info.path]
    family = FAMILIES[info.family]
    parts = (*family.components, SCHEDULER, *family.tokenizers)
    files = [
        path
        for part in parts
        for path in (info.path / part).rglob("*")
        if path.is_file() and path.suffix in DECIDING_SUFFIXES
    ]
    return [info.path / "model_index.json", *sorted(files)]


def list_chosen_files(info: ModelInfo) -> dict[str, Path]:
    """Return the files beside `info.path` that parts are taken from, by folder."""
    return {name: part.path for name, part in info.parts.items() if part.path != info.path}


def hash_components(info: ModelInfo, *components: str) -> str:
    """Return the sha256 over all that decides what some parts of a model do, such as "vae".

    Two models with the same autoencoder share its hash, and so its latents.
    """
    digest = hashlib.sha256()
    for component in components:
        _hash_component(info, component, digest)
    return digest.hexdigest()


def _hash_component(info: ModelInfo, component: str, digest: Any) -> None:
    if component in info.parts:
        part = info.parts[component]
        digest.update(f"{component} {_dump(part.config)}\0".encode())
        _hash_tensors(part, digest)
    elif component in info.configs:
        digest.update(f"{component} {_dump(info.configs[component])}\0".encode())
    else:
        for path in sorted((info.path / component).glob("*")):
            if path.is_file() and path.suffix in DECIDING_SUFFIXES:
                digest.update(f"{component}/{path.name}\0".encode())
                with open(path, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())


def _hash_tensors(part: PartFile, digest: Any) -> None:
    """Add the names, shapes and bytes of a part's tensors."""
    header = atomic.read_safetensors_header(part.path)
    with odd_files.open_file(part.path) as file:
        data_start = 8 + int.from_bytes(file.read(8), "little")
        for name, entry in sorted(header.items()):
            if name == "__metadata__" or not name.startswith(part.prefix):
                continue
            digest.update(f"{name.removeprefix(part.prefix)} {_dump(entry)}\0".encode())
            begin, end = entry["data_offsets"]
            file.seek(data_start + begin)
            for position in range(begin, end, _CHUNK_BYTES):
                digest.update(file.read(min(_CHUNK_BYTES, end - position)))


def _dump(values: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in values.items() if key != "data_offsets"}
    return json.dumps(shown, sort_keys=True)
