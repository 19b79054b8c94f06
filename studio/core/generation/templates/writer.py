"""Templates → words: one drawn by a seed, or all that can come out.

Knows: how options are drawn (as dynamicprompts 0.31 draws them, so that a seed has the words that
it has there), how all combinations are counted out, when to give up. Does not know: how a template
is read (syntax.py), files.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, permutations, product

from studio.core.generation.templates.nodes import (
    Access,
    Assignment,
    Node,
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
MAX_VISITS = 5_000  # of parts, for one prompt: a tenth of a second
MAX_COMBINATION_VISITS = 200_000  # for all of them: about two seconds
MAX_LIST_DEPTH = 16  # of lists that name lists
_GAP_PATTERN = re.compile("[\u1801\u2026\u22ee\u22ef\u22f0\u22f1\ufe19]+|\\.{3,}")


def is_template(text: str) -> bool:
    """Return whether anything is to be filled in in a prompt. Raises ValueError as the parser."""
    return parse_template(text) is not None


def fill_template(text: str, seed: int, files: PromptFiles) -> str:
    """Return the words that a template has with a seed; a text that is no template as it is.

    Args:
        text: The prompt.
        seed: The picture's.
        files: The lists that its wildcards name.

    Raises:
        ValueError: It cannot be filled in; a sentence that names what is wrong.
    """
    node = parse_template(text)
    if node is None:
        return text
    return _Draw(files, random.Random(seed)).write(node, _Scope())  # noqa: S311


def list_combinations(text: str, files: PromptFiles, limit: int) -> list[str]:
    """Return all that can come out of a template, each once, in the order of its options.

    Args:
        text: The prompt; one that is no template comes to itself.
        files: The lists that its wildcards name.
        limit: Of how many are made; more than that are cut off after one more.

    Raises:
        ValueError: It cannot be filled in, or that takes too long.
    """
    node = parse_template(text)
    if node is None:
        return [text]
    combinations = _Combinations(files, limit + 1).write_all(node, _Scope())
    return list(dict.fromkeys(combinations))


def find_missing_wildcards(text: str, files: PromptFiles) -> list[str]:
    """Return a sentence for each wildcard of a template that no list has; all at once."""
    node = parse_template(text)
    if node is None:
        return []
    return list(dict.fromkeys(_find_missing(node, files)))


def _find_missing(node: Node, files: PromptFiles) -> list[str]:
    faults = []
    if isinstance(node, Wildcard) and isinstance(node.name, Words):
        if not read_lines(node.name.text, files):
            faults.append(_describe_missing(node.name.text, files))
    for child in _list_children(node):
        faults += _find_missing(child, files)
    return faults


def _list_children(node: Node) -> list[Node]:
    match node:
        case Series():
            return list(node.parts)
        case Variants():
            return [option.node for option in node.options]
        case Wildcard():
            return [value for _, value in node.variables]
        case Assignment():
            return [node.value]
        case Access():
            return [node.default] if node.default else []
        case Wrap():
            return [node.wrapper, node.inner]
    return []


def _describe_missing(name: str, files: PromptFiles) -> str:
    names = files.list_wildcards()
    if not names:
        return (
            f"there is no wildcard {quote(name)}; put {name.rpartition('/')[2][:60]}.txt with one "
            "text a line into the folder wildcards of the home."
        )
    alternatives = list_alternatives(find_alike(name, names), names)
    return f"there is no wildcard {quote(name)}, or it is empty; there is {alternatives}."


@dataclass(frozen=True)
class _Scope:
    """What holds where a part stands: variables, and which of them and of lists are being read."""

    variables: Mapping[str, Node] = field(default_factory=dict)
    open_variables: frozenset[str] = frozenset()
    list_depth: int = 0


class _Writer:
    """What drawing and counting out have in common."""

    max_visits = MAX_VISITS

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
            raise ValueError(_describe_missing(name, self.files))
        return lines

    def open_list(self, wildcard: Wildcard, scope: _Scope) -> _Scope:
        """Return what holds in the lines of a wildcard."""
        if scope.list_depth >= MAX_LIST_DEPTH:
            raise ValueError(
                f"wildcards name each other more than {MAX_LIST_DEPTH} deep at "
                f"{quote(wildcard.source)}; does a list name itself?"
            )
        variables = {**scope.variables, **dict(wildcard.variables)}
        return replace(scope, variables=variables, list_depth=scope.list_depth + 1)

    def open_variable(self, access: Access, scope: _Scope) -> tuple[Node, _Scope]:
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


class _Draw(_Writer):
    """Writes one prompt. The draws come in dynamicprompts' order."""

    def __init__(self, files: PromptFiles, source: random.Random) -> None:
        super().__init__(files)
        self.source = source

    def write(self, node: Node, scope: _Scope) -> str:
        """Return the words of a part."""
        self.count_visit()
        match node:
            case Words():
                return node.text
            case Series():
                return self._write_series(node, scope)
            case Variants():
                return self._write_variants(node, scope)
            case Wildcard():
                return self._write_wildcard(node, scope)
            case Access():
                return self.write(*self.open_variable(node, scope))
            case Wrap():
                wrapper = self.write(node.wrapper, scope)
                return self.check_length(_wrap(wrapper, self.write(node.inner, scope)))
        return ""  # an assignment alone

    def _write_series(self, series: Series, scope: _Scope) -> str:
        values: dict[str, Node] = {}
        for part in series.parts:
            if not isinstance(part, Assignment):
                continue
            if part.keeps_earlier and part.variable in scope.variables:
                continue
            is_drawn = part.is_immediate and not isinstance(part.value, Words)
            values[part.variable] = Words(self.write(part.value, scope)) if is_drawn else part.value
        scope = replace(scope, variables={**scope.variables, **values})
        parts = [part for part in series.parts if not isinstance(part, Assignment)]
        return self.check_length("".join(self.write(part, scope) for part in parts))

    def _write_variants(self, variants: Variants, scope: _Scope) -> str:
        options = [(option.node, option.weight) for option in variants.options]
        if len(options) == 1 and isinstance(options[0][0], Wildcard):
            wildcard = options[0][0]
            lines = self.look_up(self.write(wildcard.name, scope))
            scope = self.open_list(wildcard, scope)
            options = [(self.parse_line(line), line.weight) for line in lines]
        if len(options) == 1:
            return self.write(options[0][0], scope)
        least, most = min(variants.least, len(options)), min(variants.most, len(options))
        texts = []
        chosen_nodes = []
        for _ in range(self.source.randint(least, most)):
            weights = [weight for _, weight in options]
            if not any(weights):  # fewer than asked for can be chosen
                break
            index = self.source.choices(range(len(options)), weights=weights, k=1)[0]
            self.count_visit(1 + len(options) // 100)
            chosen_nodes.append(options.pop(index)[0])
        for node in chosen_nodes:
            texts.append(self.write(node, scope))
        return self.check_length(_join(texts, variants.separator))

    def _write_wildcard(self, wildcard: Wildcard, scope: _Scope) -> str:
        lines = self.look_up(self.write(wildcard.name, scope))
        scope = self.open_list(wildcard, scope)
        weights = [line.weight for line in lines]
        if len(set(weights)) <= 1:
            line = self.source.choice(lines)
        else:  # it draws ten, and takes the first
            line = self.source.choices(lines, weights=weights, k=10)[0]
        return self.write(self.parse_line(line), scope)


class _Combinations(_Writer):
    """Writes all prompts, up to a number."""

    max_visits = MAX_COMBINATION_VISITS

    def __init__(self, files: PromptFiles, limit: int) -> None:
        super().__init__(files)
        self.limit = limit

    def write_all(self, node: Node, scope: _Scope) -> list[str]:
        """Return all words of a part, as many as the limit at most."""
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
                return self._collect(_wrap(a, b) for a, b in product(wrappers, inners))
        return [""]

    def _collect(self, texts: Iterable[str]) -> list[str]:
        """Take texts, each once, up to the limit."""
        collected: dict[str, None] = {}
        for text in texts:
            self.count_visit(len(text) // 1000)
            collected[self.check_length(text)] = None
            if len(collected) >= self.limit:
                break
        return list(collected)

    def _write_series(self, series: Series, scope: _Scope) -> list[str]:
        """Combine the parts; what is drawn once stands for each of its values in turn."""
        values: dict[str, Node] = {}
        drawn: dict[str, Node] = {}
        for part in series.parts:
            if isinstance(part, Assignment):
                if not (part.keeps_earlier and part.variable in scope.variables):
                    (drawn if part.is_immediate else values)[part.variable] = part.value
        parts = [part for part in series.parts if not isinstance(part, Assignment)]
        choices = [self.write_all(value, scope) for value in drawn.values()]
        texts: list[str] = []
        for chosen_texts in product(*choices):
            self.count_visit()
            fixed = {name: Words(text) for name, text in zip(drawn, chosen_texts)}
            inner = replace(scope, variables={**scope.variables, **values, **fixed})
            columns = [self.write_all(part, inner) for part in parts]
            texts = self._collect([*texts, *self._multiply(columns)])
            if len(texts) >= self.limit:
                break
        return texts

    def _multiply(self, columns: Sequence[Sequence[str]]) -> list[str]:
        """Return all rows of texts as one text each."""

        def join_rows() -> Iterator[str]:
            for row in product(*columns):
                self.count_visit(1 + len(row) // 20)
                yield "".join(row)

        return self._collect(join_rows())

    def _write_variants(self, variants: Variants, scope: _Scope) -> list[str]:
        nodes = [option.node for option in variants.options if option.weight]
        if len(nodes) == 1 and isinstance(nodes[0], Wildcard):
            lines = self._read_list(nodes[0], scope)
            scope = self.open_list(nodes[0], scope)
            nodes = [self.parse_line(line) for line in lines]
        nodes = list(dict.fromkeys(nodes))
        least, most = min(variants.least, len(nodes)), min(variants.most, len(nodes))
        columns = [self.write_all(node, scope) for node in islice(nodes, self.limit)]

        def combine() -> Iterator[str]:
            for number in range(least, most + 1):
                for indexes in permutations(range(len(columns)), number):
                    for texts in product(*(columns[k] for k in indexes)):
                        self.count_visit(1 + number // 10)
                        if len(set(texts)) == number:
                            yield _join(texts, variants.separator)

        return self._collect(combine())

    def _write_wildcard(self, wildcard: Wildcard, scope: _Scope) -> list[str]:
        lines = self._read_list(wildcard, scope)
        scope = self.open_list(wildcard, scope)
        texts: list[str] = []
        for line in lines:
            texts += self.write_all(self.parse_line(line), scope)
            if len(texts) >= self.limit:
                break
        return self._collect(texts)

    def _read_list(self, wildcard: Wildcard, scope: _Scope) -> list[WildcardLine]:
        """Return the lines of a wildcard; of a name with choices those of all its names."""
        lines: list[WildcardLine] = []
        for name in self.write_all(wildcard.name, scope):
            lines += [line for line in self.look_up(name) if line.weight]
        return lines


def _join(texts: Sequence[str], separator: str) -> str:
    """Return texts with a separator between them, and none of it at the ends."""
    if len(texts) == 1:
        return texts[0]
    return separator.join(texts).removeprefix(separator).removesuffix(separator)


def _wrap(wrapper: str, inner: str) -> str:
    """Put a text into another's gap; behind it where there is none."""
    gap = _GAP_PATTERN.search(wrapper)
    if gap is None:
        return wrapper + inner
    return wrapper[: gap.start()] + inner + wrapper[gap.end() :]
