"""A trained LoRA as one file that A1111, ComfyUI, Forge, diffusers and the studio read alike.

Knows: the tensors (kohya's layout: lora_down.weight, lora_up.weight and alpha of each layer;
LyCORIS' names for LoHa, LoKr, DoRA and norms, which diffusers does not read), the metadata that
other programs read, the bytes of the file.
Does not know: training, the library. It needs no network, only the U-Net's config: a checkpoint can
be exported long after its run. Names of layers: kohya_names.py.

There is deliberately no `lora_adapter_metadata` in the header: beside alphas diffusers refuses it.
The same tensors and the same metadata always make the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from studio.core.families.family import FamilyName
from studio.core.families.registry import FAMILIES
from studio.core.training.config import SETTINGS_METADATA_KEY
from studio.engine.training.kohya_names import get_kohya_names
from studio.errors import BadFile, StudioError
from studio.storage import atomic
from studio.storage.models import lora_file

MAX_TAGS = 5000  # tags of the training captions in the metadata, the most frequent
SAFETENSORS_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


# The ends of tensors' names where they differ from the roles.
KEY_ENDINGS = {"down": "lora_down.weight", "up": "lora_up.weight"}


@dataclass(frozen=True)
class AdapterTensors:
    """One layer's tensors by role (storage/models/adapter_kinds.py).

    The effect is multiplied by alpha / rank; norms have no alpha.
    """

    tensors: Mapping[str, torch.Tensor]
    alpha: float | None

    @property
    def rank(self) -> int:
        """Return the rank; 0 if no tensor has one."""
        for role in ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
            if role in self.tensors:
                return self.tensors[role].shape[0]
        return 0

    @property
    def has_kernel(self) -> bool:
        """Return whether the layer is a convolution with a kernel larger than 1 × 1."""
        return any(side != 1 for tensor in self.tensors.values() for side in tensor.shape[2:])


# By network (unet, text_encoder, text_encoder_2) and path of the module in it.
LoraLayers = Mapping[tuple[str, str], AdapterTensors]


@dataclass(frozen=True)
class LoraExportInfo:
    """What the metadata says of a LoRA.

    `settings` is everything of the studio's own; `network_module` and `network_args` are with which
    kohya would train it; `extra_metadata` are further `ss_…` values of kohya's, without the `ss_`.
    """

    name: str
    family: FamilyName
    base_model: str
    resolution: tuple[int, int]
    prediction_type: str = "epsilon"
    trigger: str = ""
    description: str = ""
    date: str = ""  # ISO 8601
    settings: Mapping[str, Any] = field(default_factory=dict)
    tag_frequency: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    network_module: str = "networks.lora"
    network_args: Mapping[str, str] = field(default_factory=dict)
    extra_metadata: Mapping[str, object] = field(default_factory=dict)

    @property
    def predicts_v(self) -> bool:
        """Return whether the model predicts v (arXiv:2202.00512)."""
        return self.prediction_type == "v_prediction"


def write_lora(
    path: Path,
    layers: LoraLayers,
    *,
    info: LoraExportInfo,
    unet_config: Mapping[str, Any],
    dtype: torch.dtype = torch.float16,
    replace: bool = True,
) -> str:
    """Write a LoRA file aside, read it back, compare, and only then move it to its path.

    Args:
        path: Where the file goes.
        layers: The tensors by network and module path.
        info: What the metadata says.
        unet_config: The U-Net's block types and layers per block; read for SDXL only.
        dtype: The dtype of the tensors in the file: float32, float16 or bfloat16.
        replace: Whether an existing file is replaced.

    Returns:
        The file's sha256.

    Raises:
        FileExistsError: If the file exists and `replace` is False.
        StudioError: If a tensor has values that are not finite, or not finite in `dtype`.
        BadFile: If the file cannot be written, or came back differently.
    """
    with atomic.open_for_writing(path, replace) as file:
        tensors = _build_tensors(layers, info.family, unet_config, dtype)
        body = _serialize_tensors(tensors)
        metadata = _build_metadata(layers, info, _sha256(body.values()))
        chunks: list[Any] = [_encode_header(tensors, body, metadata), *body.values()]
        file.writelines(chunks)
        file.flush()
        _verify_file(Path(file.name), path.name, tensors, metadata)
    return _sha256(chunks)


def read_settings(path: Path) -> dict[str, Any] | None:
    """Return the training settings in a file that the studio wrote, or None in any other.

    Raises:
        BadFile: If the file or its settings cannot be read.
    """
    metadata = atomic.read_safetensors_header(path).get("__metadata__")
    if not isinstance(metadata, dict) or SETTINGS_METADATA_KEY not in metadata:
        return None
    try:
        settings = json.loads(metadata[SETTINGS_METADATA_KEY])
    except (ValueError, TypeError, RecursionError):
        raise BadFile(f"{path.name}: the settings of its training cannot be read.") from None
    return settings if isinstance(settings, dict) else None


def _build_tensors(
    layers: LoraLayers, family: FamilyName, unet_config: Mapping[str, Any], dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Return the file's tensors by kohya's names."""
    tensors: dict[str, torch.Tensor] = {}
    num_tensors = 0
    for path, name in get_kohya_names(layers, family, unet_config).items():
        layer, layer_name = layers[path], ".".join(path)
        for role, tensor in layer.tensors.items():
            key = f"{name}.{KEY_ENDINGS.get(role, role)}"
            # Rounded magnitudes would change layers that have learned nothing.
            role_dtype = torch.float32 if role == "dora_scale" else dtype
            tensors[key] = _cast_finite(tensor, role_dtype, layer_name)
        if layer.alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(float(layer.alpha))
        num_tensors += len(layer.tensors) + (layer.alpha is not None)
    if len(tensors) != num_tensors or not layers:
        raise ValueError(f"{len(layers)} layers came to {len(tensors)} tensors")
    return tensors


def _cast_finite(matrix: torch.Tensor, dtype: torch.dtype, layer_name: str) -> torch.Tensor:
    cast_matrix = matrix.detach().to("cpu", dtype).contiguous()
    if bool(torch.isfinite(cast_matrix).all()):
        return cast_matrix
    advice = "save it as float32 or bfloat16"
    if not bool(torch.isfinite(matrix).all()):
        advice = "the training diverged; use an earlier checkpoint"
    message = f"The LoRA's layer {layer_name:.120} has invalid numbers in {dtype}; {advice}."
    raise StudioError(message.replace("torch.", ""))


def _build_metadata(layers: LoraLayers, info: LoraExportInfo, digest: str) -> dict[str, str]:
    """Build the metadata; all values are text, as safetensors wants it."""
    use_rslora = info.network_args.get("rs_lora") == "True"
    rank, alpha, conv_args = _summarize_ranks(layers, use_rslora)
    width, height = info.resolution
    naming = FAMILIES[info.family].lora_naming
    assert naming
    version = naming.base_model_version
    if naming.says_prediction and info.predicts_v:
        version += "_v"
    metadata: dict[str, object] = {f"ss_{key}": value for key, value in info.extra_metadata.items()}
    metadata |= {
        "ss_v2": info.family == "sd2",
        "ss_base_model_version": version,
        "ss_network_module": info.network_module,
        "ss_network_dim": rank,
        "ss_network_alpha": alpha,
        "ss_network_args": json.dumps({**info.network_args, **conv_args}),
        "ss_output_name": info.name,
        "ss_sd_model_name": info.base_model,
        "ss_resolution": f"({width}, {height})",
        "ss_tag_frequency": json.dumps(_limit_tags(info.tag_frequency), ensure_ascii=False),
        "sshs_model_hash": digest,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{naming.architecture}{_resolution_suffix(info)}/lora",
        "modelspec.implementation": naming.implementation,
        "modelspec.title": info.name,
        "modelspec.resolution": f"{width}x{height}",
        "modelspec.date": info.date,
        "modelspec.trigger_phrase": info.trigger,
        "modelspec.description": info.description,
        "modelspec.prediction_type": "v" if info.predicts_v else "epsilon",
        "modelspec.hash_sha256": f"0x{digest}",
        SETTINGS_METADATA_KEY: json.dumps(info.settings, sort_keys=True, ensure_ascii=False),
    }
    return {
        key: str(value)
        for key, value in sorted(metadata.items())
        if value is not None and value != ""
    }


def _summarize_ranks(
    layers: LoraLayers, use_rslora: bool = False
) -> tuple[int, float, dict[str, str]]:
    """Return the most frequent rank and alpha, and kohya's arguments for convolutions.

    Args:
        layers: The tensors; with rsLoRA √rank is in their alphas, for whoever divides by the rank.
        use_rslora: Whether the metadata says so too: then the alphas are as they were set, lest
            who trains again by them multiplies twice.
    """

    def get_alpha(layer_rank: int, layer_alpha: float) -> float:
        if not use_rslora:
            return layer_alpha
        return float(f"{layer_alpha / math.sqrt(layer_rank):.6g}")

    linear: Counter[tuple[int, float]] = Counter()
    convolutions: Counter[tuple[int, float]] = Counter()
    for layer in layers.values():
        counter = convolutions if layer.has_kernel else linear
        if layer.alpha is not None and layer.rank:
            counter[layer.rank, float(layer.alpha)] += 1
    if not linear and not convolutions:  # a LoKr of whole factors
        return 0, 0.0, {}
    rank, alpha = (linear or convolutions).most_common(1)[0][0]
    network_args = {}
    if convolutions:
        conv_rank, conv_alpha = convolutions.most_common(1)[0][0]
        conv_alpha = get_alpha(conv_rank, conv_alpha)
        network_args = {"conv_dim": str(conv_rank), "conv_alpha": str(conv_alpha)}
    return rank, get_alpha(rank, alpha), network_args


def _resolution_suffix(info: LoraExportInfo) -> str:
    if info.family != "sd2":
        return ""
    return "-768-v" if info.predicts_v else "-512"


def _limit_tags(tags: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Return the most frequent tags, so that the header does not grow without bound."""
    tag_counts: Counter[tuple[str, str]] = Counter()
    for folder, counts in tags.items():
        for tag, count in counts.items():
            tag_counts[folder, tag] = count
    limited: dict[str, dict[str, int]] = {folder: {} for folder in tags}
    for (folder, tag), count in tag_counts.most_common(MAX_TAGS):
        limited[folder][tag] = count
    return limited


def _serialize_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, memoryview]:
    """Return the tensors' bytes in the order of the file: the widest dtype first, for alignment."""
    body = {}
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        data = tensors[name].reshape(-1).view(torch.uint8).numpy()
        body[name] = memoryview(data)  # type: ignore[arg-type]
    return body


def _encode_header(
    tensors: Mapping[str, torch.Tensor], body: Mapping[str, memoryview], metadata: Mapping[str, str]
) -> bytes:
    """Return the beginning of a safetensors file: the header's length and the header.

    The library's own writer puts the header in an order that changes from run to run.
    """
    entries: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for name, data in body.items():
        tensor = tensors[name]
        entries[name] = {
            "dtype": SAFETENSORS_DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + data.nbytes],
        }
        offset += data.nbytes
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def _sha256(chunks: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _verify_file(
    temp_path: Path, name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Compare a written file, by the stock reader and by the studio's own, with what was meant.

    Raises BadFile if it cannot be read, or differs.
    """
    try:
        with safe_open(temp_path, "pt") as file:
            is_same = file.metadata() == metadata and set(file.keys()) == set(tensors)
            is_same = is_same and all(
                torch.equal(file.get_tensor(key), tensor) for key, tensor in tensors.items()
            )
        layers, unknown_keys = lora_file.read_layers(temp_path)
    except (SafetensorError, BadFile, OSError) as error:
        raise BadFile(
            f"{name} could not be read back after it was written ({error!s:.200}); "
            "nothing was replaced."
        ) from error
    expected = {}
    for stem, count in Counter(key.partition(".")[0] for key in tensors).items():
        alpha = tensors.get(f"{stem}.alpha")
        expected[stem] = (count, 0.0) if alpha is None else (count - 1, float(alpha))
    read_back = {layer.stem: (len(layer.tensors), layer.alpha) for layer in layers}
    if not is_same or unknown_keys or read_back != expected:
        raise BadFile(
            f"{name} was read back from the disk with other contents than were written; "
            "nothing was replaced. Check the disk."
        )
