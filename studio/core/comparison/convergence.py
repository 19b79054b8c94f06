"""Where a sampler's image stops changing: how far each step count is from the most steps.

Knows: differences by step count. Does not know: how a difference was measured, who samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Root mean square of pixel values, in % of the full range: 2.5 of 255. Side by side nobody sees it.
VISIBLE_PERCENT = 1.0


@dataclass(frozen=True)
class ConvergencePoint:
    """A step count.

    Attributes:
        steps: How many.
        difference: Of the image to that with the most steps, in % (root mean square), mean over all
            that was compared.
        seconds: How long an image took; 0 where that is not known.
    """

    steps: float
    difference: float
    seconds: float = 0.0


@dataclass(frozen=True)
class ConvergenceLine:
    """One sampler's way to its own image with the most steps.

    Attributes:
        name: The sampler; "" where only one was compared.
        points: By rising step count; the last one has a difference of 0, as it is compared to
            itself.
        is_stochastic: Whether it adds noise at each step, so that more steps make another image.
    """

    name: str
    points: tuple[ConvergencePoint, ...]
    is_stochastic: bool = False

    @property
    def settled_steps(self) -> float | None:
        """The first step count from which on no difference is visible; None if there is none.

        The last step count alone says nothing: it is what the others are compared to.
        """
        settled = None
        for point in reversed(self.points[:-1]):
            if point.difference > VISIBLE_PERCENT:
                break
            settled = point.steps
        return settled


def describe_convergence(lines: Sequence[ConvergenceLine]) -> list[str]:
    """Return a sentence for each line that has two step counts or more, the first settled first."""
    told = [line for line in lines if len(line.points) > 1]
    told.sort(key=lambda line: (line.settled_steps is None, line.settled_steps or 0.0))
    return [_describe(line) for line in told]


def _describe(line: ConvergenceLine) -> str:
    begin = f"{line.name}: " if line.name else ""
    most, before = line.points[-1], line.points[-2]
    if line.settled_steps is not None:
        reached = next(point for point in line.points if point.steps == line.settled_steps)
        text = (
            f"{begin}nothing visible changes after {reached.steps:g} steps "
            f"({reached.difference:.2g} % from {most.steps:g} steps)"
        )
    else:
        text = (
            f"{begin}still changing at {before.steps:g} steps "
            f"({before.difference:.2g} % from {most.steps:g} steps)"
        )
        if line.is_stochastic:
            text += "; it adds fresh noise at each step, so it need not settle"
    return text[:1].upper() + text[1:] + "."
