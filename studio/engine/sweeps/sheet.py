"""A sweep as labelled contact sheets: PNG pages under pixel limits.

Knows: which axis goes across, down and over the pages, how a page is drawn, how cells without a picture look.
Does not know: how large things are (layout), how pictures were computed or numbers measured, the job table.

A page is kept whole by drawing pictures smaller, down to LEAST pixels; what is still too large is split. One scale holds for
all pages, so sizes can be compared. An axis alone has no rows: its cells flow like text, each with its label under it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from studio.engine.sweeps.results import Coordinates, Table
from studio.engine.sweeps.sheet_layout import ACCENT, INK, QUIET, Block, Look, fitting, font, wrap
from studio.errors import BadPicture
from studio.imaging import decode
from studio.storage import atomic

MOST_SIDE = 16_000  # pixels; viewers and encoders give up not far above
MOST_PIXELS = decode.MOST_PIXELS  # so that the studio takes its own sheets back
PAPER, LINE, PILL, BAD, BAD_LINE, BAD_INK, BLANK = (
    "#ffffff",
    "#e2e8f0",
    "#eef2ff",
    "#fef2f2",
    "#fecaca",
    "#991b1b",
    "#f8fafc",
)


def sheet(
    table: Table,
    x: int | None = None,
    y: int | None = None,
    page: int | Sequence[int] | None = None,
    *,
    numbers: Sequence[str] = (),
    verdicts: bool = True,
    most_side: int = MOST_SIDE,
    most_pixels: int = MOST_PIXELS,
) -> list[Image.Image]:
    """`pages` as a list: fine for a few."""
    return list(
        pages(
            table,
            x,
            y,
            page,
            numbers=numbers,
            verdicts=verdicts,
            most_side=most_side,
            most_pixels=most_pixels,
        )
    )


def write_sheets(
    table: Table,
    folder: Path,
    stem: str = "sheet",
    x: int | None = None,
    y: int | None = None,
    page: int | Sequence[int] | None = None,
    *,
    numbers: Sequence[str] = (),
    verdicts: bool = True,
) -> list[Path]:
    """Write the pages as PNG, one in memory at a time: `stem`.png, or `stem`-01.png … where there are several. Pages that
    an earlier sheet of that name left are removed."""
    paths: list[Path] = []
    stem = atomic.safe_name(stem)
    for number, image in enumerate(pages(table, x, y, page, numbers=numbers, verdicts=verdicts), 1):
        paths.append(folder / f"{stem}-{number:02d}.png")
        with atomic.writing(paths[-1]) as out:
            image.save(out, "PNG")
    if len(paths) == 1:
        paths = [paths[0].replace(folder / f"{stem}.png")]
    for old in folder.iterdir():
        if re.fullmatch(re.escape(stem) + r"(-\d{2,})?\.png", old.name) and old not in paths:
            old.unlink()
    return paths


def pages(
    table: Table,
    x: int | None = None,
    y: int | None = None,
    page: int | Sequence[int] | None = None,
    *,
    numbers: Sequence[str] = (),
    verdicts: bool = True,
    most_side: int = MOST_SIDE,
    most_pixels: int = MOST_PIXELS,
) -> Iterator[Image.Image]:
    """Draw page after page. `x` goes across, `y` down (by default the first two axes), `page` over the pages (by default all
    others); an axis that is named nowhere while `page` is given is nested in the rows. Axes of one group count as one."""
    blocks, whole = _blocks(table, x, y, page)
    look = fitting(whole, blocks, tuple(numbers), verdicts, most_side, most_pixels)
    parts = [part for block in blocks for part in look.split(block, most_side, most_pixels)]
    for number, part in enumerate(parts, 1):
        yield _draw(look, part, f"page {number} of {len(parts)}" if len(parts) > 1 else "")


def _blocks(
    table: Table, x: int | None, y: int | None, page: int | Sequence[int] | None
) -> tuple[list[Block], Table]:
    whole, where = table.folded()
    free = list(range(len(whole.axes)))

    def take(axis: int | None) -> int | None:
        new = (
            where[axis] if axis is not None else next((k for k in free if k not in reserved), None)
        )
        if axis is not None and new not in free:
            raise ValueError(f"axis {axis} is already used, or goes hand in hand with one that is")
        if new is not None:
            free.remove(new)
        return new

    asked = [] if page is None else [page] if isinstance(page, int) else list(page)
    reserved = {where[axis] for axis in (*asked, *(axis for axis in (x, y) if axis is not None))}
    across = take(x)
    down = take(y)
    over = sorted({where[axis] for axis in asked}) if page is not None else list(free)
    rows = ([] if down is None else [down]) + [k for k in free if k not in over]
    if across in over or down in over:
        raise ValueError("an axis cannot be on the pages and on the sheet")

    def named(axis: int, k: int) -> str:
        return f"{whole.axes[axis].title}: {whole.axes[axis].labels[k]}"

    counts = [len(axis.labels) for axis in whole.axes]
    found = []
    for chosen in product(*(range(counts[axis]) for axis in over)):
        heading = "   ·   ".join(named(axis, k) for axis, k in zip(over, chosen))
        lines = list(product(*(range(counts[axis]) for axis in rows)))
        cells = []
        for line in lines:
            at = dict(zip(over, chosen)) | dict(zip(rows, line))
            columns = range(counts[across]) if across is not None else range(1)
            cells.append(
                tuple(
                    tuple((at | {across: k})[axis] for axis in range(len(counts))) for k in columns
                )
            )
        heads = whole.axes[across].labels if across is not None else ("",)
        labels = tuple(
            "\n".join(
                named(axis, k) if len(rows) > 1 else whole.axes[axis].labels[k]
                for axis, k in zip(rows, line)
            )
            for line in lines
        )
        corner = (
            " × ".join(whole.axes[axis].title for axis in rows),
            whole.axes[across].title if across is not None else "",
        )
        found.append(_flowing(Block(heading, heads, labels, tuple(cells), "\n".join(corner))))
    return found, whole


def _flowing(block: Block) -> Block:
    """A single line of cells as several."""
    if len(block.cells) > 1 or len(block.columns) <= 1:
        return block
    (line,) = block.cells
    wide = math.ceil(math.sqrt(len(line) * 1.5)) if len(line) > 6 else len(line)
    padded = [*line, *[None] * (-len(line) % wide)]
    cells = tuple(tuple(padded[k : k + wide]) for k in range(0, len(padded), wide))
    return Block(block.heading, ("",) * wide, ("",) * len(cells), cells, "", True)


def _draw(look: Look, block: Block, numbered: str) -> Image.Image:
    width, height = look.size(block, len(block.rows), len(block.columns))
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    top = _head(look, block, draw, width, ", ".join(filter(None, (numbered, block.part))))
    left, (wide, high) = look.pad + look.left, look.cell
    face, line = font(look.letters, True), look.line(look.letters)
    if block.corner.strip():
        down, across = block.corner.split("\n")
        small = font(look.small)
        draw.text((left, top), _first(across, small, width - left - look.pad), QUIET, small)
        if look.left:
            low = top + look.top - look.gap - look.line(look.small)
            draw.text((look.pad, low), _first(down, small, look.left - look.gap), QUIET, small)
    for k, label in enumerate(block.columns):
        lines = look.head(label) if label else ()
        for number, words in enumerate(lines):
            centre = left + k * (wide + look.gap) + (wide - face.getlength(words)) / 2
            draw.text(
                (centre, top + look.top - look.gap - (len(lines) - number) * line), words, INK, face
            )
    y = top + look.top
    for label, cells in zip(block.rows, block.cells):
        lines = wrap(label, face, look.left - look.gap, max(1, high // line)) if label else ()
        start = y + max(0, (high - len(lines) * line) / 2)
        for number, words in enumerate(lines):
            draw.text((look.pad, start + number * line), words, INK, face)
        for k, at in enumerate(cells):
            if at is not None:
                _cell(look, block, at, image, draw, left + k * (wide + look.gap), y)
        y += high + look.under(cells) + look.gap
    return image


def _first(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    return wrap(text, face, max(width, 1), 1)[0]


def _head(look: Look, block: Block, draw: ImageDraw.ImageDraw, width: int, part: str) -> int:
    """Title, what is fixed, the mode; where the heads begin."""
    y = look.pad
    for text, size, bold, colour in look.title(block, width - 2 * look.pad):
        draw.text((look.pad, y), text, colour, font(size, bold))
        y += look.line(size)
    face, high, x = font(look.small), look.line(look.small), float(look.pad)
    y += look.gap // 2
    if look.table.mode:
        mode = _first(look.table.mode, face, width - 2 * look.pad - 2 * look.gap)
        draw.rounded_rectangle(
            (x, y, x + face.getlength(mode) + 2 * look.gap, y + high * 1.25), high * 0.6, PILL
        )
        draw.text((x + look.gap, y + high * 0.12), mode, ACCENT, face)
        x += face.getlength(mode) + 3 * look.gap
    if part and x < width - look.pad:
        draw.text((x, y + high * 0.12), _first(part, face, width - look.pad - x), QUIET, face)
    return look.pad + look.over(block, width)


def _cell(
    look: Look,
    block: Block,
    at: Coordinates,
    image: Image.Image,
    draw: ImageDraw.ImageDraw,
    x: int,
    y: int,
) -> None:
    cell, (wide, high) = look.table.cell(at), look.cell
    error = cell.error
    if cell.picture and not error:
        try:
            picture = decode.load(cell.picture).image
        except BadPicture as fault:
            error = str(fault)
        else:
            if look.scale < 1:
                size = (
                    max(1, round(picture.width * look.scale)),
                    max(1, round(picture.height * look.scale)),
                )
                picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
            image.paste(
                picture, (x + (wide - picture.width) // 2, y + (high - picture.height) // 2)
            )
    if error:
        _panel(look, draw, (x, y), f"Failed\n{error}", BAD, BAD_LINE, BAD_INK)
    elif not cell.picture:
        _panel(look, draw, (x, y), "not made yet", BLANK, LINE, QUIET)
    face, line = font(look.small), look.line(look.small)
    for number, (words, colour) in enumerate(look.caption(block, at)):
        draw.text((x, y + high + look.gap // 2 + number * line), words, colour, face)


def _panel(
    look: Look,
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    words: str,
    fill: str,
    line: str,
    ink: str,
) -> None:
    """A cell without a picture: words in the middle, as many as fit."""
    (x, y), (wide, high) = at, look.cell
    draw.rounded_rectangle(
        (x, y, x + wide - 1, y + high - 1), look.gap, fill, line, max(1, look.letters // 12)
    )
    face, step = font(look.small), look.line(look.small)
    lines = wrap(words, face, max(8, wide - 2 * look.gap), max(1, (high - look.gap) // step))
    start = y + max(2, (high - len(lines) * step) / 2)
    for number, text in enumerate(lines):
        draw.text((x + (wide - face.getlength(text)) / 2, start + number * step), text, ink, face)
