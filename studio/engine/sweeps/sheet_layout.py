"""How large everything on a contact sheet is, and which cells go on which page.

Knows: the font, how words wrap, at what scale a page keeps its limits, where it is split. Does not know: how a page is drawn
(sheet), how pictures were computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from itertools import product
from pathlib import Path

from PIL import Image, ImageFont

from studio.engine.sweeps.results import Coordinates, Table, said
from studio.imaging import decode
from studio.settings import shipped
from studio.storage.sweeps import MOST_STARS

LEAST = 256  # pixels: the longer side below which pictures are not drawn smaller for the sake of one page
MOST_LETTERS = 1_500  # of a label; who wants more reads the viewer
INK, QUIET, ACCENT, STAR = "#0f172a", "#64748b", "#4338ca", "#d97706"


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The shipped font: Latin, Greek, Cyrillic."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(
        str(shipped("assets") / "fonts" / name), size, layout_engine=ImageFont.Layout.BASIC
    )


@dataclass(frozen=True)
class Block:
    """What belongs on one page: heads and cells. `flow`: no heads, every cell has its label under it."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: tuple[tuple[Coordinates | None, ...], ...]
    corner: str = ""
    flow: bool = False
    part: str = ""


@dataclass(frozen=True)
class Look:
    """All measures at one scale of the pictures."""

    table: Table
    blocks: tuple[Block, ...]
    numbers: tuple[str, ...]
    verdicts: bool
    native: tuple[int, int]
    scale: float

    @cached_property
    def cell(self) -> tuple[int, int]:
        return max(1, round(self.native[0] * self.scale)), max(
            1, round(self.native[1] * self.scale)
        )

    @cached_property
    def letters(self) -> int:
        """Legible with a cell looked at alone and, as far as cells allow, with the page fitted to a screen."""
        wide = self.cell[0] * min(40, max(len(block.columns) for block in self.blocks))
        return int(
            max(11, min(44, max(8 + self.cell[0] * 0.032, min(wide / 130, self.cell[0] / 9))))
        )

    @cached_property
    def gap(self) -> int:
        return max(6, round(self.letters * 0.6))

    @cached_property
    def pad(self) -> int:
        return round(self.letters * 1.8)

    @cached_property
    def left(self) -> int:
        """Width of the row heads."""
        labels = {
            label for block in self.blocks for label in (*block.rows, *block.corner.split("\n")[:1])
        }
        face, fits = font(self.letters, True), self.cell[1]
        widest = max(
            (face.getlength(line) for label in labels for line in _plain(label).split("\n")),
            default=0,
        )
        if not widest:
            return 0
        for most in (
            max(0.9 * self.cell[0], 9 * self.letters),
            max(1.6 * self.cell[0], 16 * self.letters),
            2.6 * self.cell[0],
        ):
            width = int(min(widest + 1, most))
            if widest <= most or all(
                len(wrap(label, face, width)) * self.line(self.letters) <= fits for label in labels
            ):
                break
        return width + self.gap

    @cached_property
    def top(self) -> int:
        """Height of the column heads."""
        lines = max(
            (len(self.head(label)) for block in self.blocks for label in block.columns if label),
            default=0,
        )
        title = self.line(self.small) if any(block.corner.strip() for block in self.blocks) else 0
        return lines * self.line(self.letters) + title + (self.gap if lines else 0)

    def head(self, label: str) -> tuple[str, ...]:
        return wrap(label, font(self.letters, True), self.cell[0], 14)

    @cached_property
    def small(self) -> int:
        return max(10, round(self.letters * 0.82))

    @staticmethod
    def line(letters: int) -> int:
        return round(letters * 1.35)

    @cached_property
    def lines(self) -> dict[Coordinates, int]:
        """How many lines stand under each cell."""
        return {
            at: len(self.caption(block, at))
            for block in self.blocks
            for line in block.cells
            for at in line
            if at is not None
        }

    def under(self, line: Sequence[Coordinates | None]) -> int:
        """Height of what stands under the cells of a row."""
        most = max((self.lines[at] for at in line if at is not None), default=0)
        return most * self.line(self.small) + (self.gap if most else 0)

    def caption(self, block: Block, at: Coordinates) -> list[tuple[str, str]]:
        """The lines under a cell with their colours."""
        cell, face, lines = self.table.cell(at), font(self.small), []
        if block.flow:
            flowing = " · ".join(
                axis.labels[k] for axis, k in zip(self.table.axes, at) if len(axis.labels) > 1
            )
            lines += [
                (line, INK) for line in wrap(flowing, font(self.small, True), self.cell[0], 8)
            ]
        told = [
            f"{name} {said(cell.numbers[name])}" for name in self.numbers if name in cell.numbers
        ]
        told = (
            ["   ".join(told)]
            if told and face.getlength("   ".join(told)) <= self.cell[0]
            else told
        )
        lines += [(line, QUIET) for number in told for line in wrap(number, face, self.cell[0], 3)]
        if self.verdicts and cell.verdict:
            stars, best = cell.verdict.stars, "best" if cell.verdict.best else ""
            shown = ("★" * stars + "☆" * (MOST_STARS - stars) if stars else "") + (
                f"  {best}" if stars and best else best
            )
            lines += [
                (line, STAR) for line in (wrap(shown, face, self.cell[0], 2) if shown else [])
            ]
            lines += [
                (line, INK)
                for line in (
                    wrap(cell.verdict.note, face, self.cell[0], 4) if cell.verdict.note else []
                )
            ]
        return lines

    def title(self, block: Block, width: int) -> list[tuple[str, int, bool, str]]:
        """The lines over a page: text, size, bold, colour."""
        big = round(self.letters * 1.5)
        told = [
            (self.table.title or "Sweep", big, True, INK, 3),
            (block.heading, self.letters, True, ACCENT, 6),
            (
                "   ·   ".join(f"{name}: {value}" for name, value in self.table.fixed),
                self.small,
                False,
                QUIET,
                10,
            ),
        ]
        return [
            (line, size, bold, colour)
            for text, size, bold, colour, most in told
            if text
            for line in wrap(text, font(size, bold), width, most)
        ]

    def over(self, block: Block, width: int) -> int:
        """Height of the title, with the line of the mode."""
        lines = self.title(block, width - 2 * self.pad)
        return (
            sum(self.line(size) for _, size, _, _ in lines)
            + self.line(self.small) * 2
            + 2 * self.gap
        )

    def size(self, block: Block, rows: int, columns: int) -> tuple[int, int]:
        """Width and height of a page with so many of the block's rows (the highest) and columns."""
        least = min(620, 30 * self.letters)
        width = max(
            2 * self.pad + self.left + columns * (self.cell[0] + self.gap) - self.gap, least
        )
        unders = sorted(map(self.under, block.cells), reverse=True)[:rows]
        high = rows * (self.cell[1] + self.gap) - self.gap + sum(unders)
        return width, 2 * self.pad + self.over(block, width) + self.top + high

    def fits(self, block: Block, rows: int, columns: int, most_side: int, most_pixels: int) -> bool:
        width, height = self.size(block, rows, columns)
        return max(width, height) <= most_side and width * height <= most_pixels

    def split(self, block: Block, most_side: int, most_pixels: int) -> list[Block]:
        """The block as pages that keep the limits, as equal as can be. Rows give way before columns."""
        across, down = len(block.columns), len(block.rows)
        columns = next(
            count
            for count in range(across, 0, -1)
            if count == 1 or self.fits(block, 1, count, most_side, most_pixels)
        )
        columns = math.ceil(across / math.ceil(across / columns))
        rows = next(
            count
            for count in range(down, 0, -1)
            if count == 1 or self.fits(block, count, columns, most_side, most_pixels)
        )
        rows = math.ceil(down / math.ceil(down / rows))
        found = []
        for top, left in product(range(0, down, rows), range(0, across, columns)):
            part = [
                f"{name} {first + 1}–{min(first + step, most)} of {most}"
                for name, first, step, most in (
                    ("rows", top, rows, down),
                    ("columns", left, columns, across),
                )
                if step < most
            ]
            here = slice(left, left + columns)
            cells = tuple(line[here] for line in block.cells[top : top + rows])
            found.append(
                replace(
                    block,
                    columns=block.columns[here],
                    rows=block.rows[top : top + rows],
                    cells=cells,
                    part=", ".join(part) if not block.flow else "",
                )
            )
        return found


def fitting(
    table: Table,
    blocks: list[Block],
    numbers: tuple[str, ...],
    verdicts: bool,
    most_side: int,
    most_pixels: int,
) -> Look:
    """The largest scale at which a page stays whole; if that is below LEAST, LEAST and pages are split."""
    native = _native(table)
    rows, columns = len(blocks[0].rows), len(blocks[0].columns)  # all blocks have the same shape

    def whole(look: Look, rows: int, columns: int) -> bool:
        return all(look.fits(block, rows, columns, most_side, most_pixels) for block in blocks)

    floor = min(1.0, LEAST / max(native))
    scale = min(
        1.0,
        1.05 * math.sqrt(most_pixels / (rows * columns * native[0] * native[1])),
        1.05 * most_side / (columns * native[0]),
        1.05 * most_side / (rows * native[1]),
    )
    look = Look(table, tuple(blocks), numbers, verdicts, native, max(scale, floor))
    while look.scale > floor and not whole(look, rows, columns):
        look = Look(table, tuple(blocks), numbers, verdicts, native, max(floor, look.scale * 0.94))
    while not whole(look, 1, 1):  # not even one cell: limits of a stamp
        if max(look.cell) <= 16:
            raise ValueError(f"nothing fits on {most_side} pixels a side and {most_pixels} in all")
        look = Look(table, tuple(blocks), numbers, verdicts, native, look.scale * 0.8)
    return look


def _native(table: Table) -> tuple[int, int]:
    """Room for the widest and the highest picture."""
    sizes = [
        size for cell in table.cells.values() if cell.picture and (size := _size(cell.picture))
    ]
    return (
        (max(width for width, _ in sizes), max(height for _, height in sizes))
        if sizes
        else (LEAST, LEAST)
    )


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path, formats=decode.FORMATS) as image:
            return image.size if max(image.size) <= decode.MOST_SIDE else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # drawn as failed, with the words of `images.load`


def _plain(text: str) -> str:
    cut = text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"
    return "".join(
        letter if letter == "\n" or letter.isprintable() else " "
        for letter in cut.replace("\t", " ")
    )


@lru_cache(100_000)
def wrap(text: str, face: ImageFont.FreeTypeFont, width: float, most: int = 60) -> tuple[str, ...]:
    """Lines no wider than `width`; a word that is too long is broken. After `most` lines comes an ellipsis."""
    lines: list[str] = []
    for paragraph in _plain(text).split("\n"):
        line = ""
        for word in paragraph.split():
            if face.getlength(grown := f"{line} {word}".strip()) <= width:
                line = grown
                continue
            lines += [line] if line else []
            while face.getlength(word) > width and len(word) > 1:
                cut = next(
                    (k for k in range(len(word) - 1, 1, -1) if face.getlength(word[:k]) <= width), 1
                )
                lines.append(word[:cut])
                word = word[cut:]
            line = word
        lines.append(line)
    if len(lines) > most:
        last = lines[most - 1]
        while last and face.getlength(f"{last}…") > width:
            last = last[:-1]
        lines = [*lines[: most - 1], f"{last}…"]
    return tuple(lines)
