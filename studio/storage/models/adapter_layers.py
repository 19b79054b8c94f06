"""The layers of a LoRA file and of its relatives, read from the header: kinds, shapes, alphas.

Knows: how kohya's trainer, A1111's extensions, LyCORIS, ComfyUI, diffusers, peft and lora_diffusion
name layers and store the alpha. Does not know: what a whole file is (lora_file.py), what its
tensors are called (adapter_kinds.py); torch; which of a model's layers they fit
(engine/models/adapters/).

    lora_unet_down_blocks_0_…_to_q.lora_down.weight / .lora_up.weight / .alpha
                                        kohya, LyCORIS; also lora_te_, lora_te1_, lora_te2_
    lycoris_down_blocks_0_…_to_q.lokr_w1 / …
                                        LyCORIS by itself
    diffusion_model.input_blocks.1.….to_q.lora_down.weight, text_encoders.clip_l.transformer.…
                                        ComfyUI
    unet.down_blocks.0.….to_q.lora_A.weight / .lora_B.weight
                                        diffusers; alpha in `lora_adapter_metadata`
    unet.….processor.to_q_lora.down.weight, unet.….to_q.lora.down.weight
                                        diffusers, older
    base_model.model.down_blocks.0.….to_q.lora_A.weight
                                        peft; alpha in adapter_config.json beside the file
    unet:0:down / unet:0:up             lora_diffusion, 2022; layers are numbered
    lora_unet_unet_down_blocks_0_…_to_q_lora_down.weight
                                        a converter's slip

Sources: the documentation of kohya-ss/sd-scripts, LyCORIS, diffusers, peft and lora_diffusion.
Without an alpha the rank is taken for it, as all of them do.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from studio.errors import BadFile
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
)
from studio.storage.models.header_rules import DTYPE_BYTES
from studio.storage.models.peft_config import (
    PeftConfig,
    get_number,
    is_feedforward,
    read_peft_configs,
)

MAX_RANK = 1024
MAX_ALPHA = 100_000
MAX_CLASSES = 30
# Of the numbers of a tensor; those of 8 and 16 bits that struct does not know are widened first.
STRUCT_FORMATS = {
    "F64": "<d",
    "F32": "<f",
    "F16": "<e",
    "BF16": "<f",
    "F8_E4M3": "<d",
    "F8_E5M2": "<e",
}
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

Keys = Mapping[str, tuple[TensorRule, str]]  # of one layer: role → (rule, tensor's name)


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


class LayerReader:
    """Builds the layers of one file."""

    def __init__(
        self, file: BinaryIO, path: Path, header: Mapping[str, Any], data_start: int
    ) -> None:
        """Read peft's settings. Raises BadFile if they cannot be read."""
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
                f"{self.path.name} has alpha {alpha:g} in {stem:.100}; the studio accepts up to "
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
            raise BadFile(
                f"{name} claims to be a DoRA but has no magnitudes in {layer.stem:.100}; save it "
                "again with them."
            )
        if ":" in layer.stem:
            return replace(layer, numbered_in=self._read_classes(layer.network))
        if "oft_R" in layer.tensors:
            if not config or config.get("coft") or config.get("block_share"):
                raise BadFile(
                    f"{name} is an OFT of peft, which cannot be used without its "
                    "adapter_config.json beside it, or with coft or block_share in that."
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
                f"{path.name}: the matrices of {stem:.100} do not fit together ({error!s:.100})."
            ) from None
        if shape is not None and shape.rank > MAX_RANK:
            raise BadFile(
                f"{path.name} has rank {shape.rank:,} in {stem:.100}; the studio accepts up to "
                f"{MAX_RANK:,}."
            )
        for role, key in tensors.items():
            _check_num_bytes(path, header, key, shapes[role])
        return shape

    def _read_classes(self, network: str) -> tuple[str, ...]:
        """Return the classes whose layers lora_diffusion numbers. Raises BadFile."""
        try:
            classes = json.loads(str(self.metadata.get(network)))
            if not isinstance(classes, list) or not 1 <= len(classes) <= MAX_CLASSES:
                raise ValueError("no list of classes")
        except (ValueError, RecursionError):
            raise BadFile(
                f"{self.path.name} only numbers the layers of {network}, and its header does not "
                "say which classes it counts; save it again with another program."
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


def read_offsets(path: Path, key: str, entry: Any) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or any(type(offset) is not int for offset in offsets)
        or not 0 <= offsets[0] <= offsets[1]
    ):
        raise BadFile(f"{path.name} does not say where {key:.100} is.")
    return offsets[0], offsets[1]


def _check_num_bytes(path: Path, header: Mapping[str, Any], key: str, shape: list[int]) -> None:
    begin, end = header[key]["data_offsets"]
    if end - begin != math.prod(shape) * DTYPE_BYTES[header[key]["dtype"]]:
        raise BadFile(f"{path.name}: the size of {key:.100} does not match its shape.")


def _read_shape(path: Path, header: Mapping[str, Any], key: str) -> list[int]:
    entry = header[key]
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if (
        not isinstance(shape, list)
        or len(shape) > 4
        or any(type(side) is not int or side < 1 for side in shape)
    ):
        raise BadFile(f"{path.name}: the shape of {key:.100} is not valid. Copy the file again.")
    if entry.get("dtype") not in STRUCT_FORMATS:
        raise BadFile(
            f"{path.name}: {key:.100} contains {entry.get('dtype')!s:.20} instead of "
            "floating-point numbers."
        )
    return shape


def _read_scalar(
    file: BinaryIO, data_start: int, path: Path, header: Mapping[str, Any], key: str
) -> float:
    """Read a tensor of one number, without torch."""
    entry = header[key]
    begin, end = read_offsets(path, key, entry)
    try:
        struct_format = (STRUCT_FORMATS | _INTEGER_FORMATS)[entry["dtype"]]
        file.seek(data_start + begin)
        data = file.read(min(end - begin, 8))
        if entry["dtype"] == "BF16":  # the upper half of a float32
            data = b"\0\0" + data
        elif entry["dtype"] == "F8_E5M2":  # the upper half of a float16
            data = b"\0" + data
        elif entry["dtype"] == "F8_E4M3":
            data = struct.pack("<d", _decode_e4m3(data))
        (value,) = struct.unpack(struct_format, data)
    except (KeyError, TypeError, ValueError, OSError, OverflowError, struct.error):
        raise BadFile(f"{path.name}: {key:.100} is not a number.") from None
    if not math.isfinite(value):
        raise BadFile(f"{path.name}: {key:.100} is not a number ({value}).")
    return float(value)


def _decode_e4m3(data: bytes) -> float:
    """Return the number in one byte: sign, 4 bits of exponent, 3 of mantissa, without infinities.

    The variant e4m3fn of arXiv:2209.05433, which torch and safetensors call F8_E4M3.
    """
    (byte,) = data
    sign = -1.0 if byte & 0x80 else 1.0
    exponent, mantissa = byte >> 3 & 0xF, byte & 0x7
    if exponent == 0xF and mantissa == 0x7:
        return math.nan
    if exponent == 0:
        return float(sign * mantissa * 2.0**-9)
    return float(sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7))
