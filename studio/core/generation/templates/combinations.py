"""Templates → all that can come out of them.

Knows: what is taken of options and lists, when there are too many. Does not know: how a
template is read (syntax.py) and walked through (traversal.py), chance (writer.py), files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

from studio.core.generation.templates.nodes import Node, Option
from studio.core.generation.templates.prompt_files import PromptFiles, WildcardLine
from studio.core.generation.templates.syntax import parse_template
from studio.core.generation.templates.traversal import Scope, TemplateWriter

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
    """Takes all that there is, in its order, and nothing twice."""

    max_visits = MAX_COMBINATION_VISITS
    has_equal_picks = False

    def __init__(self, files: PromptFiles, limit: int) -> None:
        super().__init__(files)
        self.limit = limit

    def pick_options(
        self, options: Sequence[Option], least: int, most: int
    ) -> Iterator[tuple[int, ...]]:
        places: dict[Node, int] = {}
        for place, option in enumerate(options):
            if option.weight:
                places.setdefault(option.node, place)
        num_options = len(places)
        for number in range(min(least, num_options), min(most, num_options) + 1):
            yield from permutations(list(places.values())[: self.limit], number)

    def pick_lines(self, lines: Sequence[WildcardLine]) -> Sequence[WildcardLine]:
        return [line for line in lines if line.weight]
