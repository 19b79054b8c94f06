"""LoRA and its relatives in files: what their tensors are called, and which shapes belong together.

Knows: the endings of tensors' names for each kind of adapter, in all dialects; which layer a set of
shapes is for. Does not know: headers (lora_file.py), how layers are named, what is computed with
the tensors (engine/models/adapters/); torch.

Sources: the documentation and state dicts of kohya-ss/sd-scripts, LyCORIS, diffusers, peft and
lora_diffusion; FedPara (arXiv:2108.06098), LyCORIS (arXiv:2309.14859), DoRA (arXiv:2402.09353).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

LORA, LOHA, LOKR, OFT, BOFT = "LoRA", "LoHa", "LoKr", "OFT", "BOFT"
MAX_USUAL_CHARS = 300  # of a tensor's name; longer ones are hostile, and not remembered
IA3, DIFFERENCE, DORA = "(IA)³", "full difference", "DoRA"


@dataclass(frozen=True)
class TensorRule:
    """What a tensor is whose name ends so.

    Attributes:
        ending: Regular expression of the name's end.
        role: What the tensor is in its layer; empty if the studio cannot use it.
        kind: Which kind of adapter it shows; empty if any may have it.
    """

    ending: str
    role: str
    kind: str


# The kinds stand in the order in which they name a file that has several.
TENSOR_RULES: tuple[TensorRule, ...] = (
    *(
        TensorRule(rf"\.{role}(?:\.default)?", role, LOHA)
        for role in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
    ),
    *(
        TensorRule(rf"\.{role}(?:\.default)?", role, LOKR)
        for role in (
            *("lokr_w1", "lokr_w1_a", "lokr_w1_b"),
            *("lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
        )
    ),
    TensorRule(r"\.dora_scale", "dora_scale", DORA),
    TensorRule(r"\.lora_magnitude_vector(?:\.default)?(?:\.weight)?", "magnitude", DORA),
    TensorRule(r"\.boft_\w+(?:\.\w+)*", "", "BOFT of peft"),
    TensorRule(r"\.oft_blocks", "oft_blocks", OFT),
    TensorRule(r"\.rescale", "rescale", OFT),
    TensorRule(r"\.oft_R(?:\.default)?\.weight", "oft_R", OFT),
    TensorRule(r"\.oft_\w+(?:\.\w+)*", "", "OFT in an old form"),
    TensorRule(r"\.on_input", "on_input", IA3),
    TensorRule(r"\.ia3_l(?:\.default)?(?:\.weight)?", "ia3_l", IA3),
    TensorRule(r"\.(?:[ab][12]|bm)\.weight", "", "GLoRA"),
    TensorRule(r"\.(?:lambda_layer|[qp]_layer\.weight)", "", "T-LoRA"),
    TensorRule(r"\.lora_mid\.weight", "mid", LORA),
    TensorRule(r"\.lora_(?:down|A)(?:\.default)?\.weight", "down", LORA),
    TensorRule(r"\.lora_(?:up|B)(?:\.default)?\.weight", "up", LORA),
    TensorRule(r"[._]lora(?:_linear_layer)?\.down\.weight", "down", LORA),
    TensorRule(r"[._]lora(?:_linear_layer)?\.up\.weight", "up", LORA),
    TensorRule(r"_lora_down\.weight", "down", LORA),  # a converter's slip, with a doubled prefix
    TensorRule(r"_lora_up\.weight", "up", LORA),
    TensorRule(r":down", "down", LORA),  # lora_diffusion of 2022
    TensorRule(r":up", "up", LORA),
    TensorRule(r"\.diff", "diff", DIFFERENCE),
    TensorRule(r"\.diff_b", "diff_b", DIFFERENCE),
    TensorRule(r"\.w_norm", "w_norm", DIFFERENCE),
    TensorRule(r"\.b_norm", "b_norm", DIFFERENCE),
    TensorRule(r"\.alpha", "alpha", ""),
)
_ADAPTER_KEY = re.compile(r"(.+?)(?:" + "|".join(f"({r.ending})" for r in TENSOR_RULES) + ")")
# A layer whose effect a DoRA's magnitudes can rescale.
PRODUCTS = (LORA, LOHA, LOKR)
MAGNITUDES = ("dora_scale", "magnitude")


@dataclass(frozen=True)
class LayerShape:
    """The layer that an adapter is for, as far as its tensors tell.

    Attributes:
        out_features: What it gives, 0 if that is not told.
        input_shape: What it takes: (features,), or (channels, height, width) of a convolution's
            kernel; empty if that is not told.
        is_flat: Whether a kernel may be folded into the features that it takes.
        rank: Of the adapter; 0 if it has none.
        num_magnitudes: Of a DoRA; 0 if it is none.
        magnitude_axis: 0 if they are for what the layer gives, 1 for what it takes.
    """

    out_features: int
    input_shape: tuple[int, ...] = ()
    is_flat: bool = False
    rank: int = 0
    num_magnitudes: int = 0
    magnitude_axis: int = 0


def parse_adapter_key(key: str) -> tuple[str, TensorRule] | None:
    """Return the name of a tensor's layer and what the tensor is in it; None for any other."""
    return _parse_usual_key(key) if len(key) <= MAX_USUAL_CHARS else _parse_key(key)


# Files of one trainer have the same names: of 5,000 files, each name is asked about thousands of
# times, and one answer takes 0.1 ms.
@lru_cache(maxsize=50_000)
def _parse_usual_key(key: str) -> tuple[str, TensorRule] | None:
    return _parse_key(key)


def _parse_key(key: str) -> tuple[str, TensorRule] | None:
    match = _ADAPTER_KEY.fullmatch(key)
    if match is None or match.lastindex is None:
        return None
    return match[1], TENSOR_RULES[match.lastindex - 2]


def title_adapter(shapes: Mapping[str, Sequence[int]]) -> str:
    """Return what an adapter is called; empty if none of these tensors is of one.

    Args:
        shapes: Of its tensors, by name.
    """
    rules = {name: parsed[1] for name in shapes if (parsed := parse_adapter_key(name))}
    kinds = {rule.kind for rule in rules.values()}
    titles = [rule.kind for rule in TENSOR_RULES if rule.kind and rule.kind in kinds]
    if not titles:
        return ""
    if DORA in kinds:
        return next((f"{kind} with DoRA" for kind in titles if kind in (LOHA, LOKR)), DORA)

    def has_tensor(kind: str, num_axes: int, min_side: int) -> bool:
        return any(
            rule.kind == kind and len(shapes[name]) == num_axes and shapes[name][-1] >= min_side
            for name, rule in rules.items()
        )

    if titles[0] == LORA and has_tensor(LORA, 4, 2):
        return "LoCon"  # it is on convolutions with a kernel too
    return BOFT if titles[0] == OFT and has_tensor(OFT, 4, 1) else titles[0]


def is_supported(kind: str) -> bool:
    """Whether the studio can use the tensors of a kind."""
    return all(rule.role for rule in TENSOR_RULES if rule.kind == kind)


Shapes = Mapping[str, Sequence[int]]


def measure_layer(kind: str, shapes: Shapes) -> LayerShape | None:
    """Return the layer that tensors of one kind are for; None if they are not complete.

    Args:
        kind: Of PRODUCTS, or OFT, IA3, DIFFERENCE.
        shapes: Of the layer's tensors by role.

    Raises:
        ValueError: They do not belong together.
    """
    measure = {
        LORA: _measure_lora,
        LOHA: _measure_loha,
        LOKR: _measure_lokr,
        OFT: _measure_oft,
        IA3: _measure_ia3,
        DIFFERENCE: _measure_difference,
    }[kind]
    layer = measure(shapes)
    name = next((name for name in MAGNITUDES if name in shapes), None)
    if layer is None or name is None:
        return layer
    axes = [axis for axis, side in enumerate(shapes[name]) if side != 1]
    # LyCORIS shows by the axis what they are for; peft has only those for what the layer gives.
    axis = axes[0] if axes and name == "dora_scale" else 0
    _require(len(axes) <= 1 and axis <= 1, shapes, name)
    return replace(layer, num_magnitudes=math.prod(shapes[name]), magnitude_axis=axis)


def _measure_lora(shapes: Shapes) -> LayerShape | None:
    if "down" not in shapes or "up" not in shapes:
        return None
    down, up = shapes["down"], shapes["up"]
    is_pair = len(down) >= 2 and len(up) >= 2 and set(up[2:]) <= {1}
    kernel = down[2:]
    if "mid" in shapes:
        mid = shapes["mid"]
        _require(len(mid) == 4 and set(kernel) <= {1}, shapes, "mid")
        _require(is_pair and mid[:2] == [up[1], down[0]], shapes, "mid")
        kernel = mid[2:]
    else:
        _require(is_pair and up[1] == down[0], shapes, "down", "up")
    if set(kernel) <= {1}:  # a 1 × 1 kernel takes what a linear layer takes
        kernel = ()
    return LayerShape(up[0], (down[1], *kernel), rank=down[0])


def _measure_loha(shapes: Shapes) -> LayerShape | None:
    names = [f"hada_w{index}_{side}" for index in (1, 2) for side in "ab"]
    if any(name not in shapes for name in names):
        return None
    w1_a, w1_b, w2_a, w2_b = (shapes[name] for name in names)
    _require(all(len(shapes[name]) == 2 for name in names), shapes, *names)
    is_tucker = "hada_t1" in shapes or "hada_t2" in shapes
    if not is_tucker:
        _require(w1_a[1] == w1_b[0] and w2_a[1] == w2_b[0], shapes, *names)
        _require(w1_a[0] == w2_a[0] and w1_b[1] == w2_b[1], shapes, *names)
        return LayerShape(w1_a[0], (w1_b[1],), is_flat=True, rank=w1_b[0])
    if "hada_t1" not in shapes or "hada_t2" not in shapes:
        return None
    t1, t2 = shapes["hada_t1"], shapes["hada_t2"]
    _require(len(t1) == len(t2) == 4 and t1[2:] == t2[2:], shapes, "hada_t1", "hada_t2")
    _require(t1[:2] == [w1_a[0], w1_b[0]] and t2[:2] == [w2_a[0], w2_b[0]], shapes, *names)
    _require(w1_a[1] == w2_a[1] and w1_b[1] == w2_b[1], shapes, *names)
    return LayerShape(w1_a[1], _join_kernel(w1_b[1], t1[2:]), rank=w1_b[0])


def _measure_lokr(shapes: Shapes) -> LayerShape | None:
    first = _measure_factor(shapes, "lokr_w1", None)
    second = _measure_factor(shapes, "lokr_w2", "lokr_t2")
    if first is None or second is None:
        return None
    (out_l, in_m), rank_1 = first
    (out_k, in_n, *kernel), rank_2 = second
    rank = rank_2 or rank_1
    return LayerShape(
        out_l * out_k, _join_kernel(in_m * in_n, kernel), is_flat=not kernel, rank=rank
    )


def _measure_factor(
    shapes: Shapes, name: str, core_name: str | None
) -> tuple[Sequence[int], int] | None:
    """Return the shape of one factor of a Kronecker product, and its rank; 0 if it is whole."""
    if name in shapes:
        shape = shapes[name]
        _require(len(shape) == 2 or (len(shape) == 4 and core_name is not None), shapes, name)
        return shape, 0
    if f"{name}_a" not in shapes or f"{name}_b" not in shapes:
        return None
    side_a, side_b = shapes[f"{name}_a"], shapes[f"{name}_b"]
    _require(len(side_a) == len(side_b) == 2, shapes, f"{name}_a", f"{name}_b")
    if core_name is None or core_name not in shapes:
        _require(side_a[1] == side_b[0], shapes, f"{name}_a", f"{name}_b")
        return (side_a[0], side_b[1]), side_b[0]
    core = shapes[core_name]
    _require(len(core) == 4 and core[:2] == [side_a[0], side_b[0]], shapes, core_name, f"{name}_a")
    return (side_a[1], side_b[1], *core[2:]), side_b[0]


def _measure_oft(shapes: Shapes) -> LayerShape | None:
    if "oft_R" in shapes:  # peft turns what goes in, by blocks that are given above their diagonal
        _require(len(shapes["oft_R"]) == 2, shapes, "oft_R")
        blocks, elements = shapes["oft_R"]
        size = (1 + math.isqrt(1 + 8 * elements)) // 2
        _require(size * (size - 1) == 2 * elements, shapes, "oft_R")
        return LayerShape(0, (blocks * size,))
    if "oft_blocks" not in shapes:
        return None
    *stages, blocks, size, columns = (1, *shapes["oft_blocks"])
    _require(1 <= len(stages) <= 2 and size == columns, shapes, "oft_blocks")
    features = blocks * size
    if len(stages) == 2:  # BOFT: stage i turns what lies 2^i · size / 2 apart
        is_butterfly = size % 2 == 0 and stages[1] <= 32
        _require(is_butterfly and features % (size << (stages[1] - 1)) == 0, shapes, "oft_blocks")
    if "rescale" in shapes:
        _require(math.prod(shapes["rescale"]) == features, shapes, "oft_blocks", "rescale")
    return LayerShape(features)


def _measure_ia3(shapes: Shapes) -> LayerShape | None:
    """Return a layer of which only one side is told; `on_input` says which, and is no shape."""
    name = "ia3_l" if "ia3_l" in shapes else "weight"
    if name not in shapes:
        return None
    sides = [side for side in shapes[name] if side != 1]
    _require(len(sides) <= 1, shapes, name)
    return LayerShape(math.prod(sides))


def _measure_difference(shapes: Shapes) -> LayerShape | None:
    weight = next((name for name in ("diff", "w_norm") if name in shapes), None)
    bias = next((name for name in ("diff_b", "b_norm") if name in shapes), None)
    if weight is None:
        if bias is None:
            return None
        _require(len(shapes[bias]) == 1, shapes, bias)
        return LayerShape(shapes[bias][0])
    out_features, *input_shape = shapes[weight]
    if bias is not None:
        _require(list(shapes[bias]) == [out_features], shapes, weight, bias)
    return (
        LayerShape(out_features, _join_kernel(input_shape[0], input_shape[1:]))
        if (input_shape)
        else LayerShape(out_features)
    )


def _join_kernel(features: int, kernel: Sequence[int]) -> tuple[int, ...]:
    """Return what a layer takes; a 1 × 1 kernel takes what a linear layer takes."""
    return (features,) if set(kernel) <= {1} else (features, *kernel)


def _require(condition: bool, shapes: Shapes, *names: str) -> None:
    """Raise ValueError with the shapes of these tensors unless they fit."""
    if not condition:
        raise ValueError(" and ".join(f"{list(shapes[name])}" for name in names))
