"""What the values of a sweep's axes come to, as HTML: conclusions, and a bar for each value.

Knows: the measured numbers of a grid's cells. Does not know: how they were measured, the statistics
(core/comparison).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from studio.core.catalog import SCHEDULERS
from studio.core.comparison.conclusions import MEASURES, AxisTitle, Measure, draw_conclusions
from studio.core.comparison.convergence import (
    ConvergenceLine,
    ConvergencePoint,
    describe_convergence,
)
from studio.core.comparison.effects import Effects, ValueEffect, estimate_effects
from studio.core.sweeps.spec import SweepSpec
from studio.ui.views.sweep import Board, Coordinates, Tile
from studio.ui.views.templates import render_macro

MAX_VALUES = 60  # of an axis, that are drawn
CHART_WIDTH, CHART_HEIGHT = 560, 180
NUM_CHART_COLOURS = 8  # in static/tokens.css


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


@dataclass(frozen=True)
class DrawnLine:
    """A line of a chart: its points as SVG has them, and which of the chart's colours it has."""

    name: str
    points: str
    number: int

    @property
    def colour(self) -> int:
        """The number of its colour, from 1; every other round of colours is dashed."""
        return self.number % NUM_CHART_COLOURS + 1

    @property
    def is_dashed(self) -> bool:
        return self.number // NUM_CHART_COLOURS % 2 == 1


@dataclass(frozen=True)
class LineChart:
    """Lines over a number, with what stands at the ends of its axes."""

    title: str
    most: str
    highest: str
    lines: tuple[DrawnLine, ...]


def render_effects(board: Board, spec: SweepSpec) -> str:
    """Render what is known of a sweep's numbers; empty where too little is."""
    axes = tuple(AxisTitle(title, labels) for title, labels in board.axes)
    sizes = [len(axis.labels) for axis in axes]
    seed_axis = _find_axis(board, spec, "seed")
    sentences: list[str] = []
    charts = []
    for measure in MEASURES:
        if measure.name == "convergence":
            continue  # it has a chart of its own
        values = _collect_values(board.tiles, measure.name)
        effects = estimate_effects(values, sizes, seed_axis)
        said = draw_conclusions(measure, axes, effects, seed_axis)
        if said:
            sentences += said
            charts.append(_build_chart(measure, axes, effects, seed_axis))
    lines = _trace_convergence(board, spec)
    curves = []
    if any(len(line.points) > 1 for line in lines):
        sentences = describe_convergence(lines) + sentences
        curves.append(_build_line_chart(lines, "steps", " steps", lambda point: point.steps))
        if all(point.seconds > 0 for line in lines for point in line.points):
            curves.append(_build_line_chart(lines, "seconds", " s", lambda point: point.seconds))
    if not charts and not curves:
        return ""
    return render_macro(
        "effects.html",
        "effects",
        sentences=sentences,
        charts=charts,
        curves=curves,
        width=CHART_WIDTH,
        height=CHART_HEIGHT,
    )


def _find_axis(board: Board, spec: SweepSpec, field: str) -> int | None:
    """Return the axis of the grid that varies this field and nothing else."""
    axis = spec.find_lone_axis(field)
    return None if axis is None else board.axis_indices.index(axis)


def _trace_convergence(board: Board, spec: SweepSpec) -> list[ConvergenceLine]:
    """Return how far each sampler's images are from those of its most steps.

    None where samplers are linked to something else. Cells count whose image with the most steps,
    by which they were measured, is still there.
    """
    steps_axis = _find_axis(board, spec, "steps")
    measured = _collect_values(board.tiles, "convergence")
    sampler_axis = _find_axis(board, spec, "scheduler")
    varies_sampler = any(axis.field == "scheduler" for axis in spec.axes)
    if steps_axis is None or not measured or (varies_sampler and sampler_axis is None):
        return []
    counts = [
        float(str(steps)) for steps in spec.axes[board.axis_indices[steps_axis]].parsed_values
    ]
    most = counts.index(max(counts))
    differences = {
        at: value
        for at, value in measured.items()
        if (*at[:steps_axis], most, *at[steps_axis + 1 :]) in measured
    }
    seconds = _collect_values(board.tiles, "seconds")
    cells: dict[str, dict[float, list[Coordinates]]] = defaultdict(lambda: defaultdict(list))
    for at in differences:
        name = "" if sampler_axis is None else board.axes[sampler_axis][1][at[sampler_axis]]
        cells[name][counts[at[steps_axis]]].append(at)
    lines = []
    for name, by_steps in cells.items():
        points = tuple(
            ConvergencePoint(
                steps,
                fmean(differences[at] for at in places),
                fmean(seconds.get(at, 0.0) for at in places),
            )
            for steps, places in sorted(by_steps.items())
        )
        scheduler = name or spec.base.scheduler
        is_stochastic = any(
            info.is_stochastic for known, info in SCHEDULERS.items() if known == scheduler
        )
        lines.append(ConvergenceLine(name, points, is_stochastic))
    return lines


def _build_line_chart(
    lines: Sequence[ConvergenceLine], title: str, unit: str, get_x: Callable[[Any], float]
) -> LineChart:
    """Build a chart of differences over steps or seconds; both begin at 0."""
    width = max((get_x(point) for line in lines for point in line.points), default=0.0) or 1.0
    height = max((point.difference for line in lines for point in line.points), default=0.0) or 1.0
    return LineChart(
        title,
        f"{width:.3g}{unit}",
        f"{height:.2g} %",
        tuple(
            DrawnLine(
                line.name or "Difference",
                " ".join(
                    f"{get_x(point) / width * CHART_WIDTH:.1f},"
                    f"{CHART_HEIGHT - point.difference / height * CHART_HEIGHT:.1f}"
                    for point in line.points
                ),
                number,
            )
            for number, line in enumerate(lines)
        ),
    )


def _collect_values(tiles: Mapping[Coordinates, Tile], name: str) -> dict[Coordinates, float]:
    """Return a number by coordinates, of the cells that have an image and the number."""
    values = {}
    for at, tile in tiles.items():
        measured = dict(tile.result.metrics)
        if tile.result.seconds > 0:
            measured.setdefault("seconds", tile.result.seconds)
        if tile.state == "done" and math.isfinite(measured.get(name, math.nan)):
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
