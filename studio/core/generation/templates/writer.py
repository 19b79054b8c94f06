"""Templates → words, drawn by a seed.

Knows: how options are drawn: as dynamicprompts 0.31 draws them, so that a seed has the words that
it has there. Does not know: how a template is read (syntax.py), all that can come out of it
(combinations.py), files.
"""

from __future__ import annotations

import random
from dataclasses import replace

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
from studio.core.generation.templates.prompt_files import PromptFiles, read_lines
from studio.core.generation.templates.syntax import parse_template
from studio.core.generation.templates.traversal import (
    Scope,
    TemplateWriter,
    describe_missing,
    join_texts,
    wrap_text,
)

MAX_VISITS = 5_000  # of parts, for one prompt: a tenth of a second


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
    return _Draw(files, random.Random(seed)).write(node, Scope())


def find_missing_wildcards(text: str, files: PromptFiles) -> list[str]:
    """Return a sentence for each wildcard of a template that no list has; all at once."""
    node = parse_template(text)
    if node is None:
        return []
    return list(dict.fromkeys(_find_missing(node, files)))


def _find_missing(node: Node, files: PromptFiles) -> list[str]:
    faults = []
    names = [node.name.text] if isinstance(node, Wildcard) and isinstance(node.name, Words) else []
    faults += [describe_missing(name, files) for name in names if not read_lines(name, files)]
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


class _Draw(TemplateWriter):
    """Writes one prompt. The draws come in dynamicprompts' order."""

    max_visits = MAX_VISITS

    def __init__(self, files: PromptFiles, source: random.Random) -> None:
        super().__init__(files)
        self.source = source

    def write(self, node: Node, scope: Scope) -> str:
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
                return self.check_length(wrap_text(wrapper, self.write(node.inner, scope)))
        return ""  # an assignment alone

    def _write_series(self, series: Series, scope: Scope) -> str:
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

    def _write_variants(self, variants: Variants, scope: Scope) -> str:
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
        return self.check_length(join_texts(texts, variants.separator))

    def _write_wildcard(self, wildcard: Wildcard, scope: Scope) -> str:
        lines = self.look_up(self.write(wildcard.name, scope))
        scope = self.open_list(wildcard, scope)
        weights = [line.weight for line in lines]
        if len(set(weights)) <= 1:
            line = self.source.choice(lines)
        else:  # it draws ten, and takes the first
            line = self.source.choices(lines, weights=weights, k=10)[0]
        return self.write(self.parse_line(line), scope)
