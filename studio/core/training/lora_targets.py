"""Which layers of a model a LoRA sits on, from shapes alone.

Knows: the layers of U-Nets and CLIP text encoders in Stable Diffusion's families, their sizes, the
names that kohya's files give them (for SDXL those of Stability's sgm, which every tool reads),
which of them each choice of targets means.
Does not know: torch, weights, how a LoRA is trained or written.

Kohya's choice (networks.lora): every linear layer and 1 × 1 convolution inside the transformers;
with conv_dim also everything in the ResNets and samplers. LoRA: arXiv:2106.09685. For convolutions
(LoCon): arXiv:2309.14859.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Literal

from studio.core.families.sgm_names import build_sgm_blocks, to_sgm_path
from studio.core.families.shapes import ModelShape, TextEncoderShape, UNetShape
from studio.errors import InvalidSpec, UnknownFamily, quote

Targets = Literal[
    "attention", "attention + feed-forward", "attention + feed-forward + convolutions", "patterns"
]
ModelPart = Literal["unet", "text_encoder", "text_encoder_2"]
LayerShape = tuple[str, int, int, int]  # path, inputs, outputs, kernel size

MAX_PATTERNS = 50
_ATTENTION_PATTERN = re.compile(r"\.(to_[qkv]|to_out\.0|[qkv]_proj|out_proj)$")
_TARGET_LEVELS: tuple[Targets, ...] = (
    "attention",
    "attention + feed-forward",
    "attention + feed-forward + convolutions",
)
LOCON_TARGETS: Targets = _TARGET_LEVELS[-1]
MAX_LEVELS = 8  # of a U-Net


@dataclass(frozen=True)
class TargetModule:
    """A layer that can get a LoRA.

    `path` is its name in diffusers' and transformers' networks, `name` the one in kohya's files.
    A norm learns a change of its own weights instead; it gives as many channels as it takes.
    """

    part: ModelPart
    path: str
    name: str
    in_features: int
    out_features: int
    kernel_size: int = 0  # 0 is a linear layer, 1 and 3 are convolutions
    is_norm: bool = False


def parse_model_shape(
    unet_config: Mapping[str, Any], text_encoder_configs: Sequence[Mapping[str, Any]]
) -> ModelShape:
    """Read the shape of a model.

    Args:
        unet_config: The config.json of its U-Net.
        text_encoder_configs: Those of its text encoders; the second one has a projection.

    Raises:
        UnknownFamily: The U-Net is of another build, or a config cannot be read.
    """
    try:
        unet = _parse_unet_shape(unet_config)
        text_encoders = tuple(
            TextEncoderShape(
                int(config["num_hidden_layers"]),
                int(config["hidden_size"]),
                int(config["intermediate_size"]),
                has_projection=bool(number),
            )
            for number, config in enumerate(text_encoder_configs)
        )
    except Exception as error:  # any value may be of any type
        reason = f"{type(error).__name__}: {error!s:.80}"
        raise UnknownFamily(
            f"The configs of the U-Net and text encoders cannot be read ({reason})."
        ) from None
    return ModelShape(unet, text_encoders)


def _parse_unet_shape(config: Mapping[str, Any]) -> UNetShape:
    down_blocks = list(config["down_block_types"])
    up_blocks = list(config["up_block_types"])
    channels = tuple(map(int, config["block_out_channels"]))
    depth_setting = config.get("transformer_layers_per_block") or 1
    if isinstance(depth_setting, int):
        depths = [int(depth_setting)] * len(channels)
    else:
        depths = [int(depth) for depth in depth_setting]
    is_mirrored = [kind.replace("Down", "Up") for kind in reversed(down_blocks)] == up_blocks
    has_known_blocks = set(down_blocks) <= {"DownBlock2D", "CrossAttnDownBlock2D"}
    has_equal_lengths = len(channels) == len(depths) == len(down_blocks)
    mid_block = config.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    has_known_mid_block = mid_block == "UNetMidBlock2DCrossAttn"
    if not (has_known_blocks and has_equal_lengths and is_mirrored and has_known_mid_block):
        raise UnknownFamily(
            "The U-Net is not a known Stable Diffusion U-Net; LoRAs can be trained for 1.x, 2.x "
            "and XL."
        )
    transformer_depths = tuple(
        depth if "CrossAttn" in kind else 0 for depth, kind in zip(depths, down_blocks)
    )
    return UNetShape(
        channels,
        transformer_depths,
        mid_transformer_depth=depths[-1],
        layers_per_block=int(config.get("layers_per_block", 2)),
        cross_attention_dim=int(config["cross_attention_dim"]),
        use_linear_projection=bool(config.get("use_linear_projection")),
    )


def select_modules(
    shape: ModelShape,
    targets: Targets,
    patterns: str = "",
    *,
    train_unet: bool = True,
    train_text_encoders: bool = True,
    train_norm: bool = False,
) -> tuple[TargetModule, ...]:
    """Choose the layers that get a LoRA.

    Args:
        shape: The model's shape.
        targets: Which layers; with "patterns" those that a pattern matches.
        patterns: Names such as unet.*.attn2.to_k, of part and path, with * and ?; between them
            commas or line breaks.
        train_unet: Whether the U-Net's layers are trained.
        train_text_encoders: Whether the text encoders' layers are trained.
        train_norm: Whether the U-Net's norms are chosen as its other layers are. (LyCORIS does not
            reach the text encoders' norms.)

    Returns:
        The layers; their order has no meaning.

    Raises:
        InvalidSpec: A pattern matches no layer, or no layer is left to train.
    """
    modules = list_modules(shape)
    if train_norm:
        modules += list_norms(shape)
    if targets == "patterns":
        targeted = _match_modules(modules, patterns)
    else:
        max_level = _TARGET_LEVELS.index(targets)
        targeted = [module for module in modules if _get_target_level(module) <= max_level]
    trained = tuple(
        module
        for module in targeted
        if (train_unet if module.part == "unet" else train_text_encoders)
    )
    if not trained:
        raise InvalidSpec(
            [
                "Target layers: no layer would be trained; choose other layers, or also train the "
                "other part of the model."
            ]
        )
    if train_norm and not any(module.is_norm for module in trained):
        raise InvalidSpec(
            [
                "Train norm layers: no pattern matches one; add a pattern such as "
                f"unet.{list_norms(shape)[0].path}, or turn this off."
            ]
        )
    return trained


def _match_modules(modules: Sequence[TargetModule], patterns: str) -> list[TargetModule]:
    """Return the layers that one of the patterns matches; every pattern has to match one."""
    parts = [part.strip() for part in patterns.replace("\n", ",").split(",")]
    globs = [part for part in parts if part]
    if len(globs) > MAX_PATTERNS:
        raise InvalidSpec(
            [f"Layer patterns: at most {MAX_PATTERNS} are allowed (you entered {len(globs)})."]
        )
    paths = [f"{module.part}.{module.path}" for module in modules]
    unmatched = [glob for glob in globs if not any(fnmatchcase(path, glob) for path in paths)]
    if unmatched:
        raise InvalidSpec(
            [
                f"Layer patterns: {quote(glob)} matches no layer; an example of a layer is "
                f"{paths[0]}."
                for glob in unmatched
            ]
        )
    return [
        module
        for module, path in zip(modules, paths)
        if any(fnmatchcase(path, glob) for glob in globs)
    ]


def list_modules(shape: ModelShape) -> tuple[TargetModule, ...]:
    """List all layers that kohya's LoCon covers, the U-Net's first."""
    modules = [_build_module(shape, "unet", layer) for layer in _list_unet_layers(shape.unet)]
    for number, encoder in enumerate(shape.text_encoders):
        part: ModelPart = "text_encoder_2" if number else "text_encoder"
        layers = _list_text_encoder_layers(encoder)
        modules += [_build_module(shape, part, layer) for layer in layers]
    return tuple(modules)


def list_norms(shape: ModelShape) -> tuple[TargetModule, ...]:
    """List the norms of the U-Net's transformers and ResNets."""
    norms = []
    for module in list_modules(shape):
        block, _, layer = module.path.rpartition(".")
        paths: tuple[str, ...] = ()
        if layer == "conv1":
            paths = (f"{block}.norm1",)
        elif layer == "conv2":
            paths = (f"{block}.norm2",)
        elif layer == "proj_in":
            paths = (f"{block}.norm",)
        elif module.path.endswith(".attn1.to_q"):
            block = block.removesuffix(".attn1")
            paths = tuple(f"{block}.norm{number}" for number in (1, 2, 3))
        for path in paths:
            channels = module.in_features
            norms.append(_build_module(shape, "unet", (path, channels, channels, 0), is_norm=True))
    return tuple(norms)


def _build_module(
    shape: ModelShape, part: ModelPart, layer: LayerShape, is_norm: bool = False
) -> TargetModule:
    path, in_features, out_features, kernel_size = layer
    name = to_kohya_name(
        part,
        path,
        layers_per_block=shape.unet.layers_per_block,
        use_sgm_names=len(shape.text_encoders) > 1,
    )
    return TargetModule(part, path, name, in_features, out_features, kernel_size, is_norm)


def count_modules(modules: Sequence[TargetModule]) -> dict[str, int]:
    """Count the layers in the U-Net and in the text encoders, as kohya's log does."""
    unet_count = sum(module.part == "unet" for module in modules)
    return {"unet": unet_count, "text_encoders": len(modules) - unet_count}


def to_kohya_name(part: ModelPart, path: str, *, layers_per_block: int, use_sgm_names: bool) -> str:
    """Return the name of a layer in kohya's files.

    Args:
        part: The part of the model.
        path: The layer's name as in diffusers and transformers.
        layers_per_block: Of the U-Net.
        use_sgm_names: Whether the file has sgm's names, as for SDXL.

    Returns:
        The name without its ending (.lora_down.weight, .lora_up.weight, .alpha).
    """
    if part == "unet":
        unet_path = path
        if use_sgm_names:
            unet_path = to_sgm_path(path, _get_sgm_blocks(layers_per_block))
        return f"lora_unet_{unet_path}".replace(".", "_")
    prefix = "lora_te"
    if use_sgm_names:
        prefix = "lora_te2" if part == "text_encoder_2" else "lora_te1"
    return f"{prefix}_text_model_{path.removeprefix('text_model.')}".replace(".", "_")


@cache
def _get_sgm_blocks(layers_per_block: int) -> Mapping[str, str]:
    """Return sgm's blocks of any U-Net: levels that one has not change nothing of the others."""
    return build_sgm_blocks((layers_per_block,) * MAX_LEVELS, (True,) * MAX_LEVELS)


def _get_target_level(module: TargetModule) -> int:
    """Return the first target level with it: 0 attention, 1 feed-forward, 2 convolutions."""
    if ".resnets." in module.path or "samplers." in module.path:
        return 2
    return 0 if _ATTENTION_PATTERN.search(module.path) else 1


def _list_unet_layers(shape: UNetShape) -> Iterator[LayerShape]:
    yield from _list_down_layers(shape)
    channels = shape.block_out_channels[-1]
    for number in range(2):
        path = f"mid_block.resnets.{number}"
        yield from _list_resnet_layers(path, channels, channels, _time_embed_dim(shape))
    depth = shape.mid_transformer_depth
    yield from _list_transformer_layers("mid_block.attentions.0", channels, depth, shape)
    yield from _list_up_layers(shape)


def _list_down_layers(shape: UNetShape) -> Iterator[LayerShape]:
    last_level = len(shape.block_out_channels) - 1
    in_channels = shape.block_out_channels[0]
    blocks = zip(shape.block_out_channels, shape.transformer_depths)
    for level, (channels, depth) in enumerate(blocks):
        block = f"down_blocks.{level}"
        for number in range(shape.layers_per_block):
            path = f"{block}.resnets.{number}"
            yield from _list_resnet_layers(path, in_channels, channels, _time_embed_dim(shape))
            path = f"{block}.attentions.{number}"
            yield from _list_transformer_layers(path, channels, depth, shape)
            in_channels = channels
        if level < last_level:
            yield f"{block}.downsamplers.0.conv", channels, channels, 3


def _list_up_layers(shape: UNetShape) -> Iterator[LayerShape]:
    last_level = len(shape.block_out_channels) - 1
    in_channels = shape.block_out_channels[-1]
    blocks = zip(reversed(shape.block_out_channels), reversed(shape.transformer_depths))
    for level, (channels, depth) in enumerate(blocks):
        block = f"up_blocks.{level}"
        # The last skip connection has the next level's channels (its downsampler's, or conv_in's).
        last_skip_channels = shape.block_out_channels[max(0, last_level - level - 1)]
        for number in range(shape.layers_per_block + 1):
            is_last = number == shape.layers_per_block
            in_channels += last_skip_channels if is_last else channels
            path = f"{block}.resnets.{number}"
            yield from _list_resnet_layers(path, in_channels, channels, _time_embed_dim(shape))
            path = f"{block}.attentions.{number}"
            yield from _list_transformer_layers(path, channels, depth, shape)
            in_channels = channels
        if level < last_level:
            yield f"{block}.upsamplers.0.conv", channels, channels, 3


def _time_embed_dim(shape: UNetShape) -> int:
    return shape.block_out_channels[0] * 4


def _list_resnet_layers(
    path: str, in_channels: int, out_channels: int, time_embed_dim: int
) -> Iterator[LayerShape]:
    yield f"{path}.conv1", in_channels, out_channels, 3
    yield f"{path}.time_emb_proj", time_embed_dim, out_channels, 0
    yield f"{path}.conv2", out_channels, out_channels, 3
    if in_channels != out_channels:
        yield f"{path}.conv_shortcut", in_channels, out_channels, 1


def _list_transformer_layers(
    path: str, channels: int, depth: int, shape: UNetShape
) -> Iterator[LayerShape]:
    if not depth:
        return
    kernel = 0 if shape.use_linear_projection else 1
    yield f"{path}.proj_in", channels, channels, kernel
    for number in range(depth):
        block = f"{path}.transformer_blocks.{number}"
        for attention, context in (("attn1", channels), ("attn2", shape.cross_attention_dim)):
            yield f"{block}.{attention}.to_q", channels, channels, 0
            yield f"{block}.{attention}.to_k", context, channels, 0
            yield f"{block}.{attention}.to_v", context, channels, 0
            yield f"{block}.{attention}.to_out.0", channels, channels, 0
        yield f"{block}.ff.net.0.proj", channels, channels * 8, 0  # GEGLU: half of it is the gate
        yield f"{block}.ff.net.2", channels * 4, channels, 0
    yield f"{path}.proj_out", channels, channels, kernel


def _list_text_encoder_layers(shape: TextEncoderShape) -> Iterator[LayerShape]:
    prefix = "text_model." if shape.has_projection else ""
    for number in range(shape.num_hidden_layers):
        layer = f"{prefix}encoder.layers.{number}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield f"{layer}.self_attn.{name}", shape.hidden_size, shape.hidden_size, 0
        yield f"{layer}.mlp.fc1", shape.hidden_size, shape.intermediate_size, 0
        yield f"{layer}.mlp.fc2", shape.intermediate_size, shape.hidden_size, 0
