"""A dataset as HTML: what was found, its history, tags, what spoils a training, captions before and after.

Knows: how it looks; every text is escaped here. Does not know: gradio, components, whose a dataset is.
"""

from __future__ import annotations

import html
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from studio.core.captions.lint import Finding
from studio.storage.datasets.history import Step
from studio.storage.datasets.items import Counts

FOLDERS = 40  # whose repeats are listed
# What the block with `found` does by itself: a number that was typed is sent, and stands there again as it is until it is changed.
TYPED = """element.addEventListener('change', event => {
  const box = event.target.closest('input[data-folder]');
  if (!box) return;
  trigger('click', {what: 'repeats', subject: box.dataset.folder, count: box.value});
  box.value = box.defaultValue;
});"""
MOST = 12  # files that are named of many
KINDS = {
    "missing": "without a caption",
    "short": "very short",
    "same": "all the same",
    "unreadable": "unreadable caption",
    "trigger": "without the trigger word",
    "long": "too long",
    "lines": "lines that are not read",
    "twice": "a tag twice",
    "untidy": "untidy",
    "small": "too small",
    "duplicate": "the same file twice",
    "broken": "cannot be used",
}
MENDS = {
    "trigger": "Put it in front",
    "long": "Shorten",
    "lines": "Join the lines",
    "twice": "Once is enough",
    "untidy": "Clean up",
    "small": "Set aside",
    "duplicate": "Set aside",
    "broken": "Set aside",
}
INVITATION = (
    '<div class="sweep-empty"><p><b>Captions decide what a LoRA learns.</b></p><p>Choose a dataset on the left, or drop '
    "pictures there: they appear here with their captions beside them. What is typed is kept at once, and everything can "
    "be undone.</p></div>"
)
LAYOUTS = {
    "sidecar": "captions beside the pictures",
    "metadata": "captions in a metadata file",
    "kohya": "kohya's folders",
}


def esc(text: object) -> str:
    return html.escape(str(text))


def many(count: int, one: str) -> str:
    """`3 pictures`."""
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def found(
    counts: Counts,
    broken: Sequence[tuple[str, str]],
    notes: Sequence[str],
    looking: tuple[int, int] | None,
    locked: bool = True,
) -> str:
    """What is in a dataset; unless it is locked, the repeats of kohya's folders can be typed."""
    told = [
        f"<b>{many(counts.pictures, 'picture')}</b>",
        "all captioned"
        if counts.pictures and counts.captioned == counts.pictures
        else f"{counts.captioned:,} captioned",
        LAYOUTS.get(counts.layout, counts.layout),
    ]
    told += [
        f"each × {count}" for name, count in counts.repeats.items() if name == "." and count > 1
    ]
    at = (
        f'<p class="nothing" role="status">Looking at the pictures: {looking[0]:,} of {looking[1]:,}</p>'
        if looking
        else ""
    )
    return (
        f'<div class="album-found" data-pictures="{counts.pictures}" data-captioned="{counts.captioned}">'
        f"<p>{' · '.join(told)}</p>{_repeats(counts.repeats, locked)}{at}{left(broken, 'cannot be used')}"
        f"{''.join(f'<p class=nothing>{esc(note)}</p>' for note in notes[:6])}</div>"
    )


def _repeats(repeats: Mapping[str, int], locked: bool) -> str:
    """How often each picture of each folder counts in an epoch."""
    inner = [(name, count) for name, count in repeats.items() if name != "."]
    boxes = [
        f"<label>{esc(name)} <span>× "
        + (
            f"{count}"
            if locked
            else (
                f'<input type="number" min="1" max="10000" value="{count}" data-folder="{esc(name)}" '
                f'aria-label="Repeats of {esc(name)}" title="So often each of its pictures counts in an epoch">'
            )
        )
        + "</span></label>"
        for name, count in inner[:FOLDERS]
    ]
    more = f"<span>and {len(inner) - FOLDERS:,} more</span>" if len(inner) > FOLDERS else ""
    return f'<p class="album-repeats">{"".join(boxes)}{more}</p>' if boxes else ""


def left(rows: Sequence[tuple[str, str]], what: str) -> str:
    """Files by name, each with the reason."""
    if not rows:
        return ""
    lines = "".join(f"<li><b>{esc(file)}</b> {esc(why)}</li>" for file, why in rows[:MOST])
    more = f"<li>and {len(rows) - MOST:,} more</li>" if len(rows) > MOST else ""
    return f'<ul class="faults"><li>{many(len(rows), "file")} {what}:</li>{lines}{more}</ul>'


def left_alone(step: Step | None) -> str:
    """What a step could not change, file by file."""
    return left(step.left, "left alone") if step else ""


def doing(name: str, trigger: str, shipped: bool, guest: bool, ready: bool) -> str:
    """The buttons of a dataset: train on it, copy it."""
    subject = json.dumps({"dataset": name, "name": name, "trigger": trigger})
    train = _do("train", subject, "Train on this", True) if ready else ""
    copy = _do("copy", name, "Copy it to edit") if shipped and not guest else ""
    note = '<p class="nothing">It came with the studio and stays as it is.</p>' if shipped else ""
    return f'{note}<p class="job-do album-do">{train}{copy}</p>'


def history(steps: Sequence[Step]) -> str:
    """What was done, the newest first."""
    rows = "".join(
        f'<li data-state="{step.state}"><span>{esc(step.title)}</span> <small>{many(step.changed, "change")} · '
        f"{esc(step.writer)} · {time.strftime('%d %b %H:%M', time.localtime(step.made))}"
        f"{'' if step.state == 'done' else ' · undone' if step.state == 'undone' else ' · undone for good'}</small></li>"
        for step in steps
    )
    return (
        f'<ol class="album-steps">{rows}</ol>'
        if rows
        else '<p class="nothing">Nothing was changed here yet.</p>'
    )


def changes(rows: Iterable[tuple[str, str, str]], total: int, title: str, more: str = "") -> str:
    """Captions before and after: (file, before, after). Only the first are shown."""
    body = "".join(
        f"<tr><th scope=row>{esc(file)}</th><td>{_marked(before, after, 'del')}</td>"
        f"<td>{_marked(after, before, 'ins')}</td></tr>"
        for file, before, after in rows
    )
    table = (
        f'<div class="points album-changes"><table><thead><tr><th>Picture</th><th>Before</th><th>After</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        if body
        else ""
    )
    return f'<section class="album-preview" data-count="{total}"><p class="echo"><b>{esc(title)}</b></p>{table}{more}</section>'


def _marked(text: str, other: str, tag: str) -> str:
    """Where two texts differ between their equal beginning and end."""
    if not text:
        return "<i>none</i>"
    if text == other:
        return esc(text)
    most = min(len(text), len(other))
    first = next((at for at in range(most) if text[at] != other[at]), most)
    last = next((at for at in range(most - first) if text[-1 - at] != other[-1 - at]), most - first)
    inner = text[first : len(text) - last]
    return f"{esc(text[:first])}{f'<{tag}>{esc(inner)}</{tag}>' if inner else ''}{esc(text[len(text) - last :])}"


def running(words: str, step: int, total: int) -> str:
    """How far a job is."""
    share = step / total if total else 0
    return (
        f'<div class="album-doing" data-state="running"><div class="bar" role="progressbar" aria-label="How far it is" '
        f'aria-valuenow="{share * 100:.0f}"><i style="width:{share * 100:.1f}%"></i></div>'
        f'<p class="nothing" role="status">{esc(words)}</p></div>'
    )


def ended(state: str, words: str, failed: Sequence[Mapping[str, Any]] = ()) -> str:
    """How a job came out."""
    rows = [(str(one.get("file")), str(one.get("error"))) for one in failed]
    return (
        f'<div class="album-doing" data-state="{esc(state)}"><p class="ended" data-state="{esc(state)}" role="status">'
        f"{esc(words)}</p>{left(rows, 'could not be captioned')}</div>"
    )


def tags(rows: Sequence[tuple[str, int]], most: int = 80) -> str:
    """Tags with their counts; a click takes one in hand."""
    chips = "".join(
        f'<button type="button" class="chip" data-do="tag" data-subject="{esc(tag)}" '
        f'title="Take it in hand">{esc(tag)} '
        f"<small>{count:,}</small></button>"
        for tag, count in rows[:most]
    )
    more = f'<p class="nothing">and {len(rows) - most:,} more</p>' if len(rows) > most else ""
    return (
        f'<div class="lora-words album-tags">{chips}</div>{more}'
        if chips
        else '<p class="nothing">No tags yet.</p>'
    )


def lint(findings: Sequence[Finding], most: int = 8) -> str:
    """What spoils a training, by kind; each finding and each kind with what mends it."""
    if not findings:
        return '<p class="nothing" data-lint="0">Nothing to mend was found.</p>'
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    return (
        f'<div data-lint="{len(findings)}">'
        + "".join(_kind(kind, rows, most) for kind, rows in kinds.items())
        + "</div>"
    )


def _kind(kind: str, rows: Sequence[Finding], most: int) -> str:
    mend = MENDS.get(kind, "Let the captioner write it")
    every = _do("mend", json.dumps([kind, ""]), f"Mend all {len(rows):,}") if len(rows) > 1 else ""
    lines = "".join(
        f"<li><span><b>{esc(row.file)}</b> {esc(row.says)}</span>{_do('mend', json.dumps([kind, row.file]), mend)}</li>"
        for row in rows[:most]
    )
    more = f'<li class="nothing">and {len(rows) - most:,} more</li>' if len(rows) > most else ""
    return (
        f'<section class="album-lint" data-kind="{esc(kind)}"><h4>{esc(KINDS.get(kind, kind))} <small>{len(rows):,}</small>'
        f"{every}</h4><ul>{lines}{more}</ul></section>"
    )


def _do(verb: str, subject: str, label: str, first: bool = False) -> str:
    return (
        f'<button type="button" class="do{" first" if first else ""}" data-do="{verb}" data-subject="{esc(subject)}">'
        f"{esc(label)}</button>"
    )
