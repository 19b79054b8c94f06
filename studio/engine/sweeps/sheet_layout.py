"""How large everything on a contact sheet is, and which cells go on which page.

Knows: how much room words take, at what scale a page keeps its limits, where it is split.
Does not know: how words wrap (sheet_text.py), which axis goes where (sheet_blocks.py), how a page
is drawn (sheet.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

from PIL import Image, ImageFont

from studio.engine.sweeps.results import Coordinates, Table, TableCell, format_number
from studio.engine.sweeps.sheet_blocks import Block
from studio.engine.sweeps.sheet_text import load_font, sanitize_label, wrap_text
from studio.imaging import decode
from studio.storage.verdicts import MAX_STARS, Verdict

# The longer side below which images are not drawn smaller for the sake of one page
MIN_CELL_SIDE_PX = 256
TEXT_COLOR = "#0f172a"
MUTED_TEXT_COLOR = "#64748b"
ACCENT_COLOR = "#4338ca"
STAR_COLOR = "#d97706"


@dataclass(frozen=True)
class PageLimits:
    """How large a page may be."""

    max_side_px: int
    max_pixels: int

    def allow(self, width: int, height: int) -> bool:
        """Return whether a page of this size keeps the limits."""
        return max(width, height) <= self.max_side_px and width * height <= self.max_pixels


@dataclass(frozen=True)
class TitleLine:
    """One line over a page."""

    text: str
    font_size: int
    bold: bool
    color: str


@dataclass(frozen=True)
class SheetLayout:
    """All measures in pixels at one scale of the images.

    Attributes:
        table: What is drawn.
        blocks: Its pages before they are split; all have the same shape.
        metric_names: The metrics that stand under the cells.
        show_verdicts: Whether stars and notes stand under the cells.
        native_size: Width and height of the widest and the highest image.
        scale: What images are multiplied with, up to 1.
    """

    table: Table
    blocks: tuple[Block, ...]
    metric_names: tuple[str, ...]
    show_verdicts: bool
    native_size: tuple[int, int]
    scale: float

    @cached_property
    def cell_size(self) -> tuple[int, int]:
        """Width and height of a cell's image."""
        width, height = self.native_size
        return max(1, round(width * self.scale)), max(1, round(height * self.scale))

    @cached_property
    def font_size(self) -> int:
        """A size that is legible with one cell looked at alone.

        As far as cells allow, it is so with the page fitted to a screen too.
        """
        cell_width = self.cell_size[0]
        num_columns = max(len(block.column_labels) for block in self.blocks)
        page_width = cell_width * min(40, num_columns)
        for_one_cell = 8 + cell_width * 0.032
        for_the_page = min(page_width / 130, cell_width / 9)
        return int(max(11, min(44, max(for_one_cell, for_the_page))))

    @cached_property
    def small_font_size(self) -> int:
        """The size of captions."""
        return max(10, round(self.font_size * 0.82))

    @cached_property
    def gap(self) -> int:
        """The space between cells."""
        return max(6, round(self.font_size * 0.6))

    @cached_property
    def padding(self) -> int:
        """The space around everything."""
        return round(self.font_size * 1.8)

    @staticmethod
    def get_line_height(font_size: int) -> int:
        """Return the distance of lines of text."""
        return round(font_size * 1.35)

    @cached_property
    def row_header_width(self) -> int:
        """The width of the row heads: as narrow as lets them stand beside a cell when wrapped."""
        labels: set[str] = set()
        for block in self.blocks:
            labels.update(block.row_labels)
            labels.add(block.corner.split("\n")[0])
        font = load_font(self.font_size, bold=True)
        lines = [line for label in labels for line in sanitize_label(label).split("\n")]
        widest = max(map(font.getlength, lines), default=0)
        if not widest:
            return 0
        cell_width, cell_height = self.cell_size
        line_height = self.get_line_height(self.font_size)
        width = 0
        for limit in (
            max(0.9 * cell_width, 9 * self.font_size),
            max(1.6 * cell_width, 16 * self.font_size),
            2.6 * cell_width,
        ):
            width = int(min(widest + 1, limit))
            if widest <= limit:
                break
            heights = [len(wrap_text(label, font, width)) * line_height for label in labels]
            if max(heights) <= cell_height:
                break
        return width + self.gap

    @cached_property
    def column_header_height(self) -> int:
        """The height of the column heads, with the titles of the axes."""
        num_lines = max(
            (
                len(self.wrap_header(label))
                for block in self.blocks
                for label in block.column_labels
                if label
            ),
            default=0,
        )
        height = num_lines * self.get_line_height(self.font_size)
        if num_lines:
            height += self.gap
        if any(block.corner.strip() for block in self.blocks):
            height += self.get_line_height(self.small_font_size)
        return height

    def wrap_header(self, label: str) -> tuple[str, ...]:
        """Return the lines of a column head."""
        return wrap_text(label, load_font(self.font_size, bold=True), self.cell_size[0], 14)

    @cached_property
    def caption_line_counts(self) -> dict[Coordinates, int]:
        """How many lines stand under each cell."""
        return {
            coordinates: len(self.build_caption(block, coordinates))
            for block in self.blocks
            for line in block.cells
            for coordinates in line
            if coordinates is not None
        }

    def measure_captions(self, row: Sequence[Coordinates | None]) -> int:
        """Return the height of what stands under the cells of a row."""
        counts = [self.caption_line_counts[cell] for cell in row if cell is not None]
        num_lines = max(counts, default=0)
        if not num_lines:
            return 0
        return num_lines * self.get_line_height(self.small_font_size) + self.gap

    def build_caption(self, block: Block, coordinates: Coordinates) -> list[tuple[str, str]]:
        """Return the lines under a cell with their colours: its label, metrics, verdict."""
        cell = self.table.get_cell(coordinates)
        font = load_font(self.small_font_size)
        width = self.cell_size[0]
        lines: list[tuple[str, str]] = []

        def add_lines(
            text: str, color: str, max_lines: int, font: ImageFont.FreeTypeFont = font
        ) -> None:
            lines.extend((line, color) for line in wrap_text(text, font, width, max_lines))

        if block.is_flow:
            labels = [
                axis.labels[k]
                for axis, k in zip(self.table.axes, coordinates)
                if len(axis.labels) > 1
            ]
            bold_font = load_font(self.small_font_size, bold=True)
            add_lines(" · ".join(labels), TEXT_COLOR, 8, bold_font)
        for text in self._format_metrics(cell, font):
            add_lines(text, MUTED_TEXT_COLOR, 3)
        if self.show_verdicts:
            if rating := _format_rating(cell.verdict):
                add_lines(rating, STAR_COLOR, 2)
            if cell.verdict.note:
                add_lines(cell.verdict.note, TEXT_COLOR, 4)
        return lines

    def _format_metrics(self, cell: TableCell, font: ImageFont.FreeTypeFont) -> list[str]:
        """Return a cell's metrics: in one line where that fits, else in a line each."""
        texts = [
            f"{name} {format_number(cell.metrics[name])}"
            for name in self.metric_names
            if name in cell.metrics
        ]
        joined = "   ".join(texts)
        if texts and font.getlength(joined) <= self.cell_size[0]:
            return [joined]
        return texts

    def build_title(self, block: Block, width: int) -> list[TitleLine]:
        """Return the lines over a page, wrapped to `width` pixels."""
        settings = "   ·   ".join(f"{name}: {value}" for name, value in self.table.fixed_settings)
        title_size = round(self.font_size * 1.5)
        paragraphs = [
            (TitleLine(self.table.title or "Sweep", title_size, True, TEXT_COLOR), 3),
            (TitleLine(block.heading, self.font_size, True, ACCENT_COLOR), 6),
            (TitleLine(settings, self.small_font_size, False, MUTED_TEXT_COLOR), 10),
        ]
        lines = []
        for paragraph, max_lines in paragraphs:
            if not paragraph.text:
                continue
            font = load_font(paragraph.font_size, paragraph.bold)
            for text in wrap_text(paragraph.text, font, width, max_lines):
                lines.append(replace(paragraph, text=text))
        return lines

    def measure_title(self, block: Block, width: int) -> int:
        """Return the height of the title, with the line of the mode, on a page of this width."""
        lines = self.build_title(block, width - 2 * self.padding)
        text_height = sum(self.get_line_height(line.font_size) for line in lines)
        return text_height + self.get_line_height(self.small_font_size) * 2 + 2 * self.gap

    def measure_page(self, block: Block, num_rows: int, num_columns: int) -> tuple[int, int]:
        """Return width and height of a page with so many of the block's rows and columns.

        It is high enough for any rows: counted are those with the highest captions.
        """
        cell_width, cell_height = self.cell_size
        grid_width = num_columns * (cell_width + self.gap) - self.gap
        content_width = 2 * self.padding + self.row_header_width + grid_width
        width = max(content_width, min(620, 30 * self.font_size))
        caption_heights = sorted(map(self.measure_captions, block.cells), reverse=True)
        grid_height = num_rows * (cell_height + self.gap) - self.gap
        grid_height += sum(caption_heights[:num_rows])
        header_height = self.measure_title(block, width) + self.column_header_height
        return width, 2 * self.padding + header_height + grid_height

    def fits(self, block: Block, num_rows: int, num_columns: int, limits: PageLimits) -> bool:
        """Return whether so many of a block's rows and columns fit on a page."""
        return limits.allow(*self.measure_page(block, num_rows, num_columns))

    def split_block(self, block: Block, limits: PageLimits) -> list[Block]:
        """Return the block as pages that keep the limits, as equal as can be.

        Rows give way before columns.
        """
        num_rows = len(block.row_labels)
        num_columns = len(block.column_labels)
        columns_per_page = next(
            count
            for count in range(num_columns, 0, -1)
            if count == 1 or self.fits(block, 1, count, limits)
        )
        columns_per_page = _equalise(num_columns, columns_per_page)
        rows_per_page = next(
            count
            for count in range(num_rows, 0, -1)
            if count == 1 or self.fits(block, count, columns_per_page, limits)
        )
        rows_per_page = _equalise(num_rows, rows_per_page)
        pages = []
        for top, left in product(
            range(0, num_rows, rows_per_page), range(0, num_columns, columns_per_page)
        ):
            labels = (
                _format_range("rows", top, rows_per_page, num_rows),
                _format_range("columns", left, columns_per_page, num_columns),
            )
            rows = slice(top, top + rows_per_page)
            columns = slice(left, left + columns_per_page)
            pages.append(block.crop(rows, columns, ", ".join(filter(None, labels))))
        return pages


def _equalise(total: int, max_per_page: int) -> int:
    """Return how many come on a page if as few pages as possible share them equally."""
    return math.ceil(total / math.ceil(total / max_per_page))


def _format_range(name: str, start: int, count: int, total: int) -> str:
    """Return which of `total` a page shows: "rows 1–3 of 9"; "" if all."""
    if count >= total:
        return ""
    return f"{name} {start + 1}–{min(start + count, total)} of {total}"


def _format_rating(verdict: Verdict) -> str:
    """Return stars and mark of a verdict: "★★★☆☆  best"."""
    stars = "★" * verdict.stars + "☆" * (MAX_STARS - verdict.stars) if verdict.stars else ""
    return "  ".join(filter(None, (stars, "best" if verdict.best else "")))


def fit_layout(
    table: Table,
    blocks: list[Block],
    *,
    metric_names: tuple[str, ...],
    show_verdicts: bool,
    limits: PageLimits,
) -> SheetLayout:
    """Return the layout at the largest scale at which each block stays one page.

    If that is below MIN_CELL_SIDE_PX, cells are that large and blocks have to be split.

    Raises:
        ValueError: If not even one tiny cell fits.
    """
    width, height = _measure_largest_image(table)
    num_rows = len(blocks[0].row_labels)
    num_columns = len(blocks[0].column_labels)

    def fits_all(layout: SheetLayout, num_rows: int, num_columns: int) -> bool:
        return all(layout.fits(block, num_rows, num_columns, limits) for block in blocks)

    # 1. Begin a little above the scale at which the images alone would fill the page
    min_scale = min(1.0, MIN_CELL_SIDE_PX / max(width, height))
    scale = min(
        1.0,
        1.05 * math.sqrt(limits.max_pixels / (num_rows * num_columns * width * height)),
        1.05 * limits.max_side_px / (num_columns * width),
        1.05 * limits.max_side_px / (num_rows * height),
    )
    layout = SheetLayout(
        table=table,
        blocks=tuple(blocks),
        metric_names=metric_names,
        show_verdicts=show_verdicts,
        native_size=(width, height),
        scale=max(scale, min_scale),
    )
    # 2. Shrink until whole blocks fit
    while layout.scale > min_scale and not fits_all(layout, num_rows, num_columns):
        layout = replace(layout, scale=max(min_scale, layout.scale * 0.94))
    # 3. Shrink further where not even one cell fits: the limits of a stamp
    while not fits_all(layout, 1, 1):
        if max(layout.cell_size) <= 16:
            raise ValueError(
                f"nothing fits on {limits.max_side_px} pixels a side and {limits.max_pixels} in all"
            )
        layout = replace(layout, scale=layout.scale * 0.8)
    return layout


def _measure_largest_image(table: Table) -> tuple[int, int]:
    """Return the width of the widest and the height of the highest image."""
    paths = [cell.image_path for cell in table.cells.values() if cell.image_path]
    sizes = [size for size in map(_read_image_size, paths) if size]
    if not sizes:
        return MIN_CELL_SIDE_PX, MIN_CELL_SIDE_PX
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _read_image_size(path: Path) -> tuple[int, int] | None:
    """Return an image's size; None where it will be drawn as failed, with decode.py's reason."""
    try:
        with Image.open(path, formats=decode.ALLOWED_FORMATS) as image:
            return image.size if max(image.size) <= decode.MAX_SIDE_PX else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
