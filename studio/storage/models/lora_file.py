"""What a LoRA file is, read from its header: layers, ranks, alphas, family, trigger words.

Knows: how kohya's trainer, A1111's world, diffusers and peft name the layers of a LoRA and say its alpha.
Does not know: torch; which of a model's layers they fit (engine/models/adapters/lora.py); the folder (library.py).

    lora_unet_down_blocks_0_…_to_q.lora_down.weight / .lora_up.weight / .alpha     kohya; also lora_te_, lora_te1_, lora_te2_
    diffusion_model.input_blocks.1.….to_q.lora_down.weight / …                     ComfyUI
    unet.down_blocks.0.….to_q.lora_A.weight / .lora_B.weight                       diffusers; alpha in `lora_adapter_metadata`
    unet.….processor.to_q_lora.down.weight, unet.….to_q.lora.down.weight           diffusers, older
    base_model.model.down_blocks.0.….to_q.lora_A.weight                            peft; alpha in adapter_config.json beside it

Sources: kohya-ss/sd-scripts' and diffusers' documentation, modelspec 1.0.1. Without an alpha the rank is taken for it, as all do.
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

from studio.core.catalog import FAMILIES, Family
from studio.errors import BadFile
from studio.storage import atomic

MOST_RANK, MOST_ALPHA = 1024, 100_000
MOST_HEADER = 8 * 2**20  # bytes; with all of a trainer's notes they have below 2 MB
MOST_CONFIG = 2**20
LONGEST_KEY = 300
MOST_TAGS, LONGEST = 30, 200
WIDTHS: dict[int, Family] = {768: "sd1", 1024: "sd2", 2048: "sdxl"}  # of what the U-Net reads
READERS: dict[int, Family] = {768: "sd1", 1024: "sd2"}  # width of the one text encoder
FORMATS = {"F64": "<d", "F32": "<f", "F16": "<e", "BF16": "<f", "F8_E4M3": "", "F8_E5M2": ""}
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
_WHOLE = {"I64": "<q", "I32": "<i", "I16": "<h", "I8": "<b", "U8": "<B"}
_VERSIONS: dict[str, Family] = {"xl": "sdxl", "v2": "sd2", "v1": "sd1"}
_OTHERS = {
    "hada": "LoHa",
    "lokr": "LoKr",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "lora_mid": "Tucker LoCon",
    "oft": "OFT",
    "boft": "BOFT",
}
_OTHER = re.compile(rf"\.({'|'.join(_OTHERS)})(?:_\w+)?(?:\.\w+)*$")
_ROLE = re.compile(
    r"(.+?)(?:\.lora_(down|up|A|B)(?:\.default)?\.weight|[._]lora(?:_linear_layer)?\.(down|up)\.weight|\.(alpha))"
)
_NETWORK = re.compile(
    r"(?:base_model\.model\.)?(?:lora_(unet|te1|te2|te)_|(unet|text_encoder_2|text_encoder)\.|diffusion_model\.)?"
    r"(?:base_model\.model\.)?(.+)"
)
_NETWORKS = {"te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}
# Where a layer of a U-Net can be, in diffusers' names and in sgm's. Other architectures (Flux, SD 3, Wan) have none of it.
_UNET = re.compile(
    r"(?:down_blocks|up_blocks|input_blocks|output_blocks)_\d|mid_block_|middle_block_|time_embed|label_emb_|"
    r"add_embedding_|conv_(?:in|out)$|out_2$"
)


@dataclass(frozen=True)
class Layer:
    """One layer's pair of matrices; effect = up · down · alpha / rank.

    `down` and `up` are the tensors' names, `shape` what the layer takes: (inputs,) or (inputs, height, width) of a kernel.
    """

    stem: str
    network: str  # unet, text_encoder or text_encoder_2
    name: str  # as kohya writes it, without the network: down_blocks_0_attentions_0_…
    down: str
    up: str
    rank: int
    shape: tuple[int, ...]
    outputs: int
    alpha: float
    rslora: bool  # divided by √rank instead


@dataclass(frozen=True)
class LoraInfo:
    """A LoRA file. `family` is None and `alpha` may differ by layer where the file does not say; texts are the file's own."""

    name: str
    path: Path
    family: Family | None
    rank: int
    alpha: float
    layers: int
    bytes: int
    networks: tuple[str, ...]
    trigger_words: tuple[str, ...]
    tags: tuple[
        tuple[str, int], ...
    ]  # of its training captions, with how often; the most frequent first
    title: str
    base_model: str


def look(path: Path, name: str = "") -> LoraInfo:
    """What a LoRA file is. Raises BadFile, which says what is wrong with it."""
    layers, _, header = _parsed(path)
    told = _told(header)
    rank, alpha = Counter((layer.rank, layer.alpha) for layer in layers).most_common(1)[0][0]
    words = [
        _text(word)
        for word in told.get("modelspec.trigger_phrase", "")[: MOST_TAGS * LONGEST].split(",")
    ]
    base = next(
        (
            told[key]
            for key in ("ss_sd_model_name", "modelspec.architecture", "ss_base_model_version")
            if told.get(key)
        ),
        "",
    )
    title = told.get("modelspec.title") or told.get("ss_output_name") or ""
    return LoraInfo(
        name or path.stem,
        path,
        _family(layers, told),
        rank,
        alpha,
        len(layers),
        path.stat().st_size,
        tuple(dict.fromkeys(layer.network for layer in layers)),
        tuple(word for word in words[:MOST_TAGS] if word),
        _tags(told.get("ss_tag_frequency", "")),
        _text(title),
        _text(base),
    )


def read(path: Path) -> tuple[list[Layer], list[str]]:
    """The layers of a LoRA file, and what else stands in it. Raises BadFile."""
    layers, strays, _ = _parsed(path)
    return layers, strays


def _parsed(path: Path) -> tuple[list[Layer], list[str], dict[str, Any]]:
    try:
        with open(path, "rb", buffering=0) as file:
            return _parse(file, path)
    except OSError as error:
        raise BadFile(f"{path.name} cannot be read ({error.strerror}).") from None


def _parse(file: BinaryIO, path: Path) -> tuple[list[Layer], list[str], dict[str, Any]]:
    header, start = _header(file, path)
    told = header.get("__metadata__")
    parts: dict[str, dict[str, str]] = {}
    strays = []
    for key in header:
        if found := _ROLE.fullmatch(key):
            role = next(group for group in found.groups()[1:] if group)
            parts.setdefault(found[1], {})[{"A": "down", "B": "up"}.get(role, role)] = key
        elif key != "__metadata__":
            strays.append(key)
    configs = _configs(path, told if isinstance(told, dict) else {})
    layers = []
    for stem, keys in parts.items():
        if {"down", "up"} <= keys.keys():
            alpha = _scalar(file, start, path, header, keys["alpha"]) if "alpha" in keys else None
            layers.append(_layer(path, header, stem, keys, alpha, configs))
        else:
            strays += keys.values()
    if not layers:
        raise BadFile(
            f"{path.name} is no LoRA: none of its {len(strays)} tensors belongs to a LoRA's layer."
        )
    pictures = [layer for layer in layers if layer.network == "unet"]
    if pictures and not any(_UNET.match(layer.name) for layer in pictures):
        raise BadFile(
            f"{path.name} is made for another kind of model than {', '.join(info.title for info in FAMILIES.values())}: "
            f"none of its layers is one of theirs. Such as {pictures[0].stem:.80}."
        )
    return layers, strays, header


def _header(file: BinaryIO, path: Path) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors begin; all of them are there, under names that can be shown."""
    size, (length,) = path.stat().st_size, struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
    if MOST_HEADER < length <= size:
        raise BadFile(
            f"{path.name} has a header of {length / 2**20:.0f} MiB; that of a LoRA has {MOST_HEADER // 2**20} at most."
        )
    header = atomic.safetensors_header(path)
    for key, entry in header.items():
        if len(key) > LONGEST_KEY or not key.isprintable():
            raise BadFile(f"{path.name} has a tensor with a name that is none: {key!a:.60}.")
        if key != "__metadata__":
            _, end = _place(path, key, entry)
            if end > size - 8 - length:
                raise BadFile(
                    f"{path.name} was cut off while it was copied: {key:.100} is not all there."
                )
        if not key.startswith("bundle_emb.") and (
            other := _OTHER.search(key)
        ):  # OneTrainer's embeddings have any name
            raise BadFile(
                f"{path.name} is a {_OTHERS[other[1]]}, a relative of LoRA that cannot be used yet."
            )
    return header, 8 + length


def _place(path: Path, key: str, entry: Any) -> tuple[int, int]:
    place = entry.get("data_offsets") if isinstance(entry, dict) else None
    if (
        not isinstance(place, list)
        or len(place) != 2
        or any(type(at) is not int for at in place)
        or not 0 <= place[0] <= place[1]
    ):
        raise BadFile(f"{path.name} does not say where {key:.100} lies.")
    return place[0], place[1]


def files_of(path: Path) -> list[Path]:
    """All files that a LoRA consists of: itself, and peft's config if it has one."""
    config = path.with_name("adapter_config.json")
    return [path, config] if path.stem == "adapter_model" and config.is_file() else [path]


def _layer(
    path: Path,
    header: Mapping[str, Any],
    stem: str,
    keys: Mapping[str, str],
    alpha: float | None,
    configs: Mapping[str, Mapping[str, Any]],
) -> Layer:
    down, up = (_shape(path, header, keys[role]) for role in ("down", "up"))
    if len(down) < 2 or len(up) < 2 or up[1] != down[0] or any(side != 1 for side in up[2:]):
        raise BadFile(
            f"{path.name}: the two matrices of {stem:.100} do not belong together ({down} and {up})."
        )
    if down[0] > MOST_RANK:
        raise BadFile(
            f"{path.name} has rank {down[0]:,} in {stem:.100}; the studio takes up to {MOST_RANK:,}."
        )
    for key, shape in ((keys["down"], down), (keys["up"], up)):
        begin, end = header[key]["data_offsets"]
        if end - begin != math.prod(shape) * BYTES[header[key]["dtype"]]:
            raise BadFile(f"{path.name}: {key:.100} has not as many bytes as its shape says.")
    prefix, dotted, rest = _NETWORK.fullmatch(stem).groups()  # type: ignore[union-attr]  # it matches any text
    name = rest.replace(".processor.", ".").replace(".", "_")
    name = re.sub(r"(_attn[12]_to_out)$", r"\1_0", name).removeprefix("text_model_")
    name = re.sub(
        r"_self_attn_to_(q|k|v|out)$", r"_self_attn_\1_proj", name
    )  # diffusers, before peft
    bare = "text_encoder" if name.startswith("encoder_layers_") else "unet"
    network = _NETWORKS.get(prefix or "", prefix) or dotted or bare
    config = configs.get(network, configs.get("", {}))
    if alpha is None:
        alpha = _alpha(config, rest)
    if alpha is not None and abs(alpha) > MOST_ALPHA:
        raise BadFile(
            f"{path.name} has alpha {alpha:g} in {stem:.100}; the studio takes up to {MOST_ALPHA:,}."
        )
    return Layer(
        stem,
        network,
        name,
        keys["down"],
        keys["up"],
        down[0],
        tuple(down[1:2] if set(down[2:]) <= {1} else down[1:]),
        up[0],
        float(down[0]) if alpha is None else alpha,
        bool(config.get("use_rslora")) and "alpha" not in keys,
    )


def _shape(path: Path, header: Mapping[str, Any], key: str) -> list[int]:
    entry = header[key]
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if (
        not isinstance(shape, list)
        or len(shape) > 4
        or any(type(side) is not int or side < 1 for side in shape)
    ):
        raise BadFile(f"{path.name}: the shape of {key:.100} is none.")
    if entry.get("dtype") not in FORMATS:
        raise BadFile(
            f"{path.name}: {key:.100} holds {entry.get('dtype')!s:.20} instead of fractions."
        )
    return shape


def _scalar(file: BinaryIO, start: int, path: Path, header: Mapping[str, Any], key: str) -> float:
    """A tensor of one number, without torch."""
    entry = header[key]
    begin, end = _place(path, key, entry)
    try:
        form = (FORMATS | _WHOLE)[entry["dtype"]]
        file.seek(start + begin)
        data = file.read(min(end - begin, 8))
        (value,) = struct.unpack(form, b"\0\0" + data if entry["dtype"] == "BF16" else data)
    except (KeyError, TypeError, ValueError, OSError, OverflowError, struct.error):
        raise BadFile(f"{path.name}: {key:.100} is no number.") from None
    if not math.isfinite(value):
        raise BadFile(f"{path.name}: {key:.100} is no number ({value}).")
    return float(value)


def _configs(path: Path, told: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """peft's settings by network, "" for all: in the header as diffusers writes them, or beside the file as peft does."""
    found: dict[str, dict[str, Any]] = {}
    try:
        written = json.loads(str(told.get("lora_adapter_metadata", "{}")))
        if len(beside := files_of(path)) > 1:
            with open(beside[1], "rb") as file:
                written = json.loads(file.read(MOST_CONFIG)) | written
        for key, value in written.items():
            network, dot, name = key.partition(".")
            config = found.setdefault(network if dot else "", {})
            config[name if dot else key] = value
        for config in found.values():
            config["lora_alpha"] = (
                _number(config["lora_alpha"]) if config.get("lora_alpha") is not None else None
            )
            config["alpha_pattern"] = _endings(config.get("alpha_pattern") or {})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        raise BadFile(
            f"{path.name}: the settings that peft wrote with it cannot be read, so its alpha is not known."
        ) from None
    if any(config.get("use_dora") for config in found.values()):
        raise BadFile(f"{path.name} is a DoRA, a relative of LoRA that cannot be used yet.")
    return found


def _number(value: Any) -> float:
    """Raises ValueError for what is none, and for what a float cannot hold."""
    if type(value) not in (int, float) or not -1e30 < value < 1e30:
        raise ValueError(f"{value!r:.40} is no number")
    return float(value)


def _endings(patterns: Mapping[str, Any]) -> dict[str, tuple[int, float]]:
    """peft's alphas by layer: endings of names, the first that fits goes. Raises ValueError for any other regular expression."""
    found: dict[str, tuple[int, float]] = {}
    for at, (pattern, alpha) in enumerate(patterns.items()):
        ending = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if not re.fullmatch(r"[\w.-]+", ending):
            raise ValueError(f"{pattern!r:.60} is no layer's name")
        found.setdefault(ending, (at, _number(alpha)))
    return found


def _alpha(config: Mapping[str, Any], name: str) -> float | None:
    """What the settings say of one layer."""
    endings, parts = config.get("alpha_pattern", {}), name.split(".")
    fitting = [
        endings[ending] for k in range(len(parts)) if (ending := ".".join(parts[k:])) in endings
    ]
    alpha: float | None = min(fitting)[1] if fitting else config.get("lora_alpha")
    return alpha


def _told(header: Mapping[str, Any]) -> dict[str, str]:
    told = header.get("__metadata__")
    return (
        {str(key): value for key, value in told.items() if isinstance(value, str)}
        if isinstance(told, dict)
        else {}
    )


def _family(layers: list[Layer], told: Mapping[str, str]) -> Family | None:
    """By shapes; where they are silent, by what the trainer wrote."""
    deep = re.compile(r"(?:attentions_\d+|blocks_\d+_1|middle_block_1)_transformer_blocks_[1-9]")
    if any(layer.network == "text_encoder_2" or deep.search(layer.name) for layer in layers):
        return "sdxl"
    told_by = [
        WIDTHS.get(layer.shape[0]) for layer in layers if re.search(r"attn2_to_[kv]$", layer.name)
    ]
    told_by += [
        READERS.get(layer.shape[0])
        for layer in layers
        if re.match(r"lora_te_.*q_proj$", layer.stem)
    ]
    if family := next((family for family in told_by if family), None):
        return family
    version = told.get("ss_base_model_version", "") + told.get("modelspec.architecture", "")
    return next((family for part, family in _VERSIONS.items() if part in version), None)


def _text(written: str) -> str:
    """As it can be shown anywhere: no control characters, no half of a surrogate pair, not long."""
    return "".join(letter if letter.isprintable() else " " for letter in written[:LONGEST]).strip()


def _tags(written: str) -> tuple[tuple[str, int], ...]:
    """kohya's {folder: {tag: how often}} as one list."""
    total: Counter[str] = Counter()
    try:
        for folder in dict(json.loads(written)).values():
            for tag, count in folder.items():
                total[_text(tag)] += int(count)
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return ()
    return tuple((tag, count) for tag, count in total.most_common(MOST_TAGS) if tag and count > 0)
