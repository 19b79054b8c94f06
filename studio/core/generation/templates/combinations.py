"""Templates → all that can come out of them.

Knows: how options multiply, when there are too many. Does not know: how a template is read
(syntax.py), chance (writer.py), files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
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
from studio.core.generation.templates.prompt_files import PromptFiles, WildcardLine
from studio.core.generation.templates.syntax import parse_template
from studio.core.generation.templates.traversal import (
    Scope,
    TemplateWriter,
    join_texts,
    wrap_text,
)

MAX_COMBINATION_VISITS = 200_000  # for all of them: about two seconds


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
    combinations = _Combinations(files, limit + 1).write_all(node, Scope())
    return list(dict.fromkeys(combinations))


class _Combinations(TemplateWriter):
    """Writes all prompts, up to a number."""

    max_visits = MAX_COMBINATION_VISITS

    def __init__(self, files: PromptFiles, limit: int) -> None:
        super().__init__(files)
        self.limit = limit

    def write_all(self, node: Node, scope: Scope) -> list[str]:
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
                return self._collect(wrap_text(a, b) for a, b in product(wrappers, inners))
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

    def _write_series(self, series: Series, scope: Scope) -> list[str]:
        """Combine the parts; what is drawn once stands for each of its values in turn."""
        values: dict[str, Node] = {}
        drawn: dict[str, Node] = {}
        for part in series.parts:
            if not isinstance(part, Assignment):
                continue
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

    def _write_variants(self, variants: Variants, scope: Scope) -> list[str]:
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
                            yield join_texts(texts, variants.separator)

        return self._collect(combine())

    def _write_wildcard(self, wildcard: Wildcard, scope: Scope) -> list[str]:
        lines = self._read_list(wildcard, scope)
        scope = self.open_list(wildcard, scope)
        texts: list[str] = []
        for line in lines:
            texts += self.write_all(self.parse_line(line), scope)
            if len(texts) >= self.limit:
                break
        return self._collect(texts)

    def _read_list(self, wildcard: Wildcard, scope: Scope) -> list[WildcardLine]:
        """Return the lines of a wildcard; of a name with choices those of all its names."""
        lines: list[WildcardLine] = []
        for name in self.write_all(wildcard.name, scope):
            lines += [line for line in self.look_up(name) if line.weight]
        return lines
