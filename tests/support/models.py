"""The embedded model, and toy models of the other families, saved as real folders. Imports nothing of the studio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

POCKET = Path(__file__).resolve().parents[2] / "assets" / "pocket"


def make_toy(
    folder: Path, kind: str, width: int = 0, prediction: str = "v_prediction", channels: int = 4
) -> None:
    """A model folder of that kind of pipeline with random weights; `width` is that of its prompts, `channels` of its U-Net."""
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
    # SD 2.x is told from SD 1.x by the width of its prompts
    width = width or (32 if large else 1024)
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
