"""The pictures that the recipe learns from: drawn once, kept as one .npy file per set, read back as batches.

Knows: three sets that never share a picture (train: without concepts and held-out combinations; judge: everything; check: everything, for scores).
Does not know: models, captions.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from studio.pocket.world import CONCEPTS, SIZE, Scene, draw, held_out, sample

# set -> first seed, number of pictures
SETS: dict[str, tuple[int, int]] = {
    "train": (0, 24_000),
    "judge": (20_000_000, 12_000),
    "check": (40_000_000, 1_024),
}
CHUNK = 200


def scene_of(name: str, index: int, without: frozenset[tuple[str, str, str, str]]) -> Scene:
    """Picture `index` of a set. One in ten of the judge's shows a concept, and one in sixteen of the check's."""
    seed = SETS[name][0] + index
    if name == "train":
        return sample(seed, without=without)
    every = 10 if name == "judge" else 16
    return sample(
        seed, concept=sorted(CONCEPTS)[index // every % len(CONCEPTS)] if index % every == 0 else ""
    )


def scenes(name: str) -> list[Scene]:
    """The scenes of a set, in order."""
    without = held_out()
    return [scene_of(name, index, without) for index in range(SETS[name][1])]


def _draw_chunk(name: str, start: int) -> np.ndarray:
    without = held_out()
    return np.stack(
        [
            draw(scene_of(name, index, without))
            for index in range(start, min(start + CHUNK, SETS[name][1]))
        ]
    )


def pictures(name: str, cache: Path, workers: int = 2) -> np.ndarray:
    """All pictures of a set, uint8, read from the cache; what is not there yet is drawn first."""
    file = cache / f"{name}.npy"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        count = SETS[name][1]
        part = cache / f"{name}.part.npy"
        out = np.lib.format.open_memmap(
            str(part), mode="w+", dtype=np.uint8, shape=(count, SIZE, SIZE, 3)
        )
        starts = range(0, count, CHUNK)
        with ProcessPoolExecutor(workers) as pool:
            for start, chunk in zip(
                starts, pool.map(_draw_chunk, [name] * len(starts), starts), strict=True
            ):
                out[start : start + len(chunk)] = chunk
        out.flush()
        os.replace(part, file)
    return np.asarray(np.load(file, mmap_mode="r"))


def to_tensor(pixels: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """uint8 pictures (n, height, width, 3) as floats (n, 3, height, width) from -1 to 1."""
    return (
        torch.from_numpy(np.ascontiguousarray(pixels))
        .to(device)
        .permute(0, 3, 1, 2)
        .float()
        .div(127.5)
        .sub(1)
        .contiguous()
    )


def to_pixels(images: torch.Tensor) -> np.ndarray:
    """The way back: floats from -1 to 1 as uint8 pictures."""
    return np.asarray(
        images.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    )
