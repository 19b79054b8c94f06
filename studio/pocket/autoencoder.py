"""Makes the pocket's `AutoencoderKL`: pictures of 128 x 128 pixels as 16 x 16 latents of 4 channels, and back.

Knows: its size, its loss (pixels, edges, colours of 8 x 8 blocks, a little divergence) and how the latents' mean and deviation are folded into the
convolutions beside them. Does not know: what the pictures show.
"""

import hashlib
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from studio.pocket.data import pictures, to_tensor
from studio.pocket.train_loop import Place, Plan, save_aside, train

PLAN = Plan(steps=8_000, rate=1.5e-3, average=0.998)
BATCH = 16
CROP = 64
SCALING = 0.18215
POLISH = Plan(steps=4_000, rate=6e-4, average=0.999, seed=31)
INWARD = ("encoder", "quant_conv")


def build() -> AutoencoderKL:
    """An untrained autoencoder."""
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
        **blocks, **shape, latent_channels=4, sample_size=128, scaling_factor=SCALING
    )


def errors(wrong: Tensor) -> dict[str, Tensor]:
    """What differences between pictures cost: pixels, edges, and the colours of blocks of 8 x 8."""
    pixel, square = wrong.abs().mean(), wrong.square().mean()
    edge = (wrong[..., 1:] - wrong[..., :-1]).abs().mean() + (
        wrong[..., 1:, :] - wrong[..., :-1, :]
    ).abs().mean()
    colour = functional.avg_pool2d(wrong, 8).abs().mean()
    return {
        "loss": pixel + 4 * square + 0.5 * edge + 0.5 * colour,
        "pixel": pixel,
        "square": square,
    }


def losses(model: AutoencoderKL, images: Tensor) -> dict[str, Tensor]:
    """What one batch costs: the way there and back, and a little divergence."""
    posterior = model.encode(images).latent_dist
    found = errors(model.decode(posterior.sample()).sample - images)
    divergence = posterior.kl().mean() / images[0].numel()
    return {**found, "loss": found["loss"] + 3e-4 * divergence, "divergence": divergence}


@torch.no_grad()
def fold(model: AutoencoderKL, images: Tensor) -> None:
    """Fold the latents' mean and deviation per channel into quant_conv and post_quant_conv: exact, and SCALING then gives unit variance."""
    latents = torch.cat([model.encode(part).latent_dist.mode() for part in images.split(32)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3)) * SCALING
    inward, outward = model.quant_conv, model.post_quant_conv
    assert (
        inward is not None
        and outward is not None
        and inward.bias is not None
        and outward.bias is not None
    )
    inward.weight[:4] /= deviation[:, None, None, None]
    inward.bias[:4] = (inward.bias[:4] - mean) / deviation
    inward.bias[4:] -= 2 * deviation.log()
    outward.bias += outward.weight[:, :, 0, 0] @ mean
    outward.weight *= deviation[None, :, None, None]


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Peak signal to noise, in dB, of each picture (-1 to 1) of a batch."""
    return -10 * torch.log10(((one - other) / 2).square().mean((1, 2, 3)))


def load(place: Place) -> AutoencoderKL:
    """The finished autoencoder, in fp32."""
    return (
        AutoencoderKL.from_pretrained(place.output / "vae", torch_dtype=torch.float32)
        .to(place.device)
        .eval()
    )


def make(place: Place) -> bool:
    """Train the autoencoder and write it to output/vae, fp16; True when it is finished."""
    drawn = pictures("train", place.cache, place.workers)
    model = build().to(place.device, memory_format=torch.channels_last)

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        crop = CROP if step < 0.92 * PLAN.steps else 128
        top, left = (int(rng.integers(0, 128 - crop + 1)) for _ in range(2))
        chosen = np.sort(rng.integers(0, len(drawn), BATCH if crop == CROP else BATCH // 2))
        images = to_tensor(drawn[chosen, top : top + crop, left : left + crop], place.device)
        return losses(model, images.contiguous(memory_format=torch.channels_last))

    done = train("vae", {"vae": model}, loss, PLAN, place)
    fold(model, to_tensor(drawn[:1024], place.device))
    model.to(torch.float16, memory_format=torch.contiguous_format).save_pretrained(
        place.output / "vae"
    )
    return done


@torch.no_grad()
def latents_of(place: Place) -> Tensor:
    """The train set as scaled latents, encoded once for each encoder and kept in the cache."""
    vae = load(place)
    weights = b"".join(
        value.half().cpu().numpy().tobytes()
        for key, value in vae.state_dict().items()
        if key.startswith(INWARD)
    )
    file = place.cache / f"latents-{hashlib.sha256(weights).hexdigest()[:12]}.pt"
    if not file.exists():
        drawn = pictures("train", place.cache, place.workers)
        batches = (to_tensor(drawn[k : k + 50], place.device) for k in range(0, len(drawn), 50))
        save_aside(
            torch.cat([vae.encode(batch).latent_dist.mode().cpu() for batch in batches])
            * vae.config.scaling_factor,
            file,
        )
    return torch.load(file, weights_only=True)


def polish(place: Place) -> bool:
    """Train the decoder alone for longer and rewrite output/vae: latents stay what they are, so nothing that learned from them is spoilt."""
    drawn, latents = pictures("train", place.cache, place.workers), latents_of(place) / SCALING
    model = load(place).to(memory_format=torch.channels_last).train()
    for key, param in model.named_parameters():
        param.requires_grad_(not key.startswith(INWARD))

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        cells = CROP // 8 if step < 0.8 * POLISH.steps else 16
        top, left = (int(rng.integers(0, 16 - cells + 1)) for _ in range(2))
        chosen = np.sort(rng.integers(0, len(drawn), BATCH if cells < 16 else BATCH // 2))
        part = latents[chosen, :, top : top + cells, left : left + cells].to(place.device)
        images = to_tensor(
            drawn[chosen, 8 * top : 8 * (top + cells), 8 * left : 8 * (left + cells)], place.device
        )
        return errors(
            model.decode(part.contiguous(memory_format=torch.channels_last)).sample - images
        )

    done = train("polish", {"vae": model}, loss, POLISH, place)
    model.to(torch.float16, memory_format=torch.contiguous_format).save_pretrained(
        place.output / "vae"
    )
    return done
