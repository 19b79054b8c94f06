"""Trains the pocket's upscaler, which enlarges its images four times: 128 to 512 pixels.

Knows: its size, what it begins as, its pairs (scenes drawn large and made smaller; some of the
small ones through the autoencoder, as generated images come out of it).
Does not know: its network (engine/upscaling/compact.py), how the studio runs it.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from studio.engine.upscaling.compact import CompactNetwork
from studio.pocket.autoencoder import (
    compute_psnr,
    compute_reconstruction_losses,
    load_autoencoder,
)
from studio.pocket.data import make_scene, to_tensor
from studio.pocket.train_loop import RunContext, TrainingPlan, train_modules
from studio.pocket.world import IMAGE_SIZE_PX, render_scene, sample_held_out

SCALE = 4
FEATURES = 32
NUM_CONVS = 6
TRAINING_PLAN = TrainingPlan(steps=2_000, learning_rate=1.5e-3, ema_decay=0.995, seed=47)
NUM_SCENES = {"train": 1_200, "check": 96}
BATCH_SIZE = 16
CROP_PX = 32
DECODED_SHARE = 0.25  # of the crops
# What the autoencoder has lost cannot be brought back: such a crop costs ten times as much.
DECODED_WEIGHT = 0.3
LARGE_PX = SCALE * IMAGE_SIZE_PX
FILE_NAME = "pocket-x4.safetensors"


class Pairs(NamedTuple):
    """The same drawings at two sizes: uint8, (n, 128, 128, 3) and (n, 512, 512, 3).

    `decoded` are the small ones after the autoencoder. The small ones are averages of the large
    ones: drawn at 128 pixels, outlines would be up to a fifth of a pixel elsewhere.
    """

    small: np.ndarray
    decoded: np.ndarray
    large: np.ndarray


def build_upscaler() -> CompactNetwork:
    """Return an untrained upscaler, which enlarges as bilinear interpolation does.

    The first three features carry the colours through all layers unchanged; from random weights
    alone the network would still be copying pixels after thousands of steps.
    """
    torch.manual_seed(47)
    network = CompactNetwork(3, FEATURES, NUM_CONVS, SCALE)
    *convs, last = (layer for layer in network.body if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        for conv in (*convs, last):
            nn.init.kaiming_normal_(conv.weight, a=0.25)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        for conv in convs:
            conv.weight[:3] = 0
            conv.weight[range(3), range(3), 1, 1] = 1
        for layer in network.body:
            if isinstance(layer, nn.PReLU):
                layer.weight[:3] = 1
        last.weight *= 0.1
        last.weight[:, :3] = 0
        kernel = _compute_bilinear_kernel()
        for colour in range(3):
            last.weight[SCALE**2 * colour : SCALE**2 * (colour + 1), colour] = kernel
    return network


def _compute_bilinear_kernel() -> Tensor:
    """Return what each pixel that a pixel becomes takes of the 3 x 3 around that: (16, 3, 3).

    It is the difference of bilinear and nearest interpolation, to which the network adds the
    latter.
    """
    units = torch.eye(9).reshape(9, 1, 3, 3)
    bilinear = functional.interpolate(units, scale_factor=SCALE, mode="bilinear")
    difference = bilinear - functional.interpolate(units, scale_factor=SCALE, mode="nearest")
    middle = difference[:, 0, SCALE : 2 * SCALE, SCALE : 2 * SCALE]
    return middle.reshape(9, SCALE**2).T.reshape(SCALE**2, 3, 3)


def _render_pair(split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    large = Image.fromarray(render_scene(make_scene(split, index, sample_held_out()), SCALE))
    return np.asarray(large.reduce(SCALE)), np.asarray(large)


def load_pairs(split: str, context: RunContext) -> Pairs:
    """Return the pairs of a split, mapped from the cache's files; draw them if they are not there.

    They are the first scenes of the split that the other parts learn from or are scored on.
    """
    files = [
        context.cache_dir / f"upscaler-{split}-{name}.npy" for name in ("small", "decoded", "large")
    ]
    if not all(file.exists() for file in files):
        _write_pairs(split, files, context)
    return Pairs(*(np.asarray(np.load(file, mmap_mode="r")) for file in files))


def _write_pairs(split: str, files: list[Path], context: RunContext) -> None:
    """Draw a split into files beside, then rename them."""
    count = NUM_SCENES[split]
    context.cache_dir.mkdir(parents=True, exist_ok=True)
    partial_files = [file.with_suffix(".part.npy") for file in files]
    arrays = []
    for file, side in zip(partial_files, (IMAGE_SIZE_PX, IMAGE_SIZE_PX, LARGE_PX), strict=True):
        shape = (count, side, side, 3)
        arrays.append(np.lib.format.open_memmap(str(file), "w+", np.uint8, shape))
    small, decoded, large = arrays
    with ProcessPoolExecutor(context.num_workers) as pool:
        pairs = pool.map(_render_pair, [split] * count, range(count), chunksize=20)
        for index, (small_image, large_image) in enumerate(pairs):
            small[index] = small_image
            large[index] = large_image
    vae = load_autoencoder(context)
    with torch.inference_mode():
        for start in range(0, count, 16):
            images = to_tensor(small[start : start + 16], context.device)
            images = vae.decode(vae.encode(images).latent_dist.mode()).sample
            decoded[start : start + 16] = to_pixels(images)
    for array, partial_file, file in zip(arrays, partial_files, files, strict=True):
        array.flush()
        os.replace(partial_file, file)


def to_pixels(images: Tensor) -> np.ndarray:
    """Return images (n, 3, h, w) from -1 to 1 as uint8 (n, h, w, 3)."""
    scaled = images.clamp(-1, 1).add(1).mul(127.5).round()
    return scaled.permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()


def load_upscaler(context: RunContext) -> CompactNetwork:
    """Load the finished upscaler in fp32."""
    weights = load_file(context.output_dir / "upscaler" / FILE_NAME)
    model = build_upscaler()
    model.load_state_dict({key: value.float() for key, value in weights.items()})
    return model.to(context.device).eval()


@torch.inference_mode()
def score_upscaler(context: RunContext) -> dict[str, float]:
    """Score the upscaler on drawings that nothing was trained on, beside Lanczos: PSNR in dB.

    "decoded" are drawings after the autoencoder, as generated images are.
    """
    model = load_upscaler(context)
    pairs = load_pairs("check", context)
    styles = [make_scene("check", k, frozenset()).style for k in range(len(pairs.small))]
    psnr: dict[str, list[float]] = {}
    for k, style in enumerate(styles):
        large = to_tensor(pairs.large[k : k + 1])
        for source, name in ((pairs.small, style), (pairs.decoded, "decoded")):
            small = to_tensor(source[k : k + 1], context.device)
            enlarged = (model((small + 1) / 2) * 2 - 1).clamp(-1, 1).cpu()
            resized = Image.fromarray(source[k]).resize(
                (LARGE_PX, LARGE_PX), Image.Resampling.LANCZOS
            )
            lanczos = to_tensor(np.asarray(resized)[None])
            psnr.setdefault(f"psnr {name}", []).append(_measure_psnr(enlarged, large))
            psnr.setdefault(f"Lanczos {name}", []).append(_measure_psnr(lanczos, large))
    return {name: float(np.mean(values)) for name, values in sorted(psnr.items())}


def _measure_psnr(image: Tensor, reference: Tensor) -> float:
    # What is the same to the last bit counts as 60 dB.
    return min(60.0, float(compute_psnr(image, reference)[0]))


def train_upscaler(context: RunContext) -> bool:
    """Train the upscaler and write it to output/upscaler, fp16; return whether it is finished."""
    pairs = load_pairs("train", context)
    model = build_upscaler().to(context.device)

    def compute_loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        small_crops = []
        large_crops = []
        num_decoded = round(DECODED_SHARE * BATCH_SIZE)
        for number, index in enumerate(rng.integers(0, len(pairs.large), BATCH_SIZE)):
            top, left = (int(rng.integers(0, IMAGE_SIZE_PX - CROP_PX + 1)) for _ in range(2))
            source = pairs.decoded if number < num_decoded else pairs.small
            small_crops.append(source[index, top : top + CROP_PX, left : left + CROP_PX])
            rows = slice(SCALE * top, SCALE * (top + CROP_PX))
            columns = slice(SCALE * left, SCALE * (left + CROP_PX))
            large_crops.append(pairs.large[index, rows, columns])
        small = to_tensor(np.stack(small_crops), context.device)
        large = to_tensor(np.stack(large_crops), context.device)
        # The network works on 0 to 1, the losses on -1 to 1.
        difference = model((small + 1) / 2) * 2 - 1 - large
        decoded = compute_reconstruction_losses(difference[:num_decoded])
        drawn = compute_reconstruction_losses(difference[num_decoded:])
        return {
            "loss": drawn["loss"] + DECODED_WEIGHT * decoded["loss"],
            "drawn": drawn["square"],
            "decoded": decoded["square"],
        }

    is_finished = train_modules(
        "upscaler", {"upscaler": model}, compute_loss, TRAINING_PLAN, context
    )
    folder = context.output_dir / "upscaler"
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.half().contiguous().cpu() for key, value in model.state_dict().items()}
    save_file(weights, folder / FILE_NAME)
    return is_finished
