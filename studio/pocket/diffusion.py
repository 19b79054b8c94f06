"""Makes the pocket's text encoder and U-Net, together and from nothing, as a Stable Diffusion 1.x folder at 128 x 128.

Knows: their sizes, the noise schedule of SD 1.x (epsilon, scaled linear), and the training's loss. So that words mean something from the first
minutes, the text encoder also learns to say which attributes a caption names; those heads are thrown away.
Does not know: the autoencoder's inside, how pictures are sampled (that is diffusers' own pipeline).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from studio.pocket import autoencoder
from studio.pocket.captions import caption, read
from studio.pocket.data import scenes
from studio.pocket.tokenizer import LENGTH, load
from studio.pocket.train_loop import Place, Plan, train
from studio.pocket.world import COLOUR_NAMES, PLACE_NAMES, STYLE_NAMES, THING_NAMES

PLAN = Plan(steps=5_000, rate=1e-3, warmup=150, decay=0.01, average=0.999, seed=9)
BATCH = 48
EMPTY = 0.1
WIDTH = 128
BETAS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
NAMES = (THING_NAMES, COLOUR_NAMES, PLACE_NAMES, STYLE_NAMES)


def build_text(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder."""
    torch.manual_seed(2)
    special: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    size: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "projection_dim": WIDTH,
    }
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=LENGTH,
            hidden_act="quick_gelu",
            **size,
            **special,
        )
    )


def build_unet() -> UNet2DConditionModel:
    """An untrained U-Net; attention from 8 x 8 down, where it is cheap."""
    torch.manual_seed(3)
    blocks: dict[str, Any] = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    }
    shape: dict[str, Any] = {
        "block_out_channels": (64, 128, 192),
        "layers_per_block": 1,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 4,
        "norm_num_groups": 16,
    }
    return UNet2DConditionModel(sample_size=16, in_channels=4, out_channels=4, **blocks, **shape)


def named(text: str) -> list[int]:
    """Per attribute the place of the name that a caption names; the number of names where it names none."""
    return [
        names.index(found) if found else len(names)
        for names, found in zip(NAMES, read(text), strict=True)
    ]


def assemble(place: Place, text: CLIPTextModel, unet: UNet2DConditionModel) -> Path:
    """Write the folder that StableDiffusionPipeline.from_pretrained loads, fp16."""
    parts = {"vae": autoencoder.load(place), "tokenizer": load(place.output)}
    scheduler = PNDMScheduler(
        **BETAS,
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )
    without: dict[str, Any] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    pipeline = StableDiffusionPipeline(
        **parts, text_encoder=text, unet=unet, scheduler=scheduler, **without
    )
    pipeline.to(torch.float16).save_pretrained(place.output)
    return place.output


def make(place: Place) -> bool:
    """Train text encoder and U-Net on cached latents and write the pipeline to output; True when they are finished."""
    tokenizer, told, latents = load(place.output), scenes("train"), autoencoder.latents_of(place)
    text, unet = (
        build_text(tokenizer).to(place.device),
        build_unet().to(place.device, memory_format=torch.channels_last),
    )
    heads = nn.ModuleList(nn.Linear(WIDTH, len(names) + 1) for names in NAMES).to(place.device)
    noises = DDPMScheduler(**BETAS)
    ratio = noises.alphas_cumprod / (1 - noises.alphas_cumprod)
    weights = (ratio.clamp(max=5.0) / ratio).to(place.device)

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        chosen = rng.integers(0, len(told), BATCH)
        texts = ["" if rng.random() < EMPTY else caption(told[index], rng) for index in chosen]
        tokens = tokenizer(
            texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
        ).input_ids.to(place.device)
        clean = latents[chosen].to(place.device).contiguous(memory_format=torch.channels_last)
        # stratified timesteps: every batch sees the whole range
        times = torch.from_numpy(
            ((rng.permutation(BATCH) + rng.random(BATCH)) / BATCH * 1000).astype(np.int64)
        ).to(place.device)
        noise = torch.randn_like(clean)
        words = text(tokens)
        guess = unet(noises.add_noise(clean, noise, times), times, words.last_hidden_state).sample
        wrong = ((guess - noise).square().mean((1, 2, 3)) * weights[times]).mean()
        answers = torch.tensor([named(line) for line in texts], device=place.device)
        spoken = torch.stack(
            [
                functional.cross_entropy(head(words.pooler_output), answers[:, k])
                for k, head in enumerate(heads)
            ]
        ).mean()
        return {"loss": wrong + 0.03 * spoken, "noise": wrong, "words": spoken}

    done = train("diffusion", {"text": text, "unet": unet, "heads": heads}, loss, PLAN, place)
    assemble(place, text, unet.to(memory_format=torch.contiguous_format))
    return done
