"""The drawings that the recipe learns from: drawn once, stored as one .npy file per split.

Knows: three splits that never share an image (train: without concepts and held-out combinations;
judge: everything; check: everything, for scores).
Does not know: models, captions.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from studio.pocket.world import (
    CONCEPTS,
    IMAGE_SIZE_PX,
    Combination,
    Scene,
    render_scene,
    sample_held_out,
    sample_scene,
)

# split -> first seed, number of images
SPLITS: dict[str, tuple[int, int]] = {
    "train": (0, 24_000),
    "judge": (20_000_000, 12_000),
    "check": (40_000_000, 1_024),
}
CHUNK_SIZE = 200  # images that a process draws at a time


def make_scene(split: str, index: int, excluded: frozenset[Combination]) -> Scene:
    """Return scene `index` of a split; `excluded` combinations are left out of "train".

    One in ten of the judge's scenes shows a concept, and one in sixteen of the check's.
    """
    first_seed, _ = SPLITS[split]
    seed = first_seed + index
    if split == "train":
        return sample_scene(seed, excluded=excluded)
    concept_interval = 10 if split == "judge" else 16
    if index % concept_interval:
        return sample_scene(seed)
    concepts = sorted(CONCEPTS)
    return sample_scene(seed, concept=concepts[index // concept_interval % len(concepts)])


def list_scenes(split: str) -> list[Scene]:
    """Return the scenes of a split, in order."""
    _, count = SPLITS[split]
    return _make_scenes(split, range(count))


def _make_scenes(split: str, indices: range) -> list[Scene]:
    excluded = sample_held_out()
    return [make_scene(split, index, excluded) for index in indices]


def _render_chunk(split: str, start: int) -> np.ndarray:
    """Draw the images from `start` on, in a process of its own."""
    stop = min(start + CHUNK_SIZE, SPLITS[split][1])
    return np.stack([render_scene(scene) for scene in _make_scenes(split, range(start, stop))])


def load_images(split: str, cache_dir: Path, num_workers: int = 2) -> np.ndarray:
    """Return all images of a split: (n, 128, 128, 3), uint8, mapped from the cache's file.

    If the file is not there yet, `num_workers` processes draw the images first.
    """
    file = cache_dir / f"{split}.npy"
    if not file.exists():
        _write_images(split, file, num_workers)
    return np.asarray(np.load(file, mmap_mode="r"))


def _write_images(split: str, file: Path, num_workers: int) -> None:
    """Draw a split into a file beside, then rename it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial_file = file.with_suffix(".part.npy")
    count = SPLITS[split][1]
    shape = (count, IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3)
    images = np.lib.format.open_memmap(str(partial_file), mode="w+", dtype=np.uint8, shape=shape)
    starts = range(0, count, CHUNK_SIZE)
    with ProcessPoolExecutor(num_workers) as pool:
        chunks = pool.map(_render_chunk, [split] * len(starts), starts)
        for start, chunk in zip(starts, chunks, strict=True):
            images[start : start + len(chunk)] = chunk
    images.flush()
    os.replace(partial_file, file)


def to_tensor(pixels: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """Return uint8 images (n, height, width, 3) as floats (n, 3, height, width) from -1 to 1."""
    images = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()
