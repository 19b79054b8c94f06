"""A U-Net's config from the shapes of its tensors alone.

Knows: how LDM, sgm and diffusers name the blocks of Stable Diffusion's U-Nets, cut-down ones too.
Does not know: files, weights, autoencoders and text encoders (checkpoint_configs.py).

Sources: the UNetModel of CompVis' stable-diffusion and Stability's generative-models, diffusers'
UNet2DConditionModel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.errors import BadFile

Shapes = Mapping[str, Sequence[int]]

MAX_BLOCKS = 100  # of a side; SDXL has nine
MAX_DEPTH = 100  # layers of a transformer; SDXL has ten
# Stable Diffusion 1.x has eight heads at every width, later ones have heads of 64.
EIGHT_HEADS_CONTEXT = 768
HEAD_SIZE = 64
SIZE_EMBEDDING = 256  # numbers for each of SDXL's six sizes


@dataclass
class _Level:
    """The blocks of one width on the way down."""

    channels: int
    depths: list[int] = field(default_factory=list)  # transformer layers after each ResNet


@dataclass(frozen=True)
class _Blocks:
    """What the names of a U-Net's tensors say of its blocks."""

    levels: list[_Level]
    up_depths: list[list[int]]  # of each level on the way up, the deepest first
    mid_resnets: int
    mid_depth: int
    has_linear_projection: bool


def build_unet_config(shapes: Shapes) -> dict[str, Any]:
    """Return diffusers' config of a U-Net.

    Args:
        shapes: Of its tensors, without a prefix, by LDM's names or by diffusers'.

    Raises:
        BadFile: They are not those of a whole U-Net; a sentence that begins with "its".
    """
    is_ldm = "input_blocks.0.0.weight" in shapes
    blocks = _read_ldm_blocks(shapes) if is_ldm else _read_diffusers_blocks(shapes)
    first, last, adm = (
        ("input_blocks.0.0.weight", "out.2.weight", "label_emb.0.0.weight")
        if is_ldm
        else ("conv_in.weight", "conv_out.weight", "add_embedding.linear_1.weight")
    )
    context = _find_size(shapes, "attn2.to_k.weight")
    channels = [level.channels for level in blocks.levels]
    config: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "in_channels": _get_size(shapes, first, 1),
        "out_channels": _get_size(shapes, last, 0),
        "block_out_channels": channels,
        "layers_per_block": _get_layers_per_block(blocks),
        "cross_attention_dim": context,
        "attention_head_dim": (
            8
            if context == EIGHT_HEADS_CONTEXT
            else [max(1, width // HEAD_SIZE) for width in channels]
        ),
        "use_linear_projection": blocks.has_linear_projection,
        **_describe_transformers(blocks),
    }
    if adm in shapes:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": SIZE_EMBEDDING,
            "projection_class_embeddings_input_dim": _get_size(shapes, adm, 1),
        }
    return config


def _read_ldm_blocks(shapes: Shapes) -> _Blocks:
    levels: list[_Level] = []
    is_open = False  # whether the last level may go on
    for index in range(1, MAX_BLOCKS):
        if f"input_blocks.{index}.0.op.weight" in shapes:
            is_open = False
            continue
        shape = shapes.get(f"input_blocks.{index}.0.out_layers.3.weight")
        if not shape:
            break
        if not is_open:
            levels.append(_Level(shape[0]))
            is_open = True
        levels[-1].depths.append(_count_layers(shapes, f"input_blocks.{index}.1"))
    up_depths: list[list[int]] = [[]]
    for index in range(MAX_BLOCKS):
        if f"output_blocks.{index}.0.out_layers.3.weight" not in shapes:
            break
        if len(up_depths[-1]) > (len(levels[0].depths) if levels else 0):
            up_depths.append([])
        up_depths[-1].append(_count_layers(shapes, f"output_blocks.{index}.1"))
    mid_resnets = sum(
        f"middle_block.{number}.out_layers.3.weight" in shapes for number in range(MAX_BLOCKS)
    )
    return _Blocks(
        levels,
        up_depths,
        mid_resnets,
        mid_depth=_count_layers(shapes, "middle_block.1"),
        has_linear_projection=_is_linear(shapes),
    )


def _read_diffusers_blocks(shapes: Shapes) -> _Blocks:
    levels: list[_Level] = []
    up_depths: list[list[int]] = []
    for level in range(MAX_BLOCKS):
        block = f"down_blocks.{level}"
        shape = shapes.get(f"{block}.resnets.0.conv1.weight")
        if not shape:
            break
        count = _count_numbered(shapes, f"{block}.resnets.{{}}.conv1.weight")
        depths = [_count_layers(shapes, f"{block}.attentions.{layer}") for layer in range(count)]
        levels.append(_Level(shape[0], depths))
        block = f"up_blocks.{level}"
        count = _count_numbered(shapes, f"{block}.resnets.{{}}.conv1.weight")
        up_depths.append(
            [_count_layers(shapes, f"{block}.attentions.{layer}") for layer in range(count)]
        )
    return _Blocks(
        levels,
        up_depths,
        mid_resnets=_count_numbered(shapes, "mid_block.resnets.{}.conv1.weight"),
        mid_depth=_count_layers(shapes, "mid_block.attentions.0"),
        has_linear_projection=_is_linear(shapes),
    )


def _get_layers_per_block(blocks: _Blocks) -> int:
    counts = {len(level.depths) for level in blocks.levels}
    expected = [next(iter(counts), 0) + 1] * len(blocks.levels)
    if len(counts) != 1 or [len(depths) for depths in blocks.up_depths] != expected:
        raise BadFile("its U-Net lacks whole blocks; copy the file again.")
    return counts.pop()


def _describe_transformers(blocks: _Blocks) -> dict[str, Any]:
    """Return the keys that say how deep the transformers of all blocks are."""
    down = [level.depths for level in blocks.levels]
    names = ["CrossAttnDownBlock2D" if any(depths) else "DownBlock2D" for depths in down]
    up_names = ["CrossAttnUpBlock2D" if any(depths) else "UpBlock2D" for depths in blocks.up_depths]
    config: dict[str, Any] = {"down_block_types": names, "up_block_types": up_names}
    if blocks.mid_resnets == 2 and blocks.mid_depth:
        config["mid_block_type"] = "UNetMidBlock2DCrossAttn"
    elif blocks.mid_resnets == 1 and not blocks.mid_depth:
        config["mid_block_type"] = "UNetMidBlock2D"
    elif not blocks.mid_resnets:
        config["mid_block_type"] = None
    else:
        raise BadFile("its U-Net has an unknown kind of middle block.")
    mid_depth = blocks.mid_depth or 1
    uniform = [depths[0] if len(set(depths)) == 1 else 0 for depths in down]
    is_even = all(
        set(depths) == {uniform[-1 - level]} and len(set(down[-1 - level])) == 1
        for level, depths in enumerate(blocks.up_depths)
    )
    if is_even and uniform[-1] in (0, mid_depth, *([] if blocks.mid_depth else uniform)):
        depths = [depth or 1 for depth in uniform]
        depths[-1] = uniform[-1] or mid_depth
        config["transformer_layers_per_block"] = 1 if set(depths) == {1} else depths
        return config
    if any(0 in depths and any(depths) for depths in (*down, *blocks.up_depths)):
        raise BadFile("its U-Net has transformers in unknown places.")
    if blocks.mid_depth:
        raise BadFile("its U-Net's blocks have unknown depths.")
    config["transformer_layers_per_block"] = [_or_one(depths) for depths in down]
    config["reverse_transformer_layers_per_block"] = [
        _or_one(depths) for depths in blocks.up_depths
    ]
    return config


def _or_one(depths: list[int]) -> list[int] | int:
    """Return the depths of a block, or 1 of one that has no transformers."""
    return list(depths) if any(depths) else 1


def _count_layers(shapes: Shapes, path: str) -> int:
    """Return how many layers the transformer at a path has."""
    return _count_numbered(shapes, f"{path}.transformer_blocks.{{}}.norm1.weight")


def _count_numbered(shapes: Shapes, pattern: str) -> int:
    return next(
        (number for number in range(MAX_DEPTH) if pattern.format(number) not in shapes), MAX_DEPTH
    )


def _is_linear(shapes: Shapes) -> bool:
    """Whether the transformers are entered through a linear layer instead of a convolution."""
    return any(len(shape) == 2 for name, shape in shapes.items() if name.endswith("proj_in.weight"))


def _find_size(shapes: Shapes, ending: str) -> int:
    for name, shape in shapes.items():
        if name.endswith(ending) and len(shape) > 1:
            return shape[1]
    raise BadFile("its U-Net reads no text.")


def _get_size(shapes: Shapes, name: str, axis: int) -> int:
    shape = shapes.get(name, ())
    if len(shape) <= axis:
        raise BadFile(f"its U-Net lacks {name}; copy the file again.")
    return shape[axis]
