r"""A1111's attention: brackets that weigh words, and BREAK.

Knows: how A1111 v1.10 reads them, what it does with brackets that do not fit together. Does not
know: words that change over the steps (a1111_schedules.py), AND.

    (x)  ((x))  [x]     times 1.1, times 1.21, divided by 1.1
    (x:1.3)             times 1.3, nested as well
    \( \) \[ \] \\     the character itself; a single \ before anything else is dropped
    (x                  a bracket that is never closed weighs all that follows
    x)  :1.3)           one that closes nothing is letters
    x BREAK y           what follows is encoded in a chunk of its own
    (x BREAK y)         a word, weighed against its neighbours: there BREAK is a piece of weight -1,
                        which the bracket multiplies as well, and another weight makes it no break
"""

from __future__ import annotations

import re

from studio.core.generation.prompts.a1111_schedules import MAX_NESTING
from studio.core.generation.prompts.plan import Chunk, Fragment, Text
from studio.errors import quote

EMPHASIS_FACTOR = 1.1
BREAK = "BREAK"
BREAK_WEIGHT = -1.0  # what tells it from the word; a bracket's weight makes a word of it
MAX_WEIGHT = 1000.0  # to both sides; a weight beyond it comes to infinities in half precision

_TOKEN = re.compile(
    r"\\[()\[\]\\]|\\|[(\[]"
    r"|:\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))\s*\)"
    r"|[)\]]|[^\\()\[\]:]+|:"
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_CLOSING_FACTORS = {")": ("(", EMPHASIS_FACTOR), "]": ("[", 1 / EMPHASIS_FACTOR)}


def parse_attention(text: str) -> Text:
    """Return a prompt's chunks, at least one; one without words is empty.

    Raises ValueError for a weight out of bounds and for brackets that lie too deep.
    """
    pieces: list[str] = []
    weights: list[float] = []
    openings: dict[str, list[int]] = {"(": [], "[": []}

    def add(piece: str, weight: float = 1.0) -> None:
        pieces.append(piece)
        weights.append(weight)

    def weigh(opening: str, factor: float) -> None:
        for index in range(openings[opening].pop(), len(weights)):
            weights[index] *= factor

    for match in _TOKEN.finditer(text):
        token, number = match[0], match[1]
        if token[0] == "\\":
            add(token[1:])
        elif token in openings:
            openings[token].append(len(pieces))
            if sum(map(len, openings.values())) > MAX_NESTING:
                raise ValueError(f"brackets are nested more than {MAX_NESTING} deep.")
        elif number and openings["("]:
            weigh("(", float(number))
        elif token in _CLOSING_FACTORS and openings[_CLOSING_FACTORS[token][0]]:
            weigh(*_CLOSING_FACTORS[token])
        else:
            first, *others = _BREAK.split(token) if "BREAK" in token else [token]
            add(first)
            for piece in others:
                add(BREAK, BREAK_WEIGHT)
                add(piece)
    for opening, factor in _CLOSING_FACTORS.values():
        # The first that was opened first, as there: the order shows in the last bit.
        for start in openings[opening]:
            for index in range(start, len(weights)):
                weights[index] *= factor
    return _collect_chunks(pieces, weights)


def _collect_chunks(pieces: list[str], weights: list[float]) -> Text:
    """Return chunks in which neighbours of equal weight are one fragment."""
    chunks: list[list[tuple[list[str], float]]] = [[]]
    for piece, weight in zip(pieces, weights, strict=True):
        if piece == BREAK and weight == BREAK_WEIGHT:
            chunks.append([])
        elif piece and chunks[-1] and chunks[-1][-1][1] == weight:
            chunks[-1][-1][0].append(piece)
        elif piece:
            chunks[-1].append(([piece], weight))
    if len(chunks) > 1 and not any(word.strip() for words, _ in chunks[-1] for word in words):
        chunks.pop()  # nothing follows the last BREAK
    return tuple(
        tuple(Fragment("".join(words), weight) for words, weight in chunk) for chunk in chunks
    )


def reject_wild_weights(chunk: Chunk) -> None:
    """Raise ValueError for a weight that would only give infinities."""
    for fragment in chunk:
        if isinstance(fragment, Fragment) and not abs(fragment.weight) <= MAX_WEIGHT:
            raise ValueError(
                f"the weight {fragment.weight:g} of {quote(fragment.text.strip())} must be "
                f"between -{MAX_WEIGHT:g} and {MAX_WEIGHT:g}."
            )
