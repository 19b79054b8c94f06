"""Files in diffusers' and transformers' own names are told apart: the networks are stock, built without memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import transformers
from accelerate import init_empty_weights

from studio.storage.models.model_file import identify_file
from support.weights import write_weights

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
TWO = {"block_out_channels": (32, 64), "norm_num_groups": 8, "layers_per_block": 1}
DOWN = ("DownBlock2D", "CrossAttnDownBlock2D")
UP = ("CrossAttnUpBlock2D", "UpBlock2D")
TIMES: dict[str, Any] = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
ONE = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16}


def unet(width: int, **more: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        **TWO, down_block_types=DOWN, up_block_types=UP, cross_attention_dim=width, **more
    )


def controlnet(width: int, **more: Any) -> Any:
    return diffusers.ControlNetModel(
        **TWO, down_block_types=DOWN, cross_attention_dim=width, **more
    )


def t2i_adapter(kind: str, scale: int) -> Any:
    return diffusers.T2IAdapter(
        channels=[32, 64, 64, 64], num_res_blocks=1, downscale_factor=scale, adapter_type=kind
    )


def clip(width: int) -> Any:
    config = transformers.CLIPTextConfig(
        hidden_size=width, num_hidden_layers=1, num_attention_heads=2, projection_dim=8
    )
    return transformers.CLIPTextModelWithProjection(config)


STOCK: dict[str, Callable[[], Any]] = {
    "denoiser of SD 1.x": lambda: unet(768),
    "denoiser of SD 2.x": lambda: unet(1024),
    "denoiser of SDXL": lambda: unet(2048, **TIMES),
    "denoiser of SDXL for inpainting": lambda: unet(2048, in_channels=9, **TIMES),
    "denoiser of FLUX.1 dev": lambda: diffusers.FluxTransformer2DModel(
        **ONE, num_single_layers=1, guidance_embeds=True, axes_dims_rope=(4, 4, 8)
    ),
    "denoiser of FLUX.1 schnell": lambda: diffusers.FluxTransformer2DModel(
        **ONE, num_single_layers=1, axes_dims_rope=(4, 4, 8)
    ),
    "denoiser of FLUX.1 Fill": lambda: diffusers.FluxTransformer2DModel(
        **ONE, num_single_layers=1, in_channels=384, guidance_embeds=True, axes_dims_rope=(4, 4, 8)
    ),
    "denoiser of FLUX.2 klein 4B": lambda: diffusers.Flux2Transformer2DModel(
        num_layers=1, num_single_layers=1, num_attention_heads=24
    ),
    "denoiser of Z-Image": lambda: diffusers.ZImageTransformer2DModel(n_layers=1),
    "denoiser of SD 3": lambda: diffusers.SD3Transformer2DModel(num_layers=1),
    "denoiser of Chroma": lambda: diffusers.ChromaTransformer2DModel(
        num_layers=1, num_single_layers=1
    ),
    "denoiser of Qwen-Image": lambda: diffusers.QwenImageTransformer2DModel(num_layers=1),
    "denoiser of Qwen-Image-2.1": lambda: diffusers.QwenImage21Transformer2DModel(num_layers=1),
    "denoiser of Krea 2": lambda: diffusers.Krea2Transformer2DModel(num_layers=1),
    "ControlNet for SD 1.x": lambda: controlnet(768),
    "ControlNet for SDXL": lambda: controlnet(2048, **TIMES),
    "union ControlNet for SDXL": lambda: diffusers.ControlNetUnionModel(
        **TWO, down_block_types=DOWN, cross_attention_dim=2048, **TIMES
    ),
    "ControlNet for FLUX.1": lambda: diffusers.FluxControlNetModel(
        **ONE, num_single_layers=1, axes_dims_rope=[4, 4, 8]
    ),
    "ControlNet for SD 3": lambda: diffusers.SD3ControlNetModel(num_layers=1),
    "ControlNet for Qwen-Image": lambda: diffusers.QwenImageControlNetModel(num_layers=1),
    "T2I-Adapter for SD 1.x": lambda: t2i_adapter("full_adapter", 8),
    "T2I-Adapter for SDXL": lambda: t2i_adapter("full_adapter_xl", 16),
    "autoencoder (VAE)": lambda: diffusers.AutoencoderKL(),
    "autoencoder (VAE) of FLUX.2": lambda: diffusers.AutoencoderKLFlux2(),
    "text encoder CLIP-L": lambda: clip(768),
    "text encoder OpenCLIP-G": lambda: clip(1280),
    "text encoder T5-XXL": lambda: transformers.T5EncoderModel(
        transformers.T5Config(d_model=4096, d_ff=8, d_kv=8, num_layers=1, num_heads=2)
    ),
    "text encoder Qwen3-4B": lambda: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            hidden_size=2560, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
        )
    ),
    "image encoder (CLIP vision)": lambda: transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(num_hidden_layers=1)
    ),
}


@pytest.mark.parametrize("title", STOCK)
def test_a_stock_network_is_named(tmp_path: Path, title: str) -> None:
    with init_empty_weights():
        network = STOCK[title]()
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    path = write_weights(tmp_path / "file.safetensors", shapes)
    assert identify_file(path).title == title
