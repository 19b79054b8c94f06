"""An autoencoder's config from the shapes of its tensors, and the first tensor that it lacks.

Knows: how LDM and diffusers name the blocks of Stable Diffusion's autoencoders. Does not know:
files, weights, which family an autoencoder is for.

Sources: CompVis' autoencoder, diffusers' AutoencoderKL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from studio.core.families.unet_shapes import Shapes
from studio.errors import BadFile


@dataclass(frozen=True)
class _Names:
    """What one program calls the layers.

    Attributes:
        place: What the names of a block's tensors on the way down begin with; level and number.
        down: A block on the way down, by level and number.
        up: One on the way up.
        downsample: What makes a level smaller.
        upsample: What makes one larger.
        middle: The two blocks in the middle.
        attention: What is between them.
        attention_layers: Its layers; older files have the second set.
        shortcut: Of a block that changes the number of channels.
        last_norm: Before the last convolution.
    """

    place: re.Pattern[str]
    down: str
    up: str
    downsample: str
    upsample: str
    middle: tuple[str, str]
    attention: str
    attention_layers: tuple[tuple[str, ...], ...]
    shortcut: str
    last_norm: str


_LDM = _Names(
    place=re.compile(r"encoder\.down\.(\d)\.block\.(\d\d?)\."),
    down="down.{}.block.{}",
    up="up.{}.block.{}",
    downsample="down.{}.downsample.conv",
    upsample="up.{}.upsample.conv",
    middle=("mid.block_1", "mid.block_2"),
    attention="mid.attn_1",
    attention_layers=(("norm", "q", "k", "v", "proj_out"),),
    shortcut="nin_shortcut",
    last_norm="norm_out",
)
_DIFFUSERS = _Names(
    place=re.compile(r"encoder\.down_blocks\.(\d)\.resnets\.(\d\d?)\."),
    down="down_blocks.{}.resnets.{}",
    up="up_blocks.{}.resnets.{}",
    downsample="down_blocks.{}.downsamplers.0.conv",
    upsample="up_blocks.{}.upsamplers.0.conv",
    middle=("mid_block.resnets.0", "mid_block.resnets.1"),
    attention="mid_block.attentions.0",
    attention_layers=(
        ("group_norm", "to_q", "to_k", "to_v", "to_out.0"),
        ("group_norm", "query", "key", "value", "proj_attn"),
    ),
    shortcut="conv_shortcut",
    last_norm="conv_norm_out",
)


def build_vae_config(shapes: Shapes, scaling_factor: float) -> dict[str, Any]:
    """Return diffusers' config of an autoencoder.

    Args:
        shapes: Of its tensors, without a prefix, by LDM's names or by diffusers'.
        scaling_factor: Of its family.

    Raises:
        BadFile: They are not those of a whole autoencoder; a sentence that begins with "its".
    """
    channels, layers = _measure_blocks(shapes)
    latents = shapes.get("decoder.conv_in.weight", ())
    missing = find_missing_vae_tensor(shapes)
    if missing:
        raise BadFile(f"its autoencoder lacks {missing}; copy the file again.")
    if not all(channels) or len(latents) < 2:
        raise BadFile("its autoencoder has layers of no size; copy the file again.")
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": latents[1],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "scaling_factor": scaling_factor,
        "mid_block_add_attention": _has_attention(shapes),
        "use_quant_conv": _has_layer(shapes, "quant_conv"),
        "use_post_quant_conv": _has_layer(shapes, "post_quant_conv"),
    }


def find_missing_vae_tensor(shapes: Shapes) -> str:
    """Return the name of the first tensor that an autoencoder lacks; empty if it is whole.

    Args:
        shapes: Of its tensors, without a prefix, by LDM's names or by diffusers'.
    """
    return next((name for name in _list_tensors(shapes) if name not in shapes), "")


def _is_diffusers(shapes: Shapes) -> bool:
    return any(name.startswith("encoder.down_blocks.") for name in shapes)


def _measure_blocks(shapes: Shapes) -> tuple[list[int], int]:
    """Return the channels of each level, and how many blocks a level has on the way down.

    The channels of a level whose first convolution is missing are 0.
    """
    names = _DIFFUSERS if _is_diffusers(shapes) else _LDM
    places = [match for name in shapes if (match := names.place.match(name))]
    num_levels = max((1 + int(match[1]) for match in places), default=0)
    num_layers = max((1 + int(match[2]) for match in places), default=0)
    firsts = [f"encoder.{names.down.format(level, 0)}.conv1.weight" for level in range(num_levels)]
    return [next(iter(shapes.get(first, ())), 0) for first in firsts], num_layers


def _has_attention(shapes: Shapes) -> bool:
    return any(
        name.startswith((f"{side}.{_LDM.attention}.", f"{side}.{_DIFFUSERS.attention}."))
        for name in shapes
        for side in ("encoder", "decoder")
    )


def _has_layer(shapes: Shapes, name: str) -> bool:
    return f"{name}.weight" in shapes or f"{name}.bias" in shapes


def _list_tensors(shapes: Shapes) -> Iterator[str]:
    """Yield the names of all tensors that an autoencoder of these blocks has."""
    names = _DIFFUSERS if _is_diffusers(shapes) else _LDM
    channels, num_layers = _measure_blocks(shapes)
    layers = ["encoder.conv_in", "encoder.conv_out", "decoder.conv_in", "decoder.conv_out"]
    layers += [f"{side}.{names.last_norm}" for side in ("encoder", "decoder")]
    layers += [name for name in ("quant_conv", "post_quant_conv") if _has_layer(shapes, name)]
    for level, width in enumerate(channels or [0]):
        before = channels[level - 1] if level else width
        for number in range(max(1, num_layers)):
            block = f"encoder.{names.down.format(level, number)}"
            layers += _list_block(names, block, has_shortcut=not number and before != width)
        if level + 1 < len(channels):
            layers.append(f"encoder.{names.downsample.format(level)}")
    layers += _list_way_up(names, channels, num_layers)
    for side in ("encoder", "decoder"):
        for block in names.middle:
            layers += _list_block(names, f"{side}.{block}", has_shortcut=False)
        if _has_attention(shapes):
            attention = f"{side}.{names.attention}"
            layers += [f"{attention}.{name}" for name in _choose_attention(names, shapes)]
    for layer in layers:
        yield f"{layer}.weight"
        yield f"{layer}.bias"


def _list_way_up(names: _Names, channels: list[int], num_layers: int) -> list[str]:
    """List the layers of the decoder's levels, of which each has a block more; deepest first."""
    layers: list[str] = []
    widths = channels[::-1]
    for step, width in enumerate(widths):
        # LDM counts the levels of both ways from the picture, diffusers in the order of work.
        level = step if names is _DIFFUSERS else len(widths) - 1 - step
        before = widths[step - 1] if step else width
        for number in range(num_layers + 1):
            block = f"decoder.{names.up.format(level, number)}"
            layers += _list_block(names, block, has_shortcut=not number and before != width)
        if step + 1 < len(widths):
            layers.append(f"decoder.{names.upsample.format(level)}")
    return layers


def _list_block(names: _Names, block: str, has_shortcut: bool) -> list[str]:
    layers = ["norm1", "conv1", "norm2", "conv2", *([names.shortcut] if has_shortcut else [])]
    return [f"{block}.{layer}" for layer in layers]


def _choose_attention(names: _Names, shapes: Shapes) -> tuple[str, ...]:
    """Return the layers of the attention by the set of names that most of its tensors have."""
    beginnings = [f"{side}.{names.attention}." for side in ("encoder", "decoder")]
    return max(
        names.attention_layers,
        key=lambda layers: sum(
            f"{beginning}{layer}.weight" in shapes for layer in layers for beginning in beginnings
        ),
    )
