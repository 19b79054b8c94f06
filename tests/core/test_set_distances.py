"""Distances of sets of images: against their formulas, written out another way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from studio.core.comparison.set_distances import (
    compute_cmmd,
    compute_frechet_distance,
    describe_small_sets,
)


def draw(num: int, width: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, (num, width)) @ rng.normal(0, 1, (width, width)) / np.sqrt(width)


def to_units(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(("num", "other"), [(200, 150), (20, 30)], ids=["enough", "too few"])
def test_the_frechet_distance_is_its_formula(num: int, other: int) -> None:
    first, second = draw(num, 16, 1), draw(other, 16, 2, 0.5)
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = sqrtm(a @ b)
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root.real)
    assert compute_frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-6)
    assert compute_frechet_distance(first, second) == pytest.approx(
        compute_frechet_distance(second, first), rel=1e-6
    )


def test_the_frechet_distance_of_known_distributions() -> None:
    """Two normal distributions of one dimension: (difference of means)² + (of deviations)²."""
    rng = np.random.default_rng(3)
    first, second = rng.normal(0, 1, (200_000, 1)), rng.normal(3, 2, (200_000, 1))
    assert compute_frechet_distance(first, second) == pytest.approx(9 + 1, rel=0.02)
    assert compute_frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_cmmd_is_its_formula() -> None:
    first, second = to_units(draw(12, 8, 1)), to_units(draw(9, 8, 2, 0.5))

    def average(rows: np.ndarray, others: np.ndarray) -> float:
        distances = [((row - other) ** 2).sum() for row in rows for other in others]
        return float(np.mean(np.exp(-np.array(distances) / 200)))

    expected = average(first, first) + average(second, second) - 2 * average(first, second)
    assert compute_cmmd(first, second) == pytest.approx(1000 * expected, rel=1e-9)
    assert compute_cmmd(first, first) == pytest.approx(0, abs=1e-9)
    assert compute_cmmd(first, second) > 0
    rows = [first[n % len(first)] for n in range(12 * 200)]  # in several blocks
    assert compute_cmmd(np.array(rows), second) == pytest.approx(1000 * expected, rel=1e-9)


def test_farther_sets_are_farther() -> None:
    base = draw(300, 8, 1)
    near, far = base + 0.1, base + 1.0
    assert compute_frechet_distance(base, near) < compute_frechet_distance(base, far)
    assert compute_cmmd(to_units(base), to_units(near)) < compute_cmmd(
        to_units(base), to_units(far)
    )


def test_few_images_are_said() -> None:
    assert describe_small_sets(600, 513, 512) == ""
    assert "has 512 images" in describe_small_sets(600, 512, 512)
    few = describe_small_sets(40, 900, 512)
    assert "The smaller set has 40 images" in few
    assert "CMMD" not in few
    assert "CMMD, too, is rough below 30 images." in describe_small_sets(8, 8, 512)


@pytest.mark.parametrize("compute", [compute_frechet_distance, compute_cmmd])
def test_what_is_no_pair_of_sets(compute: object) -> None:
    assert callable(compute)
    for first, second in ((draw(1, 4, 1), draw(5, 4, 1)), (draw(5, 4, 1), draw(5, 3, 1))):
        with pytest.raises(ValueError, match=r"two images|two widths"):
            compute(first, second)
