"""Trains the pocket's upscaler, which enlarges its images four times: 128 to 512 pixels.

Knows: its size, its pairs (a scene drawn at both sizes; half of the small ones through the
autoencoder, as generated images come out of it) and its scores against Lanczos.
Does not know: its network (engine/upscaling/compact.py), how the studio runs it.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from studio.engine.upscaling.compact import CompactNetwork
from studio.pocket.autoencoder import (
    compute_reconstruction_losses,
    load_autoencoder,
)
from studio.pocket.data import make_scene, to_tensor
from studio.pocket.train_loop import RunContext, TrainingPlan, train_modules
from studio.pocket.world import IMAGE_SIZE_PX, render_scene, sample_held_out

SCALE = 4
FEATURES = 32
NUM_CONVS = 10
TRAINING_PLAN = TrainingPlan(steps=5_000, learning_rate=1e-3, ema_decay=0.998, seed=47)
NUM_SCENES = {"train": 1_200, "check": 96}
BATCH_SIZE = 12
CROP_PX = 40
LARGE_PX = SCALE * IMAGE_SIZE_PX
FILE_NAME = "pocket-x4.safetensors"


class Pairs(NamedTuple):
    """The same scenes at two sizes: uint8, (n, 128, 128, 3) and (n, 512, 512, 3).

    `decoded` are the small ones after the autoencoder.
    """

    small: np.ndarray
    decoded: np.ndarray
    large: np.ndarray


def build_upscaler() -> CompactNetwork:
    """Return an untrained upscaler."""
    torch.manual_seed(47)
    return CompactNetwork(3, FEATURES, NUM_CONVS, SCALE)


def _render_pair(split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    scene = make_scene(split, index, sample_held_out())
    return render_scene(scene), render_scene(scene, SCALE)


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


def train_upscaler(context: RunContext) -> bool:
    """Train the upscaler and write it to output/upscaler, fp16; return whether it is finished."""
    pairs = load_pairs("train", context)
    model = build_upscaler().to(context.device)

    def compute_loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        indices = np.sort(rng.integers(0, len(pairs.large), BATCH_SIZE))
        small_crops = []
        large_crops = []
        for index in indices:
            top, left = (int(rng.integers(0, IMAGE_SIZE_PX - CROP_PX + 1)) for _ in range(2))
            source = pairs.decoded if rng.random() < 0.5 else pairs.small
            crop = source[index, top : top + CROP_PX, left : left + CROP_PX]
            rows = slice(SCALE * top, SCALE * (top + CROP_PX))
            columns = slice(SCALE * left, SCALE * (left + CROP_PX))
            target = pairs.large[index, rows, columns]
            if rng.random() < 0.5:
                crop = crop[:, ::-1]
                target = target[:, ::-1]
            small_crops.append(crop)
            large_crops.append(target)
        small = to_tensor(np.stack(small_crops), context.device)
        large = to_tensor(np.stack(large_crops), context.device)
        # The network works on 0 to 1, the losses on -1 to 1.
        enlarged = model((small + 1) / 2) * 2 - 1
        return compute_reconstruction_losses(enlarged - large)

    is_finished = train_modules(
        "upscaler", {"upscaler": model}, compute_loss, TRAINING_PLAN, context
    )
    folder = context.output_dir / "upscaler"
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.half().contiguous().cpu() for key, value in model.state_dict().items()}
    save_file(weights, folder / FILE_NAME)
    return is_finished
