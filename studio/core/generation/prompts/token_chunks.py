"""Where a long prompt goes on in the next chunk of tokens, as A1111 has it.

Knows: how many tokens a chunk holds, commas, BREAK. Does not know: which tokens a text has, how
chunks are padded and weighed (engine/models/families/clip_chunks.py).

The last word of a chunk that is full does not stand apart from what it belongs to: what follows a
comma among its last 20 tokens moves to the next one. BREAK ends a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from studio.core.generation.prompts.plan import Swap, Text

MAX_COMMA_DISTANCE_TOKENS = 20  # from the end of a chunk
CHUNK_TOKENS = 75  # of CLIP's text encoders, without those that mark begin and end

# A text → its ids, those of an embedding together.
TokenizeUnits = Callable[[str], Sequence[Sequence[int]]]


@dataclass
class FilledChunk:
    """The tokens of a chunk, without begin, end and padding, each with its weight."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    last_comma: int = -1

    @property
    def has_late_comma(self) -> bool:
        """Whether a comma is among the last tokens."""
        distance = len(self.ids) - self.last_comma
        return self.last_comma >= 0 and distance <= MAX_COMMA_DISTANCE_TOKENS

    def add(self, ids: Sequence[int], weight: float) -> None:
        """Append the ids of a token, or of an embedding."""
        self.ids += ids
        self.weights += [weight] * len(ids)

    def cut_behind_comma(self) -> FilledChunk:
        """Cut off what follows the last comma, as the beginning of the next chunk."""
        place = self.last_comma + 1
        moved = FilledChunk(self.ids[place:], self.weights[place:])
        self.ids, self.weights = self.ids[:place], self.weights[:place]
        return moved


class _Filler:
    """Fills one chunk after the other."""

    def __init__(self, capacity: int, comma_id: int | None) -> None:
        self.capacity, self.comma_id = capacity, comma_id
        self.chunks: list[FilledChunk] = []
        self.open = FilledChunk()

    def add(self, ids: Sequence[int], weight: float) -> None:
        """Append a token or an embedding, to the next chunk if it has no place."""
        num_ids = len(self.open.ids)
        if ids[0] == self.comma_id:
            self.open.last_comma = num_ids
        elif num_ids == self.capacity and self.open.has_late_comma:
            moved = self.open.cut_behind_comma()
            self.close()
            self.open = moved
        if len(self.open.ids) + len(ids) > self.capacity:
            self.close()
        self.open.add(ids, weight)

    def close(self) -> None:
        """Finish the chunk and begin the next."""
        self.chunks.append(self.open)
        self.open = FilledChunk()


def fill_chunks(
    text: Text, tokenize: TokenizeUnits, *, capacity: int, comma_id: int | None
) -> list[FilledChunk]:
    """Lay a text out in chunks of tokens; at least one.

    Args:
        text: Its chunks are those that BREAK makes; a long one becomes several. Of a swap both
            sides count.
        tokenize: Returns the ids of a stretch of text.
        capacity: Tokens that a chunk holds.
        comma_id: The token of a comma; None where the vocabulary has none.
    """
    filler = _Filler(capacity, comma_id)
    for number, parts in enumerate(text):
        if number:
            filler.close()
        for part in parts:
            fragments = (*part.original, *part.edited) if isinstance(part, Swap) else (part,)
            for fragment in fragments:
                for unit in tokenize(fragment.text):
                    # An embedding that fits into no chunk is cut.
                    for first, end in pairwise([*range(0, len(unit), capacity), len(unit)]):
                        filler.add(unit[first:end], fragment.weight)
    if filler.open.ids or not filler.chunks:
        filler.close()
    return filler.chunks
