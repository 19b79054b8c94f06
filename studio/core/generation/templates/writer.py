"""Templates → words, drawn by a seed.

Knows: how options are drawn: as dynamicprompts 0.31 draws them, so that a seed has the words that
it has there. Does not know: how a template is read (syntax.py), all that can come out of it
(combinations.py), files.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

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
    read_lines,
)
from studio.core.generation.templates.syntax import parse_template
from studio.core.generation.templates.traversal import Scope, TemplateWriter, describe_missing

MAX_VISITS = 6_000  # of parts, for one prompt: a tenth of a second


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
    (words,) = _Draw(files, random.Random(seed)).write_all(node, Scope())
    return words


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
    """Takes one of what there is. The draws come in dynamicprompts' order."""

    max_visits = MAX_VISITS

    def __init__(self, files: PromptFiles, source: random.Random) -> None:
        super().__init__(files)
        self.source = source

    def pick_options(
        self, options: Sequence[Option], least: int, most: int
    ) -> list[tuple[int, ...]]:
        places = list(range(len(options)))
        weights = [option.weight for option in options]
        picked: list[int] = []
        for _ in range(self.source.randint(min(least, len(options)), min(most, len(options)))):
            if not any(weights):  # fewer than asked for can be chosen
                break
            index = self.source.choices(range(len(places)), weights=weights, k=1)[0]
            self.count_visit(1 + len(places) // 100)
            picked.append(places.pop(index))
            del weights[index]
        return [tuple(picked)]

    def pick_lines(self, lines: Sequence[WildcardLine]) -> list[WildcardLine]:
        weights = [line.weight for line in lines]
        if len(set(weights)) <= 1:
            return [self.source.choice(lines)]
        # It draws ten, and takes the first.
        return [self.source.choices(lines, weights=weights, k=10)[0]]
