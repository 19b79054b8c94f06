"""A sweep as labelled contact sheets: PNG pages under pixel limits.

Knows: how a page is drawn, how cells without an image look.
Does not know: which axis goes where (sheet_blocks.py), how large things are (sheet_layout.py), how
images were computed or metrics measured, the job table.

A page is kept whole by drawing images smaller, down to MIN_CELL_SIDE_PX; what is still too large is
split. One scale holds for all pages, so sizes can be compared. An axis alone has no rows: its cells
flow like text, each with its label under it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from studio.core.generation.carried import CarriedTexts
from studio.core.generation.recipes.xmp import SourceType
from studio.engine.sweeps.results import Coordinates, Table
from studio.engine.sweeps.sheet_blocks import Block, build_blocks
from studio.engine.sweeps.sheet_layout import (
    ACCENT_COLOR,
    MUTED_TEXT_COLOR,
    TEXT_COLOR,
    PageLimits,
    SheetLayout,
    fit_layout,
)
from studio.engine.sweeps.sheet_text import load_font, wrap_text
from studio.errors import BadPicture
from studio.imaging import decode
from studio.imaging.encode import build_png_info
from studio.storage import atomic

MAX_SIDE_PX = 16_000  # viewers and encoders give up not far above
MAX_PIXELS = decode.MAX_PIXELS  # so that the studio takes its own sheets back
PAGE_COLOR = "#ffffff"
BORDER_COLOR = "#e2e8f0"
PILL_COLOR = "#eef2ff"
ERROR_FILL_COLOR = "#fef2f2"
ERROR_BORDER_COLOR = "#fecaca"
ERROR_TEXT_COLOR = "#991b1b"
MISSING_FILL_COLOR = "#f8fafc"


def render_sheet(
    table: Table,
    *,
    x_axis: int | None = None,
    y_axis: int | None = None,
    page_axes: int | Sequence[int] | None = None,
    metric_names: Sequence[str] = (),
    show_verdicts: bool = True,
    max_side_px: int = MAX_SIDE_PX,
    max_pixels: int = MAX_PIXELS,
) -> list[Image.Image]:
    """Return all pages of `render_pages` at once: fine for a few."""
    pages = render_pages(
        table,
        x_axis=x_axis,
        y_axis=y_axis,
        page_axes=page_axes,
        metric_names=metric_names,
        show_verdicts=show_verdicts,
        max_side_px=max_side_px,
        max_pixels=max_pixels,
    )
    return list(pages)


def write_sheets(
    table: Table,
    folder: Path,
    stem: str = "sheet",
    *,
    x_axis: int | None = None,
    y_axis: int | None = None,
    page_axes: int | Sequence[int] | None = None,
    metric_names: Sequence[str] = (),
    show_verdicts: bool = True,
    source_type: SourceType = "",
) -> list[Path]:
    """Write the pages of `render_pages` as PNG files, one in memory at a time.

    They are called STEM.png, or STEM-01.png, … where there are several. Pages that an earlier
    sheet of that name had more are removed. `source_type` is what the files say of AI.

    Returns:
        The paths of the pages.
    """
    paths: list[Path] = []
    stem = atomic.safe_name(stem)
    info = build_png_info(CarriedTexts(source_type=source_type))
    pages = render_pages(
        table,
        x_axis=x_axis,
        y_axis=y_axis,
        page_axes=page_axes,
        metric_names=metric_names,
        show_verdicts=show_verdicts,
    )
    for number, image in enumerate(pages, 1):
        path = folder / f"{stem}-{number:02d}.png"
        with atomic.open_for_writing(path) as file:
            image.save(file, "PNG", pnginfo=info)
        paths.append(path)
    if len(paths) == 1:
        paths = [paths[0].replace(folder / f"{stem}.png")]
    for path in folder.iterdir():
        if re.fullmatch(re.escape(stem) + r"(-\d{2,})?\.png", path.name) and path not in paths:
            path.unlink()
    return paths


def render_pages(
    table: Table,
    *,
    x_axis: int | None = None,
    y_axis: int | None = None,
    page_axes: int | Sequence[int] | None = None,
    metric_names: Sequence[str] = (),
    show_verdicts: bool = True,
    max_side_px: int = MAX_SIDE_PX,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Image.Image]:
    """Draw page after page.

    Args:
        table: A sweep; axes of one group count as one.
        x_axis: Index of the axis that goes across; by default the first one.
        y_axis: Index of the axis that goes down; by default the next one.
        page_axes: Indices of the axes that go over the pages; by default all others. If given, axes
            that are named nowhere are nested in the rows.
        metric_names: Metrics that stand under the cells.
        show_verdicts: Whether stars and notes stand under the cells.
        max_side_px: The longest side of a page.
        max_pixels: The largest area of a page.

    Raises:
        ValueError: If an axis is named twice, or no cell fits on a page.
    """
    blocks, merged_table = build_blocks(table, x_axis=x_axis, y_axis=y_axis, page_axes=page_axes)
    limits = PageLimits(max_side_px, max_pixels)
    layout = fit_layout(
        merged_table,
        blocks,
        metric_names=tuple(metric_names),
        show_verdicts=show_verdicts,
        limits=limits,
    )
    pages = [page for block in blocks for page in layout.split_block(block, limits)]
    for number, page in enumerate(pages, 1):
        label = f"page {number} of {len(pages)}" if len(pages) > 1 else ""
        yield _draw_page(layout, page, label)


def _draw_page(layout: SheetLayout, block: Block, page_label: str) -> Image.Image:
    """Draw a block that fits on a page."""
    num_rows = len(block.row_labels)
    num_columns = len(block.column_labels)
    image = Image.new("RGB", layout.measure_page(block, num_rows, num_columns), PAGE_COLOR)
    page_label = ", ".join(filter(None, (page_label, block.part_label)))
    return _PageRenderer(layout, block, image).draw(page_label)


class _PageRenderer:
    """One page on its way: draws a block on an image, from top to bottom."""

    def __init__(self, layout: SheetLayout, block: Block, image: Image.Image) -> None:
        self.layout = layout
        self.block = block
        self.image = image
        self.canvas = ImageDraw.Draw(image)
        self.font = load_font(layout.font_size, bold=True)
        self.line_height = layout.get_line_height(layout.font_size)
        self.small_font = load_font(layout.small_font_size)
        self.small_line_height = layout.get_line_height(layout.small_font_size)

    def draw(self, page_label: str) -> Image.Image:
        """Draw everything and return the image."""
        layout = self.layout
        top = self.draw_header(page_label)
        if self.block.corner.strip():
            self.draw_axis_titles(top)
        for column, label in enumerate(self.block.column_labels):
            if label:
                self.draw_column_label(column, top, label)
        y = top + layout.column_header_height
        for label, cells in zip(self.block.row_labels, self.block.cells):
            if label:
                self.draw_row_label(y, label)
            for column, coordinates in enumerate(cells):
                if coordinates is not None:
                    self.draw_cell(coordinates, self.get_column_x(column), y)
            y += layout.cell_size[1] + layout.measure_captions(cells) + layout.gap
        return self.image

    def get_column_x(self, column: int) -> int:
        """Return where a column begins."""
        layout = self.layout
        return (
            layout.padding + layout.row_header_width + column * (layout.cell_size[0] + layout.gap)
        )

    def draw_header(self, page_label: str) -> int:
        """Draw title, fixed settings, mode and page; return where the heads begin."""
        layout = self.layout
        y = layout.padding
        for line in layout.build_title(self.block, self.image.width - 2 * layout.padding):
            font = load_font(line.font_size, line.bold)
            self.canvas.text((layout.padding, y), line.text, line.color, font)
            y += layout.get_line_height(line.font_size)
        y += layout.gap // 2
        x = float(layout.padding)
        text_y = y + self.small_line_height * 0.12
        right = self.image.width - layout.padding
        if layout.table.mode:
            mode = self.ellipsize(layout.table.mode, right - layout.padding - 2 * layout.gap)
            mode_width = self.small_font.getlength(mode)
            pill = (x, y, x + mode_width + 2 * layout.gap, y + self.small_line_height * 1.25)
            self.canvas.rounded_rectangle(pill, self.small_line_height * 0.6, PILL_COLOR)
            self.canvas.text((x + layout.gap, text_y), mode, ACCENT_COLOR, self.small_font)
            x += mode_width + 3 * layout.gap
        if page_label and x < right:
            label = self.ellipsize(page_label, right - x)
            self.canvas.text((x, text_y), label, MUTED_TEXT_COLOR, self.small_font)
        return layout.padding + layout.measure_title(self.block, self.image.width)

    def draw_axis_titles(self, top: int) -> None:
        """Draw the titles of the axes: across over the columns, down over the row heads."""
        layout = self.layout
        down, across = self.block.corner.split("\n")
        left = self.get_column_x(0)
        title = self.ellipsize(across, self.image.width - left - layout.padding)
        self.canvas.text((left, top), title, MUTED_TEXT_COLOR, self.small_font)
        if layout.row_header_width:
            y = top + layout.column_header_height - layout.gap - self.small_line_height
            title = self.ellipsize(down, layout.row_header_width - layout.gap)
            self.canvas.text((layout.padding, y), title, MUTED_TEXT_COLOR, self.small_font)

    def draw_column_label(self, column: int, top: int, label: str) -> None:
        """Draw a column head, centred, its last line just above the cells."""
        layout = self.layout
        lines = layout.wrap_header(label)
        bottom = top + layout.column_header_height - layout.gap
        for number, line in enumerate(lines):
            margin = (layout.cell_size[0] - self.font.getlength(line)) / 2
            y = bottom - (len(lines) - number) * self.line_height
            self.canvas.text((self.get_column_x(column) + margin, y), line, TEXT_COLOR, self.font)

    def draw_row_label(self, y: int, label: str) -> None:
        """Draw a row head, halfway down its cells."""
        layout = self.layout
        cell_height = layout.cell_size[1]
        width = layout.row_header_width - layout.gap
        lines = wrap_text(label, self.font, width, max(1, cell_height // self.line_height))
        start = y + max(0, (cell_height - len(lines) * self.line_height) / 2)
        for number, line in enumerate(lines):
            line_y = start + number * self.line_height
            self.canvas.text((layout.padding, line_y), line, TEXT_COLOR, self.font)

    def draw_cell(self, coordinates: Coordinates, x: int, y: int) -> None:
        """Draw a cell's image, or why there is none, and its caption."""
        layout = self.layout
        cell = layout.table.get_cell(coordinates)
        error = cell.error
        if cell.image_path and not error:
            try:
                self.paste_image(cell.image_path, x, y)
            except BadPicture as fault:
                error = str(fault)
        if error:
            message = f"Failed\n{error}"
            colors = (ERROR_FILL_COLOR, ERROR_BORDER_COLOR, ERROR_TEXT_COLOR)
            self.draw_panel(x, y, message, colors)
        elif not cell.image_path:
            colors = (MISSING_FILL_COLOR, BORDER_COLOR, MUTED_TEXT_COLOR)
            self.draw_panel(x, y, "not run yet", colors)
        start = y + layout.cell_size[1] + layout.gap // 2
        for number, (line, color) in enumerate(layout.build_caption(self.block, coordinates)):
            line_y = start + number * self.small_line_height
            self.canvas.text((x, line_y), line, color, self.small_font)

    def paste_image(self, path: Path, x: int, y: int) -> None:
        """Paste an image in the middle of its cell. Raise BadPicture if it cannot be read."""
        image = decode.load_image(path).image
        scale = self.layout.scale
        if scale < 1:
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
        width, height = self.layout.cell_size
        self.image.paste(image, (x + (width - image.width) // 2, y + (height - image.height) // 2))

    def draw_panel(self, x: int, y: int, message: str, colors: tuple[str, str, str]) -> None:
        """Draw a cell without an image: words in the middle, as many as fit.

        `colors` are those of the ground, the border and the words.
        """
        layout = self.layout
        width, height = layout.cell_size
        fill_color, border_color, text_color = colors
        box = (x, y, x + width - 1, y + height - 1)
        border_width = max(1, layout.font_size // 12)
        self.canvas.rounded_rectangle(box, layout.gap, fill_color, border_color, border_width)
        line_height = self.small_line_height
        max_lines = max(1, (height - layout.gap) // line_height)
        lines = wrap_text(message, self.small_font, max(8, width - 2 * layout.gap), max_lines)
        start = y + max(2, (height - len(lines) * line_height) / 2)
        for number, line in enumerate(lines):
            line_x = x + (width - self.small_font.getlength(line)) / 2
            position = (line_x, start + number * line_height)
            self.canvas.text(position, line, text_color, self.small_font)

    def ellipsize(self, text: str, width: float) -> str:
        """Return as much of a small text as fits on one line."""
        return wrap_text(text, self.small_font, max(width, 1), 1)[0]
