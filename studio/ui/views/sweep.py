"""A sweep as HTML: the grid that fills, its empty state, the plan, a verdict, earlier sweeps.

Knows: how a sweep looks on the page (templates/sweep.html). Does not know: gradio, where on the
page it stands, whose it is.

A cell is a button: a click or Enter opens it, arrow keys go to its neighbours, 0–5 give stars. What
a button means stands in its data: `action`, `target` (a cell's key, a sweep's id), `value`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from studio.core.comparison.conclusions import MEASURES
from studio.core.sweeps.spec import SweepPlan, SweepSpec
from studio.storage.sweeps import CellResult
from studio.storage.verdicts import MAX_STARS, Verdict
from studio.ui.views.common import shorten
from studio.ui.views.templates import render_macro

MAX_TILES = 500  # drawn on the page, which are 300 kB at most; the viewer takes any number
MAX_SHEETS = 6  # contact sheets that are previewed
MAX_LISTED_VALUES = 40  # of an axis
METRIC_LABELS = {measure.name: measure.short for measure in MEASURES}
FILE_DESCRIPTIONS = {
    "viewer.html": "works offline anywhere: swap axes, compare, rate",
    "index.json": "all cells, for programs",
    "index.csv": "all cells, for spreadsheets",
}
Coordinates = tuple[int, ...]

# What the buttons of all blocks here do, and what a grid does by itself: for gradio's `js_on_load`.
SCRIPT = Path(__file__).with_name("sweep.js").read_text("utf-8")


@dataclass(frozen=True)
class Tile:
    """One cell as the grid shows it; `thumbnail_url` is empty where there is no image."""

    key: str
    label: str
    result: CellResult
    thumbnail_url: str

    @property
    def state(self) -> str:
        """One of "done", "failed", "binned", "missing"."""
        if self.thumbnail_url:
            return "done"
        if self.result.is_binned:
            return "binned"
        return "failed" if self.result.error else "missing"

    @property
    def verdict_marks(self) -> str:
        """Stars, best-of and note in the corner of a cell."""
        verdict = self.result.verdict
        marks = ["★" * verdict.stars]
        if verdict.best:
            marks.append("♥")
        if verdict.note:
            marks.append("✎")
        return " ".join(marks).strip()

    @property
    def description(self) -> str:
        """The cell for who cannot see it."""
        parts = [self.label]
        if self.result.verdict.stars:
            parts.append(f"{self.result.verdict.stars} stars")
        if self.state != "done":
            parts.append(self.state)
        return ", ".join(parts)

    @property
    def metrics_text(self) -> str:
        return " · ".join(
            f"{METRIC_LABELS.get(name, name)} {value:.3g}"
            for name, value in self.result.metrics.items()
        )


@dataclass(frozen=True)
class Board:
    """A sweep to look at.

    Attributes:
        axes: Title and value labels of each axis; axes of the spec that go hand in hand are one.
        axis_indices: Which of the spec's axes each begins with.
        tiles: The cells by their index on each axis.
    """

    axes: tuple[tuple[str, tuple[str, ...]], ...]
    axis_indices: tuple[int, ...]
    tiles: Mapping[Coordinates, Tile]

    @property
    def axis_choices(self) -> list[tuple[str, int]]:
        """Title and index of each axis, for a dropdown."""
        return [(shorten(title, 60), index) for index, (title, _) in enumerate(self.axes)]


@dataclass(frozen=True)
class GridSection:
    """A part of a grid under a heading: rows of (label, tiles), one tile a row where tiles flow."""

    heading: str
    column_labels: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Tile]]]


@dataclass(frozen=True)
class GridMarks:
    """Which tiles of a grid are marked; the Tab key finds the one of `focus_key`."""

    selected_key: str
    pinned_key: str
    focus_key: str
    is_running: bool


def build_board(
    plan: SweepPlan, results: Mapping[str, CellResult], file_url: Callable[[Path], str]
) -> Board:
    """Return the cells of a plan with their results.

    Args:
        plan: The planned sweep.
        results: What is finished so far, by cell key.
        file_url: Gives the address of an image's thumbnail.
    """
    spec = plan.spec
    axis_labels = [axis.labels for axis in spec.axes]
    axes = []
    for group in spec.groups:
        title = " + ".join(spec.axes[index].title for index in group)
        values = zip(*(axis_labels[index] for index in group))
        axes.append((title, tuple(" · ".join(labels) for labels in values)))
    first_indices = tuple(group[0] for group in spec.groups)
    tiles = {}
    for cell in plan.cells:
        key = cell.key
        result = results.get(key, CellResult())
        thumbnail_url = file_url(result.path) if result.path and result.has_image else ""
        coordinates = tuple(cell.coordinates[index] for index in first_indices)
        tiles[coordinates] = Tile(key, " · ".join(cell.labels), result, thumbnail_url)
    return Board(tuple(axes), first_indices, tiles)


def get_sweep_title(spec: SweepSpec) -> str:
    """Return a sweep's own title, or the names of what varies, after its LoRA if it has one."""
    if spec.title:
        return spec.title
    title = " × ".join(axis.title for axis in spec.axes)
    loras = spec.base.loras
    return f"{loras[0].name}: {title}" if len(loras) == 1 else title


# ---- the grid -----------------------------------------------------------------------------------


def render_placeholder(presets: Sequence[str]) -> str:
    """Render the empty state, with a button for each of these presets."""
    return _render("placeholder", presets=presets)


def render_grid(
    board: Board,
    x_axis: int,
    y_axis: int | None,
    *,
    selected_key: str = "",
    pinned_key: str = "",
    is_running: bool = False,
) -> str:
    """Render the whole grid; axes that go neither across nor down make sections.

    Args:
        board: The sweep.
        x_axis: Index of the board's axis that goes across.
        y_axis: Index of the one that goes down; None lets a single axis flow.
        selected_key: Key of the cell that is open.
        pinned_key: Key of the cell that is held for comparison.
        is_running: Whether cells without a result are still to come.
    """
    keys = {tile.key for tile in board.tiles.values()}
    origin = board.tiles[(0,) * len(board.axes)]
    marks = GridMarks(
        selected_key=selected_key,
        pinned_key=pinned_key,
        focus_key=selected_key if selected_key in keys else origin.key,
        is_running=is_running,
    )
    hidden_note = ""
    if len(board.tiles) > MAX_TILES:
        hidden_note = (
            f"The first {MAX_TILES:,} of {len(board.tiles):,} cells are shown here; the viewer "
            "has all of them."
        )
    x_title, x_labels = board.axes[x_axis]
    return _render(
        "grid",
        sections=_build_sections(board, x_axis, y_axis),
        x_title=x_title,
        y_title=None if y_axis is None else board.axes[y_axis][0],
        cell_px=_choose_cell_px(len(x_labels)),
        hidden_note=hidden_note,
        marks=marks,
    )


def _build_sections(board: Board, x_axis: int, y_axis: int | None) -> list[GridSection]:
    """Lay the first `MAX_TILES` tiles out in sections."""
    section_axes = [axis for axis in range(len(board.axes)) if axis not in (x_axis, y_axis)]
    section_ranges = [range(len(board.axes[axis][1])) for axis in section_axes]
    num_columns = len(board.axes[x_axis][1])
    num_rows = 1 if y_axis is None else len(board.axes[y_axis][1])
    sections = []
    remaining_tiles = MAX_TILES
    for section_indices in product(*section_ranges):
        if remaining_tiles <= 0:
            break
        fixed = dict(zip(section_axes, section_indices))
        if y_axis is None:
            sections.append(_build_flow(board, fixed, x_axis, remaining_tiles))
        else:
            sections.append(_build_table(board, fixed, x_axis, y_axis, remaining_tiles))
        remaining_tiles -= num_columns * num_rows
    return sections


def _build_flow(
    board: Board, fixed_indices: Mapping[int, int], x_axis: int, max_tiles: int
) -> GridSection:
    rows = [
        (label, [_get_tile(board, {**fixed_indices, x_axis: x})])
        for x, label in enumerate(board.axes[x_axis][1][:max_tiles])
    ]
    return GridSection(_format_heading(board, fixed_indices), (), rows)


def _build_table(
    board: Board, fixed_indices: Mapping[int, int], x_axis: int, y_axis: int, max_tiles: int
) -> GridSection:
    column_labels = board.axes[x_axis][1][:max_tiles]
    max_rows = max(1, max_tiles // len(column_labels))
    rows = []
    for y, label in enumerate(board.axes[y_axis][1][:max_rows]):
        indices = {**fixed_indices, y_axis: y}
        tiles = [_get_tile(board, {**indices, x_axis: x}) for x in range(len(column_labels))]
        rows.append((label, tiles))
    return GridSection(_format_heading(board, fixed_indices), column_labels, rows)


def _get_tile(board: Board, indices: Mapping[int, int]) -> Tile:
    return board.tiles[tuple(indices[axis] for axis in range(len(board.axes)))]


def _format_heading(board: Board, indices: Mapping[int, int]) -> str:
    """Return the values that a section shares, each with its axis unless it names that itself."""
    headings = []
    for axis, index in indices.items():
        title, labels = board.axes[axis]
        label = labels[index]
        headings.append(label if label.startswith(title) else f"{title}: {label}")
    return " · ".join(headings)


def _choose_cell_px(num_columns: int) -> int:
    if num_columns <= 4:
        return 150
    return 118 if num_columns <= 6 else 92


# ---- around the grid ----------------------------------------------------------------------------


def render_verdict_editor(cell_key: str, verdict: Verdict, has_image: bool = True) -> str:
    """Render stars, a switch and a line of text; nothing to press where there is no image."""
    return _render(
        "verdict_editor",
        cell_key=cell_key,
        verdict=verdict,
        max_stars=MAX_STARS,
        has_image=has_image,
    )


def render_binned_cell(cell_key: str) -> str:
    """Render what can be done with a cell whose image is in the bin."""
    return _render("binned_cell", cell_key=cell_key)


def render_plan(plan: SweepPlan, duration: str, mode: str, num_new_cells: int | None) -> str:
    """Render what a sweep will be, before it is run.

    Args:
        plan: The planned sweep.
        duration: How long it will take, in words.
        mode: How it will be computed, in words.
        num_new_cells: How many cells it would add to the open sweep; None if it cannot extend that.
    """
    value_counts = plan.spec.value_counts
    cost = plan.cost_estimate
    factors = [f"{value_counts[group[0]]}" for group in plan.spec.groups]
    cells = f"{cost.cells:,}"
    if len(factors) > 1:
        cells = f"{' × '.join(factors)} = {cells}"
    facts = [
        ("Cells", cells),
        ("Model loads", f"{cost.loads:,}"),
        ("Prompts encoded", f"{cost.encodes:,}"),
        ("Predictions", f"{cost.rows:,}"),
        ("Time", duration),
        ("Mode", mode),
    ]
    extension_note = ""
    if num_new_cells is not None and num_new_cells < cost.cells:
        extension_note = (
            f"Adding to this sweep: {num_new_cells:,} new, {cost.cells - num_new_cells:,} already "
            "done."
        )
    return _render("plan", num_cells=cost.cells, facts=facts, extension_note=extension_note)


def render_faults(faults: Sequence[str]) -> str:
    """Render all sentences that keep something from being done."""
    return render_macro("common.html", "faults", sentences=faults)


def render_parsed_values(values: Sequence[str]) -> str:
    """Render how the values of an axis were understood."""
    listed_values = ", ".join(value or "“”" for value in values[:MAX_LISTED_VALUES])
    text = shorten(listed_values, 400)
    if len(values) > MAX_LISTED_VALUES:
        text += f", … {len(values) - MAX_LISTED_VALUES:,} more"
    return _render("parsed_values", count=len(values), text=text)


def render_note(text: str, is_error: bool = False) -> str:
    """Render one line of text."""
    return _render("note", text=text, is_error=is_error)


def render_header(
    spec: SweepSpec,
    num_done: int,
    *,
    num_failed: int,
    num_cells: int,
    message: str,
    fraction: float | None,
    state: str,
) -> str:
    """Render what stands over the grid: the title, how far the sweep is, what goes on.

    Args:
        spec: The sweep.
        num_done: Number of cells that have an image.
        num_failed: Number of cells that have an error instead.
        num_cells: Number of all cells.
        message: What is being done, in words; may be empty.
        fraction: Progress from 0 to 1; None without a bar.
        state: The state of its job, for the style sheet.
    """
    return _render(
        "header",
        title=get_sweep_title(spec),
        is_fast=spec.fast,
        num_done=num_done,
        num_failed=num_failed,
        num_cells=num_cells,
        message=message,
        fraction=fraction,
        state=state,
    )


def render_comparison(left: tuple[str, str], right: tuple[str, str]) -> str:
    """Render two images, each as (URL, label), side by side."""
    return _render("comparison", images=(left, right))


def render_slider_labels(left: str, right: str) -> str:
    """Render what is left and right of a before-and-after slider."""
    return _render("slider_labels", left=left, right=right)


def render_downloads(files: Sequence[tuple[str, str, int]]) -> str:
    """Render files, each as (URL, name, size in bytes), as links; sheets with a preview."""
    sheets = [(url, name) for url, name, _ in files if name.endswith(".png")]
    links = [
        (
            url,
            name,
            FILE_DESCRIPTIONS.get(name, "contact sheet"),
            size_bytes,
            name.endswith((".png", ".html")),
        )
        for url, name, size_bytes in files
    ]
    return _render("downloads", sheets=sheets[:MAX_SHEETS], files=links)


def render_sweep_list(
    rows: Sequence[tuple[str, SweepSpec, float, int, int, bool]], confirm_id: str = ""
) -> str:
    """Render earlier sweeps.

    Args:
        rows: For each its id, spec, time of the last change (Unix), number of finished cells,
            number of cells, and whether it is open on the page.
        confirm_id: Id of the sweep that is to be deleted when somebody confirms it.
    """
    listed_rows = []
    for sweep_id, spec, changed, num_done, num_cells, is_open in rows:
        date = time.strftime("%d %b %H:%M", time.localtime(changed))
        mode = "fast" if spec.fast else "exact"
        details = f"{num_done:,} of {num_cells:,} cells · {mode} · {date}"
        listed_rows.append((sweep_id, get_sweep_title(spec), details, is_open))
    return _render("sweep_list", rows=listed_rows, confirm_id=confirm_id)


def _render(macro_name: str, **arguments: Any) -> str:
    return render_macro("sweep.html", macro_name, **arguments)
