"""What a sweep came to, as plain frozen data: axes, cells, numbers, verdicts; and its index as JSON and CSV.

Knows: which axes go hand in hand, how a number is written.
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

from studio.storage.sweeps import NONE, Verdict

Coordinates = tuple[int, ...]
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "＝",
    "＋",
    "－",
    "＠",
)  # a spreadsheet computes what begins so


@dataclass(frozen=True)
class TableAxis:
    """What varies, and its values as they are to be read."""

    title: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class TableCell:
    """One picture, or why there is none. Without `picture` and `error` it is not made yet. `thumb` only saves time, `key` is what
    verdicts know the cell by."""

    picture: Path | None = None
    error: str = ""
    seed: int | None = None
    settings: str = ""
    numbers: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    verdict: Verdict = NONE
    thumb: Path | None = None
    key: str = ""

    @property
    def state(self) -> str:
        return "failed" if self.error else "done" if self.picture else "missing"


@dataclass(frozen=True)
class Table:
    """A sweep to look at. `id` never changes, verdicts are kept under it; `groups` has the axes that go hand in hand."""

    id: str
    title: str
    axes: tuple[TableAxis, ...]
    cells: Mapping[Coordinates, TableCell]
    fixed: tuple[tuple[str, str], ...] = ()
    mode: str = ""
    groups: tuple[Coordinates, ...] = ()

    def cell(self, at: Coordinates) -> TableCell:
        return self.cells.get(at, TableCell())

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of all numbers that some cell has."""
        return tuple(dict.fromkeys(name for cell in self.cells.values() for name in cell.numbers))

    def folded(self) -> tuple[Table, tuple[int, ...]]:
        """The table with each group of axes as one axis, and which of the new axes each old one became:
        a cell `at` in the folded one is `tuple(at[k] for k in where)` in this one."""
        grouped = {axis for group in self.groups for axis in group}
        groups = sorted([*self.groups, *((k,) for k in range(len(self.axes)) if k not in grouped)])
        where = [
            next(k for k, group in enumerate(groups) if axis in group)
            for axis in range(len(self.axes))
        ]
        axes = []
        for group in groups:
            labels = zip(*(self.axes[k].labels for k in group))
            axes.append(
                TableAxis(
                    " + ".join(self.axes[k].title for k in group), tuple(map(" · ".join, labels))
                )
            )
        cells = {tuple(at[group[0]] for group in groups): cell for at, cell in self.cells.items()}
        return replace(self, axes=tuple(axes), cells=cells, groups=()), tuple(where)


def said(value: float) -> str:
    """A number as it stands under a cell: three digits or so, equally many for numbers of one kind."""
    if isinstance(value, int) or (abs(value) >= 1000 and math.isfinite(value)):
        return f"{value:,.0f}"
    size = abs(value)
    if not math.isfinite(value):
        return "–"
    if 0 < size < 0.001:
        return f"{value:.1e}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3f}"


def index_json(table: Table, beside: Path | None = None) -> str:
    """All cells with labels, settings, numbers and verdicts; paths relative to the folder `beside` if given."""
    cells = [_row(table, at, beside) for at in sorted(table.cells)]
    whole = {
        "id": table.id,
        "title": table.title,
        "mode": table.mode,
        "fixed": [list(pair) for pair in table.fixed],
        "axes": [{"title": axis.title, "labels": list(axis.labels)} for axis in table.axes],
        "groups": [list(group) for group in table.groups],
        "cells": cells,
    }
    return json.dumps(whole, ensure_ascii=False, indent=1, allow_nan=False)


def index_csv(table: Table, beside: Path | None = None) -> str:
    """One line per cell. Text that a spreadsheet would compute gets an apostrophe in front; plain numbers stay numbers."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    numbers = table.numbers
    writer.writerow(
        map(
            _tame,
            [
                *(axis.title for axis in table.axes),
                "state",
                "picture",
                "seed",
                *numbers,
                "stars",
                "best",
                "note",
                "error",
                "settings",
            ],
        )
    )
    for at in sorted(table.cells):
        row = _row(table, at, beside)
        verdict, measured = row["verdict"], (row["numbers"].get(name) for name in numbers)
        words = (
            verdict["stars"] or None,
            "yes" if verdict["best"] else "",
            verdict["note"],
            row["error"],
            row["settings"],
        )
        writer.writerow(
            map(
                _tame,
                [*row["labels"], row["state"], row["picture"], row["seed"], *measured, *words],
            )
        )
    return out.getvalue()


def _row(table: Table, at: Coordinates, beside: Path | None) -> dict[str, Any]:
    cell = table.cells[at]
    labels = [axis.labels[k] for axis, k in zip(table.axes, at)]
    return {
        "key": cell.key,
        "coordinates": list(at),
        "labels": labels,
        "state": cell.state,
        "picture": address(cell.picture, beside) if cell.picture else "",
        "error": cell.error,
        "seed": cell.seed,
        "settings": cell.settings,
        "numbers": finite(cell.numbers),
        "verdict": {
            "stars": cell.verdict.stars,
            "note": cell.verdict.note,
            "best": cell.verdict.best,
        },
    }


def finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """As JSON can write them."""
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def address(path: Path, beside: Path | None) -> str:
    """`path` as seen from a folder, with forward slashes."""
    if beside is None:
        return str(path)
    try:
        return Path(os.path.relpath(path.resolve(), beside.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


def _tame(value: object) -> object:
    if (
        isinstance(value, str)
        and value.lstrip(" ").startswith(_FORMULA)
        and not _NUMBER.fullmatch(value)
    ):
        return f"'{value}"
    return value
