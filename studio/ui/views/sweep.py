"""A sweep as HTML: the grid that fills, its empty state, the plan, a verdict, earlier sweeps.

Knows: how a sweep looks on the page; every text is escaped here. Does not know: gradio, where on the page it stands, whose it is.

A cell is a button: a click or Enter opens it, arrow keys go to its neighbours, 0–5 give stars. What a button means stands in its
data: `do` (the verb), `subject` (a cell's key, a sweep's id) and `value`.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from studio.core.sweeps.spec import Plan, SweepSpec
from studio.storage.sweeps import MOST_STARS, Kept, Verdict

MOST_TILES = 1200  # drawn on the page; the viewer takes any number
At = tuple[int, ...]

# What the buttons of all blocks here say, and what a grid does by itself: for gradio's `js_on_load`.
SCRIPT = Path(__file__).with_name("sweep.js").read_text("utf-8")


@dataclass(frozen=True)
class Tile:
    """One cell as the grid shows it."""

    key: str
    label: str
    kept: Kept
    thumb: str  # its address; empty where there is no picture

    @property
    def state(self) -> str:
        return "done" if self.thumb else "failed" if self.kept.error else "missing"


@dataclass(frozen=True)
class Board:
    """A sweep to look at; axes that go hand in hand are one. `places` says which of the spec's axes each begins with."""

    axes: tuple[tuple[str, tuple[str, ...]], ...]
    places: tuple[int, ...]
    tiles: Mapping[At, Tile]

    @property
    def titles(self) -> list[tuple[str, int]]:
        """For choosing one."""
        return [
            (title if len(title) < 60 else title[:57] + "…", number)
            for number, (title, _) in enumerate(self.axes)
        ]


def board(plan: Plan, kept: Mapping[str, Kept], address: Callable[[Path], str]) -> Board:
    """The cells of a plan with what they came to."""
    spec, groups = plan.spec, plan.spec.groups
    labels = [axis.labels for axis in spec.axes]
    axes = tuple(
        (
            " + ".join(spec.axes[k].title for k in group),
            tuple(" · ".join(row) for row in zip(*(labels[k] for k in group))),
        )
        for group in groups
    )
    tiles = {}
    for cell in plan.cells:
        key = cell.key
        one = kept.get(key, Kept())
        tiles[tuple(cell.coordinates[group[0]] for group in groups)] = Tile(
            key, " · ".join(cell.labels), one, address(one.path) if one.done and one.path else ""
        )
    return Board(axes, tuple(group[0] for group in groups), tiles)


def title_of(spec: SweepSpec) -> str:
    """What a sweep is called: as somebody called it, or by what varies."""
    return spec.title or " × ".join(axis.title for axis in spec.axes)


# ---- the grid ---------------------------------------------------------------------------------------------------------


def empty(presets: Sequence[str]) -> str:
    """What stands where a grid will be."""
    buttons = "".join(_do("preset", name, name) for name in presets)
    return (
        '<div class="sweep-empty"><div class="sweep-frame" aria-hidden="true">'
        + "<i></i>" * 9
        + "</div>"
        "<p><b>See what a setting does.</b></p><p>A sweep makes the same picture again and again with other values of a "
        "setting, or of several, and lays the pictures out in a grid. Choose what varies, press Run sweep and watch it fill; "
        f"or begin with one of these:</p><p class=starts>{buttons}</p></div>"
    )


def grid(
    shown: Board,
    across: int,
    down: int | None,
    picked: str = "",
    pinned: str = "",
    busy: bool = False,
) -> str:
    """The whole grid. Axes that go neither across nor down make sections; a single axis flows."""
    over = [k for k in range(len(shown.axes)) if k not in (across, down)]
    first = picked if any(tile.key == picked for tile in shown.tiles.values()) else ""
    draw = _Draw(shown, picked, pinned, busy, first or shown.tiles[(0,) * len(shown.axes)].key)
    each = len(shown.axes[across][1]) * (len(shown.axes[down][1]) if down is not None else 1)
    parts, left = [], MOST_TILES
    for chosen in product(*(range(len(shown.axes[k][1])) for k in over)):
        if left <= 0:
            break
        heading = " · ".join(_named(*shown.axes[k], at) for k, at in zip(over, chosen))
        parts.append(f"<h4>{html.escape(heading)}</h4>" if heading else "")
        fixed = dict(zip(over, chosen))
        parts.append(
            draw.flow(fixed, across, left)
            if down is None
            else draw.table(fixed, across, down, left)
        )
        left -= each
    many = len(shown.tiles)
    more = (
        f'<p class="nothing">The first {MOST_TILES:,} of {many:,} cells are shown here; the viewer has all of them.</p>'
        if many > MOST_TILES
        else ""
    )
    columns = len(shown.axes[across][1])
    size = 150 if columns <= 4 else 118 if columns <= 6 else 92
    keys = "Arrow keys go from cell to cell, Enter opens one; 0 to 5 give stars, B marks the best, P pins."
    tools = (
        _do("zoom", "", "−", "0.8", "Smaller cells")
        + _do("zoom", "", "+", "1.25", "Larger cells")
        + _do("wide", "", "Wide", "", "Give the grid the whole width, or take it back")
    )
    return (
        f'<div class="grid-tools">{tools}</div><div class="grid" role="region" aria-label="Cells" title="{keys}" '
        f'style="--cell:{size}px">{"".join(parts)}{more}</div>'
    )


@dataclass(frozen=True)
class _Draw:
    """What all parts of one grid have in common. `first` is the one cell that the Tab key finds."""

    shown: Board
    picked: str
    pinned: str
    busy: bool
    first: str

    def at(self, chosen: Mapping[int, int]) -> Tile:
        return self.shown.tiles[tuple(chosen[k] for k in range(len(self.shown.axes)))]

    def flow(self, fixed: Mapping[int, int], across: int, most: int) -> str:
        labels = self.shown.axes[across][1][:most]
        tiles = "".join(
            f"<figure>{self.tile(self.at({**fixed, across: k}))}<figcaption>{_short(label)}</figcaption></figure>"
            for k, label in enumerate(labels)
        )
        return f'<div class="flow">{tiles}</div>'

    def table(self, fixed: Mapping[int, int], across: int, down: int, most: int) -> str:
        (x_title, columns), (y_title, rows) = self.shown.axes[across], self.shown.axes[down]
        columns = columns[:most]
        rows = rows[: max(1, most // len(columns))]
        heads = "".join(f'<th scope="col">{_short(label)}</th>' for label in columns)
        lines = "".join(
            f'<tr><th scope="row">{_short(label)}</th>'
            + "".join(
                f"<td>{self.tile(self.at({**fixed, across: x, down: y}))}</td>"
                for x in range(len(columns))
            )
            + "</tr>"
            for y, label in enumerate(rows)
        )
        corner = (
            f'<td class="corner"><div>{_short(x_title)} →</div><div>{_short(y_title)} ↓</div></td>'
        )
        return f"<table><thead><tr>{corner}{heads}</tr></thead><tbody>{lines}</tbody></table>"

    def tile(self, tile: Tile) -> str:
        """The button, and the numbers under it."""
        state, verdict = tile.state, tile.kept.verdict
        if state == "done":
            inside = f'<img src="{html.escape(tile.thumb)}" alt="" loading="lazy" decoding="async">{marks(verdict)}'
        elif state == "failed":
            inside = f"<b>failed</b><span>{html.escape(tile.kept.error[:160])}</span>"
        else:
            inside = "" if self.busy else "<span>not made</span>"
        said = (
            f"{tile.label}"
            + (f", {verdict.stars} stars" if verdict.stars else "")
            + (f", {state}" if state != "done" else "")
        )
        classes = (
            "tile" + " now" * (tile.key == self.picked) + " pinned" * (tile.key == self.pinned)
        )
        numbers = " · ".join(
            f"{_NUMBERS.get(name, name)} {value:.3g}" for name, value in tile.kept.numbers.items()
        )
        return (
            f'<button type="button" class="{classes}" data-do="cell" data-subject="{tile.key}" data-state="{state}" '
            f'tabindex="{0 if tile.key == self.first else -1}" aria-label="{html.escape(said)}">{inside}</button>'
            + (f"<small>{html.escape(numbers)}</small>" if numbers else "")
        )


_NUMBERS = {"prompt fit": "fit", "difference": "Δ", "seconds": "s"}


def marks(verdict: Verdict) -> str:
    """Stars and best-of in the corner of a cell."""
    said = "★" * verdict.stars + (" ♥" if verdict.best else "") + (" ✎" if verdict.note else "")
    return f'<span class="marks">{said.strip()}</span>' if said else ""


# ---- around the grid --------------------------------------------------------------------------------------------------


def judging(key: str, verdict: Verdict, picture: bool = True) -> str:
    """The verdict of a cell as stars, a switch and a line of text; nothing to press where there is no picture."""
    if not picture:
        return f'<div class="judging" data-subject="{key}"></div>'
    stars = "".join(
        _do(
            "stars",
            key,
            "★" if k <= verdict.stars else "☆",
            str(0 if k == verdict.stars else k),
            f"{k} star{'s' * (k > 1)}"
            + (" (press again to take them back)" if k == verdict.stars else ""),
            "star",
        )
        for k in range(1, MOST_STARS + 1)
    )
    best = (
        f'<button type="button" class="do best" data-do="best" data-subject="{key}" aria-pressed="{str(verdict.best).lower()}">'
        f"{'♥' if verdict.best else '♡'} Best of all</button>"
    )
    note = html.escape(verdict.note)
    return (
        f'<div class="judging" data-subject="{key}"><span class="stars" role="group" aria-label="Stars">{stars}</span>{best}'
        f'<input class="note" data-subject="{key}" data-kept="{note}" value="{note}" maxlength="2000" aria-label="Note" '
        'placeholder="A note, kept as you type"></div>'
    )


def planned(plan: Plan, took: str, mode: str, new: int | None) -> str:
    """What a sweep will be, before it is run. `new` is how many cells an extension would add."""
    counts, told = plan.spec.counts, plan.predicted
    factors = [f"{counts[group[0]]}" for group in plan.spec.groups]
    product_ = f"{' × '.join(factors)} = " if len(factors) > 1 else ""
    facts = [
        ("Cells", f"{product_}{told.cells:,}"),
        ("Model loads", f"{told.loads:,}"),
        ("Prompts read", f"{told.encodes:,}"),
        ("U-Net rows", f"{told.rows:,}"),
        ("Time", took),
        ("Mode", mode),
    ]
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{html.escape(value)}</dd></div>" for name, value in facts
    )
    more = (
        f'<p class="estimate">As an extension of the open sweep: {new:,} new, {told.cells - new:,} made already.</p>'
        if new is not None and new < told.cells
        else ""
    )
    return f'<dl class="plan" data-cells="{told.cells}">{cells}</dl>{more}'


def faults(found: Sequence[str]) -> str:
    """All that stands in the way of a plan."""
    rows = "".join(f"<li>{html.escape(fault)}</li>" for fault in found)
    return f'<ul class="faults">{rows}</ul>'


def echo(values: Sequence[str]) -> str:
    """What was understood of an axis's values."""
    words, many = ", ".join(value or "“”" for value in values[:40]), len(values)
    words = words if len(words) < 400 else words[:397] + "…"
    more = f", … {many - 40:,} more" if many > 40 else ""
    return (
        f'<p class="echo"><b>{many:,} value{"s" * (many != 1)}</b> {html.escape(words + more)}</p>'
    )


def note(words: str, bad: bool = False) -> str:
    """A line under an axis."""
    return f'<p class="echo{" wrong" if bad else ""}">{html.escape(words)}</p>'


def head(
    spec: SweepSpec, done: int, failed: int, total: int, words: str, share: float | None, state: str
) -> str:
    """What stands over the grid: its title, how far it is, what goes on."""
    failures = f' · <span class="bad">{failed:,} failed</span>' if failed else ""
    bar = (
        ""
        if share is None
        else f'<div class="bar" role="progressbar" aria-label="How far the sweep is" '
        f'aria-valuenow="{share * 100:.0f}"><i style="width:{share * 100:.1f}%"></i></div>'
    )
    return (
        f'<div class="sweep-head" data-state="{state}" data-done="{done}"><h3>{html.escape(title_of(spec))}</h3>'
        f'<p><span class="chip">{"fast" if spec.fast else "exact"}</span> {done:,} of {total:,} cells{failures}'
        f"{f' · {html.escape(words)}' if words else ''}</p>{bar}</div>"
    )


def compared(one: tuple[str, str], other: tuple[str, str]) -> str:
    """Two pictures (address, label) side by side."""
    return (
        '<div class="sides">'
        + "".join(
            f'<figure><img src="{html.escape(address)}" alt=""><figcaption>{html.escape(label)}</figcaption></figure>'
            for address, label in (one, other)
        )
        + "</div>"
    )


def captions(one: str, other: str) -> str:
    """What is left and right of the slider."""
    return f'<div class="halves"><span>{html.escape(one)}</span><span>{html.escape(other)}</span></div>'


def downloads(files: Sequence[tuple[str, str, int]]) -> str:
    """Files (address, name, bytes) to take along: the sheets to be seen, all to be saved."""
    sheets = [(address, name) for address, name, _ in files if name.endswith(".png")]
    seen = "".join(
        f'<a href="{html.escape(address)}" target="_blank" rel="noopener"><img src="{html.escape(address)}" '
        f'alt="Preview of {html.escape(name)}" loading="lazy"></a>'
        for address, name in sheets[:6]
    )
    rows = "".join(
        f'<li><a href="{html.escape(address)}" download="{html.escape(name)}">{html.escape(name)}</a>'
        f"<small>{_ABOUT.get(name, 'contact sheet')} · {max(1, round(size / 1024)):,} KiB</small>"
        + (
            f'<a class="look" href="{html.escape(address)}" target="_blank" rel="noopener">look at it now</a>'
            if name.endswith((".png", ".html"))
            else ""
        )
        + "</li>"
        for address, name, size in files
    )
    return f'<div class="downloads"><div class="sheets">{seen}</div><ul>{rows}</ul></div>'


_ABOUT = {
    "viewer.html": "open it anywhere, offline: swap axes, compare, judge",
    "index.json": "all cells for programs",
    "index.csv": "all cells for a spreadsheet",
}


def shelf(rows: Sequence[tuple[str, SweepSpec, float, int, int, bool]], asked: str = "") -> str:
    """Earlier sweeps: id, spec, when, cells done, cells, whether it is open. `asked` is the one that may be deleted."""
    if not rows:
        return (
            '<p class="nothing">None yet. Every sweep is kept here, also one that was stopped.</p>'
        )
    return "".join(_row(*row, asked=row[0] == asked) for row in rows)


def _row(
    id: str, spec: SweepSpec, when: float, done: int, total: int, now: bool, asked: bool
) -> str:
    day = time.strftime("%d %b %H:%M", time.localtime(when))
    if asked:
        words = "Delete this sweep and its verdicts? Its pictures stay in the gallery."
        buttons = _do("delete", id, "Delete") + _do("keep", id, "Keep it")
    else:
        words = f"{done:,} of {total:,} cells · {'fast' if spec.fast else 'exact'} · {day}"
        buttons = _do("open", id, "Open") + _do("ask", id, "Delete")
    return (
        f'<div class="shelved{" now" if now else ""}" data-sweep="{id}"><div><b>{html.escape(title_of(spec))}</b>'
        f"<small>{words}</small></div><div class=job-do>{buttons}</div></div>"
    )


def _do(
    verb: str, subject: str, label: str, value: str = "", title: str = "", more: str = "do"
) -> str:
    said = f' title="{html.escape(title)}" aria-label="{html.escape(title)}"' if title else ""
    return (
        f'<button type="button" class="{more}" data-do="{verb}" data-subject="{html.escape(subject)}" '
        f'data-value="{html.escape(value)}"{said}>{html.escape(label)}</button>'
    )


def _named(title: str, labels: Sequence[str], at: int) -> str:
    """A value with what it is of, unless it says so itself."""
    return labels[at] if labels[at].startswith(title) else f"{title}: {labels[at]}"


def _short(label: str) -> str:
    """A head, and the whole of it for who points at it."""
    words = label if len(label) <= 90 else label[:87] + "…"
    whole = f' title="{html.escape(label)}"' if words != label else ""
    return f"<span{whole}>{html.escape(words)}</span>"
