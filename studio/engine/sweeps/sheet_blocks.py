"""Which cells of a sweep stand together on a contact sheet, and what stands over and beside them.

Knows: which axis goes across, down and over the pages; how a single row flows.
Does not know: how large anything is (sheet_layout.py), how a page is drawn (sheet.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from studio.engine.sweeps.results import Coordinates, Table


@dataclass(frozen=True)
class Block:
    r"""What belongs on one page.

    Attributes:
        heading: What all its cells share, over the page.
        column_labels: The heads of the columns.
        row_labels: The heads of the rows.
        cells: Coordinates of the cells, row by row; None where there is none.
        corner: Titles of the axes, "down\nacross".
        is_flow: Whether the cells flow like text: without heads, each with its label under it.
        part_label: Which part of a split block this is.
    """

    heading: str
    column_labels: tuple[str, ...]
    row_labels: tuple[str, ...]
    cells: tuple[tuple[Coordinates | None, ...], ...]
    corner: str = ""
    is_flow: bool = False
    part_label: str = ""

    def crop(self, rows: slice, columns: slice, part_label: str) -> Block:
        """Return some rows and columns of the block."""
        return replace(
            self,
            column_labels=self.column_labels[columns],
            row_labels=self.row_labels[rows],
            cells=tuple(line[columns] for line in self.cells[rows]),
            part_label="" if self.is_flow else part_label,
        )


def build_blocks(
    table: Table,
    *,
    x_axis: int | None,
    y_axis: int | None,
    page_axes: int | Sequence[int] | None,
) -> tuple[list[Block], Table]:
    """Return one block for each combination of values on the page axes, and the merged table."""
    merged_table, index_of = table.merge_axis_groups()
    across, down, over = _assign_axes(
        len(merged_table.axes), index_of, x_axis=x_axis, y_axis=y_axis, page_axes=page_axes
    )
    axes = merged_table.axes
    rows = [] if down is None else [down]
    rows += [axis for axis in range(len(axes)) if axis not in (across, down, *over)]

    def iterate_values(axis_indices: Sequence[int]) -> Iterator[dict[int, int]]:
        counts = [range(len(axes[axis].labels)) for axis in axis_indices]
        for values in product(*counts):
            yield dict(zip(axis_indices, values))

    def format_value(axis: int, k: int) -> str:
        return f"{axes[axis].title}: {axes[axis].labels[k]}"

    columns = () if across is None else (across,)
    corner = (
        " × ".join(axes[axis].title for axis in rows),
        "" if across is None else axes[across].title,
    )
    row_labels = []
    for row in iterate_values(rows):
        if len(rows) > 1:
            row_labels.append("\n".join(format_value(axis, k) for axis, k in row.items()))
        else:
            row_labels.append("".join(axes[axis].labels[k] for axis, k in row.items()))
    blocks = []
    for page in iterate_values(over):
        cells = []
        for row in iterate_values(rows):
            places = [page | row | column for column in iterate_values(columns)]
            cells.append(tuple(tuple(place[k] for k in range(len(axes))) for place in places))
        block = Block(
            heading="   ·   ".join(format_value(axis, k) for axis, k in page.items()),
            column_labels=("",) if across is None else axes[across].labels,
            row_labels=tuple(row_labels),
            cells=tuple(cells),
            corner="\n".join(corner),
        )
        blocks.append(_wrap_single_row(block))
    return blocks, merged_table


def _assign_axes(
    num_axes: int,
    index_of: Sequence[int],
    *,
    x_axis: int | None,
    y_axis: int | None,
    page_axes: int | Sequence[int] | None,
) -> tuple[int | None, int | None, list[int]]:
    """Return which of the merged axes goes across, which down and which over the pages.

    `index_of` maps the table's axes, in which the others are given, to merged ones.
    """
    named_page_axes = [page_axes] if isinstance(page_axes, int) else list(page_axes or ())
    named_axes = [axis for axis in (*named_page_axes, x_axis, y_axis) if axis is not None]
    reserved = {index_of[axis] for axis in named_axes}
    free = list(range(num_axes))

    def take(axis: int | None) -> int | None:
        if axis is None:
            merged_axis = next((k for k in free if k not in reserved), None)
        else:
            merged_axis = index_of[axis]
            if merged_axis not in free:
                raise ValueError(f"axis {axis} is already used, or linked with one that is")
        if merged_axis is not None:
            free.remove(merged_axis)
        return merged_axis

    across = take(x_axis)
    down = take(y_axis)
    over = free
    if page_axes is not None:
        over = sorted({index_of[axis] for axis in named_page_axes})
    if across in over or down in over:
        raise ValueError("an axis cannot be on the pages and on the sheet")
    return across, down, over


def _wrap_single_row(block: Block) -> Block:
    """Return a block of one row as several rows that flow like text."""
    if len(block.cells) > 1 or len(block.column_labels) <= 1:
        return block
    (row,) = block.cells
    num_columns = len(row)
    if num_columns > 6:
        num_columns = math.ceil(math.sqrt(num_columns * 1.5))
    padded = [*row, *[None] * (-len(row) % num_columns)]
    cells = tuple(
        tuple(padded[start : start + num_columns]) for start in range(0, len(padded), num_columns)
    )
    return Block(
        heading=block.heading,
        column_labels=("",) * num_columns,
        row_labels=("",) * len(cells),
        cells=cells,
        is_flow=True,
    )
