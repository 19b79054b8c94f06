"""The walk through a template: from its parts to the texts that they come to.

Knows: what holds where a part stands, when to give up, how texts are joined. Does not know: which
option is taken (writer.py draws one, combinations.py takes all).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from studio.core.generation.templates.nodes import (
    Access,
    Assignment,
    Node,
    Option,
    Series,
    Variants,
    Wildcard,
    Words,
    Wrap,
)
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
            "text per line into the home's wildcards folder."
        )
    alternatives = list_alternatives(find_alike(name, names), names)
    return f"there is no wildcard {quote(name)}, or it is empty; available: {alternatives}."


@dataclass(frozen=True)
class Scope:
    """What holds where a part stands: variables, and which of them and of lists are being read."""

    variables: Mapping[str, Node] = field(default_factory=dict)
    open_variables: frozenset[str] = frozenset()
    list_depth: int = 0


class TemplateWriter(ABC):
    """Writes a template in one way or in several; its kinds say what is taken of what there is.

    Attributes:
        max_visits: When it gives up.
        limit: How many texts a part may come to.
        has_equal_picks: Whether options that come to the same words may stand beside each other.
    """

    max_visits: int
    limit = 1
    has_equal_picks = True

    def __init__(self, files: PromptFiles) -> None:
        self.files = files
        self.visits = 0
        self._lines: dict[str, list[WildcardLine]] = {}

    @abstractmethod
    def pick_options(
        self, options: Sequence[Option], least: int, most: int
    ) -> Iterable[tuple[int, ...]]:
        """Yield which options are written, by their places, in their order."""

    @abstractmethod
    def pick_lines(self, lines: Sequence[WildcardLine]) -> Iterable[WildcardLine]:
        """Yield which lines of a list are written."""

    def write_all(self, node: Node, scope: Scope) -> list[str]:
        """Return the words of a part, as many texts as the limit at most."""
        self.count_visit()
        match node:
            case Words():
                return [node.text]
            case Series():
                return self._write_series(node, scope)
            case Variants():
                return self._write_variants(node, scope)
            case Wildcard():
                return self._write_wildcard(node, scope)
            case Access():
                return self.write_all(*self.open_variable(node, scope))
            case Wrap():
                wrappers = self.write_all(node.wrapper, scope)
                inners = self.write_all(node.inner, scope)
                return self._collect(wrap_text(a, b) for a, b in product(wrappers, inners))
        return [""]  # an assignment alone

    def _collect(self, texts: Iterable[str]) -> list[str]:
        """Take texts, each once, up to the limit."""
        collected: dict[str, None] = {}
        for text in texts:
            self.count_visit(len(text) // 1000)
            collected[self.check_length(text)] = None
            if len(collected) >= self.limit:
                break
        return list(collected)

    def _write_series(self, series: Series, scope: Scope) -> list[str]:
        """Combine the parts; what is chosen once stands for each of its values in turn."""
        values: dict[str, Node] = {}
        choices: dict[str, list[str]] = {}
        for part in series.parts:
            if not isinstance(part, Assignment):
                continue
            if part.keeps_earlier and part.variable in scope.variables:
                continue
            values[part.variable] = part.value
            choices.pop(part.variable, None)
            if part.is_immediate:
                choices[part.variable] = self.write_all(part.value, scope)
        parts = [part for part in series.parts if not isinstance(part, Assignment)]
        texts: list[str] = []
        for chosen_texts in product(*choices.values()):
            fixed = {name: Words(text) for name, text in zip(choices, chosen_texts)}
            inner = replace(scope, variables={**scope.variables, **values, **fixed})
            columns = [self.write_all(part, inner) for part in parts]
            texts = self._collect([*texts, *self._collect(self._join_rows(columns))])
            if len(texts) >= self.limit:
                break
        return texts

    def _join_rows(self, columns: Sequence[Sequence[str]]) -> Iterator[str]:
        for row in product(*columns):
            self.count_visit(1 + len(row) // 20)
            yield "".join(row)

    def _write_variants(self, variants: Variants, scope: Scope) -> list[str]:
        options: Sequence[Option] = variants.options
        if len(options) == 1 and isinstance(options[0].node, Wildcard):
            wildcard = options[0].node
            lines = self._read_list(wildcard, scope)
            scope = self.open_list(wildcard, scope)
            options = [Option(self.parse_line(line), line.weight) for line in lines]
        if len(options) == 1:
            return self.write_all(options[0].node, scope)
        columns: dict[int, list[str]] = {}

        def combine() -> Iterator[str]:
            for places in self.pick_options(options, variants.least, variants.most):
                for place in places:
                    if place not in columns:
                        columns[place] = self.write_all(options[place].node, scope)
                for texts in product(*(columns[place] for place in places)):
                    self.count_visit(1 + len(places) // 10)
                    if self.has_equal_picks or len(set(texts)) == len(texts):
                        yield join_texts(texts, variants.separator)

        return self._collect(combine())

    def _write_wildcard(self, wildcard: Wildcard, scope: Scope) -> list[str]:
        lines = self._read_list(wildcard, scope)
        scope = self.open_list(wildcard, scope)
        texts: list[str] = []
        for line in self.pick_lines(lines):
            texts += self.write_all(self.parse_line(line), scope)
            if len(texts) >= self.limit:
                break
        return self._collect(texts)

    def _read_list(self, wildcard: Wildcard, scope: Scope) -> list[WildcardLine]:
        """Return the lines of a wildcard; of a name with choices those of all its names."""
        names = self.write_all(wildcard.name, scope)
        return [line for name in names for line in self.look_up(name)]

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
                f"the template expands to more than {MAX_WORDS_CHARS:,} characters; shorten it."
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
                f"wildcards refer to each other more than {MAX_LIST_DEPTH} deep at "
                f"{quote(wildcard.source)}; does a list refer to itself?"
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
                f"${{{name}:…}} to give a default."
            )
        if name in scope.open_variables:
            raise ValueError(f"the variable {quote(name)} refers to itself.")
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
