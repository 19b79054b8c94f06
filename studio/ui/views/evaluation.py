"""An evaluated training as HTML: the verdict, images before and after, a table of scores.

Knows: how a report looks (templates/evaluation.html). Does not know: gradio, how it was measured
(core/training/evaluation.py, engine/evaluation/job.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.ui.views.common import compute_fraction
from studio.ui.views.templates import render_macro

JUDGE_LABELS = {"concept": "the thing", "place": "the place", "style": "the style"}


@dataclass(frozen=True)
class ImagePair:
    """Two images of a prompt as (thumbnail URL, image URL); None for one that is gone."""

    prompt: str
    before: tuple[str, str] | None
    after: tuple[str, str] | None


@dataclass(frozen=True)
class ScoreCell:
    """A checkpoint at a weight.

    Attributes:
        concept: How much was learned, 0 to 1.
        shown: Share of scenes that show it, 0 to 1; None in older reports.
        following: Share of images that follow their prompt, 0 to 1.
        judged: What the judge sees, in words; empty without a judge.
        is_best: Whether it is the one that is recommended.
    """

    concept: float
    shown: float | None
    following: float
    judged: str
    is_best: bool


@dataclass(frozen=True)
class ScoreTable:
    """Cells by checkpoint and weight, None where none was measured; the base model's own scores."""

    weights: Sequence[float]
    rows: Sequence[tuple[int, Sequence[ScoreCell | None]]]
    base_following: float
    base_judged: str
    judge_criteria: str


def render_placeholder(run_id: str, error: str = "") -> str:
    """Render the button that asks for a report; `error` tells why the last one failed."""
    return _render("placeholder", run_id=run_id, error=error)


def render_progress(message: str, step: int, total: int) -> str:
    """Render how far a report is: `step` of `total`, 0 if that is not known yet."""
    return _render("progress", message=message, fraction=compute_fraction(step, total))


def render_report(
    run_id: str,
    report: Mapping[str, Any],
    image_urls: Mapping[str, tuple[str, str]],
    card_files: Sequence[tuple[str, str]],
) -> str:
    """Render a finished report.

    Args:
        run_id: The training.
        report: What engine/evaluation wrote.
        image_urls: For each image's path the URLs of its thumbnail and of itself.
        card_files: The files of the LoRA card as (name, URL).
    """
    best = report["best"] or max(report["points"], key=lambda point: point["concept"])
    pairs = [
        ImagePair(pair["prompt"], image_urls.get(pair["before"]), image_urls.get(pair["after"]))
        for pair in report["pairs"]
    ]
    return _render(
        "report",
        run_id=run_id,
        report=report,
        best=best,
        pairs=pairs,
        table=_build_table(report, best),
        card_files=card_files,
    )


def _build_table(report: Mapping[str, Any], best: Mapping[str, Any]) -> ScoreTable:
    points = {(point["step"], point["weight"]): point for point in report["points"]}
    steps = sorted({step for step, _ in points})
    weights = sorted({weight for _, weight in points})
    rows = []
    for step in steps:
        cells = [_build_cell(points.get((step, weight)), best) for weight in weights]
        rows.append((step, cells))
    base = report["base"]
    criteria = [label for name, label in JUDGE_LABELS.items() if name in base["judged"]]
    return ScoreTable(
        weights=weights,
        rows=rows,
        base_following=base["following"],
        base_judged=_format_judge_shares(base["judged"]),
        judge_criteria=", ".join(criteria),
    )


def _build_cell(point: Mapping[str, Any] | None, best: Mapping[str, Any]) -> ScoreCell | None:
    if point is None:
        return None
    return ScoreCell(
        concept=point["concept"],
        shown=point.get("shown"),
        following=point["following"],
        judged=_format_judge_shares(point["judged"]),
        is_best=(point["step"], point["weight"]) == (best["step"], best["weight"]),
    )


def _format_judge_shares(shares: Mapping[str, float]) -> str:
    return " / ".join(f"{share:.0%}" for name, share in shares.items() if name in JUDGE_LABELS)


def _render(macro_name: str, **arguments: Any) -> str:
    return render_macro("evaluation.html", macro_name, **arguments)
