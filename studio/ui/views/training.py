"""A training as HTML: loss curve, samples side by side, numbers, checkpoints, files, earlier runs, the plan, an import's notices.

Knows: how a training looks on the page; every text is escaped here. Does not know: gradio, where on the page it stands, whose it
is. The curve is SVG without text in it: words stand beside it as HTML, so that they keep their size on a phone.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.core.training.config import TrainingConfig
from studio.core.training.kohya.reader import Notice
from studio.storage.datasets.training_set import Dataset
from studio.storage.training.checkpoints import Checkpoint
from studio.storage.training.runs import Run, Sample

POINTS = 400  # of a line that are drawn
NOTES = 6  # sentences that are shown of many
ORDER = {"conflicting": 0, "unsupported": 1, "unknown": 2, "inert": 3, "taken": 4}
Row = Mapping[str, Any]
Point = tuple[float, float]


def empty(presets: Sequence[tuple[str, str]]) -> str:
    """What stands where a training will be; `presets` are names and what they are about."""
    buttons = "".join(_do("preset", name, about) for name, about in presets)
    return (
        '<div class="sweep-empty training-empty"><svg class="training-sketch" viewBox="0 0 84 48" aria-hidden="true">'
        '<path d="M2 6 C 14 34, 26 30, 38 36 S 66 42, 82 43"/></svg>'
        "<p><b>Teach a model something new.</b></p><p>A LoRA is a small file that adds a thing or a style to a model. Choose "
        "pictures on the left and press Start; loss and sample pictures appear here while it learns, and it can be stopped and "
        f"taken up at any time. To see how it goes, begin with one of these:</p><p class=starts>{buttons}</p></div>"
    )


# ---- the curve --------------------------------------------------------------------------------------------------------


def curve(rows: Sequence[Row], total: int) -> str:
    """Loss of each step, smoothed, and on pictures that are not trained on."""
    raw, smooth = _line(rows, "loss"), _line(rows, "smoothed")
    held = _line(rows, "validation")
    if not raw and not held:
        return ""
    low, high = _range(raw, [*smooth, *held])
    most = max(total, 1)

    def path(line: Sequence[Point]) -> str:
        return " ".join(
            f"{step / most * 1000:.1f},{min(310.0, max(-10.0, (high - value) / (high - low) * 300)):.1f}"
            for step, value in line
        )

    lines = "".join(
        f'<polyline class="{name}" points="{path(thinned(line))}"/>'
        for name, line in (("raw", raw), ("smooth", smooth), ("held", held))
        if line
    )
    dots = "".join(
        f'<i style="left:{step / most * 100:.2f}%;top:{(high - value) / (high - low) * 100:.2f}%" '
        f'title="step {step:g}: {value:.4f}"></i>'
        for step, value in held[-60:]
    )
    ticks = _ticks(low, high)
    heights = [(high - at) / (high - low) * 300 for at in ticks]
    grid = "".join(f'<line x1="0" x2="1000" y1="{y:.1f}" y2="{y:.1f}"/>' for y in heights)
    labels = "".join(
        f'<span style="top:{(high - at) / (high - low) * 100:.1f}%">{at:.3g}</span>' for at in ticks
    )
    keys = [("raw", "loss of a step")] * bool(raw) + [("smooth", "smoothed")] * bool(smooth)
    keys += [("held", "on pictures kept back (validation)")] * bool(held)
    legend = "".join(f'<span class="{name}">{words}</span>' for name, words in keys)
    last = f"{(smooth or held)[-1][1]:.3g}" if smooth or held else ""
    return (
        f'<figure class="curve" role="img" aria-label="Loss over {most} steps, now {last}"><figcaption>{legend}</figcaption>'
        f'<div class="plot"><div class="y">{labels}</div><div class="area"><svg viewBox="0 0 1000 300" '
        f'preserveAspectRatio="none" aria-hidden="true"><g class="lines">{grid}</g>{lines}</svg>{dots}</div>'
        f'<div class="x"><span>0</span><span>{most // 2:,}</span><span>{most:,} steps</span></div></div></figure>'
    )


def thinned(line: Sequence[Point], most: int = POINTS) -> list[Point]:
    """At most so many points; a peak stays a peak."""
    if len(line) <= most:
        return list(line)
    each = math.ceil(2 * len(line) / most)
    found: list[Point] = []
    for at in range(0, len(line), each):
        part = line[at : at + each]
        found += sorted(
            {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        )
    return found


def _line(rows: Sequence[Row], name: str) -> list[Point]:
    return [
        (float(row["step"]), float(row[name]))
        for row in rows
        if isinstance(row.get(name), int | float) and math.isfinite(row[name])
    ]


def _range(raw: Sequence[Point], sure: Sequence[Point]) -> tuple[float, float]:
    """From lowest to highest; of single steps' losses the wildest do not count."""
    values = sorted(value for _, value in raw)
    kept = values[len(values) // 50 : len(values) - len(values) // 50] or values
    every = [*(kept[:1] + kept[-1:]), *(value for _, value in sure)]
    low, high = min(every), max(every)
    spare = (high - low) * 0.06 or max(abs(high), 1e-3) * 0.1
    return low - spare, high + spare


def _ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 4
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


# ---- the open run -----------------------------------------------------------------------------------------------------


def head(
    run: Run, words: str, share: float | None, state: str, numbers: Sequence[tuple[str, str]]
) -> str:
    """What stands over a run: its name, how far it is, its numbers."""
    bar = (
        ""
        if share is None
        else f'<div class="bar" role="progressbar" aria-label="How far the training is" '
        f'aria-valuenow="{share * 100:.0f}"><i style="width:{share * 100:.1f}%"></i></div>'
    )
    config = run.config
    about = f"{config.dataset} → {config.model} · rank {config.rank} · seed {config.seed}"
    cells = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in numbers
    )
    table = f'<dl class="plan numbers">{cells}</dl>' if cells else ""
    return (
        f'<div class="sweep-head run-head" data-state="{html.escape(state)}" data-run="{html.escape(run.id)}">'
        f"<h3>{html.escape(config.name)}</h3><p>{html.escape(about)}</p>{bar}"
        f'<p class="now">{html.escape(words)}</p></div>{table}'
    )


def samples(found: Sequence[Sample], address: Callable[[Path], str], expected: str) -> str:
    """Each prompt's pictures in a row, from the beginning to now; `expected` is said where there are none yet."""
    if not found:
        return f'<p class="nothing">{html.escape(expected)}</p>' if expected else ""
    rows: dict[int, list[Sample]] = {}
    for sample in found:
        rows.setdefault(sample.number, []).append(sample)
    parts = []
    for number in sorted(rows):
        first = rows[number][0]
        figures = "".join(
            f'<figure><a href="{_at(sample, address)}" target="_blank" rel="noopener"><img src="{_at(sample, address)}" '
            f'alt="after {sample.step} steps" width="96" height="96"></a><figcaption>{_when(sample.step)}</figcaption></figure>'
            for sample in sorted(rows[number], key=lambda sample: sample.step)
        )
        parts.append(
            f'<div class="strip"><p>{html.escape(first.prompt)} <small>seed {first.seed}</small></p>'
            f'<div class="film" tabindex="0" role="group" aria-label="{html.escape(first.prompt)}">{figures}</div></div>'
        )
    return f'<section class="strips"><h3>Samples</h3>{"".join(parts)}</section>'


def _at(sample: Sample, address: Callable[[Path], str]) -> str:
    try:
        stamp = sample.path.stat().st_mtime_ns  # begun anew, the same name is another picture
    except OSError:
        stamp = 0
    return html.escape(f"{address(sample.path)}?v={stamp}")


def _when(step: int) -> str:
    return "before" if step == 0 else f"step {step:,}"


def files(
    made: Sequence[tuple[str, str, int, int]],
    waiting: Sequence[int],
    checkpoints: Sequence[Checkpoint],
) -> str:
    """LoRA files (name, address, bytes, step), the latest first; checkpoints with a button; `waiting` are being written."""
    rows = "".join(
        f'<li data-lora="{html.escape(name)}"><b>{html.escape(name)}.safetensors</b>'
        f"<small>after {step:,} steps · {max(1, round(size / 1024)):,} KiB</small><span class=job-do>"
        f'{_do("try", name, "Try it in txt2img")}{_do("sweep", name, "Sweep it")}<a class="do" href="{html.escape(address)}" '
        f'download="{html.escape(name)}.safetensors">Download</a></span></li>'
        for name, address, size, step in made
    )
    there = {step for *_, step in made}
    points = "".join(
        _checkpoint(one, one.step in there, one.step in waiting) for one in checkpoints
    )
    result = f'<section><h3>LoRA files</h3><ul class="made">{rows}</ul></section>' if rows else ""
    kept = (
        f'<section><h3>Checkpoints</h3><ul class="made">{points}</ul></section>' if points else ""
    )
    return result + kept


def _checkpoint(one: Checkpoint, made: bool, waiting: bool) -> str:
    if made or waiting:
        do = f'<span class="chip">{"written" if made else "being written"}</span>'
    else:
        do = _do("export", str(one.step), "Export this one")
    return (
        f'<li data-step="{one.step}"><b>step {one.step:,}</b><small>{max(1, round(one.bytes / 1024)):,} KiB</small>'
        f"<span class=job-do>{do}</span></li>"
    )


def notes(said: Sequence[str], title: str = "Worth knowing") -> str:
    """Sentences that go with a run or a dataset."""
    if not said:
        return ""
    rows = "".join(f"<li>{html.escape(note)}</li>" for note in said[:NOTES])
    more = f"<li>… and {len(said) - NOTES} more.</li>" if len(said) > NOTES else ""
    return f'<details class="told"><summary>{html.escape(title)} ({len(said)})</summary><ul>{rows}{more}</ul></details>'


def shelf(rows: Sequence[tuple[Run, str, int, bool]], asked: str = "") -> str:
    """Earlier trainings: run, state, its last step, whether it is open. `asked` is the one that may be deleted."""
    if not rows:
        return '<p class="nothing">None yet. Every training is kept here, also one that was stopped.</p>'
    return "".join(_row(*row, asked=row[0].id == asked) for row in rows)


def _row(run: Run, state: str, step: int, now: bool, asked: bool) -> str:
    day = time.strftime("%d %b %H:%M", time.localtime(run.created))
    if asked:
        words = (
            "Delete this training, its samples and checkpoints? The LoRA files that it made stay."
        )
        buttons = _do("delete", run.id, "Delete") + _do("keep", run.id, "Keep it")
    else:
        words = f"{state} · step {step:,} of {run.about.get('steps') or run.config.steps or '?'} · {run.config.dataset} · {day}"
        buttons = _do("open", run.id, "Open") + _do("ask", run.id, "Delete")
    return (
        f'<div class="shelved{" now" if now else ""}" data-run="{html.escape(run.id)}"><div>'
        f"<b>{html.escape(run.config.name)}</b><small>{html.escape(words)}</small></div>"
        f"<div class=job-do>{buttons}</div></div>"
    )


# ---- before it begins -------------------------------------------------------------------------------------------------


def dataset(found: Dataset, thumbs: Sequence[tuple[str, str]]) -> str:
    """What is in a dataset: how many pictures, a few of them (address, caption), what is wrong."""
    many = len(found.items)
    captioned = sum(bool(item.caption) for item in found.items)
    told = (
        "all captioned"
        if captioned == many
        else f"{captioned} captioned, {many - captioned} without a caption"
    )
    repeats = f" · {found.count} with repeats" if found.count != many else ""
    images = "".join(
        f'<img src="{html.escape(address)}" alt="{html.escape(caption)}" title="{html.escape(caption)}" width="52" '
        f'height="52">'
        for address, caption in thumbs
    )
    broken = "".join(
        f"<li>{html.escape(f'{name} {why}')}</li>" for name, why in found.broken[:NOTES]
    )
    broken += (
        f"<li>… and {len(found.broken) - NOTES} more.</li>" if len(found.broken) > NOTES else ""
    )
    faults = f'<ul class="faults">{broken}</ul>' if broken else ""
    return (
        f'<div class="dataset" data-pictures="{many}"><p><b>{many} pictures</b>{repeats} · {told}</p>'
        f'<div class="thumbs">{images}</div></div>{faults}{notes(found.notes, "About these pictures")}'
    )


def plan(
    config: TrainingConfig, pictures: int, aside: int, total: int, cost: str, guess: bool
) -> str:
    """How long it will be, as a sum that can be followed; `cost` is what a try has found."""
    epochs = total * config.batch * config.accumulation / max(1, pictures * config.repeats)
    gathered = f" ÷ {config.accumulation} gathered" if config.accumulation > 1 else ""
    summed = (
        f"{pictures:,} pictures × {config.repeats} repeat{'s' * (config.repeats != 1)} ÷ batch {config.batch}{gathered} × "
        f"{epochs:.3g} epochs = <b>{total:,} steps</b>"
    )
    more = " (a few more where pictures have several shapes)" if guess else ""
    more += f" · {aside} kept back for validation" if aside else ""
    return f'<div class="sum" data-steps="{total}"><p>{summed}{more}</p><p class="cost">{html.escape(cost)}</p></div>'


def imported(name: str, notices: Sequence[Notice], faults: Sequence[str]) -> str:
    """What became of each key of a file, what matters first."""
    counts = {kind: sum(notice.kind == kind for notice in notices) for kind in ORDER}
    chips = "".join(
        f'<span class="chip {kind}">{count} {kind}</span>'
        for kind, count in counts.items()
        if count
    )
    rows = "".join(
        f'<tr class="{notice.kind}"><td>{html.escape(notice.key)}</td><td>{notice.kind}</td>'
        f"<td>{html.escape(notice.note)}</td></tr>"
        for notice in sorted(notices, key=lambda one: ORDER[one.kind])
    )
    missing = "".join(f"<li>{html.escape(fault)}</li>" for fault in faults)
    still = (
        f'<p class="echo">Choose these yourself:</p><ul class="faults">{missing}</ul>'
        if missing
        else ""
    )
    table = f'<div class="notices"><table><tbody>{rows}</tbody></table></div>' if rows else ""
    return f'<p class="echo"><b>{html.escape(name)}</b>{chips}</p>{still}{table}'


def _do(verb: str, subject: str, label: str) -> str:
    return (
        f'<button type="button" class="do" data-do="{verb}" data-subject="{html.escape(subject)}">'
        f"{html.escape(label)}</button>"
    )
