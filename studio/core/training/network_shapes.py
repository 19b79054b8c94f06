"""The tensors of a LoRA, LoHa or LoKr on one layer, with or without DoRA: names and shapes.

Knows: what each kind's tensors are called in files, how LyCORIS divides a layer's sides for LoKr,
how many numbers a training has. Does not know: torch, initial values
(engine/training/trained_layer.py), what is computed with them (engine/models/adapters/).

    LoRA  down (rank, in[, k, k]) · up (out, rank[, 1, 1])                  arXiv:2106.09685
    LoHa  hada_w1_a, hada_w2_a (out, rank) · hada_w1_b, hada_w2_b (rank, in · k · k)
                                                                            arXiv:2108.06098
    LoKr  lokr_w1 (l, m) ⊗ lokr_w2 (k, n[, k, k]), each whole or …_a · …_b  arXiv:2309.14859
    DoRA  dora_scale (out, 1[, 1, 1])                                       arXiv:2402.09353
    norm  w_norm (channels), b_norm (channels)

DoRA's magnitudes are one for each output, as in the paper and peft; LyCORIS since 2024 has that as
its default too (wd_on_output), and files show it by the axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from studio.core.training.config import TrainingConfig
from studio.core.training.lora_targets import TargetModule

HEADER_BYTES_PER_TENSOR = 150  # its name, shape and place, about
BYTES_PER_NUMBER = {"float32": 4, "float16": 2, "bfloat16": 2}


def list_tensor_shapes(config: TrainingConfig, module: TargetModule) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of one layer, by role, in the order they are drawn in."""
    if module.is_norm:
        return {"w_norm": (module.out_features,), "b_norm": (module.out_features,)}
    rank, _ = config.get_rank_and_alpha(module)
    kernel = (module.kernel_size,) * 2 if module.kernel_size else ()
    one = (1,) * len(kernel)
    shapes: dict[str, tuple[int, ...]]
    if config.network_type == "LoHa":
        inputs = module.in_features * math.prod(kernel)
        shapes = {
            "hada_w1_b": (rank, inputs),
            "hada_w1_a": (module.out_features, rank),
            "hada_w2_b": (rank, inputs),
            "hada_w2_a": (module.out_features, rank),
        }
    elif config.network_type == "LoKr":
        shapes = _list_lokr_shapes(config, module, rank, kernel)
    else:
        shapes = {
            "down": (rank, module.in_features, *kernel),
            "up": (module.out_features, rank, *one),
        }
    if config.use_dora:
        shapes["dora_scale"] = (module.out_features, 1, *one)
    return shapes


def _list_lokr_shapes(
    config: TrainingConfig, module: TargetModule, rank: int, kernel: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """Return LoKr's shapes: a factor that its rank would not make smaller stays whole."""
    out_l, out_k = split_side(module.out_features, config.lokr_factor)
    in_m, in_n = split_side(module.in_features, config.lokr_factor)
    is_whole = config.lokr_factors == "both whole"
    shapes: dict[str, tuple[int, ...]] = {}
    if config.lokr_factors == "both by rank" and 2 * rank < max(out_l, in_m):
        shapes |= {"lokr_w1_a": (out_l, rank), "lokr_w1_b": (rank, in_m)}
    else:
        shapes["lokr_w1"] = (out_l, in_m)
    if is_whole or 2 * rank >= max(out_k, in_n):
        shapes["lokr_w2"] = (out_k, in_n, *kernel)
    else:
        shapes |= {"lokr_w2_a": (out_k, rank), "lokr_w2_b": (rank, in_n * math.prod(kernel))}
    return shapes


def split_side(side: int, factor: int | None) -> tuple[int, int]:
    """Divide a layer's side as LyCORIS does for LoKr.

    Args:
        side: The number of inputs or outputs.
        factor: One of the two parts, where it divides the side; else the most that the smaller part
            may be. None is no limit but the square root.

    Returns:
        The smaller and the larger part, whose product is the side.
    """
    limit = math.isqrt(side)
    if factor is not None and side % factor == 0:
        limit = min(factor, side // factor)
    elif factor is not None:
        limit = min(limit, factor)
    small = next(part for part in range(limit, 0, -1) if side % part == 0)
    return small, side // small


def count_parameters(config: TrainingConfig, modules: Iterable[TargetModule]) -> int:
    """Return how many numbers are trained in these layers."""
    return sum(
        math.prod(shape)
        for module in modules
        for shape in list_tensor_shapes(config, module).values()
    )


def estimate_file_bytes(config: TrainingConfig, modules: Iterable[TargetModule]) -> int:
    """Return about how large the finished file is: its numbers, and a header of its tensors."""
    num_bytes = 0
    for module in modules:
        shapes = list_tensor_shapes(config, module)
        numbers = sum(math.prod(shape) for shape in shapes.values())
        num_bytes += numbers * BYTES_PER_NUMBER[config.save_precision]
        num_tensors = len(shapes) + (not module.is_norm)  # with the alpha
        num_bytes += HEADER_BYTES_PER_TENSOR * num_tensors
    return num_bytes
