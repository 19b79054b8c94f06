"""Which files of a repository make a model: of each part one variant, and nothing twice.

Knows: how diffusers names the files of a model's parts. Does not know: the network.

Repositories hold a model many times: as pickles, for other frameworks, in two precisions, as single
files for other programs. Taken are model_index.json, and of the folders that it names the settings
and one variant of the .safetensors.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.core.downloads.plan import Variant
from studio.errors import BadFile

INDEX_FILE = "model_index.json"
# Looks at finished pictures; the studio has no use for it, and it is 0.6 to 1.2 GB.
UNUSED_PARTS = ("safety_checker", "image_encoder")
SETTINGS_SUFFIXES = (".json", ".txt", ".model", ".jinja")
MAX_SETTINGS_BYTES = 64 * 2**20  # a tokenizer.json of 250,000 words has 30 MB
_WEIGHTS = re.compile(
    r"(?P<stem>[^.]+?)(?:\.(?P<variant>[A-Za-z0-9_]+))?(?P<piece>-\d{5}-of-\d{5})?\.safetensors"
)
_PIECES_INDEX = re.compile(r"[^.]+\.safetensors\.index(?:\.(?P<variant>[A-Za-z0-9_]+))?\.json")
_LICENCE = re.compile(r"(?i)licen[cs]e(\.\w+)?(\.md|\.txt)?")


@dataclass(frozen=True)
class ListedFile:
    """A file of a repository as its list says it."""

    path: str
    size_bytes: int
    sha256: str = ""


def list_part_names(index: Mapping[str, Any]) -> list[str]:
    """Return the folders that a model_index.json names, without those of no use."""
    return [
        name
        for name, value in index.items()
        if not name.startswith("_")
        and isinstance(value, list)
        and len(value) == 2
        and value[0] is not None
        and name not in UNUSED_PARTS
    ]


def choose_model_files(
    files: Sequence[ListedFile], index: Mapping[str, Any], variant: Variant = "auto"
) -> tuple[list[ListedFile], str]:
    """Return the files of a model in diffusers layout, and the variant of its weights.

    Args:
        files: All of the repository.
        index: What is in its model_index.json.
        variant: Which weights; `auto` is fp16 where every part has it.

    Raises:
        BadFile: A part has no safetensors, or not of that variant.
    """
    parts = list_part_names(index)
    by_part = {part: [file for file in files if file.path.startswith(f"{part}/")] for part in parts}
    missing = [part for part, listed in by_part.items() if not listed]
    if missing or not parts:
        raise BadFile(
            f"The repository has no files for {', '.join(missing) or 'any part'}, which its "
            f"{INDEX_FILE} names; it is incomplete."
        )
    chosen_variant = _choose_variant(by_part, variant)
    chosen = [file for file in files if file.path == INDEX_FILE or _LICENCE.fullmatch(file.path)]
    for part, listed in by_part.items():
        chosen += _choose_part_files(part, listed, chosen_variant)
    return chosen, chosen_variant


def _choose_variant(by_part: Mapping[str, Sequence[ListedFile]], variant: Variant) -> str:
    variants = {part: _list_variants(part, files) for part, files in by_part.items()}
    with_weights = {part: found for part, found in variants.items() if found}
    for part, files in by_part.items():
        if part not in with_weights and any(_is_pickle(file.path) for file in files):
            raise BadFile(
                f"The weights of {part} are only available as pickles, which can contain "
                "programs; look for a repository with .safetensors files."
            )
    if not with_weights:
        raise BadFile("The repository has no .safetensors files.")
    has_fp16 = all("fp16" in found for found in with_weights.values())
    has_full = all("" in found for found in with_weights.values())
    if variant == "fp16" and not has_fp16:
        raise BadFile("Not every part of it is available in fp16; choose full precision.")
    if variant == "full" and not has_full:
        raise BadFile("Not every part of it is available in full precision; choose fp16.")
    if variant != "full" and has_fp16:
        return "fp16"
    if has_full:
        return ""
    raise BadFile(
        "Not every part of it is available in fp16, and not every part in full precision."
    )


def _list_variants(part: str, files: Sequence[ListedFile]) -> Collection[str]:
    matches = [_WEIGHTS.fullmatch(file.path.removeprefix(f"{part}/")) for file in files]
    return {match["variant"] or "" for match in matches if match}


def _choose_part_files(part: str, files: Sequence[ListedFile], variant: str) -> list[ListedFile]:
    chosen = []
    whole = [
        file.path
        for file in files
        if (match := _WEIGHTS.fullmatch(file.path.removeprefix(f"{part}/")))
        and (match["variant"] or "") == variant
        and not match["piece"]
    ]
    for file in files:
        name = file.path.removeprefix(f"{part}/")
        weights, pieces_index = _WEIGHTS.fullmatch(name), _PIECES_INDEX.fullmatch(name)
        if weights:
            is_chosen = (weights["variant"] or "") == variant and not (weights["piece"] and whole)
        elif pieces_index:
            is_chosen = (pieces_index["variant"] or "") == variant and not whole
        else:
            is_chosen = (
                "/" not in name
                and name.endswith(SETTINGS_SUFFIXES)
                and not name.startswith(("flax_", "tf_", "openvino_", "pytorch_model.bin"))
                and ".bin.index." not in name
                and file.size_bytes <= MAX_SETTINGS_BYTES
            )
        if is_chosen:
            chosen.append(file)
    return chosen


def _is_pickle(path: str) -> bool:
    return path.endswith((".bin", ".ckpt", ".pt", ".pth"))
