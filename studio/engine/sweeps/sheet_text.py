"""The words on a contact sheet: their font, and how they wrap.

Knows: the shipped font, the width of words in it.
Does not know: where words stand, what they say.
"""

from __future__ import annotations

from functools import cache, lru_cache

from PIL import ImageFont

from studio.settings import shipped

MAX_LABEL_CHARS = 1_500  # who wants more reads the viewer


@cache
def load_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load the shipped font at a size in pixels: it has Latin, Greek and Cyrillic letters."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(
        str(shipped("assets") / "fonts" / name), size, layout_engine=ImageFont.Layout.BASIC
    )


def sanitize_label(text: str) -> str:
    """Return a label cut to MAX_LABEL_CHARS, without what cannot be drawn."""
    if len(text) > MAX_LABEL_CHARS:
        text = f"{text[:MAX_LABEL_CHARS]}…"
    return "".join(letter if letter == "\n" or letter.isprintable() else " " for letter in text)


@lru_cache(100_000)
def wrap_text(
    text: str, font: ImageFont.FreeTypeFont, width: float, max_lines: int = 60
) -> tuple[str, ...]:
    """Return lines no wider than `width` pixels; a word that is too long is broken.

    After `max_lines` lines comes an ellipsis.
    """
    lines: list[str] = []
    for paragraph in sanitize_label(text).split("\n"):
        line = ""
        for word in paragraph.split():
            longer_line = f"{line} {word}".strip()
            if font.getlength(longer_line) <= width:
                line = longer_line
                continue
            if line:
                lines.append(line)
            *full_lines, line = _break_word(word, font, width)
            lines += full_lines
        lines.append(line)
    if len(lines) <= max_lines:
        return tuple(lines)
    last_line = lines[max_lines - 1]
    while last_line and font.getlength(f"{last_line}…") > width:
        last_line = last_line[:-1]
    return (*lines[: max_lines - 1], f"{last_line}…")


def _break_word(word: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Return a word in pieces no wider than `width`, of one letter at least."""
    pieces = []
    while font.getlength(word) > width and len(word) > 1:
        size = len(word) - 1
        while size > 1 and font.getlength(word[:size]) > width:
            size -= 1
        pieces.append(word[:size])
        word = word[size:]
    return [*pieces, word]
