"""Where a sampler stops changing: on series with a known end, and on an ideal denoiser."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from studio.core.comparison.convergence import (
    VISIBLE_PERCENT,
    ConvergenceLine,
    ConvergencePoint,
    describe_convergence,
)


def line(name: str, *differences: float, is_stochastic: bool = False) -> ConvergenceLine:
    points = [ConvergencePoint(10.0 * n, value) for n, value in enumerate(differences, 1)]
    return ConvergenceLine(name, tuple(points), is_stochastic)


def test_the_first_count_from_which_on_nothing_changes() -> None:
    assert line("", 9, 4, 0.9, 0.5, 0).settled_steps == 30
    assert line("", 0.9, 4, 0.9, 0.5, 0).settled_steps == 30  # close once by chance is not settled
    assert line("", 9, 4, 2, 0).settled_steps is None  # the last is compared to itself
    assert line("", 0.1, 0).settled_steps == 10
    assert line("", 0).settled_steps is None
    assert line("").settled_steps is None


def test_sentences() -> None:
    said = describe_convergence(
        [
            line("Euler a", 30, 20, 12, 0, is_stochastic=True),
            line("Euler", 9, 4, 0.94, 0),
            line("Heun", 3, 0.5, 0.2, 0),
            line("DDIM", 9, 7, 3, 0),
            line("alone", 0),
        ]
    )
    assert said == [
        "Heun: nothing visible changes after 20 steps (0.5 % from 40 steps).",
        "Euler: nothing visible changes after 30 steps (0.94 % from 40 steps).",
        "Euler a: still changing at 30 steps (12 % from 40 steps); it adds fresh noise at each "
        "step, so it need not settle.",
        "DDIM: still changing at 30 steps (3 % from 40 steps).",
    ]
    (single,) = describe_convergence([line("", 5, 0.2, 0)])
    assert single.startswith("Nothing visible changes after 20 steps")


@pytest.mark.parametrize("order", [1, 2])
def test_on_an_ideal_denoiser_of_known_error(order: int) -> None:
    """A normal distribution's own denoiser: dx/dσ = x σ / (1 + σ²), so x goes as √(1 + σ²).

    Euler's error falls as 1/n and Heun's as 1/n²; the count at which it is below what is visible
    follows from that, and is the one that is found.
    """
    start, end, x0 = 14.0, 0.03, 20.0

    def slope(x: float, sigma: float) -> float:
        return x * sigma / (1 + sigma**2)

    def sample(steps: int) -> float:
        x, sigmas = x0, np.linspace(start, end, steps + 1)
        for sigma, following in pairwise(sigmas):
            first = slope(x, sigma)
            euler = x + (following - sigma) * first
            x = (
                euler
                if order == 1
                else x + (following - sigma) * (first + slope(euler, following)) / 2
            )
        return float(x)

    true = x0 * np.sqrt((1 + end**2) / (1 + start**2))
    counts = [20, 40, 80, 160, 320, 640, 1280, 20_000]
    images = [sample(count) for count in counts]
    assert images[-1] == pytest.approx(true, rel=5e-3)
    differences = [100 * abs(image - images[-1]) / true for image in images]
    ratios = [a / b for a, b in pairwise(differences[2:6])]
    assert ratios == pytest.approx([2.0**order] * 3, rel=0.25)
    points = tuple(map(ConvergencePoint, map(float, counts), differences))
    expected = next(
        count
        for count, difference in zip(counts, differences, strict=True)
        if difference <= VISIBLE_PERCENT
    )
    assert ConvergenceLine("", points).settled_steps == expected
