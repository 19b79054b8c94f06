"""Numbers of an image alone: sharpness, saturation, clipping, of images whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from studio.core.comparison.conclusions import MEASURES
from studio.engine.metrics import compute_clipping, compute_saturation, compute_sharpness
from studio.engine.sweeps.export import METRICS, PIXEL_METRICS


def plain(*colour: int) -> Image.Image:
    return Image.new("RGB", (8, 6), colour)


def test_sharpness() -> None:
    assert compute_sharpness(plain(90, 90, 90)) == 0
    board = np.indices((8, 8)).sum(0) % 2 * 255
    image = Image.fromarray(board.astype(np.uint8)).convert("RGB")
    # Inside, all four neighbours are the other colour: ± 4 · 255; along an edge one is missing.
    inside = compute_sharpness(image.resize((8, 8)))
    assert inside == pytest.approx(
        np.mean(
            [
                (255 * sum(0 <= y + a < 8 and 0 <= x + b < 8 for a, b in STEPS)) ** 2
                for y in range(8)
                for x in range(8)
            ]
        )
    )
    assert compute_sharpness(image.filter(ImageFilter.GaussianBlur(2))) < inside / 10


STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def test_saturation() -> None:
    assert compute_saturation(plain(0, 0, 0)) == 0
    assert compute_saturation(plain(128, 128, 128)) == 0
    assert compute_saturation(plain(200, 0, 0)) == 100
    assert compute_saturation(plain(200, 100, 100)) == pytest.approx(50)


def test_clipping() -> None:
    image = plain(128, 128, 128)
    assert compute_clipping(image) == 0
    image.paste((0, 0, 0), (0, 0, 4, 3))
    image.paste((255, 255, 255), (4, 0, 8, 3))
    image.paste((255, 0, 0), (0, 5, 8, 6))  # a pure colour is none
    assert compute_clipping(image) == pytest.approx(50)
    assert compute_clipping(image.convert("L").convert("RGB")) == pytest.approx(50)


def test_all_numbers_have_words() -> None:
    assert tuple(measure.name for measure in MEASURES) == METRICS
    assert set(PIXEL_METRICS) < set(METRICS)
