"""What each setting does, below a sweep's head: bars and sentences from the numbers of its cells."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from studio.core.sweeps.spec import SweepSpec, plan_sweep
from studio.storage.sweeps import CellResult
from studio.ui.views.effects import render_effects
from studio.ui.views.sweep import build_board

SPEC = SweepSpec.model_validate(
    {
        "base": {"prompt": "a <b>moon</b>"},
        "axes": [
            {"field": "scheduler", "values": "Euler, Heun"},
            {"field": "steps", "values": "10, 20, 30"},
            {"field": "seed", "values": "1, 2"},
        ],
    }
)


def render(**numbers: object) -> str:
    plan = plan_sweep(SPEC)
    results = {}
    for cell in plan.cells:
        metrics = {
            name: float(compute(*cell.coordinates))
            for name, compute in numbers.items()
            if callable(compute)
        }
        seconds = metrics.pop("seconds", 0.0)
        results[cell.key] = CellResult(Path(__file__), "d", seconds, metrics=metrics)
    return render_effects(build_board(plan, results, str), SPEC)


def test_what_takes_longer_is_said_and_drawn() -> None:
    html = render(seconds=lambda sampler, steps, seed: 1 + sampler + 2 * steps + 0.01 * seed)
    assert "Seconds: best with Steps 10 (1.5" in html
    assert "Seconds: the seed alone moves it by ±0.0" in html
    assert html.count("<caption>") == 2  # the seed is chance
    bars = re.findall(r"--mean:([\d.]+)%; --low:([\d.]+)%; --high:([\d.]+)%", html)
    assert len(bars) == 2 + 3
    for mean, low, high in bars:
        assert 0 <= float(low) <= float(mean) <= float(high) <= 100


def test_numbers_below_zero_and_without_any_spread() -> None:
    html = render(
        **{"prompt fit": lambda sampler, _steps, seed: -0.2 - 0.1 * sampler + 0.01 * seed}
    )
    assert "Prompt fit: best with Sampler Euler (-0.195" in html
    assert "nan" not in html
    still = render(clipping=lambda *_at: 0.0)
    assert "Clipping: no value of" in still
    assert "nan" not in still


def test_nothing_is_there_without_numbers_or_images() -> None:
    plan = plan_sweep(SPEC)
    assert render() == ""
    assert render_effects(build_board(plan, {}, str), SPEC) == ""
    failed = {cell.key: CellResult(error="no", seconds=3.0) for cell in plan.cells}
    assert render_effects(build_board(plan, failed, str), SPEC) == ""


def test_how_samplers_converge_is_drawn_and_said() -> None:
    html = render(
        convergence=lambda sampler, steps, _seed: (2 - steps) * (0.3 if sampler == 0 else 4),
        seconds=lambda sampler, steps, _seed: 1 + sampler + steps,
    )
    assert "Euler: nothing visible changes after 10 steps (0.6 % from 30 steps)." in html
    assert "Heun: still changing at 20 steps (4 % from 30 steps)." in html
    assert html.count("<polyline") == 4  # two samplers, over steps and over seconds
    first = re.search(r'<polyline points="([^"]*)"', html)
    assert first
    points = [tuple(map(float, point.split(","))) for point in first[1].split()]
    assert [x for x, _ in points] == [186.7, 373.3, 560.0]
    assert points[-1][1] == 180.0  # no difference to itself, at the bottom
    # Without the image that they were compared to, differences say nothing.
    gone = render(
        convergence=lambda _sampler, steps, _seed: 2 - steps if steps < 2 else float("nan")
    )
    assert "<polyline" not in gone
    untimed = render(convergence=lambda _sampler, steps, _seed: 2 - steps)
    assert untimed.count("<polyline") == 2


def test_words_are_text() -> None:
    axes = [{"field": "prompt", "values": ["<i>a</i>", "b"]}, {"field": "seed", "values": "1-4"}]
    spec = SweepSpec.model_validate({"axes": axes})
    plan = plan_sweep(spec)
    results = {
        cell.key: CellResult(Path(__file__), "d", 1.0 + cell.coordinates[0] + 0.1 * n)
        for n, cell in enumerate(plan.cells)
    }
    html = render_effects(build_board(plan, results, str), spec)
    assert "&lt;i&gt;a&lt;/i&gt;" in html
    assert "<i>a" not in html


@pytest.mark.slow
def test_ten_thousand_cells() -> None:
    spec = SweepSpec.model_validate(
        {"axes": [{"field": "steps", "values": "1-100"}, {"field": "seed", "values": "1-100"}]}
    )
    plan = plan_sweep(spec)
    results = {
        cell.key: CellResult(Path(__file__), "d", 1.0 + steps + seed % 3)
        for cell, (steps, seed) in zip(plan.cells, product(range(100), range(100)), strict=True)
    }
    html = render_effects(build_board(plan, results, str), spec)
    assert html.count("<tr>") == 60
    assert len(html) < 60_000
