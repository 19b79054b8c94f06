"""A dataset as HTML: what is in it, its history, tags, what spoils a training, captions compared.

Knows: how it looks (templates/dataset.html). Does not know: gradio, components, whose a dataset is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from studio.core.captions.lint import Finding
from studio.storage.datasets.history import Step
from studio.storage.datasets.items import Counts
from studio.ui.views.common import compute_fraction
from studio.ui.views.templates import render_macro, render_nothing

MAX_FOLDERS = 40  # whose repeats are listed
MAX_NOTES = 6  # sentences about a dataset that are shown
ROOT_FOLDER = "."  # a dataset's own folder in `Counts.repeats`
# What the block of the summary does by itself: a number that was typed is sent, and the old one
# stands there again until the dataset is changed.
REPEATS_SCRIPT = """element.addEventListener('change', event => {
  const box = event.target.closest('input[data-folder]');
  if (!box) return;
  trigger('click', {action: 'repeats', target: box.dataset.folder, count: box.value});
  box.value = box.defaultValue;
});"""
FINDING_LABELS = {
    "missing": "no caption",
    "short": "very short",
    "same": "all the same caption",
    "unreadable": "unreadable caption",
    "trigger": "no trigger word",
    "long": "too long",
    "lines": "extra lines that trainers ignore",
    "twice": "duplicate tags",
    "untidy": "untidy",
    "small": "too small",
    "duplicate": "duplicate file",
    "broken": "cannot be used",
}
FIX_LABELS = {
    "trigger": "Add it in front",
    "long": "Shorten",
    "lines": "Join lines",
    "twice": "Remove duplicates",
    "untidy": "Clean up",
    "small": "Exclude",
    "duplicate": "Exclude",
    "broken": "Exclude",
}
LAYOUT_LABELS = {
    "sidecar": "captions in text files",
    "metadata": "captions in a metadata file",
    "kohya": "kohya folders",
}
STEP_STATE_NOTES = {"done": "", "undone": " · undone", "dropped": " · undone for good"}


@dataclass(frozen=True)
class FindingGroup:
    """Findings of one kind, with what the buttons that mend them are called."""

    kind: str
    findings: Sequence[Finding]

    @property
    def label(self) -> str:
        """What is wrong, for people."""
        return FINDING_LABELS.get(self.kind, self.kind)

    @property
    def fix_label(self) -> str:
        return FIX_LABELS.get(self.kind, "Caption automatically")

    def action_target(self, file: str) -> str:
        """Return the subject of a button that mends this file, or all of them if it is empty."""
        return json.dumps([self.kind, file])


def _render(macro_name: str, **arguments: Any) -> str:
    return render_macro("dataset.html", macro_name, **arguments)


DATASET_PLACEHOLDER = _render("placeholder")


def render_summary(
    counts: Counts,
    broken_files: Sequence[tuple[str, str]],
    notes: Sequence[str],
    scan_progress: tuple[int, int] | None,
    locked: bool = True,
) -> str:
    """Render what is in a dataset.

    Args:
        counts: Its numbers.
        broken_files: Files that cannot be used, as (name, reason).
        notes: What its owner should know.
        scan_progress: Images looked at and their number, while it is being scanned.
        locked: Whether the repeats of kohya's folders cannot be typed.
    """
    facts = [f"{counts.captioned:,} captioned", LAYOUT_LABELS.get(counts.layout, counts.layout)]
    if counts.images and counts.captioned == counts.images:
        facts[0] = "all captioned"
    root_repeats = counts.repeats.get(ROOT_FOLDER, 1)
    if root_repeats > 1:
        facts.append(f"each × {root_repeats}")
    repeats = [(folder, count) for folder, count in counts.repeats.items() if folder != ROOT_FOLDER]
    return _render(
        "summary",
        counts=counts,
        facts=facts,
        repeats=repeats[:MAX_FOLDERS],
        num_hidden_repeats=max(0, len(repeats) - MAX_FOLDERS),
        locked=locked,
        scan_progress=scan_progress,
        broken_files=broken_files,
        notes=notes[:MAX_NOTES],
    )


def render_file_problems(rows: Sequence[tuple[str, str]], problem: str) -> str:
    """Render files as (name, reason) under what they have in common; nothing if there are none."""
    return _render("file_problems", files=rows, problem=problem)


def render_skipped_files(step: Step | None) -> str:
    """Render what a step could not change, file by file."""
    return render_file_problems(step.skipped, "left unchanged") if step else ""


def render_actions(name: str, trigger_word: str, shipped: bool, guest: bool, ready: bool) -> str:
    """Render the buttons of a dataset: train on it, copy it.

    Args:
        name: The dataset.
        trigger_word: The word that its captions begin with, handed to the training.
        shipped: Whether it came with the studio and cannot be edited.
        guest: Whether a guest is looking, who may not copy it.
        ready: Whether it can be trained on.
    """
    handoff = json.dumps({"dataset": name, "name": name, "trigger": trigger_word})
    return _render(
        "actions",
        name=name,
        handoff=handoff,
        is_shipped=shipped,
        may_copy=shipped and not guest,
        may_train=ready,
    )


def render_history(steps: Sequence[Step]) -> str:
    """Render what was done, the newest first."""
    if not steps:
        return render_nothing("No changes yet.")
    rows = []
    for step in steps:
        date = time.strftime("%d %b %H:%M", time.localtime(step.created))
        rows.append((step, date, STEP_STATE_NOTES[step.state]))
    return _render("history", rows=rows)


def render_caption_diff(rows: Iterable[tuple[str, str, str]], total: int, title: str) -> str:
    """Render captions before and after.

    Args:
        rows: The first changes as (file, before, after).
        total: Number of all changes.
        title: What stands over them.
    """
    marked_rows = [
        (file, split_difference(before, after), split_difference(after, before))
        for file, before, after in rows
    ]
    return _render("caption_diff", rows=marked_rows, total=total, title=title)


def split_difference(text: str, reference: str) -> tuple[str, str, str]:
    """Split `text` into beginning, difference and end; the outer two it shares with `reference`."""
    num_equal = _count_equal(text, reference)
    beginning = text[:num_equal]
    changed = text[num_equal:]
    num_equal = _count_equal(changed[::-1], reference[num_equal:][::-1])
    num_different = len(changed) - num_equal
    return beginning, changed[:num_different], changed[num_different:]


def _count_equal(first: str, second: str) -> int:
    """Return the length of the beginning that two texts share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second)))


def render_progress(message: str, step: int, total: int) -> str:
    """Render how far a job is: `step` of `total`, 0 if that is not known yet."""
    return _render("progress", message=message, fraction=compute_fraction(step, total))


def render_outcome(state: str, message: str, failures: Sequence[Mapping[str, Any]] = ()) -> str:
    """Render how a job ended.

    Args:
        state: The job's last state.
        message: What came of it, in words.
        failures: Images that could not be captioned, each with `file` and `error`.
    """
    files = [(str(failure.get("file")), str(failure.get("error"))) for failure in failures]
    return _render("outcome", state=state, message=message, failures=files)


def render_tags(tag_counts: Sequence[tuple[str, int]], limit: int = 80) -> str:
    """Render the first `limit` tags with their counts; a click takes one in hand."""
    if not tag_counts[:limit]:
        return render_nothing("No tags yet.")
    return _render("tags", tags=tag_counts[:limit], num_hidden=max(0, len(tag_counts) - limit))


def render_lint(findings: Sequence[Finding], limit: int = 8) -> str:
    """Render what spoils a training, by kind; each finding and each kind with what mends it.

    Args:
        findings: What was found, in any order.
        limit: How many of a kind are listed.
    """
    if not findings:
        return _render("no_findings")
    findings_by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        findings_by_kind.setdefault(finding.kind, []).append(finding)
    groups = [FindingGroup(kind, group) for kind, group in findings_by_kind.items()]
    return _render("lint", total=len(findings), groups=groups, max_findings=limit)
