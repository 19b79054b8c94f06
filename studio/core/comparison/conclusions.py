"""What the numbers of a comparison let one say, in sentences, each with the figure behind it.

Knows: effects of axes, which way a number is better. Does not know: how it was measured, where a
sentence is shown. Where the data do not carry a sentence there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import stdtrit

from studio.core.comparison.effects import CONFIDENCE, Effects, ValueEffect

MIN_CELLS = 4  # fewer are looked at, not counted


@dataclass(frozen=True)
class Measure:
    """A number that cells have.

    Attributes:
        name: By which results keep it.
        title: As people read it.
        short: Before a number under a cell.
        unit: Behind a number, with its blank; "" for a number alone.
        better: Which way is better; "" where that is a matter of taste.
        help: What it says.
        choice: What it is called where one chooses what is measured; its name if empty.
    """

    name: str
    title: str
    short: str
    unit: str = ""
    better: Literal["high", "low", ""] = ""
    help: str = ""
    choice: str = ""

    def format(self, value: float) -> str:
        """Return a value with its unit, to three digits or whole."""
        number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        return f"{number}{self.unit}"


MEASURES = (
    Measure("seconds", "Seconds", "s", " s", "low", "How long the image took."),
    Measure(
        "prompt fit",
        "Prompt fit",
        "fit",
        better="high",
        help="How well CLIP finds the prompt in the image.",
        choice="prompt fit (CLIP)",
    ),
    Measure(
        "difference",
        "Difference",
        "Δ",
        " %",
        help="From the pinned cell: root mean square.",
        choice="difference from the pinned cell",
    ),
    Measure(
        "convergence",
        "Convergence",
        "conv.",
        " %",
        help="From the same image at the most steps: rms.",
        choice="difference from the most steps",
    ),
    Measure("sharpness", "Sharpness", "sharp", help="Variance of the Laplacian of the brightness."),
    Measure("saturation", "Saturation", "sat.", " %", help="The mean of HSV's saturation."),
    Measure(
        "clipping", "Clipping", "clip", " %", "low", "Pixels that are pure black or pure white."
    ),
)
MEASURES_BY_NAME = {measure.name: measure for measure in MEASURES}


@dataclass(frozen=True)
class AxisTitle:
    """An axis as people read it."""

    title: str
    labels: tuple[str, ...]


def draw_conclusions(
    measure: Measure, axes: Sequence[AxisTitle], effects: Effects, seed_axis: int | None = None
) -> list[str]:
    """Return what can be said of a number, the axis that moves it most first.

    An axis is said to matter if its best and its worst value differ by more than chance, by
    Student's test of their difference. As these two are picked from many, the test allows for each
    pair of values of each axis (Bonferroni's correction).

    Args:
        measure: The number.
        axes: Of the comparison.
        effects: What the values of these axes come to.
        seed_axis: The axis that varies the seed: it is noise, no setting.
    """
    known = [index for index, values in enumerate(effects.axes) if values and index != seed_axis]
    num_cells = max((_count_cells(effects, index) for index in known), default=0)
    if num_cells < MIN_CELLS:
        return []
    if not math.isfinite(effects.noise):
        return [
            f"{measure.title}: each value was tried too seldom to tell what stands out from "
            "chance. Add an axis Seed with two or more seeds."
        ]
    known.sort(key=lambda index: -effects.spread[index])
    sentences = []
    for index in known:
        values = effects.axes[index]
        if values and (extremes := _find_extremes(values, measure, effects.num_free, len(known))):
            first, last = (_describe(measure, axes[index], values, place) for place in extremes)
            above, below = ("best", "worst") if measure.better else ("highest", "lowest")
            sentences.append(f"{measure.title}: {above} with {first}, {below} with {last}.")
    if not sentences:
        names = " or ".join(axes[index].title for index in known)
        sentences.append(
            f"{measure.title}: no value of {names} stands out from chance in {num_cells} cells."
        )
    if effects.seed_spread is not None:
        sentences.append(
            f"{measure.title}: the seed alone moves it by ±{measure.format(effects.seed_spread)}."
        )
    return sentences


def _find_extremes(
    values: Sequence[ValueEffect], measure: Measure, num_free: int, num_axes: int
) -> tuple[int, int] | None:
    """Return the best and the worst value, or None if chance may have made them differ."""
    order = [index for index, value in enumerate(values) if math.isfinite(value.mean)]
    order.sort(key=lambda index: values[index].mean, reverse=measure.better != "low")
    first, last = values[order[0]], values[order[-1]]
    num_pairs = num_axes * len(order) * (len(order) - 1) / 2
    reach = float(stdtrit(num_free, 1 - (1 - CONFIDENCE) / 2 / num_pairs))
    half_interval = float(stdtrit(num_free, (1 + CONFIDENCE) / 2))
    error = math.hypot(first.high - first.low, last.high - last.low) / 2 / half_interval
    # Where nothing is left to chance, errors are no more than rounding.
    least = 1e-9 * max(abs(first.mean), abs(last.mean))
    is_certain = abs(first.mean - last.mean) > max(reach * error, least)
    return (order[0], order[-1]) if is_certain else None


def _describe(measure: Measure, axis: AxisTitle, values: Sequence[ValueEffect], index: int) -> str:
    value, label = values[index], axis.labels[index]
    name = label if label.startswith(axis.title) else f"{axis.title} {label}"
    return (
        f"{name} ({measure.format(value.mean)}, "
        f"95 % interval {measure.format(value.low)} to {measure.format(value.high)})"
    )


def _count_cells(effects: Effects, index: int) -> int:
    return sum(value.num_cells for value in effects.axes[index] or ())
