"""Model folders in the sizes of SD 1.5, SDXL and Z-Image with random weights: nothing is fetched, and hardly anything written.

A folder's weights are files with holes: their headers name every tensor, their numbers are all 0 and take no room on the disk.
They are read as any model's are; `random_weights` fills them on the device.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

RANK = 16  # of `write_lora`
DTYPE_NAMES = {"float16": "F16", "bfloat16": "BF16"}
NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
QWEN = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def make_sd15(folder: Path, pocket: Path) -> None:
    """SD 1.5: 0.9 billion weights, 2 GiB in float16."""
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with _on_nothing():
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        encoder = CLIPTextModel(CLIPTextConfig(**CLIP_L))
        parts = {"unet": unet, "vae": _make_vae(512, 0.18215), "text_encoder": encoder}
    _write(folder, "StableDiffusionPipeline", parts, "float16")
    DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False).save_pretrained(
        folder / "scheduler"
    )
    shutil.copytree(pocket / "tokenizer", folder / "tokenizer")


def make_sdxl(folder: Path, pocket: Path) -> None:
    """SDXL: 3.5 billion weights, 6.5 GiB in float16."""
    from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with _on_nothing():
        parts = {
            "unet": UNet2DConditionModel(**SDXL_UNET),
            "vae": _make_vae(1024, 0.13025),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**CLIP_L)),
            "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_G)),
        }
    _write(folder, "StableDiffusionXLPipeline", parts, "float16")
    EulerDiscreteScheduler(**NOISE, timestep_spacing="leading").save_pretrained(
        folder / "scheduler"
    )
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(pocket / "tokenizer", folder / name)


def make_z_image(folder: Path, toy: Path) -> None:
    """Z-Image-Turbo: 10 billion weights, 19 GiB in bfloat16; tokenizer and scheduler are the toy's."""
    from diffusers import AutoencoderKL, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    with _on_nothing():
        vae = AutoencoderKL(
            **_vae_config(1024),
            latent_channels=16,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        parts = {
            "transformer": ZImageTransformer2DModel(),
            "vae": vae,
            "text_encoder": Qwen3Model(Qwen3Config(**QWEN)),
        }
    _write(folder, "ZImagePipeline", parts, "bfloat16")
    for name in ("tokenizer", "scheduler"):
        shutil.copytree(toy / name, folder / name)


@contextmanager
def random_weights() -> Iterator[None]:
    """Give every network that is read random numbers, on its device, with which activations stay in range."""
    import torch

    from studio.engine.models import loaded_model

    load = loaded_model.load_network

    def load_network(*given: Any) -> Any:
        network = load(*given)
        with torch.no_grad():
            for weight in network.parameters():
                if weight.ndim > 1:
                    weight.normal_(std=0.5 / math.sqrt(weight[0].numel()))
                else:
                    weight.fill_(0.1)
        return network

    with (
        patch.object(loaded_model, "load_network", load_network),
    ):
        yield


def write_lora(path: Path, model: Path) -> None:
    """A LoRA in kohya's layout on every attention layer of a model's U-Net."""
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file

    with _on_nothing():
        config = UNet2DConditionModel.load_config(model / "unet")
        unet = UNet2DConditionModel.from_config(config)
    tensors: dict[str, Any] = {}
    for name, module in unet.named_modules():
        if ".attn" in name and isinstance(module, torch.nn.Linear):
            stem = f"lora_unet_{name.replace('.', '_')}"
            tensors[f"{stem}.lora_down.weight"] = torch.randn(RANK, module.in_features) * 0.02
            tensors[f"{stem}.lora_up.weight"] = torch.randn(module.out_features, RANK) * 0.02
            tensors[f"{stem}.alpha"] = torch.tensor(float(RANK))
    save_file(tensors, path)


def _on_nothing() -> Any:
    import torch

    return torch.device("meta")


def _vae_config(sample_size: int) -> dict[str, Any]:
    return {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "sample_size": sample_size,
    }


def _make_vae(sample_size: int, scaling_factor: float) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(**_vae_config(sample_size), scaling_factor=scaling_factor)


def _write(folder: Path, pipeline: str, parts: dict[str, Any], dtype: str) -> None:
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.42.1"}
    for name, network in parts.items():
        part = folder / name
        part.mkdir(parents=True)
        library = type(network).__module__.partition(".")[0]
        index[name] = [library, type(network).__name__]
        if library == "diffusers":
            network.save_config(part)
            file = part / "diffusion_pytorch_model.safetensors"
        else:
            network.config.save_pretrained(part)
            file = part / "model.safetensors"
        _write_with_holes(file, network.state_dict(), dtype)
    if pipeline == "StableDiffusionXLPipeline":
        index["force_zeros_for_empty_prompt"] = True
    (folder / "model_index.json").write_text(json.dumps(index))


def _write_with_holes(file: Path, tensors: dict[str, Any], dtype: str) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + 2 * tensor.numel()
        header[name] = {
            "dtype": DTYPE_NAMES[dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(file, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)
