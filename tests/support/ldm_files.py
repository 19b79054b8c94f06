"""Stock networks of Stable Diffusion, and their weights in one file by the names of the original repositories.

Imports nothing of the studio. Names after diffusers' scripts/convert_diffusers_to_original_*.py.
"""

from __future__ import annotations

import functools
import json
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

Tensors = dict[str, torch.Tensor]
MERGES = Path(__file__).resolve().parents[2] / "assets" / "clip-tokenizer" / "merges.txt"
UNET, VAE = "model.diffusion_model.", "first_stage_model."
NOISE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
ATTENTION, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"


def unet_config(
    channels: tuple[int, ...],
    depths: tuple[int, ...],
    context: int,
    heads: Any,
    linear: bool,
    layers: int = 2,
    adm: int = 0,
    in_channels: int = 4,
) -> dict[str, Any]:
    """A depth of 0 is a block without transformers; the middle is as deep as the last that has some."""
    kinds = [ATTENTION if depth else PLAIN for depth in depths]
    more = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": adm,
    }
    return {
        "in_channels": in_channels,
        "block_out_channels": channels,
        "down_block_types": kinds,
        "up_block_types": [kind.replace("Down", "Up") for kind in reversed(kinds)],
        "layers_per_block": layers,
        "transformer_layers_per_block": [depth or 1 for depth in depths],
        "cross_attention_dim": context,
        "attention_head_dim": heads,
        "use_linear_projection": linear,
        **(more if adm else {}),
    }


def text_config(width: int, inner: int, layers: int, projection: int = 0) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        hidden_act="quick_gelu" if width == 768 else "gelu",
        projection_dim=projection or width,
        bos_token_id=49406,
        eos_token_id=49407,
    )


def vae_config(channels: tuple[int, ...], layers: int, factor: float) -> dict[str, Any]:
    return {
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "scaling_factor": factor,
    }


TOY_VAE = ((32,) * 4, 1)
TOYS: dict[str, dict[str, Any]] = {
    "sd1": {
        "unet": unet_config((32, 64), (1, 0), 768, 8, linear=False, layers=1),
        "texts": [text_config(768, 64, 2)],
        "factor": 0.18215,
    },
    "sd2": {
        "unet": unet_config((32, 64), (1, 0), 1024, [1, 1], linear=True, layers=1),
        "texts": [text_config(1024, 64, 2)],
        "factor": 0.18215,
    },
    "sdxl": {
        "unet": unet_config((32, 64), (0, 2), 2048, [1, 1], linear=True, layers=1, adm=2816),
        "texts": [text_config(768, 64, 2), text_config(1280, 64, 2, 1280)],
        "factor": 0.13025,
    },
}
# The released models, as the configs on the hub say.
REAL: dict[str, dict[str, Any]] = {
    "sd1": unet_config((320, 640, 1280, 1280), (1, 1, 1, 0), 768, 8, linear=False),
    "sd2": unet_config((320, 640, 1280, 1280), (1, 1, 1, 0), 1024, [5, 10, 20, 20], linear=True),
    "sdxl": unet_config((320, 640, 1280), (0, 2, 10), 2048, [5, 10, 20], linear=True, adm=2816),
}
REAL_TEXTS = {
    "sd1": [text_config(768, 3072, 12)],
    "sd2": [text_config(1024, 4096, 23)],
    "sdxl": [text_config(768, 3072, 12), text_config(1280, 5120, 32, 1280)],
}
REAL_VAE = ((128, 256, 512, 512), 2)
FACTORS = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}
PIPELINES = {
    "sd1": "StableDiffusionPipeline",
    "sd2": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
}
PADDING = {
    "sd1": ["<|endoftext|>"],
    "sd2": ["!"],
    "sdxl": ["<|endoftext|>", "!"],
}


def make_toy_parts(kind: str, seed: int = 3, **changes: Any) -> dict[str, Any]:
    """The parts of a stock pipeline of toy size, whose numbers float16 holds exactly."""
    toy = TOYS[kind]
    parts: dict[str, Any] = {
        "unet": build(UNet2DConditionModel, toy["unet"] | changes, seed),
        "vae": make_toy_vae(kind, seed),
    }
    classes = (CLIPTextModel, CLIPTextModelWithProjection)
    for number, config in enumerate(toy["texts"]):
        ending = "_2" if number else ""
        parts[f"text_encoder{ending}"] = build(classes[number], {"config": config}, seed)
        parts[f"tokenizer{ending}"] = make_tokenizer(PADDING[kind][number])
    return parts


def make_toy_vae(kind: str, seed: int) -> AutoencoderKL:
    """The autoencoder of such parts alone."""
    return build(AutoencoderKL, vae_config(*TOY_VAE, TOYS[kind]["factor"]), seed)


def make_empty_parts(kind: str) -> dict[str, Any]:
    """The networks alone; under `torch.device("meta")` they are nothing but shapes."""
    toy = TOYS[kind]
    parts: dict[str, Any] = {
        "unet": UNet2DConditionModel(**toy["unet"]),
        "vae": AutoencoderKL(**vae_config(*TOY_VAE, toy["factor"])),
    }
    for number, config in enumerate(toy["texts"]):
        network = CLIPTextModelWithProjection if number else CLIPTextModel
        parts["text_encoder_2" if number else "text_encoder"] = network(config)
    return parts


def toy_shapes(kind: str) -> dict[str, list[int]]:
    """Names and shapes of a small checkpoint that can be read through quickly."""
    return {name: list(shape) for name, shape in _list_toy_shapes(kind)}


@functools.cache
def _list_toy_shapes(kind: str) -> list[tuple[str, torch.Size]]:
    with torch.device("meta"):
        tensors = collect_checkpoint(kind, make_empty_parts(kind))
    return [
        (name, torch.Size([64, *tensor.shape[1:]]) if "token_embedding" in name else tensor.shape)
        for name, tensor in tensors.items()
    ]


def build_real_part(kind: str, component: str, seed: int = 7) -> Any:
    """A part of a released model's full shape with random numbers, in float16."""
    if component == "unet":
        return build(UNet2DConditionModel, REAL[kind], seed, torch.float16)
    if component == "vae":
        return build(AutoencoderKL, vae_config(*REAL_VAE, FACTORS[kind]), seed, torch.float16)
    number = int(component == "text_encoder_2")
    network = CLIPTextModelWithProjection if number else CLIPTextModel
    return build(network, {"config": REAL_TEXTS[kind][number]}, seed, torch.float16)


def stream_checkpoint(path: Path, tensors: Tensors) -> None:
    """Write a file tensor by tensor: the library's own way holds all of them twice."""
    codes = {torch.float16: "F16", torch.float32: "F32", torch.int64: "I64"}
    header, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": codes[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(memoryview(tensor.contiguous().flatten().view(torch.uint8).numpy()))


def build(
    network_class: Any, config: dict[str, Any], seed: int, dtype: torch.dtype = torch.float32
) -> Any:
    """A network with random weights, in a hundredth of the time that its own way to draw them takes."""
    with init_empty_weights():
        network = network_class(**config)
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(2**16, generator=generator).half().to(dtype)
    weights = {}
    for number, (name, weight) in enumerate(network.state_dict().items()):
        values = block.roll(31 * number).repeat(-(-weight.numel() // 2**16))[: weight.numel()]
        values = values.view(weight.shape) * (0.125 if weight.dim() < 2 else 2**-5)
        is_norm = weight.dim() == 1 and name.endswith("weight")
        weights[name] = (values + 1 if is_norm else values).half().to(dtype)
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def make_pipeline(kind: str, parts: Mapping[str, Any], **noise: Any) -> Any:
    import diffusers

    scheduler = EulerDiscreteScheduler(**(NOISE | noise))
    more: dict[str, Any] = {}
    if kind != "sdxl":
        more = {
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
    pipeline = getattr(diffusers, PIPELINES[kind])(**parts, scheduler=scheduler, **more)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_tokenizer(pad_token: str) -> CLIPTokenizer:
    """CLIP's tokenizer as its authors build it from the merges."""
    lines = MERGES.read_text("utf-8").split("\n")[1:]
    merges = [tuple(line.split()) for line in lines if line]
    letters = list(bytes_to_unicode().values())
    words = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad_token, model_max_length=77)


# ---- names of the original repositories -----------------------------------------------------------------------------

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
OUTER = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}


def rename_unet(tensors: Mapping[str, torch.Tensor], layers: int, prefix: str = UNET) -> Tensors:
    has_attention = {
        name.split(".")[1] for name in tensors if re.match(r"up_blocks\.\d+\.att", name)
    }

    def block(match: re.Match[str]) -> str:
        way, level, kind, layer = match[1], int(match[2]), match[3], int(match[4])
        if way == "down":
            if kind == "downsamplers":
                return f"input_blocks.{(layers + 1) * (level + 1)}.0.op"
            return f"input_blocks.{(layers + 1) * level + layer + 1}.{int(kind == 'attentions')}"
        if kind == "upsamplers":
            place = 2 if match[2] in has_attention else 1
            return f"output_blocks.{(layers + 1) * level + layers}.{place}.conv"
        return f"output_blocks.{(layers + 1) * level + layer}.{int(kind == 'attentions')}"

    renamed = {}
    for name, tensor in tensors.items():
        for old, new in OUTER.items():
            name = re.sub(rf"^{re.escape(old)}\.", f"{new}.", name)
        is_resnet = ".resnets." in name or name.startswith(("middle_block.0", "middle_block.2"))
        name = (
            re.sub(r"^(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)(?:\.conv(?=\.))?", block, name)
            if "samplers" in name
            else re.sub(r"^(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)", block, name)
        )
        if is_resnet:
            for old, new in RESNET.items():
                name = name.replace(f".{old}.", f".{new}.")
        renamed[prefix + name] = tensor
    return renamed


def rename_vae(tensors: Mapping[str, torch.Tensor], levels: int, prefix: str = VAE) -> Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", name)
        name = re.sub(
            r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", name
        )
        name = re.sub(
            r"up_blocks\.(\d+)\.upsamplers\.0\.",
            lambda m: f"up.{levels - 1 - int(m[1])}.upsample.",
            name,
        )
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        if "mid_block.attentions.0." in name:
            name = name.replace("mid_block.attentions.0.", "mid.attn_1.")
            for old, new in (
                ("group_norm", "norm"),
                ("to_q", "q"),
                ("to_k", "k"),
                ("to_v", "v"),
                ("to_out.0", "proj_out"),
            ):
                name = name.replace(f".{old}.", f".{new}.")
            tensor = tensor[..., None, None] if tensor.dim() == 2 else tensor
        name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        renamed[prefix + name] = tensor
    return renamed


def rename_clip(tensors: Mapping[str, torch.Tensor], prefix: str) -> Tensors:
    return {
        f"{prefix}text_model.{name.removeprefix('text_model.')}": tensor
        for name, tensor in tensors.items()
    }


def rename_open_clip(
    tensors: Mapping[str, torch.Tensor], prefix: str, extra_layers: int = 0
) -> Tensors:
    """With `extra_layers` more of them at the end, which nobody reads, as in SD 2.x."""
    plain = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    renamed = {
        "positional_embedding": plain["embeddings.position_embedding.weight"],
        "token_embedding.weight": plain["embeddings.token_embedding.weight"],
        "ln_final.weight": plain["final_layer_norm.weight"],
        "ln_final.bias": plain["final_layer_norm.bias"],
        "logit_scale": torch.ones(()),
    }
    if "text_projection.weight" in plain:
        renamed["text_projection"] = plain["text_projection.weight"].T.contiguous()
    inner = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    layers = 0
    while f"encoder.layers.{layers}.layer_norm1.weight" in plain:
        layers += 1
    for number in range(layers + extra_layers):
        old, new = f"encoder.layers.{min(number, layers - 1)}", f"transformer.resblocks.{number}"
        for kind in ("weight", "bias"):
            for theirs, ours in inner.items():
                renamed[f"{new}.{ours}.{kind}"] = plain[f"{old}.{theirs}.{kind}"].clone()
            renamed[f"{new}.attn.in_proj_{kind}"] = torch.cat(
                [plain[f"{old}.self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            )
    return {prefix + name: tensor for name, tensor in renamed.items()}


def collect_checkpoint(kind: str, parts: Mapping[str, Any]) -> Tensors:
    """All weights by the names of the original repository."""
    tensors = rename_unet(parts["unet"].state_dict(), parts["unet"].config.layers_per_block)
    tensors |= rename_vae(parts["vae"].state_dict(), len(parts["vae"].config.block_out_channels))
    first = parts["text_encoder"].state_dict()
    if kind == "sd1":
        tensors |= rename_clip(first, "cond_stage_model.transformer.")
        tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(
            77
        )[None]
    elif kind == "sd2":
        tensors |= rename_open_clip(first, "cond_stage_model.model.")
    else:
        tensors |= rename_clip(first, "conditioner.embedders.0.transformer.")
        second = parts["text_encoder_2"].state_dict()
        tensors |= rename_open_clip(second, "conditioner.embedders.1.model.")
    return tensors


def write_checkpoint(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    dtype: torch.dtype = torch.float16,
    metadata: dict[str, str] | None = None,
    change: Callable[[Tensors], Tensors] | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous().clone()
        for name, tensor in tensors.items()
    }
    save_file(change(saved) if change else saved, path, metadata)
    return path
