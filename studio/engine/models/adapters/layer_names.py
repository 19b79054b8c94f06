"""Which layer of a network a file's layer is for, in all the ways that files name them.

Knows: kohya's names, which are diffusers' with underscores, SDXL's own (sgm), and the numbers of
lora_diffusion. Does not know: tensors; whether the shapes fit (kinds.py).

Names are looked up among the network's own modules, so a layer fits exactly or is counted as
unmatched; diffusers' conversion replaces strings, and silently loses what it has no string for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

import torch

from studio.core.families.sgm_names import build_sgm_blocks, to_sgm_path
from studio.engine.models.adapters.kinds import ADAPTABLE
from studio.storage.models.adapter_layers import Layer

# What classes are called today; diffusers renamed them.
_CLASS_TODAY = {"CrossAttention": "Attention"}
# How diffusers ordered the parts of a transformer block when lora_diffusion counted them.
_BLOCK_ORDER_2022 = {"attn1": 0, "ff": 1, "attn2": 2}


def map_layer_names(network: Any, is_unet: bool) -> dict[str, str]:
    """Return the paths of all layers that an adapter can be on, by kohya's and by sgm's names."""
    paths = _list_paths(network)
    names = {path.removeprefix("text_model.").replace(".", "_"): path for path in paths}
    return names | _map_sgm_names(network, paths) if is_unet else names


def map_numbers(
    network: Any, layers: Sequence[Layer], fits: Callable[[Layer, str], bool]
) -> dict[str, str]:
    """Return the paths of the layers that lora_diffusion counts, by their numbers.

    Files since 2022 may count a transformer block's parts in the old order or in today's: the one
    in which more layers fit is taken.

    Args:
        network: The network.
        layers: Those of a file that are numbered in it.
        fits: Whether a file's layer fits the network's layer at a path.
    """
    if not layers:
        return {}
    classes = {_CLASS_TODAY.get(name, name) for name in layers[0].numbered_in}
    numbered: list[str] = []
    for path, module in network.named_modules():
        if type(module).__name__ in classes:
            numbered += [
                f"{path}.{name}".removesuffix(".base_layer")
                for name, layer in module.named_modules()
                if isinstance(layer, torch.nn.Linear)
            ]
    candidates = [
        {str(number): path for number, path in enumerate(order)}
        for order in (_order_as_2022(numbered), numbered)
    ]

    def count_fitting(paths: dict[str, str]) -> int:
        return sum(layer.name in paths and fits(layer, paths[layer.name]) for layer in layers)

    return max(candidates, key=count_fitting)


def _order_as_2022(paths: Sequence[str]) -> list[str]:
    """Reorder the layers within each transformer block."""

    def get_block(path: str) -> str:
        parts = path.split(".")
        part = next((part for part in parts if part in _BLOCK_ORDER_2022), None)
        return ".".join(parts[: parts.index(part)]) if part else path

    def get_rank(path: str) -> int:
        ranks = [_BLOCK_ORDER_2022[part] for part in path.split(".") if part in _BLOCK_ORDER_2022]
        return ranks[0] if ranks else 0

    return [
        path
        for _, block_paths in groupby(paths, get_block)
        for path in sorted(block_paths, key=get_rank)
    ]


def _list_paths(network: Any) -> list[str]:
    return [
        path.removesuffix(".base_layer")
        for path, module in network.named_modules()
        if isinstance(module, ADAPTABLE)
    ]


def _map_sgm_names(unet: Any, paths: Sequence[str]) -> dict[str, str]:
    """Return the paths by the names that SDXL's own code gives them, with underscores."""
    blocks = build_sgm_blocks(
        [len(block.resnets) for block in unet.down_blocks],
        [hasattr(block, "attentions") for block in unet.up_blocks],
    )
    names = {}
    for path in paths:
        with suppress(ValueError):  # sgm has no such layer
            names[to_sgm_path(path, blocks).replace(".", "_")] = path
    return names
