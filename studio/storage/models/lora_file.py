"""LoRA files read from their headers: layers, ranks, alphas, family, trigger words.

Knows: how kohya's trainer, A1111's extensions, diffusers and peft name the layers of a LoRA and
store its alpha. Does not know: torch; which of a model's layers they fit
(engine/models/adapters/lora.py); the library's folder (library.py).

    lora_unet_down_blocks_0_…_to_q.lora_down.weight / .lora_up.weight / .alpha
                                        kohya; also lora_te_, lora_te1_, lora_te2_
    diffusion_model.input_blocks.1.….to_q.lora_down.weight / …
                                        ComfyUI
    unet.down_blocks.0.….to_q.lora_A.weight / .lora_B.weight
                                        diffusers; alpha in `lora_adapter_metadata`
    unet.….processor.to_q_lora.down.weight, unet.….to_q.lora.down.weight
                                        diffusers, older
    base_model.model.down_blocks.0.….to_q.lora_A.weight
                                        peft; alpha in adapter_config.json beside the file

Sources: the documentation of kohya-ss/sd-scripts and diffusers, modelspec 1.0.1. Without an alpha
the rank is taken for it, as all of them do.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from studio.core.catalog import FAMILIES, Family
from studio.errors import BadFile
from studio.storage import atomic
from studio.storage.models.adapter_kinds import (
    DIFFERENCE,
    DORA,
    IA3,
    LORA,
    OFT,
    PRODUCTS,
    LayerShape,
    TensorRule,
    measure_layer,
    parse_adapter_key,
    title_adapter,
)
from studio.storage.models.header_rules import (
    DTYPE_BYTES,
    FAMILY_BY_CROSS_ATTENTION_DIM,
    FAMILY_BY_TEXT_ENCODER_WIDTH,
)
from studio.storage.models.model_file import find_stated_family, identify_file, read_metadata
from studio.storage.models.peft_config import (
    PeftConfig,
    get_number,
    is_feedforward,
    read_peft_configs,
)

MAX_RANK = 1024
MAX_ALPHA = 100_000
MAX_HEADER_BYTES = 8 * 2**20  # with all metadata that trainers write headers stay below 2 MB
MAX_KEY_CHARS = 300
MAX_TAGS = 30
MAX_TEXT_CHARS = 200
STRUCT_FORMATS = {"F64": "<d", "F32": "<f", "F16": "<e", "BF16": "<f", "F8_E4M3": "", "F8_E5M2": ""}
_INTEGER_FORMATS = {"I64": "<q", "I32": "<i", "I16": "<h", "I8": "<b", "U8": "<B"}
# The network, and the layer's name. A doubled network is the slip of a converter.
_NETWORK_PREFIX = re.compile(
    r"(?:base_model\.model\.)?"
    r"(?:lora_(unet|te1|te2|te)_|lycoris_|(unet|text_encoder_2|text_encoder)[.:]|"
    r"diffusion_model\.|text_encoders\.clip_([lgh])\.transformer\.)?"
    r"(?:base_model\.model\.|(?<=unet_)unet_|(?<=te_)text_encoder_)?(.+)"
)
_NETWORK_BY_CLIP = {"l": "text_encoder", "h": "text_encoder", "g": "text_encoder_2"}
_NETWORK_BY_KOHYA_PREFIX = {"te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}
# Where a layer of a U-Net can be, in diffusers' names and in sgm's. Other architectures (Flux,
# SD 3, Wan) have none of these.
_UNET_LAYER = re.compile(
    r"(?:down_blocks|up_blocks|input_blocks|output_blocks)_\d|mid_block_|middle_block_|time_embed|"
    r"label_emb_|add_embedding_|conv_(?:in|out)$|out_2$"
)
# Attention blocks that SD 1 and 2 do not have: the second and later layers of a transformer.
_SDXL_LAYER = re.compile(r"(?:attentions_\d+|blocks_\d+_1|middle_block_1)_transformer_blocks_[1-9]")


@dataclass(frozen=True)
class Layer:
    """What a file does to one layer of a network.

    Attributes:
        stem: How the file names the layer.
        network: unet, text_encoder or text_encoder_2.
        name: As kohya writes it, without the network: down_blocks_0_attentions_0_…
        kind: Which of adapter_kinds' it is.
        tensors: The tensors' names by role.
        shape: The layer that it is for, and its rank.
        alpha: The effect is multiplied by alpha / rank; of OFT it is the constraint, 0 for none.
        use_rslora: Divided by √rank instead.
        on_input: Of (IA)³: it scales what the layer takes, and not what it gives.
        neumann_terms: Of peft's OFT: the length of the series, 0 for the exact inverse.
        numbered_in: Of lora_diffusion: the classes whose layers are numbered; the name is the
            number.
    """

    stem: str
    network: str
    name: str
    kind: str
    tensors: Mapping[str, str]
    shape: LayerShape
    alpha: float
    use_rslora: bool = False
    on_input: bool = False
    neumann_terms: int = 0
    numbered_in: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """Its rank; 0 if it has none."""
        return self.shape.rank


@dataclass(frozen=True)
class LoraInfo:
    """A LoRA file, as far as its header tells.

    `kind` says which relative of LoRA it is; `rank` and `alpha` are those of most layers, 0 where
    it has none; `family` is None where the file does not say it; `tags` are those of its training
    captions with their counts, the most frequent first. Texts are the file's own.
    """

    name: str
    path: Path
    family: Family | None
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


def read_lora_info(path: Path, name: str = "") -> LoraInfo:
    """Read what a LoRA file is.

    Args:
        path: a .safetensors file.
        name: its name in the library; the file's stem by default.

    Raises:
        BadFile: it is no LoRA, damaged, or of a kind that cannot be used.
    """
    layers, _, header = _open_and_parse(path)
    metadata = read_metadata(header)
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
        family=_detect_family(layers, metadata),
        kind=title_adapter(
            {key: header[key]["shape"] for layer in layers for key in layer.tensors.values()}
        ),
        rank=rank,
        alpha=alpha,
        layers=len(layers),
        size_bytes=path.stat().st_size,
        networks=tuple(dict.fromkeys(layer.network for layer in layers)),
        trigger_words=_parse_trigger_words(metadata.get("modelspec.trigger_phrase", "")),
        tags=_parse_tag_frequency(metadata.get("ss_tag_frequency", "")),
        title=_clean_text(title),
        base_model=_clean_text(base_model),
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
        with open(path, "rb", buffering=0) as file:
            return _parse(file, path)
    except OSError as error:
        raise BadFile(f"{path.name} cannot be read ({error.strerror}).") from None


def _parse(file: BinaryIO, path: Path) -> tuple[list[Layer], list[str], dict[str, Any]]:
    """Return the layers, the tensors that belong to none, and the header."""
    header, data_start = _read_header(file, path)
    keys_by_stem, stray_keys = _group_keys(path, header)
    reader = _LayerReader(file, path, header, data_start)
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
            raise BadFile(f"{path.name} is no LoRA: it is {identified.description}.")
        raise BadFile(
            f"{path.name} is no LoRA: none of its {len(stray_keys)} tensors belongs to a LoRA's "
            "layer."
        )
    _check_architecture(path, layers)
    return layers, stray_keys, header


def _check_architecture(path: Path, layers: Sequence[Layer]) -> None:
    """Raise BadFile if no layer is one that a U-Net has."""
    named_layers = [layer for layer in layers if layer.network == "unet" and not layer.numbered_in]
    if named_layers and not any(_UNET_LAYER.match(layer.name) for layer in named_layers):
        titles = ", ".join(info.title for info in FAMILIES.values())
        raise BadFile(
            f"{path.name} is made for another kind of model than {titles}: none of its layers is "
            f"one of theirs. Such as {named_layers[0].stem:.80}."
        )


Keys = Mapping[str, tuple[TensorRule, str]]  # of one layer: role → (rule, tensor's name)


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
            raise BadFile(
                f"{path.name} is a {rule.kind}, a relative of LoRA that cannot be used yet."
            )
        keys_by_stem.setdefault(stem, {})[rule.role] = (rule, key)
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
            f"{path.name} has a header of {header_bytes / 2**20:.0f} MiB; that of a LoRA has "
            f"{MAX_HEADER_BYTES // 2**20} at most."
        )
    data_start = 8 + header_bytes
    header = atomic.read_safetensors_header(path)
    for key, entry in header.items():
        if len(key) > MAX_KEY_CHARS or not key.isprintable():
            raise BadFile(f"{path.name} has a tensor with a name that is none: {key!a:.60}.")
        if key != "__metadata__":
            _, end = _read_offsets(path, key, entry)
            if end > num_bytes - data_start:
                raise BadFile(
                    f"{path.name} was cut off while it was copied: {key:.100} is not all there."
                )
    return header, data_start


def _read_offsets(path: Path, key: str, entry: Any) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or any(type(offset) is not int for offset in offsets)
        or not 0 <= offsets[0] <= offsets[1]
    ):
        raise BadFile(f"{path.name} does not say where {key:.100} lies.")
    return offsets[0], offsets[1]


class _LayerReader:
    """Builds the layers of one file."""

    def __init__(
        self, file: BinaryIO, path: Path, header: Mapping[str, Any], data_start: int
    ) -> None:
        metadata = header.get("__metadata__")
        self.metadata: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}
        self.configs = read_peft_configs(path, self.metadata)
        self.file, self.path, self.header, self.data_start = file, path, header, data_start

    def read_layer(self, stem: str, kind: str, keys: Keys) -> Layer | None:
        """Return what tensors of one kind do to a layer; None if they are not complete.

        Raises BadFile if they do not belong together.
        """
        if kind not in (*PRODUCTS, OFT, IA3, DIFFERENCE):
            return None
        tensors = {
            role: key
            for role, (rule, key) in keys.items()
            if (rule.kind == kind and role != "on_input")
            or (rule.kind == DORA and kind in PRODUCTS)
        }
        shape = self._measure(stem, kind, tensors)
        if shape is None:
            return None
        network, name, dotted_name = _parse_stem(stem)
        config = self.configs.get(network, self.configs.get("", {}))
        alpha = self._read_scalar(keys["alpha"][1]) if "alpha" in keys else None
        use_rslora = bool(config.get("use_rslora")) and alpha is None
        if alpha is None:
            alpha = get_number(config, "alpha", dotted_name) if kind in PRODUCTS else 0.0
            if not shape.rank:  # peft scales a LoKr of whole factors too
                shape = replace(shape, rank=int(get_number(config, "rank", dotted_name) or 0))
        if alpha is not None and abs(alpha) > MAX_ALPHA:
            raise BadFile(
                f"{self.path.name} has alpha {alpha:g} in {stem:.100}; the studio takes up to "
                f"{MAX_ALPHA:,}."
            )
        layer = Layer(
            stem=stem,
            network=network,
            name=name,
            kind=kind,
            tensors=tensors,
            shape=shape,
            alpha=float(shape.rank) if alpha is None else alpha,
            use_rslora=use_rslora,
        )
        return self._complete(layer, keys, config, dotted_name)

    def _complete(self, layer: Layer, keys: Keys, config: PeftConfig, dotted_name: str) -> Layer:
        """Add what only some kinds have. Raises BadFile where it would have to be guessed."""
        name = self.path.name
        if config.get("use_dora") and layer.kind == LORA and "magnitude" not in layer.tensors:
            raise BadFile(f"{name} is a DoRA without its magnitudes, in {layer.stem:.100}.")
        if ":" in layer.stem:
            return replace(layer, numbered_in=self._read_classes(layer.network))
        if "oft_R" in layer.tensors:
            if not config or config.get("coft") or config.get("block_share"):
                raise BadFile(
                    f"{name} is an OFT of peft, which can be used with its adapter_config.json "
                    "beside it, and without coft and block_share."
                )
            return replace(layer, neumann_terms=config["num_cayley_neumann_terms"])
        if layer.kind != IA3:
            return layer
        if "on_input" in keys:
            on_input = bool(self._read_scalar(keys["on_input"][1]))
        else:
            shape = self.header[layer.tensors["ia3_l"]]["shape"]
            by_config = is_feedforward(config, dotted_name)
            on_input = shape[0] == 1 if by_config is None else by_config
        if on_input:
            features = layer.shape.out_features
            layer = replace(layer, shape=LayerShape(0, (features,)), on_input=True)
        return layer

    def _measure(self, stem: str, kind: str, tensors: Mapping[str, str]) -> LayerShape | None:
        """Return the layer that tensors are for. Raises BadFile."""
        path, header = self.path, self.header
        shapes = {role: _read_shape(path, header, key) for role, key in tensors.items()}
        try:
            shape = measure_layer(kind, shapes)
        except ValueError as error:
            raise BadFile(
                f"{path.name}: the matrices of {stem:.100} do not belong together ({error!s:.100})."
            ) from None
        if shape is not None and shape.rank > MAX_RANK:
            raise BadFile(
                f"{path.name} has rank {shape.rank:,} in {stem:.100}; the studio takes up to "
                f"{MAX_RANK:,}."
            )
        for role, key in tensors.items():
            _check_num_bytes(path, header, key, shapes[role])
        return shape

    def _read_classes(self, network: str) -> tuple[str, ...]:
        """Return the classes whose layers lora_diffusion numbers. Raises BadFile."""
        try:
            classes = json.loads(str(self.metadata.get(network)))
            if not isinstance(classes, list) or not 1 <= len(classes) <= MAX_TAGS:
                raise ValueError("no list of classes")
        except (ValueError, RecursionError):
            raise BadFile(
                f"{self.path.name} only numbers the layers of {network}, and does not say which "
                "it numbers."
            ) from None
        return tuple(sorted(f"{name:.100}" for name in classes))

    def _read_scalar(self, key: str) -> float:
        return _read_scalar(self.file, self.data_start, self.path, self.header, key)


def _parse_stem(stem: str) -> tuple[str, str, str]:
    """Return the network of a layer, its name as kohya writes it, and its name in the file."""
    match = _NETWORK_PREFIX.fullmatch(stem)
    assert match  # it matches any text
    kohya_prefix, dotted_prefix, clip_letter, dotted_name = match.groups()
    name = dotted_name.replace(".processor.", ".").replace(".", "_")
    name = re.sub(r"(_attn[12]_to_out)$", r"\1_0", name).removeprefix("text_model_")
    # diffusers, before peft
    name = re.sub(r"_self_attn_to_(q|k|v|out)$", r"_self_attn_\1_proj", name)
    if kohya_prefix:
        network = _NETWORK_BY_KOHYA_PREFIX.get(kohya_prefix, kohya_prefix)
    elif dotted_prefix:
        network = dotted_prefix
    elif clip_letter:
        network = _NETWORK_BY_CLIP[clip_letter]
    else:
        network = "text_encoder" if name.startswith("encoder_layers_") else "unet"
    return network, name, dotted_name


def _check_num_bytes(path: Path, header: Mapping[str, Any], key: str, shape: list[int]) -> None:
    begin, end = header[key]["data_offsets"]
    if end - begin != math.prod(shape) * DTYPE_BYTES[header[key]["dtype"]]:
        raise BadFile(f"{path.name}: {key:.100} has not as many bytes as its shape says.")


def _read_shape(path: Path, header: Mapping[str, Any], key: str) -> list[int]:
    entry = header[key]
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if (
        not isinstance(shape, list)
        or len(shape) > 4
        or any(type(side) is not int or side < 1 for side in shape)
    ):
        raise BadFile(f"{path.name}: the shape of {key:.100} is none.")
    if entry.get("dtype") not in STRUCT_FORMATS:
        raise BadFile(
            f"{path.name}: {key:.100} holds {entry.get('dtype')!s:.20} instead of fractions."
        )
    return shape


def _read_scalar(
    file: BinaryIO, data_start: int, path: Path, header: Mapping[str, Any], key: str
) -> float:
    """Read a tensor of one number, without torch."""
    entry = header[key]
    begin, end = _read_offsets(path, key, entry)
    try:
        struct_format = (STRUCT_FORMATS | _INTEGER_FORMATS)[entry["dtype"]]
        file.seek(data_start + begin)
        data = file.read(min(end - begin, 8))
        if entry["dtype"] == "BF16":  # the upper half of a float32
            data = b"\0\0" + data
        (value,) = struct.unpack(struct_format, data)
    except (KeyError, TypeError, ValueError, OSError, OverflowError, struct.error):
        raise BadFile(f"{path.name}: {key:.100} is no number.") from None
    if not math.isfinite(value):
        raise BadFile(f"{path.name}: {key:.100} is no number ({value}).")
    return float(value)


def _detect_family(layers: list[Layer], metadata: Mapping[str, str]) -> Family | None:
    """Detect the family by shapes; where they are silent, by what the trainer wrote."""
    if any(layer.network == "text_encoder_2" or _SDXL_LAYER.search(layer.name) for layer in layers):
        return "sdxl"
    candidates = [
        FAMILY_BY_CROSS_ATTENTION_DIM.get(layer.shape.input_shape[0])
        for layer in layers
        if layer.shape.input_shape and re.search(r"attn2_to_[kv]$", layer.name)
    ]
    candidates += [
        FAMILY_BY_TEXT_ENCODER_WIDTH.get(layer.shape.input_shape[0])
        for layer in layers
        if layer.shape.input_shape and re.match(r"lora_te_.*q_proj$", layer.stem)
    ]
    for candidate in candidates:
        if candidate:
            return candidate
    return find_stated_family(metadata)


def _parse_trigger_words(phrase: str) -> tuple[str, ...]:
    words = phrase[: MAX_TAGS * MAX_TEXT_CHARS].split(",")[:MAX_TAGS]
    return tuple(filter(None, map(_clean_text, words)))


def _clean_text(text: str) -> str:
    """Make text fit to be shown anywhere: no control characters, no half surrogates, not long."""
    characters = (char if char.isprintable() else " " for char in text[:MAX_TEXT_CHARS])
    return "".join(characters).strip()


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
