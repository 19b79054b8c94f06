"""A trained LoRA as one file that A1111, ComfyUI, Forge, diffusers and the studio read at the same scale.

Knows: kohya's names (for SDXL's U-Net those of SDXL's own code), the header that other programs read. Does not know: training,
the library. It needs no network, only the U-Net's config: a checkpoint can be exported long after its run.

    lora_unet_down_blocks_0_attentions_0_…_to_q.lora_down.weight / .lora_up.weight / .alpha     SD 1.x and 2.x
    lora_unet_input_blocks_4_1_…_to_q.…                                                         SDXL
    lora_te_text_model_encoder_layers_0_…_q_proj.…, SDXL: lora_te1_text_model_…, lora_te2_text_model_…

There is deliberately no `lora_adapter_metadata` in the header: beside alphas diffusers refuses it. The same tensors and the same
header always make the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open

from studio.core.catalog import Family
from studio.errors import BadFile, StudioError
from studio.storage import atomic
from studio.storage.models import lora_file

MOST_TAGS = 5000  # of the training captions in the header, the most frequent
OURS = "studio.training"  # our settings, from which the run can be repeated
PREFIXES: dict[str, dict[str, str]] = {
    "sd1": {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"},
    "sdxl": {
        "unet": "lora_unet_",
        "text_encoder": "lora_te1_text_model_",
        "text_encoder_2": "lora_te2_text_model_",
    },
}
PREFIXES["sd2"] = PREFIXES["sd1"]
ARCHITECTURES: dict[Family, str] = {
    "sd1": "stable-diffusion-v1",
    "sd2": "stable-diffusion-v2",
    "sdxl": "stable-diffusion-xl-v1-base",
}
VERSIONS: dict[Family, str] = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}
TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
FORMATS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


class Pair(NamedTuple):
    """One layer's matrices: effect = up · down · alpha / rank."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float


Layers = Mapping[
    tuple[str, str], Pair
]  # by network (unet, text_encoder, text_encoder_2) and path of the module in it


@dataclass(frozen=True)
class About:
    """What the header says. `settings` is all of our own; `more` are further `ss_…` values of kohya's, without the `ss_`."""

    name: str
    family: Family
    base_model: str
    resolution: tuple[int, int]
    prediction: str = "epsilon"
    trigger: str = ""
    description: str = ""
    date: str = ""  # ISO 8601
    settings: Mapping[str, Any] = field(default_factory=dict)
    tag_frequency: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    more: Mapping[str, object] = field(default_factory=dict)


def collect(networks: Mapping[str, torch.nn.Module], adapter: str) -> dict[tuple[str, str], Pair]:
    """The matrices of one adapter of peft's on some networks."""
    found = {}
    for network, module in networks.items():
        for path, layer in module.named_modules():
            if isinstance(layer, LoraLayer) and adapter in layer.lora_A:
                down, up = (
                    layer.lora_A[adapter].weight.detach(),  # type: ignore[operator]
                    layer.lora_B[adapter].weight.detach(),  # type: ignore[operator]
                )
                found[network, path] = Pair(down, up, float(layer.lora_alpha[adapter]))
    return found


def stems(
    paths: Iterable[tuple[str, str]], family: Family, unet: Mapping[str, Any]
) -> dict[tuple[str, str], str]:
    """kohya's name of each layer; `unet` is the U-Net's config. Raises KeyError for a network the family has not."""
    blocks = _sgm(unet) if family == "sdxl" else {}
    found = {}
    for network, path in paths:
        inner = path.removeprefix("text_model.")
        inner = _renamed(inner, blocks) if network == "unet" and blocks else inner
        found[network, path] = PREFIXES[family][network] + inner.replace(".", "_")
    return found


def write(
    path: Path,
    layers: Layers,
    about: About,
    unet: Mapping[str, Any],
    dtype: torch.dtype = torch.float16,
    replace: bool = True,
) -> str:
    """Write the file, read it back, compare, and only then give it its name. Gives its sha256.

    Without `replace` an existing file raises FileExistsError.
    Raises StudioError for matrices that are no numbers (or none in `dtype`), BadFile if it came back differently.
    """
    with atomic.writing(path, replace) as out:
        tensors = _tensors(layers, about.family, unet, dtype)
        body = _body(tensors)
        header = _header(layers, about, _sha256(body.values()))
        pieces = [_head(tensors, body, header), *body.values()]
        out.writelines(pieces)  # type: ignore[arg-type]
        out.flush()
        _compare(Path(out.name), path.name, tensors, header)
    return _sha256(pieces)  # type: ignore[arg-type]


def _tensors(
    layers: Layers, family: Family, unet: Mapping[str, Any], dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for key, stem in stems(layers, family, unet).items():
        pair = layers[key]
        for role, matrix in (("down", pair.down), ("up", pair.up)):
            tensors[f"{stem}.lora_{role}.weight"] = _cast(matrix, dtype, ".".join(key))
        tensors[f"{stem}.alpha"] = torch.tensor(float(pair.alpha))
    if len(tensors) != 3 * len(layers) or not layers:
        raise ValueError(f"{len(layers)} layers came to {len(tensors)} tensors")
    return tensors


def settings_of(path: Path) -> dict[str, Any] | None:
    """Our settings in a file that we wrote; None in any other. Raises BadFile for a broken file."""
    told = atomic.safetensors_header(path).get("__metadata__")
    try:
        found = json.loads(told[OURS]) if isinstance(told, dict) and OURS in told else None
    except (ValueError, TypeError, RecursionError):
        raise BadFile(f"{path.name}: the settings of its training cannot be read.") from None
    return found if isinstance(found, dict) else None


def _cast(matrix: torch.Tensor, dtype: torch.dtype, where: str) -> torch.Tensor:
    found = matrix.detach().to("cpu", dtype).contiguous()
    if not bool(torch.isfinite(found).all()):
        why = (
            "the training broke; take an earlier checkpoint"
            if not bool(torch.isfinite(matrix).all())
            else "save it as float32 or bfloat16"
        )
        raise StudioError(
            f"The LoRA's layer {where:.120} has values that are no numbers in {dtype}: {why}.".replace(
                "torch.", ""
            )
        )
    return found


def _sgm(unet: Mapping[str, Any]) -> dict[str, str]:
    """SDXL's own names of the U-Net's blocks, by diffusers' names."""
    found = dict(TOP)
    downs, ups = list(unet["down_block_types"]), list(unet["up_block_types"])
    given = unet["layers_per_block"]
    layers = [given] * len(downs) if isinstance(given, int) else list(given)
    at = 1
    for k, count in enumerate(layers):
        for which in range(count):
            found[f"down_blocks.{k}.resnets.{which}"] = f"input_blocks.{at}.0"
            found[f"down_blocks.{k}.attentions.{which}"] = f"input_blocks.{at}.1"
            at += 1
        if k < len(downs) - 1:
            found[f"down_blocks.{k}.downsamplers.0.conv"] = f"input_blocks.{at}.0.op"
            at += 1
    at = 0
    for k, count in enumerate(reversed(layers)):
        for which in range(count + 1):
            found[f"up_blocks.{k}.resnets.{which}"] = f"output_blocks.{at}.0"
            found[f"up_blocks.{k}.attentions.{which}"] = f"output_blocks.{at}.1"
            at += 1
        found[f"up_blocks.{k}.upsamplers.0.conv"] = (
            f"output_blocks.{at - 1}.{1 + ('Attn' in ups[k])}.conv"
        )
    return found


def _renamed(path: str, blocks: Mapping[str, str]) -> str:
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        block, rest = ".".join(parts[:count]), ".".join(parts[count:])
        if block in blocks:
            return f"{blocks[block]}.{RESNET.get(rest, rest)}".removesuffix(".")
    raise ValueError(f"{path} has no name in SDXL's own code")


def _header(layers: Layers, about: About, digest: str) -> dict[str, str]:
    """All values are text, as safetensors wants it."""
    linear = Counter(
        (pair.down.shape[0], float(pair.alpha))
        for pair in layers.values()
        if set(pair.down.shape[2:]) <= {1}
    )
    kernels = Counter(
        (pair.down.shape[0], float(pair.alpha))
        for pair in layers.values()
        if not set(pair.down.shape[2:]) <= {1}
    )
    rank, alpha = (linear or kernels).most_common(1)[0][0]
    args = (
        dict(zip(("conv_dim", "conv_alpha"), map(str, kernels.most_common(1)[0][0])))
        if kernels
        else {}
    )
    width, height = about.resolution
    version = VERSIONS[about.family] + (
        "_v" if about.family != "sdxl" and about.prediction == "v_prediction" else ""
    )
    told: dict[str, object] = {f"ss_{key}": value for key, value in about.more.items()} | {
        "ss_v2": about.family == "sd2",
        "ss_base_model_version": version,
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": alpha,
        "ss_network_args": json.dumps(args),
        "ss_output_name": about.name,
        "ss_sd_model_name": about.base_model,
        "ss_resolution": f"({width}, {height})",
        "ss_tag_frequency": json.dumps(_frequent(about.tag_frequency), ensure_ascii=False),
        "sshs_model_hash": digest,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{ARCHITECTURES[about.family]}{_size(about)}/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models"
        if about.family == "sdxl"
        else "diffusers",
        "modelspec.title": about.name,
        "modelspec.resolution": f"{width}x{height}",
        "modelspec.date": about.date,
        "modelspec.trigger_phrase": about.trigger,
        "modelspec.description": about.description,
        "modelspec.prediction_type": "v" if about.prediction == "v_prediction" else "epsilon",
        "modelspec.hash_sha256": f"0x{digest}",
        OURS: json.dumps(about.settings, sort_keys=True, ensure_ascii=False),
    }
    return {
        key: str(value) for key, value in sorted(told.items()) if value is not None and value != ""
    }


def _size(about: About) -> str:
    return (
        "" if about.family != "sd2" else "-768-v" if about.prediction == "v_prediction" else "-512"
    )


def _frequent(tags: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Whole, unless it would make the header a burden to those who read it."""
    every = Counter(
        {(folder, tag): count for folder, counts in tags.items() for tag, count in counts.items()}
    )
    found: dict[str, dict[str, int]] = {folder: {} for folder in tags}
    for (folder, tag), count in every.most_common(MOST_TAGS):
        found[folder][tag] = count
    return found


def _body(tensors: Mapping[str, torch.Tensor]) -> dict[str, memoryview]:
    """The tensors' bytes in the order of the file: the widest format first, so that all lie where processors like them."""
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    return {name: memoryview(tensors[name].reshape(-1).view(torch.uint8).numpy()) for name in names}  # type: ignore[arg-type]


def _head(
    tensors: Mapping[str, torch.Tensor], body: Mapping[str, memoryview], header: Mapping[str, str]
) -> bytes:
    """The beginning of a safetensors file. Its own writer puts the header in an order that changes from run to run."""
    entries: dict[str, Any] = {"__metadata__": header}
    at = 0
    for name, data in body.items():
        entries[name] = {
            "dtype": FORMATS[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [at, at + data.nbytes],
        }
        at += data.nbytes
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _sha256(pieces: Iterable[bytes | memoryview]) -> str:
    total = hashlib.sha256()
    for piece in pieces:
        total.update(piece)
    return total.hexdigest()


def _compare(
    aside: Path, name: str, tensors: Mapping[str, torch.Tensor], header: Mapping[str, str]
) -> None:
    """By the stock reader, and by the studio's own."""
    try:
        with safe_open(aside, "pt") as file:
            same = file.metadata() == header and set(file.keys()) == set(tensors)
            same = same and all(
                torch.equal(file.get_tensor(key), tensor) for key, tensor in tensors.items()
            )
        layers, strays = lora_file.read(aside)
    except (SafetensorError, BadFile, OSError) as error:
        raise BadFile(
            f"{name} could not be read back after it was written ({error!s:.200}); nothing was replaced."
        ) from error
    alphas = {layer.stem: layer.alpha for layer in layers}
    if (
        not same
        or strays
        or alphas
        != {
            key.removesuffix(".alpha"): float(tensor)
            for key, tensor in tensors.items()
            if key.endswith(".alpha")
        }
    ):
        raise BadFile(
            f"{name} came back from the disk differently than it was written; nothing was replaced. Is the disk sound?"
        )
