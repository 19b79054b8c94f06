"""What a sweep came to, as plain frozen data, and its index as JSON and CSV.

Knows: axes, cells, metrics and verdicts; which axes go hand in hand, how a number is written.
Does not know: how cells were computed, the job table, how a sheet or a page looks.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from studio.storage.verdicts import NO_VERDICT, Verdict

Coordinates = tuple[int, ...]
_NUMBER_PATTERN = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
# A spreadsheet computes text that begins with one of these.
_FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True)
class TableAxis:
    """What varies, and its values as they are to be read."""

    title: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class TableCell:
    """One cell: an image, an error, or neither yet.

    Attributes:
        image_path: The image's file; None where there is none.
        error: Why there is no image; "" where it is not made yet.
        seed: The seed of the cell's request.
        settings: The request as infotext.
        metrics: Numbers by name.
        verdict: Stars, note and mark of the user.
        thumbnail_path: A small copy that only saves time.
        key: What verdicts know the cell by.
    """

    image_path: Path | None = None
    error: str = ""
    seed: int | None = None
    settings: str = ""
    metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    verdict: Verdict = NO_VERDICT
    thumbnail_path: Path | None = None
    key: str = ""

    @property
    def state(self) -> str:
        """One of "failed", "done", "missing"."""
        if self.error:
            return "failed"
        return "done" if self.image_path else "missing"


@dataclass(frozen=True)
class Table:
    """A sweep to look at.

    Attributes:
        id: The sweep's id; it never changes, verdicts are stored under it.
        title: What stands over the sheet.
        axes: What varies.
        cells: Cells by their coordinates, the index of the value on each axis.
        fixed_settings: Names and values of what all cells share.
        mode: How exact the cells are, in words.
        axis_groups: Groups of axes that go hand in hand, by their indices.
    """

    id: str
    title: str
    axes: tuple[TableAxis, ...]
    cells: Mapping[Coordinates, TableCell]
    fixed_settings: tuple[tuple[str, str], ...] = ()
    mode: str = ""
    axis_groups: tuple[Coordinates, ...] = ()

    def get_cell(self, coordinates: Coordinates) -> TableCell:
        """Return the cell; one without anything where the table has none."""
        return self.cells.get(coordinates, TableCell())

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of all metrics that some cell has."""
        return tuple(dict.fromkeys(name for cell in self.cells.values() for name in cell.metrics))

    def merge_axis_groups(self) -> tuple[Table, tuple[int, ...]]:
        """Turn each group of axes into one axis.

        Returns:
            The merged table, and for each axis of this table its index in the merged one: a cell at
            `merged` there is at `tuple(merged[k] for k in indices)` here.
        """
        grouped = {axis for group in self.axis_groups for axis in group}
        single_axes = [(axis,) for axis in range(len(self.axes)) if axis not in grouped]
        groups = sorted([*self.axis_groups, *single_axes])
        index_of = {axis: k for k, group in enumerate(groups) for axis in group}
        axes = []
        for group in groups:
            title = " + ".join(self.axes[axis].title for axis in group)
            labels = zip(*(self.axes[axis].labels for axis in group))
            axes.append(TableAxis(title, tuple(map(" · ".join, labels))))
        cells = {
            tuple(coordinates[group[0]] for group in groups): cell
            for coordinates, cell in self.cells.items()
        }
        merged = replace(self, axes=tuple(axes), cells=cells, axis_groups=())
        return merged, tuple(index_of[axis] for axis in range(len(self.axes)))


def format_number(value: float) -> str:
    """Return a number as it stands under a cell: about three digits, or a dash if not finite."""
    if isinstance(value, int):
        return f"{value:,.0f}"
    if not math.isfinite(value):
        return "–"
    magnitude = abs(value)
    if magnitude >= 1000:
        return f"{value:,.0f}"
    if 0 < magnitude < 0.001:
        return f"{value:.1e}"
    if magnitude >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if magnitude >= 1 else f"{value:.3f}"


def build_index_json(table: Table, base_folder: Path | None = None) -> str:
    """Return all cells with labels, settings, metrics and verdicts as JSON.

    Paths are relative to `base_folder` if there is one.
    """
    index = {
        "id": table.id,
        "title": table.title,
        "mode": table.mode,
        "fixed": [list(pair) for pair in table.fixed_settings],
        "axes": [{"title": axis.title, "labels": list(axis.labels)} for axis in table.axes],
        "groups": [list(group) for group in table.axis_groups],
        "cells": [
            _build_row(table, coordinates, base_folder) for coordinates in sorted(table.cells)
        ],
    }
    return json.dumps(index, ensure_ascii=False, indent=1, allow_nan=False)


def build_index_csv(table: Table, base_folder: Path | None = None) -> str:
    """Return one line per cell as CSV; paths are relative to `base_folder` if there is one.

    Text that a spreadsheet would compute gets an apostrophe in front; plain numbers stay numbers.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    metric_names = table.metric_names
    header = [
        *(axis.title for axis in table.axes),
        "state",
        "picture",
        "seed",
        *metric_names,
        "stars",
        "best",
        "note",
        "error",
        "settings",
    ]
    writer.writerow(map(_escape_formula, header))
    for coordinates in sorted(table.cells):
        row = _build_row(table, coordinates, base_folder)
        verdict = row["verdict"]
        line = [
            *row["labels"],
            row["state"],
            row["picture"],
            row["seed"],
            *(row["numbers"].get(name) for name in metric_names),
            verdict["stars"] or None,
            "yes" if verdict["best"] else "",
            verdict["note"],
            row["error"],
            row["settings"],
        ]
        writer.writerow(map(_escape_formula, line))
    return buffer.getvalue()


def _build_row(table: Table, coordinates: Coordinates, base_folder: Path | None) -> dict[str, Any]:
    cell = table.cells[coordinates]
    return {
        "key": cell.key,
        "coordinates": list(coordinates),
        "labels": [axis.labels[k] for axis, k in zip(table.axes, coordinates)],
        "state": cell.state,
        "picture": make_relative_path(cell.image_path, base_folder) if cell.image_path else "",
        "error": cell.error,
        "seed": cell.seed,
        "settings": cell.settings,
        "numbers": null_non_finite(cell.metrics),
        "verdict": serialize_verdict(cell.verdict),
    }


def serialize_verdict(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as plain data, for JSON."""
    return {"stars": verdict.stars, "note": verdict.note, "best": verdict.best}


def null_non_finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Replace what JSON cannot write by None."""
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def make_relative_path(path: Path, base_folder: Path | None) -> str:
    """Return `path` as seen from a folder, with forward slashes; absolute on another drive."""
    if base_folder is None:
        return str(path)
    try:
        return Path(os.path.relpath(path.resolve(), base_folder.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


def _escape_formula(value: object) -> object:
    if not isinstance(value, str) or _NUMBER_PATTERN.fullmatch(value):
        return value
    is_formula = value.lstrip(" ").startswith(_FORMULA_PREFIXES)
    return f"'{value}" if is_formula else value
