"""What the values of a sweep's axes come to, as HTML: conclusions, and a bar for each value.

Knows: the measured numbers of a grid's cells. Does not know: how they were measured, the statistics
(core/comparison).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studio.core.comparison.conclusions import MEASURES, AxisTitle, Measure, draw_conclusions
from studio.core.comparison.effects import Effects, ValueEffect, estimate_effects
from studio.core.sweeps.spec import SweepSpec
from studio.ui.views.sweep import Board, Coordinates, Tile
from studio.ui.views.templates import render_macro

MAX_VALUES = 60  # of an axis, that are drawn


@dataclass(frozen=True)
class Bar:
    """One value of an axis: its mean, and the interval, each in % of the width of the chart."""

    label: str
    text: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class MeasureChart:
    """All bars of one number, by axis."""

    title: str
    help: str
    axes: tuple[tuple[str, tuple[Bar, ...]], ...]


def render_effects(board: Board, spec: SweepSpec) -> str:
    """Render what is known of a sweep's numbers; empty where too little is."""
    axes = tuple(AxisTitle(title, labels) for title, labels in board.axes)
    sizes = [len(axis.labels) for axis in axes]
    seed_axis = _find_seed_axis(board, spec)
    sentences: list[str] = []
    charts = []
    for measure in MEASURES:
        values = _collect_values(board.tiles, measure.name)
        effects = estimate_effects(values, sizes, seed_axis)
        said = draw_conclusions(measure, axes, effects, seed_axis)
        if said:
            sentences += said
            charts.append(_build_chart(measure, axes, effects, seed_axis))
    if not charts:
        return ""
    return render_macro("effects.html", "effects", sentences=sentences, charts=charts)


def _find_seed_axis(board: Board, spec: SweepSpec) -> int | None:
    """Return the axis of the grid that varies the seed and nothing else."""
    alone = {group[0] for group in spec.groups if len(group) == 1}
    for index, first in enumerate(board.axis_indices):
        if first in alone and spec.axes[first].field == "seed":
            return index
    return None


def _collect_values(tiles: Mapping[Coordinates, Tile], name: str) -> dict[Coordinates, float]:
    """Return a number by coordinates, of the cells that have an image and the number."""
    values = {}
    for at, tile in tiles.items():
        measured = dict(tile.result.metrics)
        if tile.result.seconds > 0:
            measured.setdefault("seconds", tile.result.seconds)
        if tile.state == "done" and name in measured:
            values[at] = measured[name]
    return values


def _build_chart(
    measure: Measure, axes: Sequence[AxisTitle], effects: Effects, seed_axis: int | None
) -> MeasureChart:
    shown = [
        (axis, values)
        for index, (axis, values) in enumerate(zip(axes, effects.axes, strict=True))
        if values and index != seed_axis
    ]
    ends = [end for _, values in shown for value in values for end in (value.low, value.high)]
    ends += [value.mean for _, values in shown for value in values]
    finite = [end for end in ends if math.isfinite(end)]
    lowest, highest = min([0.0, *finite]), max([0.0, *finite])
    return MeasureChart(
        measure.title,
        measure.help,
        tuple(
            (
                axis.title,
                tuple(
                    _build_bar(measure, label, value, lowest, highest)
                    for label, value in list(zip(axis.labels, values, strict=True))[:MAX_VALUES]
                    if value.num_cells
                ),
            )
            for axis, values in shown
        ),
    )


def _build_bar(
    measure: Measure, label: str, value: ValueEffect, lowest: float, highest: float
) -> Bar:
    def place(number: float) -> float:
        share = (number - lowest) / (highest - lowest) if highest > lowest else 0.0
        return round(100 * share, 2)

    text = measure.format(value.mean)
    if not math.isfinite(value.low):
        return Bar(label, text, place(value.mean), place(value.mean), place(value.mean))
    text += f" ({measure.format(value.low)} to {measure.format(value.high)})"
    return Bar(label, text, place(value.mean), place(value.low), place(value.high))
