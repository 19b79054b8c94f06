"""The page's HTML: macros of the Jinja templates in templates/, one file a subject.

Knows: how templates are found, escaped and laid out. Does not know: what stands in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream

from studio.ui.views.common import format_bytes, format_kib, pluralize

LINE_BREAK = re.compile(r"\s*\n\s*")


class JsxLineBreaks(Extension):
    """Line breaks in templates are layout, as in JSX.

    A line break with the blanks around it vanishes beside a tag or a Jinja block, and is one blank
    between words. (`trim_blocks` would leave indentation, a visible gap between inline elements.)
    """

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for token in stream:
            if token.type == "data":
                token = Token(token.lineno, "data", collapse_line_breaks(token.value))
            yield token


def collapse_line_breaks(source: str) -> str:
    """Return a template's text between two Jinja blocks without its layout."""

    def replace(line_break: re.Match[str]) -> str:
        before = source[: line_break.start()][-1:]
        after = source[line_break.end() :][:1]
        is_between_words = before not in ("", ">") and after not in ("", "<")
        return " " if is_between_words else ""

    return LINE_BREAK.sub(replace, source)


def format_thousands(number: float) -> str:
    """Return `12,345`."""
    return f"{number:,}"


def format_percent(fraction: float, digits: int = 0) -> str:
    """Return a fraction as the number of a percentage, without its sign: 0.256 is `26`."""
    return f"{fraction * 100:.{digits}f}"


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    extensions=[JsxLineBreaks],
    auto_reload=False,
)
ENVIRONMENT.filters |= {
    "bytes": format_bytes,
    "kib": format_kib,
    "percent": format_percent,
    "pluralize": pluralize,
    "thousands": format_thousands,
}


def render_macro(template_name: str, macro_name: str, /, **arguments: Any) -> str:
    """Render one macro of a template.

    Args:
        template_name: File name in templates/.
        macro_name: Name of the macro.
        arguments: The macro's arguments; every text in them is escaped.

    Returns:
        HTML as a plain `str`, so that results can be joined without being escaped again.
    """
    macros = ENVIRONMENT.get_template(template_name).module
    return str(getattr(macros, macro_name)(**arguments))


def render_outcome(text: str) -> str:
    """Render what came of a click, for the line that a tab has for it."""
    return render_macro("common.html", "outcome", text=text)


def render_nothing(text: str, total: int | None = None) -> str:
    """Render what stands where there is nothing to show.

    Args:
        text: What is said there.
        total: How many there are to show, where the same line says that.
    """
    return render_macro("common.html", "nothing", text=text, total=total)
