"""Styles as A1111 has them: words under a name, put around or behind the prompts.

Knows: the columns of styles.csv, what `{prompt}` does, how several are stacked. Does not know:
files, requests.

Source: A1111's wiki "Features", "Styles"; the file has the columns name, prompt, negative_prompt.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from studio.core.generation.templates.prompt_files import Style
from studio.errors import quote

PLACEHOLDER = "{prompt}"
MAX_STYLES = 20_000  # of a file
MAX_STYLE_CHARS = 10_000  # of a prompt
MAX_NAME_CHARS = 200
HEADER = ("name", "prompt", "negative_prompt")


def apply_styles(
    styles: Sequence[Style], prompt: str, negative_prompt: str = ""
) -> tuple[str, str]:
    """Return both prompts with styles applied, one after the other."""
    for style in styles:
        prompt = _merge(style.prompt, prompt)
        negative_prompt = _merge(style.negative_prompt, negative_prompt)
    return prompt, negative_prompt


def _merge(style_words: str, prompt: str) -> str:
    """Put a prompt into a style's words, or these behind it."""
    if PLACEHOLDER in style_words:
        return style_words.replace(PLACEHOLDER, prompt)
    return ", ".join(words for text in (prompt, style_words) if (words := text.strip()))


def parse_styles(text: str, label: str) -> tuple[list[Style], list[str]]:
    """Read a styles.csv.

    Args:
        text: Of the file; broken quotes, a byte order mark and any line ends are taken.
        label: What sentences call the file.

    Returns:
        The styles, the last of each name, and a sentence for each row that is no style.
    """
    csv.field_size_limit(10 * 2**20)  # the file's own bound is smaller
    text = text.removeprefix("\ufeff").replace("\0", "")
    rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    styles: dict[str, Style] = {}
    faults = []
    columns: dict[str, int] = {name: k for k, name in enumerate(HEADER)}
    try:
        for number, row in enumerate(rows):
            folded = [cell.strip().casefold() for cell in row]
            if number == 0 and "name" in folded:
                # The oldest files call the prompt a text.
                columns = {name.replace("text", "prompt"): k for k, name in enumerate(folded)}
                continue
            style = _read_row(row, columns)
            if not style.name or style.name.startswith("#"):  # an empty line, or a heading
                continue
            if fault := _find_fault(style):
                faults.append(f"{label}, line {rows.line_num}: {fault}")
            elif len(styles) < MAX_STYLES:
                styles.pop(style.name, None)
                styles[style.name] = style
    except csv.Error as error:
        faults.append(f"{label}, line {rows.line_num}: cannot be read ({error}).")
    return list(styles.values()), faults


def _read_row(row: Sequence[str], columns: dict[str, int]) -> Style:
    cells = {
        name: row[columns[name]] if columns.get(name, len(row)) < len(row) else ""
        for name in HEADER
    }
    return Style(cells["name"].strip(), cells["prompt"], cells["negative_prompt"])


def _find_fault(style: Style) -> str:
    if len(style.name) > MAX_NAME_CHARS:
        return f"the name {quote(style.name)} is longer than {MAX_NAME_CHARS} characters."
    if max(len(style.prompt), len(style.negative_prompt)) > MAX_STYLE_CHARS:
        return (
            f"the style {quote(style.name)} is longer than {MAX_STYLE_CHARS:,} characters; is a "
            "quotation mark not closed?"
        )
    return ""


def format_styles(styles: Iterable[Style]) -> str:
    """Return a styles.csv, which A1111 reads too."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(HEADER)
    writer.writerows((style.name, style.prompt, style.negative_prompt) for style in styles)
    return stream.getvalue()
