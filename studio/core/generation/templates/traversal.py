"""What drawing from templates and counting them out have in common.

Knows: what holds where a part stands, when to give up, how texts are joined. Does not know: which
option is taken (writer.py draws one, combinations.py takes all).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from studio.core.generation.templates.nodes import Access, Node, Wildcard, Words
from studio.core.generation.templates.prompt_files import (
    PromptFiles,
    WildcardLine,
    find_alike,
    read_lines,
)
from studio.core.generation.templates.syntax import parse_template
from studio.errors import list_alternatives, quote

MAX_WORDS_CHARS = 10_000  # of what comes out, as of any prompt
MAX_LIST_DEPTH = 16  # of lists that name lists
_GAP_PATTERN = re.compile("[\u1801\u2026\u22ee\u22ef\u22f0\u22f1\ufe19]+|\\.{3,}")


def describe_missing(name: str, files: PromptFiles) -> str:
    names = files.list_wildcards()
    if not names:
        return (
            f"there is no wildcard {quote(name)}; put {name.rpartition('/')[2][:60]}.txt with one "
            "text a line into the folder wildcards of the home."
        )
    alternatives = list_alternatives(find_alike(name, names), names)
    return f"there is no wildcard {quote(name)}, or it is empty; there is {alternatives}."


@dataclass(frozen=True)
class Scope:
    """What holds where a part stands: variables, and which of them and of lists are being read."""

    variables: Mapping[str, Node] = field(default_factory=dict)
    open_variables: frozenset[str] = frozenset()
    list_depth: int = 0


class TemplateWriter:
    """What drawing and counting out have in common."""

    max_visits: int

    def __init__(self, files: PromptFiles) -> None:
        self.files = files
        self.visits = 0
        self._lines: dict[str, list[WildcardLine]] = {}

    def count_visit(self, num_visits: int = 1) -> None:
        """Raise ValueError where it goes on for too long."""
        self.visits += num_visits
        if self.visits > self.max_visits:
            raise ValueError(
                f"the template has more than {self.max_visits:,} parts to fill in; make it smaller."
            )

    def check_length(self, text: str) -> str:
        """Return a text. Raises ValueError where it is longer than any prompt."""
        if len(text) > MAX_WORDS_CHARS:
            raise ValueError(
                f"the template comes to more than {MAX_WORDS_CHARS:,} characters; make it shorter."
            )
        return text

    def look_up(self, name: str) -> list[WildcardLine]:
        """Return the lines of a wildcard. Raises ValueError where there are none."""
        if name not in self._lines:
            self._lines[name] = read_lines(name, self.files)
        lines = self._lines[name]
        if not lines:
            raise ValueError(describe_missing(name, self.files))
        return lines

    def open_list(self, wildcard: Wildcard, scope: Scope) -> Scope:
        """Return what holds in the lines of a wildcard."""
        if scope.list_depth >= MAX_LIST_DEPTH:
            raise ValueError(
                f"wildcards name each other more than {MAX_LIST_DEPTH} deep at "
                f"{quote(wildcard.source)}; does a list name itself?"
            )
        variables = {**scope.variables, **dict(wildcard.variables)}
        return replace(scope, variables=variables, list_depth=scope.list_depth + 1)

    def open_variable(self, access: Access, scope: Scope) -> tuple[Node, Scope]:
        """Return what a variable stands for, and what holds there."""
        name = access.variable
        node = scope.variables.get(name, access.default)
        if node is None:
            raise ValueError(
                f"the variable {quote(name)} has no value; write ${{{name}=…}} before it, or "
                f"${{{name}:…}} for one to fall back on."
            )
        if name in scope.open_variables:
            raise ValueError(f"the variable {quote(name)} is made of itself.")
        return node, replace(scope, open_variables=scope.open_variables | {name})

    @staticmethod
    def parse_line(line: WildcardLine) -> Node:
        """Return what a line is made of: a template of its own, or words."""
        return parse_template(line.text) or Words(line.text)


def join_texts(texts: Sequence[str], separator: str) -> str:
    """Return texts with a separator between them, and none of it at the ends."""
    if len(texts) == 1:
        return texts[0]
    return separator.join(texts).removeprefix(separator).removesuffix(separator)


def wrap_text(wrapper: str, inner: str) -> str:
    """Put a text into another's gap; behind it where there is none."""
    gap = _GAP_PATTERN.search(wrapper)
    if gap is None:
        return wrapper + inner
    return wrapper[: gap.start()] + inner + wrapper[gap.end() :]
