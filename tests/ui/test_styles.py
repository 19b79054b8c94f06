"""Measures and colours of the page stand in one file, and no style sheet names one that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import studio.ui

STATIC = Path(studio.ui.__file__).with_name("static")
TOKENS = STATIC / "tokens.css"
SHEETS = [
    STATIC / name for name in ("frame.css", "style.css", "habits.css", "notices.css", "toasts.css")
]
# Of gradio's theme, and set on elements by the page itself.
FOREIGN = re.compile(
    r"--(?:cell|side|zoom|icon|done|mean|low|high|chart-line|block-|button-|input-|spacing-|primary-)"
)
URLS = re.compile(r'url\("[^"]*"\)|/\*.*?\*/', re.DOTALL)
COLOUR = re.compile(r"#[0-9a-fA-F]{3,8}\b(?=[^{}]*[;}])|\b(?:rgba?|hsla?)\(")
SPACED = re.compile(r"(?<![\w-])((?:row-|column-)?gap|padding(?:-\w+)*|margin(?:-\w+)*): ([^;}]+)")
TYPED = re.compile(r"(?<![\w-])(font-size|border-radius): ([^;}]+)")


def read(sheet: Path) -> str:
    return URLS.sub("", sheet.read_text("utf-8"))


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.name)
def test_colours_are_tokens(sheet: Path) -> None:
    assert COLOUR.findall(read(sheet)) == []


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.name)
def test_space_type_and_corners_are_tokens(sheet: Path) -> None:
    """A hair's breadth is no space: one pixel may stand anywhere."""
    css = read(sheet)
    spaces = [f"{name}: {value}" for name, value in SPACED.findall(css) if has_length(value)]
    types = [f"{name}: {value}" for name, value in TYPED.findall(css) if has_length(value)]
    assert spaces + types == []


def has_length(value: str) -> bool:
    numbers = re.findall(r"(?<![\w.-])-?(\d*\.?\d+)(px|rem|em|vh|vw|dvh)?(?![\w%])", value)
    return any(unit and float(number) > 1 for number, unit in numbers)


@pytest.mark.parametrize("sheet", [*SHEETS, TOKENS], ids=lambda sheet: sheet.name)
def test_every_token_that_is_used_is_there(sheet: Path) -> None:
    known = set(re.findall(r"(--[\w-]+):", TOKENS.read_text("utf-8")))
    used = set(re.findall(r"var\((--[\w-]+)", read(sheet)))
    unknown = {name for name in used - known if not FOREIGN.match(name)}
    if sheet == TOKENS:  # it translates gradio's
        unknown = {
            name for name in unknown if not re.match("--(body|background|border|color)-", name)
        }
    assert unknown == set()


def test_every_token_is_used_and_both_themes_have_it() -> None:
    tokens = TOKENS.read_text("utf-8")
    texts = "".join(read(sheet) for sheet in SHEETS) + tokens
    names = set(re.findall(r"(--[\w-]+):", tokens))
    assert {name for name in names if f"var({name})" not in texts} == set()
    dark = tokens.partition("body.dark {")[2].partition("}")[0]
    inked = {name for name in names if re.search(r"--\w+-(ink|fill|line)$", name)}
    same_in_both = {"--fault-fill", "--accent-line"}
    assert {name for name in inked if f"{name}:" not in dark} <= same_in_both
