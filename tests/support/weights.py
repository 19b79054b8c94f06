"""Files of weights that are nothing but a header: names, shapes and number formats, all numbers zero."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

Shapes = dict[str, list[int]]
UNET = "model.diffusion_model."
CONTEXT_1 = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
CONTEXT_4 = f"{UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
SD1: Shapes = {f"{UNET}input_blocks.0.0.weight": [320, 4, 3, 3], CONTEXT_1: [320, 768]}
SD2: Shapes = {f"{UNET}input_blocks.0.0.weight": [320, 4, 3, 3], CONTEXT_1: [320, 1024]}
SDXL: Shapes = {f"{UNET}input_blocks.0.0.weight": [320, 4, 3, 3], CONTEXT_4: [640, 2048]}
VAE = "first_stage_model.decoder.conv_in.weight"
CLIP = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
# A whole autoencoder of two levels in LDM's names, as small as its groups of 32 allow.
VAE_FILE: Shapes = {
    f"first_stage_model.{layer}.{kind}": shape if kind == "weight" else shape[:1]
    for layer, shape in {
        "quant_conv": [8, 8, 1, 1],
        "post_quant_conv": [4, 4, 1, 1],
        "encoder.conv_in": [32, 3, 3, 3],
        "encoder.conv_out": [8, 64, 3, 3],
        "encoder.norm_out": [64],
        "encoder.down.0.downsample.conv": [32, 32, 3, 3],
        "encoder.down.1.block.0.nin_shortcut": [64, 32, 1, 1],
        "decoder.conv_in": [64, 4, 3, 3],
        "decoder.conv_out": [3, 32, 3, 3],
        "decoder.norm_out": [32],
        "decoder.up.1.upsample.conv": [64, 64, 3, 3],
        "decoder.up.0.block.0.nin_shortcut": [32, 64, 1, 1],
        **{
            f"{block}.{layer}": [outputs, inputs, 3, 3][: 4 if layer == "conv1" else 1]
            if layer != "conv2"
            else [outputs, outputs, 3, 3]
            for block, outputs, inputs in (
                ("encoder.down.0.block.0", 32, 32),
                ("encoder.down.1.block.0", 64, 32),
                ("encoder.mid.block_1", 64, 64),
                ("encoder.mid.block_2", 64, 64),
                ("decoder.mid.block_1", 64, 64),
                ("decoder.mid.block_2", 64, 64),
                ("decoder.up.1.block.0", 64, 64),
                ("decoder.up.1.block.1", 64, 64),
                ("decoder.up.0.block.0", 32, 64),
                ("decoder.up.0.block.1", 32, 32),
            )
            for layer in ("norm1", "conv1", "norm2", "conv2")
        },
        **{
            f"{side}.mid.attn_1.{layer}": [64, 64, 1, 1] if layer != "norm" else [64]
            for side in ("encoder", "decoder")
            for layer in ("norm", "q", "k", "v", "proj_out")
        },
    }.items()
    for kind in ("weight", "bias")
}
WHOLE: Shapes = {VAE: [512, 4, 3, 3], CLIP: [49408, 768]}
CROSS = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def write_weights(
    path: Path, shapes: Shapes, dtype: str = "F16", metadata: dict[str, str] | None = None
) -> Path:
    """Write a safetensors file of such tensors; on most disks its zeros take no room."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        begin, size = end, {"F32": 4, "F16": 2, "BF16": 2}.get(dtype, 1)
        for side in shape:
            size *= side
        end = begin + size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    data = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(data)) + data)
        file.truncate(8 + len(data) + end)
    return path


def kohya_lora(layer: str, rank: int = 4, width: int = 768, **endings: list[int]) -> Shapes:
    """Return the tensors of one layer in kohya's names: a LoRA's pair, or those of its relatives."""
    pair = endings or {"lora_down.weight": [rank, width], "lora_up.weight": [320, rank]}
    return {
        f"lora_unet_{layer}.{ending.replace('__', '.')}": shape for ending, shape in pair.items()
    }


def write_gguf(path: Path, tensors: list[tuple[str, list[int], int]], architecture: str) -> Path:
    """Write a GGUF file of (name, shape, ggml's type) with 2 bytes a number, version 3."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1)
    header += text("general.architecture") + struct.pack("<I", 8) + text(architecture)
    offset = 0
    for name, shape, tensor_type in tensors:
        header += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        header += struct.pack("<IQ", tensor_type, offset)
        size = 2
        for side in shape:
            size *= side
        offset += -(-size // 32) * 32
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(header.ljust(-(-len(header) // 32) * 32, b"\0"))
        file.truncate(file.tell() + offset)
    return path


def list_own_loras(library: Any) -> list[Any]:
    """The LoRAs of a home, without those that come with the studio."""
    assets = Path(__file__).resolve().parents[2] / "assets"
    return [item for item in library.list_loras() if not item.path.is_relative_to(assets)]
