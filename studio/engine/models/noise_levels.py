"""Noise levels by formula: those schedules that a scheduler's class is told step by step.

Knows: the formulas, and between which levels a model was trained. Does not know: schedulers'
classes (schedulers.py), which scheduler can run on what (core/catalog.py).

A level is a standard deviation of noise beside an image of deviation 1. Each function returns one
level for each step, falling, and the one that the last step ends at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studio.core.catalog import NoiseSchedule

LINEAR_END = 0.025  # how much of the noise is taken by Linear Quadratic's first half


@dataclass(frozen=True)
class LevelRange:
    """Between which levels Karras and Exponential go; 0 is the model's. The rho is of Karras."""

    lowest: float = 0.0
    highest: float = 0.0
    rho: float = 7.0


MODEL_RANGE = LevelRange()


def compute_noise_levels(
    noise_schedule: NoiseSchedule,
    steps: int,
    trained_levels: np.ndarray,
    optimized_levels: Sequence[float],
    level_range: LevelRange = MODEL_RANGE,
) -> np.ndarray:
    """Return the levels (steps + 1,) of a schedule.

    Args:
        noise_schedule: Align Your Steps, KL Optimal, Linear Quadratic, Karras or Exponential.
        steps: Number of steps.
        trained_levels: Of the model at each timestep of its training, rising.
        optimized_levels: The model family's own, for Align Your Steps.
        level_range: For Karras and Exponential.
    """
    if noise_schedule in ("Karras", "Exponential"):
        return _compute_between(noise_schedule, steps, trained_levels, level_range)
    lowest, highest = float(trained_levels[0]), float(trained_levels[-1])
    if noise_schedule == "Align Your Steps":
        return np.append(interpolate_log_linear(optimized_levels, steps), 0.0)
    if noise_schedule == "KL Optimal":
        # arXiv:2404.14507, section 3: equal angles apart. It ends at the lowest level.
        share = np.linspace(0, 1, steps + 1)
        return np.tan(share * np.arctan(lowest) + (1 - share) * np.arctan(highest))
    return highest * compute_linear_quadratic_shares(steps)


def _compute_between(
    noise_schedule: NoiseSchedule, steps: int, trained_levels: np.ndarray, level_range: LevelRange
) -> np.ndarray:
    """Return the levels of Karras (arXiv:2206.00364, equation 5) or Exponential."""
    lowest = level_range.lowest or float(trained_levels[0])
    highest = level_range.highest or float(trained_levels[-1])
    if noise_schedule == "Exponential":
        levels = np.exp(np.linspace(np.log(highest), np.log(lowest), steps))
    else:
        power = 1 / level_range.rho
        levels = np.linspace(highest**power, lowest**power, steps) ** level_range.rho
    return np.append(levels, 0.0)


def interpolate_log_linear(levels: Sequence[float], steps: int) -> np.ndarray:
    """Return as many levels as there are steps, between those given, as arXiv:2404.14507 says."""
    logarithms = np.log(np.asarray(levels, np.float64))[::-1]
    places = np.linspace(0, 1, steps)
    interpolated = np.interp(places, np.linspace(0, 1, len(logarithms)), logarithms)
    result: np.ndarray = np.exp(interpolated)[::-1]
    return result if steps > 1 else np.asarray(levels[:1], np.float64)


def compute_linear_quadratic_shares(steps: int) -> np.ndarray:
    """Return shares of the noise, 1 to 0: half of the steps in a straight line, then a parabola.

    As Mochi's authors (Genmo) define it: the parabola goes on from the line at its slope's value.
    """
    linear_steps = steps // 2
    if not linear_steps:
        return np.linspace(1, 0, steps + 1)
    quadratic_steps = steps - linear_steps
    difference = linear_steps - LINEAR_END * steps
    square = difference / (linear_steps * quadratic_steps**2)
    slope = LINEAR_END / linear_steps - 2 * difference / quadratic_steps**2
    line = np.arange(linear_steps) * LINEAR_END / linear_steps
    number = np.arange(linear_steps, steps)
    parabola = square * number**2 + slope * number + square * linear_steps**2
    return 1 - np.concatenate([line, parabola, [1.0]])
