"""The embedded model, and toy models of the other families, saved as real folders. Imports nothing of the studio."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

POCKET = Path(__file__).resolve().parents[2] / "assets" / "pocket"


def make_toy(
    folder: Path, kind: str, width: int = 0, prediction: str = "v_prediction", channels: int = 4
) -> None:
    """A model folder of that kind of pipeline with random weights; `width` is that of its prompts, `channels` of its U-Net."""
    # SD 2.x is told from SD 1.x by the width of its prompts
    width = width or (32 if kind.startswith("StableDiffusionXL") else 1024)
    made = build_toy(kind, width, prediction, channels)
    shutil.copytree(made.name, folder, dirs_exist_ok=True)


@functools.cache
def build_toy(
    kind: str, width: int, prediction: str, channels: int
) -> tempfile.TemporaryDirectory[str]:
    """Such a model as long as this process lives: many tests have the same."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    torch.manual_seed(5)
    large = kind.startswith("StableDiffusionXL")
    tokenizer = CLIPTokenizer.from_pretrained(POCKET, subfolder="tokenizer")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=4,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    more = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80,
    }
    parts: dict[str, Any] = {
        "unet": UNet2DConditionModel(
            sample_size=8,
            in_channels=channels,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            layers_per_block=1,
            attention_head_dim=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=2 * width if large else width,
            use_linear_projection=True,
            **(more if large else {}),
        ),
        "vae": AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4,
            sample_size=64,
        ),
        "text_encoder": CLIPTextModel(text),
        "tokenizer": tokenizer,
        "scheduler": EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
            use_karras_sigmas=True,
        )
        if large
        else DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction,
        ),
    }
    if large:
        parts |= {"text_encoder_2": CLIPTextModelWithProjection(text), "tokenizer_2": tokenizer}
    kept = tempfile.TemporaryDirectory()
    folder = Path(kept.name)
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index = {
        "_class_name": kind,
        "_diffusers_version": "0.42.1",
        "requires_safety_checker": False,
        **{
            name: [
                "diffusers" if name in ("unet", "vae", "scheduler") else "transformers",
                type(part).__name__,
            ]
            for name, part in parts.items()
        },
    }
    absent = {"safety_checker": [None, None], "feature_extractor": [None, None]}
    index |= {"force_zeros_for_empty_prompt": True} if large else absent
    (folder / "model_index.json").write_text(json.dumps(index))
    return kept


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def make_toy_z_image(folder: Path, shift: float = 3.0, vae_channels: int = 4) -> None:
    """A Z-Image folder with random weights; its tokenizer has a token for each byte."""
    shutil.copytree(build_toy_z_image(shift, vae_channels).name, folder, dirs_exist_ok=True)


@functools.cache
def build_toy_z_image(shift: float, vae_channels: int) -> tempfile.TemporaryDirectory[str]:
    """Such a model as long as this process lives."""
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

    torch.manual_seed(6)
    specials = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|endoftext|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*alphabet, *specials])}
    bytes_only = Tokenizer(models.BPE(vocabulary, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    bytes_only.add_special_tokens(specials)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
    )
    text = Qwen3Config(
        vocab_size=len(vocabulary),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=12,
    )
    parts: dict[str, Any] = {
        "transformer": ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=24,
            axes_dims=[4, 6, 6],
            axes_lens=[1024, 64, 64],
        ),
        "vae": AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4,
            latent_channels=vae_channels,
            sample_size=64,
            use_quant_conv=False,
            use_post_quant_conv=False,
            scaling_factor=0.3611,
            shift_factor=0.1159,
        ),
        "text_encoder": Qwen3Model(text),
        "tokenizer": tokenizer,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=shift),
    }
    with torch.no_grad():  # an untrained one ends in zeros, and would predict nothing
        for weight in parts["transformer"].parameters():
            weight.normal_(0, 0.1)
    kept = tempfile.TemporaryDirectory()
    folder = Path(kept.name)
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    libraries = dict.fromkeys(("text_encoder", "tokenizer"), "transformers")
    index = {
        "_class_name": "ZImagePipeline",
        "_diffusers_version": "0.42.1",
        **{
            name: [libraries.get(name, "diffusers"), type(part).__name__]
            for name, part in parts.items()
        },
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return kept
