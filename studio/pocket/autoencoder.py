"""Makes the pocket's AutoencoderKL: 128 x 128 pixels as 16 x 16 latents of 4 channels, and back.

Knows: its size, its loss (pixels, edges, colours of 8 x 8 blocks, a little divergence) and how the
latents' mean and deviation are folded into the convolutions beside them.
Does not know: what the images show.
"""

import hashlib
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from studio.pocket.data import load_images, to_tensor
from studio.pocket.train_loop import RunContext, TrainingPlan, save_atomically, train_modules

TRAINING_PLAN = TrainingPlan(steps=8_000, learning_rate=1.5e-3, ema_decay=0.998)
BATCH_SIZE = 16
CROP_PX = 64
IMAGE_PX = 128
PX_PER_LATENT = 8
SCALING_FACTOR = 0.18215
DECODER_PLAN = TrainingPlan(steps=4_000, learning_rate=6e-4, ema_decay=0.999, seed=31)
ENCODER_PREFIXES = ("encoder", "quant_conv")


def build_autoencoder() -> AutoencoderKL:
    """Return an untrained autoencoder."""
    torch.manual_seed(1)
    blocks: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    shape: dict[str, Any] = {
        "block_out_channels": (16, 32, 64, 128),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "mid_block_add_attention": False,
    }
    return AutoencoderKL(
        **blocks, **shape, latent_channels=4, sample_size=IMAGE_PX, scaling_factor=SCALING_FACTOR
    )


def compute_reconstruction_losses(difference: Tensor) -> dict[str, Tensor]:
    """Return what a difference of images (n, 3, h, w) costs.

    Counted are pixels, edges and the colours of 8 x 8 blocks.
    """
    pixel = difference.abs().mean()
    square = difference.square().mean()
    edge_across = (difference[..., 1:] - difference[..., :-1]).abs().mean()
    edge_down = (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
    edge = edge_across + edge_down
    colour = functional.avg_pool2d(difference, 8).abs().mean()
    total = pixel + 4 * square + 0.5 * edge + 0.5 * colour
    return {"loss": total, "pixel": pixel, "square": square}


def compute_vae_losses(model: AutoencoderKL, images: Tensor) -> dict[str, Tensor]:
    """Return what one batch costs: encoding and decoding it, and a little divergence."""
    posterior = model.encode(images).latent_dist
    losses = compute_reconstruction_losses(model.decode(posterior.sample()).sample - images)
    divergence = posterior.kl().mean() / images[0].numel()
    return {**losses, "loss": losses["loss"] + 3e-4 * divergence, "divergence": divergence}


@torch.no_grad()
def fold_latent_statistics(model: AutoencoderKL, images: Tensor) -> None:
    """Fold the latents' mean and deviation per channel into quant_conv and post_quant_conv.

    The autoencoder does exactly what it did, and SCALING_FACTOR gives latents of unit variance.
    """
    latents = torch.cat([model.encode(batch).latent_dist.mode() for batch in images.split(32)])
    mean = latents.mean((0, 2, 3))
    deviation = latents.std((0, 2, 3)) * SCALING_FACTOR
    encode_conv = model.quant_conv
    decode_conv = model.post_quant_conv
    assert encode_conv is not None
    assert encode_conv.bias is not None
    assert decode_conv is not None
    assert decode_conv.bias is not None
    # Channels 0 to 3 of quant_conv are the means, 4 to 7 the logarithms of the variances.
    encode_conv.weight[:4] /= deviation[:, None, None, None]
    encode_conv.bias[:4] = (encode_conv.bias[:4] - mean) / deviation
    encode_conv.bias[4:] -= 2 * deviation.log()
    decode_conv.bias += decode_conv.weight[:, :, 0, 0] @ mean
    decode_conv.weight *= deviation[None, :, None, None]


def compute_psnr(images: Tensor, reference: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB (n,) of images (n, 3, h, w) from -1 to 1."""
    return -10 * torch.log10(((images - reference) / 2).square().mean((1, 2, 3)))


def load_autoencoder(context: RunContext) -> AutoencoderKL:
    """Load the finished autoencoder in fp32."""
    model = AutoencoderKL.from_pretrained(context.output_dir / "vae", torch_dtype=torch.float32)
    return model.to(context.device).eval()


def _save_autoencoder(model: AutoencoderKL, context: RunContext) -> None:
    """Write output/vae, fp16."""
    half = model.to(torch.float16, memory_format=torch.contiguous_format)
    half.save_pretrained(context.output_dir / "vae")


def train_autoencoder(context: RunContext) -> bool:
    """Train the autoencoder and write it to output/vae, fp16; return whether it is finished."""
    drawings = load_images("train", context.cache_dir, context.num_workers)
    model = build_autoencoder().to(context.device, memory_format=torch.channels_last)

    def compute_loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        # Small crops first, whole images for the last 8 % of the steps
        side = CROP_PX
        batch_size = BATCH_SIZE
        if step >= 0.92 * TRAINING_PLAN.steps:
            side = IMAGE_PX
            batch_size = BATCH_SIZE // 2
        top, left = (int(rng.integers(0, IMAGE_PX - side + 1)) for _ in range(2))
        indices = np.sort(rng.integers(0, len(drawings), batch_size))
        crops = drawings[indices, top : top + side, left : left + side]
        images = to_tensor(crops, context.device)
        return compute_vae_losses(model, images.contiguous(memory_format=torch.channels_last))

    is_finished = train_modules("vae", {"vae": model}, compute_loss, TRAINING_PLAN, context)
    fold_latent_statistics(model, to_tensor(drawings[:1024], context.device))
    _save_autoencoder(model, context)
    return is_finished


@torch.no_grad()
def load_training_latents(context: RunContext) -> Tensor:
    """Return the train split as scaled latents (n, 4, 16, 16).

    They are encoded once for each encoder and stored in the cache under a hash of its weights.
    """
    vae = load_autoencoder(context)
    weights = [
        value.half().cpu().numpy().tobytes()
        for key, value in vae.state_dict().items()
        if key.startswith(ENCODER_PREFIXES)
    ]
    digest = hashlib.sha256(b"".join(weights)).hexdigest()[:12]
    file = context.cache_dir / f"latents-{digest}.pt"
    if not file.exists():
        drawings = load_images("train", context.cache_dir, context.num_workers)
        latents = []
        for start in range(0, len(drawings), 50):
            batch = to_tensor(drawings[start : start + 50], context.device)
            latents.append(vae.encode(batch).latent_dist.mode().cpu())
        save_atomically(torch.cat(latents) * vae.config.scaling_factor, file)
    return torch.load(file, weights_only=True)


def finetune_decoder(context: RunContext) -> bool:
    """Train the decoder alone for longer and rewrite output/vae; return whether it is finished.

    Latents stay what they are, so nothing that learned from them is spoilt.
    """
    drawings = load_images("train", context.cache_dir, context.num_workers)
    latents = load_training_latents(context) / SCALING_FACTOR
    model = load_autoencoder(context).to(memory_format=torch.channels_last).train()
    for key, param in model.named_parameters():
        param.requires_grad_(not key.startswith(ENCODER_PREFIXES))

    def compute_loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        # Small crops first, whole images for the last fifth of the steps
        num_cells = IMAGE_PX // PX_PER_LATENT
        side = CROP_PX // PX_PER_LATENT
        batch_size = BATCH_SIZE
        if step >= 0.8 * DECODER_PLAN.steps:
            side = num_cells
            batch_size = BATCH_SIZE // 2
        top, left = (int(rng.integers(0, num_cells - side + 1)) for _ in range(2))
        indices = np.sort(rng.integers(0, len(drawings), batch_size))
        batch = latents[indices, :, top : top + side, left : left + side].to(context.device)
        rows = slice(PX_PER_LATENT * top, PX_PER_LATENT * (top + side))
        columns = slice(PX_PER_LATENT * left, PX_PER_LATENT * (left + side))
        images = to_tensor(drawings[indices, rows, columns], context.device)
        decoded = model.decode(batch.contiguous(memory_format=torch.channels_last)).sample
        return compute_reconstruction_losses(decoded - images)

    is_finished = train_modules("polish", {"vae": model}, compute_loss, DECODER_PLAN, context)
    _save_autoencoder(model, context)
    return is_finished
