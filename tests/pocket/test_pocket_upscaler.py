"""The embedded upscaler: the same drawing at every size, a network that begins as bilinear interpolation, and a file that beats Lanczos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from studio.engine.models.devices import Device
from studio.engine.upscaling.loader import load_upscaler
from studio.engine.upscaling.tiles import upscale_image
from studio.pocket.train import PARTS
from studio.pocket.upscaler import FILE_NAME, build_upscaler
from studio.pocket.world import STYLE_NAMES, render_scene, sample_held_out, sample_scene
from studio.settings import shipped

FILE = shipped("assets") / "pocket" / "upscaler" / FILE_NAME
CPU = Device(torch.device("cpu"), torch.float32)


def psnr(image: Image.Image | np.ndarray, reference: np.ndarray) -> float:
    error = np.square(np.asarray(image, float) - reference).mean()
    return float(10 * np.log10(255**2 / max(error, 0.01)))


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_a_larger_drawing_is_the_same_one(style: str) -> None:
    for seed in range(3):
        scene = sample_scene(700 + seed, ("cat", "red", "on a beach", style))
        small, large = render_scene(scene), render_scene(scene, 4)
        assert large.shape == (512, 512, 3)
        averaged = np.asarray(Image.fromarray(large).reduce(4))
        other = render_scene(sample_scene(800 + seed, ("cat", "red", "on a beach", style)))
        assert psnr(averaged, small) > 29
        assert psnr(averaged, other) < 22
        if style == "pixel art":
            assert np.array_equal(large, small.repeat(4, 0).repeat(4, 1))


def test_it_begins_as_bilinear_interpolation() -> None:
    network = build_upscaler().eval()
    last = [layer for layer in network.body if isinstance(layer, nn.Conv2d)][-1]
    last.weight.data[:, 3:] = 0  # what chance adds to it
    image = torch.rand(1, 3, 9, 7)
    with torch.inference_mode():
        difference = network(image) - F.interpolate(image, scale_factor=4, mode="bilinear")
    assert difference[..., 4:-4, 4:-4].abs().max() < 1e-6


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_unseen_drawings_are_nearer_to_what_they_were_than_lanczos_makes_them(style: str) -> None:
    assert FILE.stat().st_size <= 1_500_000
    assert "upscaler" in PARTS
    upscaler = load_upscaler(Path(FILE), "pocket-x4", CPU)
    combinations = [entry for entry in sorted(sample_held_out()) if entry[3] == style]
    gains = []
    for seed, combination in enumerate(combinations[::40]):
        large = render_scene(sample_scene(96_000_000 + seed, combination), 4)
        small = Image.fromarray(large).reduce(4)
        enlarged = upscale_image(upscaler, small, CPU)
        lanczos = small.resize((512, 512), Image.Resampling.LANCZOS)
        gains.append(psnr(enlarged, large) - psnr(lanczos, large))
    assert np.mean(gains) > 1.5, gains
    assert min(gains) > 0
