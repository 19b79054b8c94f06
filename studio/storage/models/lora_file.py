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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from studio.core.families.family import FamilyName
from studio.core.families.registry import FAMILIES
from studio.errors import BadFile, quote
from studio.storage import atomic
from studio.storage.models.header_rules import (
    DTYPE_BYTES,
    FAMILY_BY_CROSS_ATTENTION_DIM,
    FAMILY_BY_TEXT_ENCODER_WIDTH,
)
from studio.storage.models.model_file import find_stated_family, identify_file, read_metadata

MAX_RANK = 1024
MAX_ALPHA = 100_000
MAX_HEADER_BYTES = 8 * 2**20  # with all metadata that trainers write headers stay below 2 MB
MAX_CONFIG_BYTES = 2**20
MAX_KEY_CHARS = 300
MAX_TAGS = 30
MAX_TEXT_CHARS = 200
STRUCT_FORMATS = {"F64": "<d", "F32": "<f", "F16": "<e", "BF16": "<f", "F8_E4M3": "", "F8_E5M2": ""}
_INTEGER_FORMATS = {"I64": "<q", "I32": "<i", "I16": "<h", "I8": "<b", "U8": "<B"}
_UNSUPPORTED_ADAPTERS = {
    "hada": "LoHa",
    "lokr": "LoKr",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "lora_mid": "Tucker LoCon",
    "oft": "OFT",
    "boft": "BOFT",
}
_UNSUPPORTED_KEY = re.compile(rf"\.({'|'.join(_UNSUPPORTED_ADAPTERS)})(?:_\w+)?(?:\.\w+)*$")
_KEY_ROLE = re.compile(
    r"(.+?)(?:\.lora_(down|up|A|B)(?:\.default)?\.weight"
    r"|[._]lora(?:_linear_layer)?\.(down|up)\.weight|\.(alpha))"
)
_NETWORK_PREFIX = re.compile(
    r"(?:base_model\.model\.)?"
    r"(?:lora_(unet|te1|te2|te)_|(unet|text_encoder_2|text_encoder)\.|diffusion_model\.)?"
    r"(?:base_model\.model\.)?(.+)"
)
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
    """One layer's pair of matrices; effect = up · down · alpha / rank.

    `down_key` and `up_key` are the tensors' names; `input_shape` is what the layer takes:
    (features,), or (channels, height, width) of a convolution's kernel.
    """

    stem: str
    network: str  # unet, text_encoder or text_encoder_2
    name: str  # as kohya writes it, without the network: down_blocks_0_attentions_0_…
    down_key: str
    up_key: str
    rank: int
    input_shape: tuple[int, ...]
    out_features: int
    alpha: float
    use_rslora: bool  # divided by √rank instead


@dataclass(frozen=True)
class LoraInfo:
    """A LoRA file, as far as its header tells.

    `rank` and `alpha` are those of most layers; `family` is None where the file does not say it;
    `tags` are those of its training captions with their counts, the most frequent first. Texts are
    the file's own.
    """

    name: str
    path: Path
    family: FamilyName | None
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


def list_files(path: Path) -> list[Path]:
    """List the files of a LoRA: the file itself, and peft's config beside it if there is one."""
    config_path = path.with_name("adapter_config.json")
    if path.stem == "adapter_model" and config_path.is_file():
        return [path, config_path]
    return [path]


def _open_and_parse(path: Path) -> tuple[list[Layer], list[str], dict[str, Any]]:
    try:
        with open(path, "rb", buffering=0) as file:
            return _parse(file, path)
    except OSError as error:
        raise BadFile(f"{path.name} cannot be read ({error.strerror}).") from None


def _parse(file: BinaryIO, path: Path) -> tuple[list[Layer], list[str], dict[str, Any]]:
    """Return the layers, the tensors that belong to none, and the header."""
    header, data_start = _read_header(file, path)
    keys_by_stem, stray_keys = _group_keys(header)
    metadata = header.get("__metadata__")
    configs = _read_peft_configs(path, metadata if isinstance(metadata, dict) else {})
    layers = []
    for stem, keys in keys_by_stem.items():
        if "down" not in keys or "up" not in keys:
            stray_keys += keys.values()
            continue
        alpha = None
        if "alpha" in keys:
            alpha = _read_scalar(file, data_start, path, header, keys["alpha"])
        layers.append(
            _build_layer(path, header, stem=stem, keys=keys, alpha=alpha, configs=configs)
        )
    if not layers:
        identified = identify_file(path)
        if identified.kind not in ("lora", "unknown"):
            raise BadFile(f"{path.name} is no LoRA: it is {identified.description}.")
        raise BadFile(
            f"{path.name} is no LoRA: none of its {len(stray_keys)} tensors belongs to a LoRA's "
            "layer."
        )
    unet_layers = [layer for layer in layers if layer.network == "unet"]
    if unet_layers and not any(_UNET_LAYER.match(layer.name) for layer in unet_layers):
        titles = ", ".join(family.title for family in FAMILIES.values() if family.lora_naming)
        raise BadFile(
            f"{path.name} is made for another kind of model than {titles}: none of its layers is "
            f"one of theirs. Such as {unet_layers[0].stem:.80}."
        )
    return layers, stray_keys, header


def _group_keys(header: Mapping[str, Any]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return the tensors of each layer by role (down, up, alpha), and those without a role."""
    keys_by_stem: dict[str, dict[str, str]] = {}
    stray_keys = []
    for key in header:
        if key == "__metadata__":
            continue
        match = _KEY_ROLE.fullmatch(key)
        if match is None:
            stray_keys.append(key)
            continue
        role = match[2] or match[3] or match[4]
        role = {"A": "down", "B": "up"}.get(role, role)
        keys_by_stem.setdefault(match[1], {})[role] = key
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
        # embeddings that OneTrainer bundles may have any name
        match = None if key.startswith("bundle_emb.") else _UNSUPPORTED_KEY.search(key)
        if match:
            raise BadFile(
                f"{path.name} is a {_UNSUPPORTED_ADAPTERS[match[1]]}, a relative of LoRA that "
                "cannot be used yet."
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


def _build_layer(
    path: Path,
    header: Mapping[str, Any],
    *,
    stem: str,
    keys: Mapping[str, str],
    alpha: float | None,
    configs: Mapping[str, Mapping[str, Any]],
) -> Layer:
    down_shape = _read_shape(path, header, keys["down"])
    up_shape = _read_shape(path, header, keys["up"])
    _check_shapes(path, stem, down_shape, up_shape)
    _check_num_bytes(path, header, keys["down"], down_shape)
    _check_num_bytes(path, header, keys["up"], up_shape)
    network, name, dotted_name = _parse_stem(stem)
    config = configs.get(network, configs.get("", {}))
    if alpha is None:
        alpha = _find_alpha(config, dotted_name)
    if alpha is not None and abs(alpha) > MAX_ALPHA:
        raise BadFile(
            f"{path.name} has alpha {alpha:g} in {stem:.100}; the studio takes up to {MAX_ALPHA:,}."
        )
    is_pointwise = set(down_shape[2:]) <= {1}  # a 1 × 1 kernel takes what a linear layer takes
    return Layer(
        stem=stem,
        network=network,
        name=name,
        down_key=keys["down"],
        up_key=keys["up"],
        rank=down_shape[0],
        input_shape=tuple(down_shape[1:2] if is_pointwise else down_shape[1:]),
        out_features=up_shape[0],
        alpha=float(down_shape[0]) if alpha is None else alpha,
        use_rslora=bool(config.get("use_rslora")) and "alpha" not in keys,
    )


def _parse_stem(stem: str) -> tuple[str, str, str]:
    """Return the network of a layer, its name as kohya writes it, and its name in the file."""
    match = _NETWORK_PREFIX.fullmatch(stem)
    assert match  # it matches any text
    kohya_prefix, dotted_prefix, dotted_name = match.groups()
    name = dotted_name.replace(".processor.", ".").replace(".", "_")
    name = re.sub(r"(_attn[12]_to_out)$", r"\1_0", name).removeprefix("text_model_")
    # diffusers, before peft
    name = re.sub(r"_self_attn_to_(q|k|v|out)$", r"_self_attn_\1_proj", name)
    if kohya_prefix:
        network = _NETWORK_BY_KOHYA_PREFIX.get(kohya_prefix, kohya_prefix)
    elif dotted_prefix:
        network = dotted_prefix
    else:
        network = "text_encoder" if name.startswith("encoder_layers_") else "unet"
    return network, name, dotted_name


def _check_shapes(path: Path, stem: str, down_shape: list[int], up_shape: list[int]) -> None:
    if (
        len(down_shape) < 2
        or len(up_shape) < 2
        or up_shape[1] != down_shape[0]
        or any(side != 1 for side in up_shape[2:])
    ):
        raise BadFile(
            f"{path.name}: the two matrices of {stem:.100} do not belong together "
            f"({down_shape} and {up_shape})."
        )
    if down_shape[0] > MAX_RANK:
        raise BadFile(
            f"{path.name} has rank {down_shape[0]:,} in {stem:.100}; the studio takes up to "
            f"{MAX_RANK:,}."
        )


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


def _read_peft_configs(path: Path, metadata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return peft's settings by network, "" for all.

    diffusers writes them into the header, peft itself into a file beside it.
    """
    try:
        settings = json.loads(str(metadata.get("lora_adapter_metadata", "{}")))
        files = list_files(path)
        if len(files) > 1:
            with open(files[1], "rb") as file:
                settings = json.loads(file.read(MAX_CONFIG_BYTES)) | settings
        configs = _group_by_network(settings)
        for config in configs.values():
            alpha = config.get("lora_alpha")
            config["lora_alpha"] = None if alpha is None else _parse_number(alpha)
            config["alpha_pattern"] = _parse_alpha_pattern(config.get("alpha_pattern") or {})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        raise BadFile(
            f"{path.name}: the settings that peft wrote with it cannot be read, so its alpha is "
            "not known."
        ) from None
    if any(config.get("use_dora") for config in configs.values()):
        raise BadFile(f"{path.name} is a DoRA, a relative of LoRA that cannot be used yet.")
    return configs


def _group_by_network(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Turn {"unet.lora_alpha": 4, "r": 8} into {"unet": {"lora_alpha": 4}, "": {"r": 8}}."""
    configs: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        network, dot, name = key.partition(".")
        if dot:
            configs.setdefault(network, {})[name] = value
        else:
            configs.setdefault("", {})[key] = value
    return configs


def _parse_number(value: Any) -> float:
    """Raise ValueError for what is no number, or too large for a float."""
    if type(value) not in (int, float) or not -1e30 < value < 1e30:
        raise ValueError(f"{quote(value)} is no number")
    return float(value)


def _parse_alpha_pattern(patterns: Mapping[str, Any]) -> dict[str, tuple[int, float]]:
    """Return peft's alphas by the ending of layer names, each with its position.

    The first that fits a layer counts. Raises ValueError for any other regular expression.
    """
    alphas: dict[str, tuple[int, float]] = {}
    for position, (pattern, alpha) in enumerate(patterns.items()):
        ending = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if not re.fullmatch(r"[\w.-]+", ending):
            raise ValueError(f"{quote(pattern)} is no layer's name")
        alphas.setdefault(ending, (position, _parse_number(alpha)))
    return alphas


def _find_alpha(config: Mapping[str, Any], dotted_name: str) -> float | None:
    """Return the alpha that peft's settings give a layer; None without one."""
    alphas: Mapping[str, tuple[int, float]] = config.get("alpha_pattern", {})
    parts = dotted_name.split(".")
    endings = [".".join(parts[k:]) for k in range(len(parts))]
    matches = [alphas[ending] for ending in endings if ending in alphas]
    if matches:
        return min(matches)[1]
    alpha: float | None = config.get("lora_alpha")
    return alpha


def _detect_family(layers: list[Layer], metadata: Mapping[str, str]) -> FamilyName | None:
    """Detect the family by shapes; where they are silent, by what the trainer wrote."""
    if any(layer.network == "text_encoder_2" or _SDXL_LAYER.search(layer.name) for layer in layers):
        return "sdxl"
    candidates = [
        FAMILY_BY_CROSS_ATTENTION_DIM.get(layer.input_shape[0])
        for layer in layers
        if re.search(r"attn2_to_[kv]$", layer.name)
    ]
    candidates += [
        FAMILY_BY_TEXT_ENCODER_WIDTH.get(layer.input_shape[0])
        for layer in layers
        if re.match(r"lora_te_.*q_proj$", layer.stem)
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
