"""Toy upscalers, written as files in all the names that real ones have. Imports nothing of the studio."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]


def compact(
    scale: int = 4, features: int = 8, convs: int = 3, channels: int = 3, seed: int = 1
) -> Tensors:
    """SRVGG-compact as Real-ESRGAN saves it: `body.0`, a PReLU after each convolution but the last."""
    chance = torch.Generator().manual_seed(seed)
    sizes = [(features, channels), *[(features, features)] * convs]
    tensors: Tensors = {}
    for index, (out, into) in enumerate([*sizes, (channels * scale**2, features)]):
        tensors |= conv(f"body.{2 * index}", out, into, chance)
        if index <= convs:
            tensors[f"body.{2 * index + 1}.weight"] = torch.rand(features, generator=chance)
    return tensors


def rrdb(
    doublings: int = 2,
    fold: int = 1,
    features: int = 8,
    growth: int = 4,
    blocks: int = 2,
    channels: int = 3,
    seed: int = 2,
) -> Tensors:
    """ESRGAN's generator in BasicSR's names."""
    chance = torch.Generator().manual_seed(seed)
    tensors = conv("conv_first", features, channels * fold**2, chance)
    for block in range(blocks):
        for dense in (1, 2, 3):
            for index in range(1, 6):
                out = features if index == 5 else growth
                name = f"body.{block}.rdb{dense}.conv{index}"
                tensors |= conv(name, out, features + (index - 1) * growth, chance)
    tensors |= conv("conv_body", features, features, chance)
    for index in range(1, doublings + 1):
        tensors |= conv(f"conv_up{index}", features, features, chance)
    tensors |= conv("conv_hr", features, features, chance)
    return tensors | conv("conv_last", channels, features, chance)


def conv(name: str, out: int, into: int, chance: torch.Generator) -> Tensors:
    spread = 1 / math.sqrt(9 * into)
    weight = torch.randn(out, into, 3, 3, generator=chance) * spread
    return {
        f"{name}.weight": weight,
        f"{name}.bias": torch.randn(out, generator=chance) * 0.1,
    }


def in_first_names(tensors: Tensors, doublings: int = 2) -> Tensors:
    """The same in the numbers of ESRGAN's first release (`model.1.sub.0.RDB1.conv1.0`)."""
    blocks = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("body."))
    after = 2 + 3 * doublings
    renamed = {
        "conv_first": "model.0",
        "conv_body": f"model.1.sub.{blocks}",
        "conv_hr": f"model.{after}",
        "conv_last": f"model.{after + 2}",
        **{f"conv_up{number}": f"model.{3 * number}" for number in range(1, doublings + 1)},
    }
    result: Tensors = {}
    for name, tensor in tensors.items():
        stem, _, ending = name.rpartition(".")
        if stem.startswith("body."):
            _, block, dense, convolution = stem.split(".")
            new_stem = f"model.1.sub.{block}.{dense.upper()}.{convolution}.0"
        else:
            new_stem = renamed[stem]
        result[f"{new_stem}.{ending}"] = tensor
    return result


def in_trunk_names(tensors: Tensors) -> Tensors:
    """The same in the names of the ESRGAN repository (`RRDB_trunk.0.RDB1.conv1`)."""
    pairs = (
        ("body.", "RRDB_trunk."),
        (".rdb", ".RDB"),
        ("conv_body", "trunk_conv"),
        ("conv_up", "upconv"),
        ("conv_hr", "HRconv"),
    )
    result: Tensors = {}
    for name, tensor in tensors.items():
        new_name = name if name.startswith("conv_body") else name.replace("body.", "RRDB_trunk.")
        for old, new in pairs[1:]:
            new_name = new_name.replace(old, new)
        result[new_name] = tensor
    return result


def list_shapes(tensors: Tensors) -> dict[str, list[int]]:
    """The names and shapes that a header of such a file has."""
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def write(path: Path, tensors: Tensors, dtype: torch.dtype = torch.float32) -> Path:
    """Write a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}, path)
    return path
