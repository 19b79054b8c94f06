"""LoRA files and those of its relatives: what they are, for which family, with which words.

Knows: what trainers write into the header. Does not know: how layers are named and measured
(adapter_layers.py); torch; the library's folder (library.py).

Sources: the documentation of kohya-ss/sd-scripts and diffusers, modelspec 1.0.1.
"""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from studio.core.families.family import FamilyName
from studio.core.families.registry import FAMILIES
from studio.core.generation.recipes.file_names import hide_paths
from studio.errors import BadFile
from studio.storage import atomic
from studio.storage.models.adapter_kinds import (
    TensorRule,
    parse_adapter_key,
    title_adapter,
)
from studio.storage.models.adapter_layers import Layer, LayerReader, read_offsets
from studio.storage.models.embedding_file import FileEmbedding, find_bundled
from studio.storage.models.header_rules import (
    ADAPTABLE_FAMILIES,
    FAMILY_BY_CROSS_ATTENTION_DIM,
    FAMILY_BY_TEXT_ENCODER_WIDTH,
)
from studio.storage.models.model_file import (
    find_layout_problem,
    find_stated_family,
    identify_file,
    read_metadata,
)
from studio.storage.odd_files import open_file

MAX_HEADER_BYTES = 8 * 2**20  # with all metadata that trainers write headers stay below 2 MB
MAX_KEY_CHARS = 300
MAX_TAGS = 30
MAX_TEXT_CHARS = 200
# Where a layer of a U-Net can be, in diffusers' names and in sgm's. Other architectures (Flux,
# SD 3, Wan) have none of these.
_UNET_LAYER = re.compile(
    r"(?:down_blocks|up_blocks|input_blocks|output_blocks)_\d|mid_block_|middle_block_|time_embed|"
    r"label_emb_|add_embedding_|conv_(?:in|out)$|out_2$"
)
# Attention blocks that SD 1 and 2 do not have: the second and later layers of a transformer.
_SDXL_LAYER = re.compile(r"(?:attentions_\d+|blocks_\d+_1|middle_block_1)_transformer_blocks_[1-9]")


@dataclass(frozen=True)
class LoraInfo:
    """A LoRA file, as far as its header tells.

    `kind` says which relative of LoRA it is; `rank` and `alpha` are those of most layers, 0 where
    it has none; `family` is None where the file does not say it; `tags` are those of its training
    captions with their counts, the most frequent first; `embeddings` are words that were trained
    with it. Texts are the file's own. `usual_weight` is how strong it is put to use: what a person
    noted beside the file, else 1.
    """

    name: str
    path: Path
    family: FamilyName | None
    kind: str
    rank: int
    alpha: float
    layers: int
    size_bytes: int
    networks: tuple[str, ...]
    trigger_words: tuple[str, ...]
    tags: tuple[tuple[str, int], ...]
    title: str
    base_model: str
    embeddings: tuple[FileEmbedding, ...] = ()
    usual_weight: float = 1.0


def read_lora_info(path: Path, name: str = "") -> LoraInfo:
    """Read what a LoRA file is.

    Args:
        path: a .safetensors file.
        name: its name in the library; the file's stem by default.

    Raises:
        BadFile: it is no LoRA, damaged, or of a kind that cannot be used.
    """
    layers, stray_keys, header = _open_and_parse(path)
    metadata = read_metadata(header)
    embeddings = find_bundled(header, stray_keys)
    used_keys = header.keys() - {"__metadata__", *stray_keys}
    shapes = {key: header[key].get("shape", ()) for key in used_keys}
    rank, alpha = Counter((layer.rank, layer.alpha) for layer in layers).most_common(1)[0][0]
    title = metadata.get("modelspec.title") or metadata.get("ss_output_name") or ""
    base_model = (
        metadata.get("ss_sd_model_name")
        or metadata.get("modelspec.architecture")
        or metadata.get("ss_base_model_version")
        or ""
    )
    return LoraInfo(
        name=name or path.stem,
        path=path,
        family=_detect_family(layers, embeddings, metadata),
        kind=title_adapter(shapes),
        rank=rank,
        alpha=alpha,
        layers=len(layers),
        size_bytes=path.stat().st_size,
        networks=tuple(dict.fromkeys(layer.network for layer in layers)),
        trigger_words=_parse_trigger_words(metadata.get("modelspec.trigger_phrase", "")),
        tags=_parse_tag_frequency(metadata.get("ss_tag_frequency", "")),
        title=_clean_text(title),
        base_model=_clean_text(base_model),
        embeddings=embeddings,
    )


def read_layers(path: Path) -> tuple[list[Layer], list[str]]:
    """Read the layers of a LoRA file.

    Returns:
        The layers, and the names of the tensors that belong to none.

    Raises:
        BadFile: it is no LoRA, damaged, or of a kind that cannot be used.
    """
    layers, stray_keys, _ = _open_and_parse(path)
    return layers, stray_keys


def _open_and_parse(path: Path) -> tuple[list[Layer], list[str], dict[str, Any]]:
    try:
        with open_file(path) as file:
            # without the buffer: hundreds of single numbers lie far from each other
            return _parse(cast(BinaryIO, file.raw), path)
    except OSError as error:
        raise BadFile(f"{path.name} cannot be read ({error.strerror}).") from None


def _parse(file: BinaryIO, path: Path) -> tuple[list[Layer], list[str], dict[str, Any]]:
    """Return the layers, the tensors that belong to none, and the header."""
    header, data_start = _read_header(file, path)
    keys_by_stem, stray_keys = _group_keys(path, header)
    reader = LayerReader(file, path, header, data_start)
    layers = []
    for stem, keys in keys_by_stem.items():
        used_keys: set[str] = set()
        for kind in dict.fromkeys(rule.kind for rule, _ in keys.values()):
            layer = reader.read_layer(stem, kind, keys)
            if layer:
                layers.append(layer)
                used_keys |= set(layer.tensors.values())
        stray_keys += [
            key
            for role, (_, key) in keys.items()
            if key not in used_keys and not (role in ("alpha", "on_input") and used_keys)
        ]
    if not layers:
        identified = identify_file(path)
        if identified.kind not in ("lora", "unknown"):
            raise BadFile(f"{path.name} is not a LoRA: it is {identified.description}.")
        raise BadFile(
            f"{path.name} is not a LoRA: none of its {len(stray_keys)} tensors belong to a LoRA "
            "layer."
        )
    _check_architecture(path, layers)
    return layers, stray_keys, header


def _check_architecture(path: Path, layers: Sequence[Layer]) -> None:
    """Raise BadFile if no layer is one that a U-Net has."""
    named_layers = [layer for layer in layers if layer.network == "unet" and not layer.numbered_in]
    if named_layers and not any(_UNET_LAYER.match(layer.name) for layer in named_layers):
        identified = identify_file(path)
        if identified.kind == "lora" and identified.family not in ("", *ADAPTABLE_FAMILIES):
            raise BadFile(identified.sentence)
        titles = ", ".join(family.title for family in FAMILIES.values() if family.lora_naming)
        raise BadFile(
            f"{path.name} is made for another kind of model than {titles}: none of its layers "
            f"match. Example: {named_layers[0].stem:.80}."
        )


def _group_keys(
    path: Path, header: Mapping[str, Any]
) -> tuple[dict[str, dict[str, tuple[TensorRule, str]]], list[str]]:
    """Return the tensors of each layer by role, and those without a role.

    Raises BadFile for tensors of a kind that cannot be used.
    """
    keys_by_stem: dict[str, dict[str, tuple[TensorRule, str]]] = {}
    stray_keys = []
    for key in header:
        if key == "__metadata__":
            continue
        parsed = None
        if not key.startswith("bundle_emb."):  # OneTrainer's embeddings may have any name
            parsed = parse_adapter_key(key)
        if parsed is None:
            stray_keys.append(key)
            continue
        stem, rule = parsed
        if not rule.role:
            article = "an" if rule.kind.startswith("OFT") else "a"
            raise BadFile(
                f"{path.name} is {article} {rule.kind}, a relative of LoRA that is not "
                "supported yet."
            )
        keys = keys_by_stem.setdefault(stem, {})
        if rule.role in keys:  # .lora_down beside .lora_A: which of them counts, nobody can say
            raise BadFile(
                f"{path.name} contains the same part of {stem:.100} twice, as "
                f"{keys[rule.role][1].removeprefix(stem):.60} and {key.removeprefix(stem):.60}; "
                "save it again using one program's names."
            )
        keys[rule.role] = (rule, key)
    for stem, keys in keys_by_stem.items():
        weight_key = f"{stem}.weight"
        if "on_input" in keys and weight_key in stray_keys:  # its name alone says nothing
            keys["weight"] = (keys["on_input"][0], weight_key)
            stray_keys.remove(weight_key)
    return keys_by_stem, stray_keys


def _read_header(file: BinaryIO, path: Path) -> tuple[dict[str, Any], int]:
    """Return the header, and where the tensors begin; each is complete and has a printable name."""
    num_bytes = path.stat().st_size
    (header_bytes,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
    if MAX_HEADER_BYTES < header_bytes <= num_bytes:
        raise BadFile(
            f"{path.name} has a header of {header_bytes / 2**20:.0f} MiB; a LoRA's has at most "
            f"{MAX_HEADER_BYTES // 2**20}."
        )
    data_start = 8 + header_bytes
    header = atomic.read_safetensors_header(path)
    for key, entry in header.items():
        if len(key) > MAX_KEY_CHARS or not key.isprintable():
            raise BadFile(f"{path.name} has a tensor whose name is not valid: {key!a:.60}.")
        if key != "__metadata__":
            _, end = read_offsets(path, key, entry)
            if end > num_bytes - data_start:
                raise BadFile(f"{path.name} was cut off while copying: {key:.100} is incomplete.")
    if problem := find_layout_problem(header):
        raise BadFile(f"{path.name} {problem}. Copy the file again.")
    return header, data_start


def _detect_family(
    layers: list[Layer], embeddings: Sequence[FileEmbedding], metadata: Mapping[str, str]
) -> FamilyName | None:
    """Detect the family by shapes; where they are silent, by what the trainer wrote."""
    if any(layer.network == "text_encoder_2" or _SDXL_LAYER.search(layer.name) for layer in layers):
        return "sdxl"
    # A U-Net's own layers are never as wide as a prompt, so that of numbered ones the width is
    # enough to know those that read it.
    candidates = [
        FAMILY_BY_CROSS_ATTENTION_DIM.get(layer.shape.input_shape[0])
        for layer in layers
        if layer.shape.input_shape
        and (
            re.search(r"attn2_to_[kv]$", layer.name)
            or (layer.numbered_in and layer.network == "unet")
        )
    ]
    candidates += [
        FAMILY_BY_TEXT_ENCODER_WIDTH.get(layer.shape.input_shape[0])
        for layer in layers
        if layer.shape.input_shape and re.match(r"lora_te_.*q_proj$", layer.stem)
    ]
    candidates += [
        FAMILY_BY_TEXT_ENCODER_WIDTH.get(embedding.widths[0])
        for embedding in embeddings
        if len(embedding.widths) == 1
    ]
    for candidate in candidates:
        if candidate:
            return candidate
    return find_stated_family(metadata)


def _parse_trigger_words(phrase: str) -> tuple[str, ...]:
    words = phrase[: MAX_TAGS * MAX_TEXT_CHARS].split(",")[:MAX_TAGS]
    return tuple(filter(None, map(_clean_text, words)))


def _clean_text(text: str) -> str:
    """Make text fit to be shown anywhere: no control characters, nobody's folders, not long."""
    characters = (char if char.isprintable() else " " for char in text[:MAX_TEXT_CHARS])
    return hide_paths("".join(characters).strip())


def _parse_tag_frequency(text: str) -> tuple[tuple[str, int], ...]:
    """Sum up kohya's {folder: {tag: count}} over the folders."""
    counts: Counter[str] = Counter()
    try:
        for tag_counts in dict(json.loads(text)).values():
            for tag, count in tag_counts.items():
                counts[_clean_text(tag)] += int(count)
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return ()
    return tuple((tag, count) for tag, count in counts.most_common(MAX_TAGS) if tag and count > 0)
