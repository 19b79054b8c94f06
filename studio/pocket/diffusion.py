"""Makes the pocket's text encoder and U-Net, from nothing, as a Stable Diffusion 1.x folder.

Knows: their sizes, the noise schedule of SD 1.x (epsilon, scaled linear), and the training's loss.
Does not know: the autoencoder's inside, how images are sampled (that is diffusers' own pipeline).

So that words mean something from the first minutes, the text encoder also learns to say which
attributes a caption names; those heads are thrown away.
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
from studio.pocket.captions import parse_caption, sample_caption
from studio.pocket.data import list_scenes
from studio.pocket.tokenizer import MAX_TOKENS, load_tokenizer
from studio.pocket.train_loop import RunContext, TrainingPlan, train_modules
from studio.pocket.world import COLOUR_NAMES, PLACE_NAMES, STYLE_NAMES, THING_NAMES

TRAINING_PLAN = TrainingPlan(
    steps=5_000, learning_rate=1e-3, warmup_steps=150, weight_decay=0.01, ema_decay=0.999, seed=9
)
BATCH_SIZE = 48
EMPTY_PROMPT_PROBABILITY = 0.1
HIDDEN_SIZE = 128
NOISE_SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
MAX_SNR = 5.0
ATTRIBUTE_LABELS = (THING_NAMES, COLOUR_NAMES, PLACE_NAMES, STYLE_NAMES)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return an untrained text encoder."""
    torch.manual_seed(2)
    special: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    size: dict[str, Any] = {
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 4 * HIDDEN_SIZE,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "projection_dim": HIDDEN_SIZE,
    }
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_TOKENS,
        hidden_act="quick_gelu",
        **size,
        **special,
    )
    return CLIPTextModel(config)


def build_unet() -> UNet2DConditionModel:
    """Return an untrained U-Net for 16 x 16 latents; it attends from 8 x 8 down: that is cheap."""
    torch.manual_seed(3)
    blocks: dict[str, Any] = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    }
    shape: dict[str, Any] = {
        "block_out_channels": (64, 128, 192),
        "layers_per_block": 1,
        "cross_attention_dim": HIDDEN_SIZE,
        "attention_head_dim": 4,
        "norm_num_groups": 16,
    }
    return UNet2DConditionModel(sample_size=16, in_channels=4, out_channels=4, **blocks, **shape)


def label_attributes(text: str) -> list[int]:
    """Return for each attribute the index of the name that a caption names.

    Where it names none, that is the number of names.
    """
    labels = []
    for names, word in zip(ATTRIBUTE_LABELS, parse_caption(text), strict=True):
        labels.append(names.index(word) if word else len(names))
    return labels


def save_pipeline(
    context: RunContext, text_encoder: CLIPTextModel, unet: UNet2DConditionModel
) -> Path:
    """Write the folder that StableDiffusionPipeline.from_pretrained loads, fp16."""
    scheduler = PNDMScheduler(
        **NOISE_SCHEDULE,
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )
    no_safety_checker: dict[str, Any] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    pipeline = StableDiffusionPipeline(
        vae=autoencoder.load_autoencoder(context),
        tokenizer=load_tokenizer(context.output_dir),
        text_encoder=text_encoder,
        unet=unet,
        scheduler=scheduler,
        **no_safety_checker,
    )
    pipeline.to(torch.float16).save_pretrained(context.output_dir)
    return context.output_dir


def _compute_snr_weights(scheduler: DDPMScheduler) -> Tensor:
    """Return the loss weight of each timestep: min-SNR (Hang et al., arXiv:2303.09556)."""
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    return snr.clamp(max=MAX_SNR) / snr


def _sample_timesteps(rng: np.random.Generator, count: int, num_timesteps: int) -> Tensor:
    """Return one timestep from each of `count` equal ranges, shuffled: all noise levels occur."""
    fractions = (rng.permutation(count) + rng.random(count)) / count
    return torch.from_numpy((fractions * num_timesteps).astype(np.int64))


def train_diffusion(context: RunContext) -> bool:
    """Train text encoder and U-Net on cached latents; return whether they are finished.

    The pipeline is written to output.
    """
    tokenizer = load_tokenizer(context.output_dir)
    scenes = list_scenes("train")
    latents = autoencoder.load_training_latents(context)
    text_encoder = build_text_encoder(tokenizer).to(context.device)
    unet = build_unet().to(context.device, memory_format=torch.channels_last)
    heads = nn.ModuleList(nn.Linear(HIDDEN_SIZE, len(names) + 1) for names in ATTRIBUTE_LABELS).to(
        context.device
    )
    scheduler = DDPMScheduler(**NOISE_SCHEDULE)
    weights = _compute_snr_weights(scheduler).to(context.device)

    def choose_caption(index: int, rng: np.random.Generator) -> str:
        if rng.random() < EMPTY_PROMPT_PROBABILITY:
            return ""
        return sample_caption(scenes[index], rng)

    def compute_loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        # 1. A batch of captions, latents, timesteps and noise
        indices = rng.integers(0, len(scenes), BATCH_SIZE)
        texts = [choose_caption(index, rng) for index in indices]
        tokens = tokenizer(
            texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        ).input_ids.to(context.device)
        clean = latents[indices].to(context.device).contiguous(memory_format=torch.channels_last)
        timesteps = _sample_timesteps(rng, BATCH_SIZE, NOISE_SCHEDULE["num_train_timesteps"])
        timesteps = timesteps.to(context.device)
        noise = torch.randn_like(clean)
        # 2. The U-Net predicts the noise
        encoding = text_encoder(tokens)
        noisy = scheduler.add_noise(clean, noise, timesteps)
        prediction = unet(noisy, timesteps, encoding.last_hidden_state).sample
        errors = (prediction - noise).square().mean((1, 2, 3))
        noise_loss = (errors * weights[timesteps]).mean()
        # 3. The text encoder names the attributes
        labels = torch.tensor([label_attributes(text) for text in texts], device=context.device)
        head_losses = [
            functional.cross_entropy(head(encoding.pooler_output), labels[:, k])
            for k, head in enumerate(heads)
        ]
        word_loss = torch.stack(head_losses).mean()
        return {"loss": noise_loss + 0.03 * word_loss, "noise": noise_loss, "words": word_loss}

    modules = {"text": text_encoder, "unet": unet, "heads": heads}
    is_finished = train_modules("diffusion", modules, compute_loss, TRAINING_PLAN, context)
    save_pipeline(context, text_encoder, unet.to(memory_format=torch.contiguous_format))
    return is_finished
