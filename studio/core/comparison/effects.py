"""What each value of each axis does to a number, over all seeds and all other axes.

Knows: cells by their coordinates, the additive model. Does not know: what the number is, what an
axis varies.

Source: the analysis of variance of a factorial design without interactions, fitted by least
squares, so that missing cells are no fault (Searle, Linear Models, 1971).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
MAX_CONDITION = 1e10  # of the design's Gram matrix: beyond it two axes cannot be told apart
MAX_COLUMNS = 300  # of the design, which is solved while somebody waits

Coordinates = tuple[int, ...]


@dataclass(frozen=True)
class ValueEffect:
    """What one value of an axis comes to.

    Attributes:
        mean: Of the number, as if every value of the other axes had been tried with it alike.
        low: The lower end of the 95 % interval of `mean`; NaN where nothing is left to tell it by.
        high: The upper end.
        num_cells: How many cells it rests on.
    """

    mean: float
    low: float
    high: float
    num_cells: int


@dataclass(frozen=True)
class Effects:
    """What all values of all axes come to.

    Attributes:
        axes: By axis, by value; None for an axis of which one value at most has cells, or which
            cannot be told apart from another.
        spread: By axis, the highest mean less the lowest, in the number's own unit; 0 for None.
        noise: The standard deviation of what the axes do not explain.
        num_free: The degrees of freedom that it is told by.
        seed_spread: The standard deviation between cells that differ in the seed alone; None
            without such cells.
    """

    axes: tuple[tuple[ValueEffect, ...] | None, ...]
    noise: float
    seed_spread: float | None
    num_free: int = 0

    @property
    def spread(self) -> tuple[float, ...]:
        return tuple(_get_range(values) for values in self.axes)


def estimate_effects(
    values: Mapping[Coordinates, float], sizes: Sequence[int], seed_axis: int | None = None
) -> Effects:
    """Estimate the mean of each value of each axis, with its interval.

    Nothing is estimated where the axes have more than `MAX_COLUMNS` values.

    Intervals are Student's, by what is left of the number's variance once all axes are taken out;
    they hold as far as axes act independently of each other.

    Args:
        values: The number by the cell's coordinates; what is not finite is left out.
        sizes: How many values each axis has.
        seed_axis: The axis that varies the seed, if one does.
    """
    cells = [(at, value) for at, value in sorted(values.items()) if math.isfinite(value)]
    nothing: tuple[tuple[ValueEffect, ...] | None, ...] = (None,) * len(sizes)
    if not cells:
        return Effects(nothing, math.nan, None)
    coordinates = np.array([at for at, _ in cells]).reshape(len(cells), len(sizes))
    numbers = np.array([value for _, value in cells])
    counts = [np.bincount(coordinates[:, axis], minlength=size) for axis, size in enumerate(sizes)]
    seed_spread = None if seed_axis is None else _measure_seed_spread(cells, seed_axis)
    if sum(map(np.count_nonzero, counts)) > MAX_COLUMNS:
        return Effects(nothing, math.nan, seed_spread)
    design, contrasts, columns = _build_design(coordinates, counts)
    gram = design.T @ design
    if np.linalg.cond(gram) > MAX_CONDITION:
        alike = _find_confounded_axes(design, columns)
        if len(alike) in (0, len(sizes)):
            return Effects(nothing, math.nan, seed_spread)
        return _estimate_beside(cells, sizes, alike, seed_axis)
    inverse = np.linalg.inv(gram)
    coefficients = inverse @ design.T @ numbers
    residuals = numbers - design @ coefficients
    num_free = len(numbers) - len(coefficients)
    noise = math.sqrt(float(residuals @ residuals) / num_free) if num_free > 0 else math.nan
    reach = float(stdtrit(num_free, (1 + CONFIDENCE) / 2)) * noise if num_free > 0 else math.nan
    effects: list[tuple[ValueEffect, ...] | None] = []
    for axis, size in enumerate(sizes):
        if np.count_nonzero(counts[axis]) < 2:
            effects.append(None)
            continue
        # What each value's mean is made of: the mean of all, and the columns of its axis.
        weights = np.zeros((size, len(coefficients)))
        weights[:, 0] = 1
        weights[:, columns[axis]] = contrasts[axis]
        means = weights @ coefficients
        errors = reach * np.sqrt(np.einsum("ij,jk,ik->i", weights, inverse, weights))
        effects.append(
            tuple(
                ValueEffect(float(mean), float(mean - error), float(mean + error), int(count))
                if count
                else ValueEffect(math.nan, math.nan, math.nan, 0)
                for mean, error, count in zip(means, errors, counts[axis], strict=True)
            )
        )
    return Effects(tuple(effects), noise, seed_spread, max(num_free, 0))


def _build_design(
    coordinates: np.ndarray, counts: Sequence[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray], list[slice]]:
    """Return the design matrix; by axis its contrasts and which of the columns are its own.

    The first column is the mean. Of an axis with n values that have cells, n - 1 columns say by how
    much each differs from it: the last value is what makes all differences sum to zero.

    Args:
        coordinates: (cells, axes), the value's index on each axis.
        counts: By axis, how many cells each value has.
    """
    blocks, contrasts, columns, start = [np.ones((len(coordinates), 1))], [], [], 1
    for axis, count in enumerate(counts):
        present = np.flatnonzero(count)
        width = max(len(present) - 1, 0)
        contrast = np.zeros((len(count), width))
        contrast[present[:-1], np.arange(width)] = 1
        contrast[present[-1]] = -1
        blocks.append(contrast[coordinates[:, axis]])
        contrasts.append(contrast)
        columns.append(slice(start, start + width))
        start += width
    return np.hstack(blocks), contrasts, columns


def _find_confounded_axes(design: np.ndarray, columns: Sequence[slice]) -> list[int]:
    """Return the axes whose columns others could stand for."""
    rank = np.linalg.matrix_rank(design)
    confounded = []
    for axis, own in enumerate(columns):
        width = own.stop - own.start
        others = np.delete(design, np.arange(own.start, own.stop), axis=1)
        if width and np.linalg.matrix_rank(others) > rank - width:
            confounded.append(axis)
    return confounded


def _estimate_beside(
    cells: Sequence[tuple[Coordinates, float]],
    sizes: Sequence[int],
    alike: Sequence[int],
    seed_axis: int | None,
) -> Effects:
    """Estimate the axes beside those that cannot be told apart, which count as one axis."""
    kept = [axis for axis in range(len(sizes)) if axis not in alike]
    together = sorted({tuple(at[axis] for axis in alike) for at, _ in cells})
    values = {
        (*(at[axis] for axis in kept), together.index(tuple(at[axis] for axis in alike))): value
        for at, value in cells
    }
    inner = estimate_effects(
        values,
        [*(sizes[axis] for axis in kept), len(together)],
        kept.index(seed_axis) if seed_axis in kept else None,
    )
    axes = dict(zip(kept, inner.axes[:-1], strict=True))
    return replace(inner, axes=tuple(axes.get(axis) for axis in range(len(sizes))))


def _measure_seed_spread(
    cells: Sequence[tuple[Coordinates, float]], seed_axis: int
) -> float | None:
    """Return the pooled standard deviation among cells that are alike but for the seed."""
    alike: dict[Coordinates, list[float]] = defaultdict(list)
    for at, value in cells:
        alike[at[:seed_axis] + at[seed_axis + 1 :]].append(value)
    groups = [np.array(group) for group in alike.values() if len(group) > 1]
    if not groups:
        return None
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return math.sqrt(squares / sum(len(group) - 1 for group in groups))


def _get_range(values: tuple[ValueEffect, ...] | None) -> float:
    means = [value.mean for value in values or () if math.isfinite(value.mean)]
    return max(means) - min(means) if means else 0.0
