"""What may be said of a number: only what the data carry, with the figure behind it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from studio.core.comparison.conclusions import (
    MEASURES_BY_NAME,
    AxisTitle,
    draw_conclusions,
)
from studio.core.comparison.effects import estimate_effects

AXES = (
    AxisTitle("Sampler", ("Euler", "Heun")),
    AxisTitle("Steps", ("10", "20", "30")),
    AxisTitle("Seed", ("1", "2", "3", "4")),
)
SIZES = (2, 3, 4)


def conclude(measure: str, compute: object, noise: float = 0.1) -> list[str]:
    assert callable(compute)
    rng = np.random.default_rng(6)
    values = {at: float(compute(*at) + rng.normal(0, noise)) for at in product(*map(range, SIZES))}
    effects = estimate_effects(values, SIZES, seed_axis=2)
    return draw_conclusions(MEASURES_BY_NAME[measure], AXES, effects, seed_axis=2)


def test_what_matters_most_comes_first() -> None:
    said = conclude("seconds", lambda sampler, steps, _seed: 1 + 2 * sampler + 8 * steps)
    assert said[0].startswith("Seconds: best with Steps 10 (")
    assert "worst with Steps 30 (" in said[0]
    assert said[1].startswith("Seconds: best with Sampler Euler (")
    assert " s, 95 % interval " in said[0]
    assert said[2].startswith("Seconds: the seed alone moves it by ±0.")
    assert len(said) == 3


def test_higher_is_better_where_it_is_and_matters_of_taste_have_no_best() -> None:
    (fit, _) = conclude("prompt fit", lambda sampler, _steps, _seed: sampler, noise=0.01)
    assert fit.startswith("Prompt fit: best with Sampler Heun (1")
    (sharp, _) = conclude("sharpness", lambda sampler, _steps, _seed: sampler, noise=0.01)
    assert sharp.startswith("Sharpness: highest with Sampler Heun (1")


def test_nothing_is_said_that_is_chance() -> None:
    said = conclude("prompt fit", lambda _sampler, _steps, _seed: 0.0, noise=1.0)
    assert (
        said[0] == ("Prompt fit: no value of Sampler or Steps stands out from chance in 24 cells.")
        or said[0] == "Prompt fit: no value of Steps or Sampler stands out from chance in 24 cells."
    )


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(2, 3, 4), (20, 1, 5), (40, 1, 4)])
def test_chance_is_seldom_taken_for_more(sizes: tuple[int, int, int]) -> None:
    """Of pure noise, in few of 300 comparisons anything is said to matter, however many values."""
    rng = np.random.default_rng(9)
    axes = tuple(
        AxisTitle(f"Axis {n}", tuple(map(str, range(size)))) for n, size in enumerate(sizes)
    )
    wrong = 0
    for _ in range(300):
        values = {at: float(rng.normal()) for at in product(*map(range, sizes))}
        effects = estimate_effects(values, sizes, seed_axis=2)
        said = draw_conclusions(MEASURES_BY_NAME["sharpness"], axes, effects, seed_axis=2)
        wrong += "no value" not in said[0]
    assert wrong / 300 <= 0.06


def test_too_few_cells_are_said_or_nothing_is() -> None:
    values = {(a, b): float(a) for a, b in product(range(2), range(3))}
    alone = estimate_effects({(a,): float(a) for a in range(5)}, (5,))
    axis = (AxisTitle("Steps", tuple("12345")),)
    (said,) = draw_conclusions(MEASURES_BY_NAME["seconds"], axis, alone)
    assert said.startswith("Seconds: each value was tried too seldom to tell what stands out")
    two = estimate_effects({(0, 0): 1.0, (1, 0): 2.0}, (2, 3))
    assert draw_conclusions(MEASURES_BY_NAME["seconds"], AXES[:2], two) == []
    assert (
        draw_conclusions(MEASURES_BY_NAME["seconds"], AXES[:2], estimate_effects({}, (2, 3))) == []
    )
    # Numbers without any noise: what differs differs.
    exact = estimate_effects(values, (2, 3))
    (sentence,) = draw_conclusions(MEASURES_BY_NAME["sharpness"], AXES[:2], exact)
    assert sentence.startswith("Sharpness: highest with Sampler Heun (1,")
