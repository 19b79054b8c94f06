"""Was a training worth it, as HTML: the sentences, pictures before and after, a table of checkpoints and weights.

Knows: how a report looks; every text is escaped here. Does not know: gradio, how it was found (core/training/evaluation.py, engine/evaluation/job.py).
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

TITLE = "Was it worth it?"
JUDGED = {"concept": "the thing", "place": "the place", "style": "the style"}


def invitation(run: str, error: str = "") -> str:
    """What stands where a report will be; `error` says why the last one failed."""
    fault = f'<ul class="faults"><li>{html.escape(error)}</li></ul>' if error else ""
    return (
        f'<section class="worth"><h3>{TITLE}</h3><p>Paints the same new scenes without and with this LoRA, at several '
        "checkpoints and weights, measures what was learned and what was lost, and recommends one.</p>"
        f"{fault}<p>{_do('report', run, 'Find out', True)}</p></section>"
    )


def going(words: str, step: int, total: int) -> str:
    """How far it is."""
    share = step / total if total else 0
    return (
        f'<section class="worth" data-state="running"><h3>{TITLE}</h3><div class="bar" role="progressbar" '
        f'aria-label="How far the report is" aria-valuenow="{share * 100:.0f}"><i style="width:{share * 100:.1f}%"></i></div>'
        f'<p class="now">{html.escape(words)}</p></section>'
    )


def told(
    run: str,
    found: Mapping[str, Any],
    pictures: Mapping[str, tuple[str, str]],
    card: Sequence[tuple[str, str]],
) -> str:
    """A finished report. `pictures` are addresses (small, whole) by path, `card` the files of the LoRA card (name, address)."""
    first, *more = found["sentences"]
    rest = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in more)
    best = found["best"] or max(found["points"], key=lambda one: one["concept"])
    links = "".join(
        f'<a class="do" href="{html.escape(address)}" download="{html.escape(name)}">{html.escape(name)}</a>'
        for name, address in card
    )
    buttons = (
        _do("try", best["lora"], "Try it", True)
        + _do("sweep", best["lora"], "Sweep it")
        + _do("compare", found["sweep"], "Open the whole comparison")
        + _do("report", run, "Judge again")
    )
    return (
        f'<section class="worth" data-state="done"><h3>{TITLE}</h3><p class="verdict"><b>{html.escape(first)}</b></p>{rest}'
        f'<p class="job-do">{buttons}</p>{_pairs(found["pairs"], pictures, best)}{_table(found, best)}'
        f'<p class="job-do">LoRA card: {links}</p></section>'
    )


def _pairs(
    pairs: Sequence[Mapping[str, str]],
    pictures: Mapping[str, tuple[str, str]],
    best: Mapping[str, Any],
) -> str:
    """Without above, with below: the same prompt, the same seed."""

    def one(path: str, alt: str) -> str:
        small, whole = pictures.get(path, ("", ""))
        return (
            f'<a href="{html.escape(whole)}" target="_blank" rel="noopener"><img src="{html.escape(small)}" '
            f'alt="{html.escape(alt)}" width="116" height="116"></a>'
            if small
            else '<span class="gone">deleted</span>'
        )

    figures = "".join(
        f"<figure>{one(pair['before'], 'without: ' + pair['prompt'])}{one(pair['after'], 'with: ' + pair['prompt'])}"
        f"<figcaption>{html.escape(pair['prompt'])}</figcaption></figure>"
        for pair in pairs
    )
    name = html.escape(best["lora"])
    return (
        f'<p class="echo">Above without, below with {name} at {best["weight"]:g}; the seed of a pair is the same.</p>'
        f'<div class="film pairs" tabindex="0" role="group" aria-label="Pictures without and with the LoRA">{figures}</div>'
    )


def _table(found: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """Rows of checkpoints, columns of weights; in each cell what was learned and what still follows the prompt."""
    points = found["points"]
    weights, steps = (
        sorted({one["weight"] for one in points}),
        sorted({one["step"] for one in points}),
    )
    at = {(one["step"], one["weight"]): one for one in points}
    heads = "".join(f"<th scope=col>weight {weight:g}</th>" for weight in weights)
    rows = "".join(
        f"<tr><th scope=row>step {step:,}</th>"
        + "".join(_cell(at.get((step, weight)), best) for weight in weights)
        + "</tr>"
        for step in steps
    )
    base = found["base"]
    keeps = f"{base['following']:.0%} of its pictures follow their prompt"
    seen = _judged(base["judged"])
    judged = ", ".join(title for name, title in JUDGED.items() if name in base["judged"])
    return (
        f'<div class="points"><table><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
        '<p class="echo"><b>The figure</b>: how much was learned, that is how far its pictures have come from the base model’s '
        "(0 %) to the dataset’s (100 %). "
        f"<b>Follows</b>: pictures that CLIP gives back to their own prompt; without the LoRA, {html.escape(keeps)}."
        + (
            f" <b>Judge</b>: pictures in which the world’s judge sees {judged}; without the LoRA {html.escape(seen)}.</p>"
            if seen
            else "</p>"
        )
    )


def _cell(one: Mapping[str, Any] | None, best: Mapping[str, Any]) -> str:
    if one is None:
        return "<td></td>"
    chosen = (one["step"], one["weight"]) == (best["step"], best["weight"])
    seen = _judged(one["judged"])
    return (
        f"<td{' class=best' if chosen else ''}><b>{one['concept']:.0%}</b><small>{one['following']:.0%} follows</small>"
        + (f"<small>judge {html.escape(seen)}</small>" if seen else "")
        + "</td>"
    )


def _judged(shares: Mapping[str, float]) -> str:
    return " / ".join(f"{share:.0%}" for name, share in shares.items() if name in JUDGED)


def _do(verb: str, subject: str, label: str, first: bool = False) -> str:
    return (
        f'<button type="button" class="do{" first" if first else ""}" data-do="{verb}" data-subject="{html.escape(subject)}">'
        f"{html.escape(label)}</button>"
    )
