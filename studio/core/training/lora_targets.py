"""Which layers of a model a LoRA sits on, from shapes alone.

Knows: the layers of U-Nets and CLIP text encoders in Stable Diffusion's families, their sizes, the names that kohya's files give
them (for SDXL those of Stability's sgm, which every tool reads), which of them each choice of targets means.
Does not know: torch, weights, how a LoRA is trained or written.

Kohya's choice (networks.lora): every linear layer and 1 × 1 convolution inside the transformers; with conv_dim also everything in
the ResNets and samplers. LoRA: arXiv:2106.09685. For convolutions (LoCon): arXiv:2309.14859.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from studio.core.catalog import Family
from studio.errors import InvalidSpec, UnknownFamily

Targets = Literal[
    "attention", "attention + feed-forward", "attention + feed-forward + convolutions", "patterns"
]
Part = Literal["unet", "text_encoder", "text_encoder_2"]

MOST_PATTERNS = 50
_ATTENTION = re.compile(r"\.(to_[qkv]|to_out\.0|[qkv]_proj|out_proj)$")
_LEVELS: tuple[Targets, ...] = (
    "attention",
    "attention + feed-forward",
    "attention + feed-forward + convolutions",
)
_WITHIN = {"resnets": "0", "attentions": "1"}  # sgm's places within a block
_SGM = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


@dataclass(frozen=True)
class Module:
    """A layer that can get a LoRA. `path` is its name in the network as diffusers and transformers have it, `name` kohya's."""

    part: Part
    path: str
    name: str
    inputs: int
    outputs: int
    kernel: int = 0  # 0 is a linear layer, 1 and 3 are convolutions

    def parameters(self, rank: int) -> int:
        """How many numbers a LoRA of this rank has here: a layer down (with the kernel) and one up."""
        return rank * (self.inputs * max(1, self.kernel) ** 2 + self.outputs)


@dataclass(frozen=True)
class UNetShape:
    """The plain numbers of a U-Net: channels and depth of the transformers (0 is none) in each block, going down."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    middle: int
    layers: int
    context: int
    linear: (
        bool  # whether the transformers' projections are linear layers (else 1 × 1 convolutions)
    )


@dataclass(frozen=True)
class EncoderShape:
    """The plain numbers of a CLIP text encoder; one with a projection keeps its layers a level deeper."""

    layers: int
    width: int
    inner: int
    projection: bool = False


@dataclass(frozen=True)
class ModelShape:
    """A U-Net and its text encoders; two encoders make it an SDXL, with sgm's names."""

    unet: UNetShape
    encoders: tuple[EncoderShape, ...]


_CLIP_L = EncoderShape(12, 768, 3072)
SHAPES: dict[Family, ModelShape] = {
    "sd1": ModelShape(
        UNetShape((320, 640, 1280, 1280), (1, 1, 1, 0), 1, 2, 768, False), (_CLIP_L,)
    ),
    "sd2": ModelShape(
        UNetShape((320, 640, 1280, 1280), (1, 1, 1, 0), 1, 2, 1024, True),
        (EncoderShape(23, 1024, 4096),),
    ),
    "sdxl": ModelShape(
        UNetShape((320, 640, 1280), (0, 2, 10), 10, 2, 2048, True),
        (_CLIP_L, EncoderShape(32, 1280, 5120, True)),
    ),
}


def shape(unet: Mapping[str, Any], encoders: Sequence[Mapping[str, Any]]) -> ModelShape:
    """From the config.json of a U-Net and of its text encoders. Raises UnknownFamily for one of another build."""
    try:
        down, channels = list(unet["down_block_types"]), tuple(map(int, unet["block_out_channels"]))
        deep, layers = (
            unet.get("transformer_layers_per_block") or 1,
            unet.get("layers_per_block", 2),
        )
        depths = (
            [int(deep)] * len(channels) if isinstance(deep, int) else [int(one) for one in deep]
        )
        mirrored = [kind.replace("Down", "Up") for kind in reversed(down)] == list(
            unet["up_block_types"]
        )
        plain = set(down) <= {"DownBlock2D", "CrossAttnDownBlock2D"} and len(channels) == len(
            depths
        ) == len(down)
        if not (
            plain
            and mirrored
            and unet.get("mid_block_type", "UNetMidBlock2DCrossAttn") == "UNetMidBlock2DCrossAttn"
        ):
            raise UnknownFamily(
                "The U-Net is not built as Stable Diffusion's; LoRAs can be trained for 1.x, 2.x and XL."
            )
        return ModelShape(
            UNetShape(
                channels,
                tuple(depth * ("CrossAttn" in kind) for depth, kind in zip(depths, down)),
                depths[-1],
                int(layers),
                int(unet["cross_attention_dim"]),
                bool(unet.get("use_linear_projection")),
            ),
            tuple(
                EncoderShape(
                    int(one["num_hidden_layers"]),
                    int(one["hidden_size"]),
                    int(one["intermediate_size"]),
                    bool(number),
                )
                for number, one in enumerate(encoders)
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        told = f"{type(error).__name__}: {error!s:.80}"
        raise UnknownFamily(
            f"The configs of U-Net and text encoders cannot be read ({told})."
        ) from None


def modules(
    of: ModelShape,
    targets: Targets,
    patterns: str = "",
    *,
    unet: bool = True,
    encoders: bool = True,
) -> tuple[Module, ...]:
    """The layers that get a LoRA, in no order that means anything.

    `patterns` are for targets "patterns": names such as unet.*.attn2.to_k, with * and ? and commas between, for the part and the
    path. Raises InvalidSpec for one that fits no layer, or if nothing is left to train.
    """
    every = every_module(of)
    if targets == "patterns":
        wanted = [
            pattern.strip() for pattern in patterns.replace("\n", ",").split(",") if pattern.strip()
        ]
        if len(wanted) > MOST_PATTERNS:
            raise InvalidSpec(
                [f"Patterns: there can be {MOST_PATTERNS} at most (not {len(wanted)})."]
            )
        paths = [f"{module.part}.{module.path}" for module in every]
        idle = [one for one in wanted if not any(fnmatchcase(path, one) for path in paths)]
        if idle:
            raise InvalidSpec(
                [
                    f"Patterns: {one!r:.60} fits no layer; they are called such as {paths[0]}."
                    for one in idle
                ]
            )
        chosen = [
            module
            for module, path in zip(every, paths)
            if any(fnmatchcase(path, one) for one in wanted)
        ]
    else:
        chosen = [module for module in every if _level(module) <= _LEVELS.index(targets)]
    trained = tuple(module for module in chosen if (unet if module.part == "unet" else encoders))
    if not trained:
        raise InvalidSpec(
            ["Targets: no layer is left to train; choose other targets, or train the other part."]
        )
    return trained


def every_module(of: ModelShape) -> tuple[Module, ...]:
    """All layers that kohya's LoCon covers, the U-Net's first."""
    sgm = len(of.encoders) > 1
    found = [
        Module("unet", path, kohya_name("unet", path, layers=of.unet.layers, sgm=sgm), *sizes)
        for path, *sizes in _unet(of.unet)
    ]
    for number, encoder in enumerate(of.encoders):
        part: Part = "text_encoder_2" if number else "text_encoder"
        found += [
            Module(part, path, kohya_name(part, path, layers=0, sgm=sgm), *sizes)
            for path, *sizes in _encoder(encoder)
        ]
    return tuple(found)


def count(chosen: Sequence[Module]) -> dict[str, int]:
    """How many layers in the U-Net and in the text encoders, as kohya's log tells them."""
    painting = sum(module.part == "unet" for module in chosen)
    return {"unet": painting, "text_encoders": len(chosen) - painting}


def kohya_name(part: Part, path: str, *, layers: int, sgm: bool) -> str:
    """The name of a layer in kohya's files, without what follows (.lora_down.weight, .lora_up.weight, .alpha)."""
    if part == "unet":
        return f"lora_unet_{_sgm_path(path, layers) if sgm else path}".replace(".", "_")
    prefix = ("lora_te2" if part == "text_encoder_2" else "lora_te1") if sgm else "lora_te"
    return f"{prefix}_text_model_{path.removeprefix('text_model.')}".replace(".", "_")


def _sgm_path(path: str, layers: int) -> str:
    """Where Stability's own SDXL code keeps a layer of diffusers' U-Net: blocks are counted through."""
    block, *rest = path.split(".")
    if block == "mid_block":
        kind, number, *inside = rest
        return ".".join(
            [
                "middle_block",
                "1" if kind == "attentions" else "02"[int(number)],
                *_inside(kind, inside),
            ]
        )
    level, kind, number, *inside = rest
    first = int(level) * (layers + 1)
    if block == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{first + layers + 1}.0.op"
        return ".".join(
            ["input_blocks", str(first + 1 + int(number)), _WITHIN[kind], *_inside(kind, inside)]
        )
    if kind == "upsamplers":
        return f"output_blocks.{first + layers}.2.conv"
    return ".".join(
        ["output_blocks", str(first + int(number)), _WITHIN[kind], *_inside(kind, inside)]
    )


def _inside(kind: str, names: Sequence[str]) -> list[str]:
    return [_SGM[names[0]]] if kind == "resnets" else list(names)


def _level(module: Module) -> int:
    """The first choice of targets that has this layer: 0 attention, 1 feed-forward (as kohya), 2 convolutions."""
    if ".resnets." in module.path or "samplers." in module.path:
        return 2
    return 0 if _ATTENTION.search(module.path) else 1


Sized = tuple[str, int, int, int]  # path, inputs, outputs, kernel


def _unet(of: UNetShape) -> Iterator[Sized]:
    time, last = of.channels[0] * 4, len(of.channels) - 1
    before = of.channels[0]
    for level, (width, depth) in enumerate(zip(of.channels, of.depths)):
        block = f"down_blocks.{level}"
        for number in range(of.layers):
            yield from _resnet(f"{block}.resnets.{number}", before, width, time)
            yield from _transformer(f"{block}.attentions.{number}", width, depth, of)
            before = width
        if level < last:
            yield f"{block}.downsamplers.0.conv", width, width, 3
    for number in range(2):
        yield from _resnet(f"mid_block.resnets.{number}", before, before, time)
    yield from _transformer("mid_block.attentions.0", before, of.middle, of)
    for level, (width, depth) in enumerate(zip(reversed(of.channels), reversed(of.depths))):
        block, skipped = f"up_blocks.{level}", of.channels[max(0, last - level - 1)]
        for number in range(of.layers + 1):
            yield from _resnet(
                f"{block}.resnets.{number}",
                before + (skipped if number == of.layers else width),
                width,
                time,
            )
            yield from _transformer(f"{block}.attentions.{number}", width, depth, of)
            before = width
        if level < last:
            yield f"{block}.upsamplers.0.conv", width, width, 3


def _resnet(path: str, inputs: int, outputs: int, time: int) -> Iterator[Sized]:
    yield f"{path}.conv1", inputs, outputs, 3
    yield f"{path}.time_emb_proj", time, outputs, 0
    yield f"{path}.conv2", outputs, outputs, 3
    if inputs != outputs:
        yield f"{path}.conv_shortcut", inputs, outputs, 1


def _transformer(path: str, width: int, depth: int, of: UNetShape) -> Iterator[Sized]:
    if not depth:
        return
    kernel = 0 if of.linear else 1
    yield f"{path}.proj_in", width, width, kernel
    for number in range(depth):
        block = f"{path}.transformer_blocks.{number}"
        for attention, context in (("attn1", width), ("attn2", of.context)):
            yield f"{block}.{attention}.to_q", width, width, 0
            yield f"{block}.{attention}.to_k", context, width, 0
            yield f"{block}.{attention}.to_v", context, width, 0
            yield f"{block}.{attention}.to_out.0", width, width, 0
        yield f"{block}.ff.net.0.proj", width, width * 8, 0  # GEGLU: half of it is the gate
        yield f"{block}.ff.net.2", width * 4, width, 0
    yield f"{path}.proj_out", width, width, kernel


def _encoder(of: EncoderShape) -> Iterator[Sized]:
    for number in range(of.layers):
        layer = f"{'text_model.' * of.projection}encoder.layers.{number}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield f"{layer}.self_attn.{name}", of.width, of.width, 0
        yield f"{layer}.mlp.fc1", of.width, of.inner, 0
        yield f"{layer}.mlp.fc2", of.inner, of.width, 0
