"""compel's words within words → fragments, each with its weight.

Knows: how weights of groups multiply, that neighbours of equal weight are one stretch of words.
Does not know: the signs (compel_dialect.py), mixtures and joins.
"""

from __future__ import annotations

from dataclasses import dataclass

from studio.core.generation.prompts.a1111_attention import reject_wild_weights
from studio.core.generation.prompts.plan import Chunk, Fragment, Swap


@dataclass(frozen=True)
class Group:
    """Words within words, with a weight of their own."""

    weight: float
    children: tuple[Node, ...]


@dataclass(frozen=True)
class SwapGroup:
    """A swap whose words are not weighed yet."""

    original: tuple[Node, ...]
    edited: tuple[Node, ...]
    options: tuple[tuple[str, float], ...]


Node = str | Group | SwapGroup


def flatten_nodes(nodes: tuple[Node, ...]) -> Chunk:
    """Return a prompt's fragments; neighbours of equal weight become one, with a blank between."""
    parts: list[Fragment | Swap] = []
    for part in _weigh(nodes, 1.0):
        if (
            parts
            and isinstance(part, Fragment)
            and isinstance(parts[-1], Fragment)
            and parts[-1].weight == part.weight
        ):
            parts[-1] = Fragment(f"{parts[-1].text} {part.text}", part.weight)
        else:
            parts.append(part)
    chunk = tuple(part for part in parts if isinstance(part, Swap) or part.text.strip())
    reject_wild_weights(chunk)
    return chunk


def _weigh(nodes: tuple[Node, ...], weight: float) -> list[Fragment | Swap]:
    parts: list[Fragment | Swap] = []
    for node in nodes:
        if isinstance(node, str):
            parts.append(Fragment(_unescape(node), weight))
        elif isinstance(node, Group):
            parts += _weigh(node.children, weight * node.weight)
        else:
            # A swap's own words first: each side is one stretch of fragments.
            sides = []
            for side in (node.original, node.edited):
                chunk = flatten_nodes((Group(weight, side),))
                if any(isinstance(part, Swap) for part in chunk):
                    raise ValueError(".swap() cannot be a part of another .swap().")
                sides.append(tuple(part for part in chunk if isinstance(part, Fragment)))
            parts.append(Swap(sides[0], sides[1], node.options))
    return parts


def _unescape(text: str) -> str:
    return text.replace("\\(", "(").replace("\\)", ")").replace('\\"', '"')
