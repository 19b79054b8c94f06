"""What values of axes do to a number: against hand-worked tables, least squares and simulated noise."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from studio.core.comparison.effects import estimate_effects


def test_a_table_worked_by_hand() -> None:
    """Two samplers at three step counts; sampler 1 gives 2 more, each step count 3 more."""
    values = {(a, b): 10.0 + 2 * a + 3 * b for a, b in product(range(2), range(3))}
    effects = estimate_effects(values, (2, 3))
    first, second = effects.axes
    assert first
    assert second
    assert [value.mean for value in first] == pytest.approx([13, 15])
    assert [value.mean for value in second] == pytest.approx([11, 14, 17])
    assert [value.num_cells for value in second] == [2, 2, 2]
    assert effects.noise == pytest.approx(0, abs=1e-9)
    assert effects.spread == pytest.approx((2, 6))
    assert effects.seed_spread is None


def test_intervals_are_those_of_a_randomised_block_design() -> None:
    """Three treatments in four blocks (here seeds), by the textbook's sums of squares."""
    table = np.array([[1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 4.0, 6.0], [7.0, 7.0, 8.0, 10.0]])
    values = {(a, n): float(table[a, n]) for a, n in product(range(3), range(4))}
    effects = estimate_effects(values, (3, 4), seed_axis=1)
    rows, columns, mean = table.mean(1), table.mean(0), table.mean()
    residuals = table - rows[:, None] - columns[None] + mean
    variance = (residuals**2).sum() / (2 * 3)
    assert effects.noise == pytest.approx(math.sqrt(variance))
    treatments = effects.axes[0]
    assert treatments
    for effect, row in zip(treatments, rows, strict=True):
        reach = stats.t.ppf(0.975, 6) * math.sqrt(variance / 4)
        assert (effect.mean, effect.low, effect.high) == pytest.approx(
            (row, row - reach, row + reach)
        )
    # What the seed alone does, without the blocks taken out.
    pooled = np.mean([np.var(row, ddof=1) for row in table])
    assert effects.seed_spread == pytest.approx(math.sqrt(pooled))


def test_it_is_least_squares_with_holes() -> None:
    rng = np.random.default_rng(4)
    sizes = (3, 4, 2)
    every = list(product(*map(range, sizes)))
    kept = [at for at in every if rng.random() > 0.3]
    values = {at: float(rng.normal(at[0] - at[1], 1)) for at in kept}
    effects = estimate_effects(values, sizes)
    # The same by dummies and a general solver: predictions over all cells, averaged.
    rows = [[float(at[a] == v) for a, size in enumerate(sizes) for v in range(size)] for at in kept]
    solution = np.linalg.lstsq(np.array(rows), np.array(list(values.values())), rcond=None)[0]
    start = 0
    for axis, size in enumerate(sizes):
        for value in range(size):
            others = [
                solution[sum(sizes[:a]) : sum(sizes[: a + 1])].mean()
                for a in range(len(sizes))
                if a != axis
            ]
            found = effects.axes[axis]
            assert found
            assert found[value].mean == pytest.approx(solution[start + value] + sum(others))
        start += size
    assert math.isfinite(effects.noise)


def test_intervals_hold_what_is_true() -> None:
    rng = np.random.default_rng(8)
    held = num = 0
    for _ in range(300):
        values = {
            (a, b, s): 2.0 * a - b + rng.normal(0, 1)
            for a, b, s in product(range(3), range(3), range(3))
        }
        effects = estimate_effects(values, (3, 3, 3), seed_axis=2).axes[0]
        assert effects
        for a, effect in enumerate(effects):
            held += effect.low <= 2.0 * a - 1 <= effect.high
            num += 1
    assert 0.93 <= held / num <= 0.97


def test_values_without_cells_and_axes_that_are_one() -> None:
    values = {(0, 0): 1.0, (2, 0): 3.0, (0, 1): 2.0, (2, 1): math.nan}
    effects = estimate_effects(values, (3, 2))
    first, second = effects.axes
    assert first
    assert second
    assert (first[1].num_cells, math.isnan(first[1].mean)) == (0, True)
    assert [first[0].mean, first[2].mean] == pytest.approx([1.5, 3.5])
    assert effects.spread[0] == pytest.approx(2.0)
    # Two axes that always go together cannot be told apart; one beside them can.
    beside = estimate_effects(
        {(n, n, k): 3.0 * n + k for n in range(3) for k in range(2)}, (3, 3, 2)
    )
    assert beside.axes[:2] == (None, None)
    last = beside.axes[2]
    assert last
    assert [value.mean for value in last] == pytest.approx([3.0, 4.0])
    assert beside.noise == pytest.approx(0, abs=1e-9)
    many = {(n, k): float(n) for n in range(400) for k in range(2)}
    assert estimate_effects(many, (400, 2)).axes == (None, None)  # too much to wait for
    assert estimate_effects({(n, n): float(n) for n in range(3)}, (3, 3)).axes == (None, None)
    assert estimate_effects({}, (3, 3)).axes == (None, None)
    assert estimate_effects({(0, 0): math.inf}, (3, 3)).axes == (None, None)
    single = estimate_effects({(0, 0): 4.0}, (1, 1))
    assert (single.axes, single.seed_spread) == ((None, None), None)
    # As many cells as values: means, but nothing left to tell an interval by.
    alone = estimate_effects({(n,): float(n) for n in range(3)}, (3,)).axes[0]
    assert alone
    assert (alone[2].mean, math.isnan(alone[2].low)) == (pytest.approx(2.0), True)
