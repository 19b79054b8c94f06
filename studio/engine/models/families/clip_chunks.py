"""Prompts in chunks of tokens as A1111 makes them, and the weights of their vectors.

Knows: where a long prompt goes on in the next chunk, how chunks are padded, how weights are
applied. Does not know: the grammars (core/generation/prompts), the text encoders (clip_encoder.py),
compel.

A chunk holds 75 tokens between begin and end. The last word of a chunk that is full does not stand
apart from what it belongs to: what follows a comma among its last 20 tokens moves to the next one.
BREAK ends a chunk. What is left free is padded as the stock pipelines pad: with the end of the text
for SD 1.x and SDXL's first encoder, with token 0 after one end for SD 2.x and SDXL's second. A1111
pads them so, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from studio.core.generation.prompts.dialects import Emphasis
from studio.core.generation.prompts.plan import Fragment, Text
from studio.engine.models.families.clip_encoder import ClipSkipProvider

MAX_COMMA_DISTANCE_TOKENS = 20  # from the end of a chunk


@dataclass(frozen=True)
class TokenChunk:
    """A chunk as a text encoder is given it: with begin, end and padding."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass
class _OpenChunk:
    """A chunk that is being filled."""

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

    def cut_behind_comma(self) -> _OpenChunk:
        """Cut off what follows the last comma, as the beginning of the next chunk."""
        place = self.last_comma + 1
        moved = _OpenChunk(self.ids[place:], self.weights[place:])
        self.ids, self.weights = self.ids[:place], self.weights[:place]
        return moved


class _Chunker:
    """Chunks of one text for one text encoder."""

    def __init__(self, provider: ClipSkipProvider) -> None:
        self.tokenizer = provider.tokenizer
        self.capacity = int(self.tokenizer.model_max_length) - 2  # without begin and end
        self.comma_id = self.tokenizer.get_vocab().get(",</w>")
        self.chunks: list[TokenChunk] = []
        self.open = _OpenChunk()

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
        tokenizer, chunk = self.tokenizer, self.open
        num_free = self.capacity - len(chunk.ids)
        padding = [tokenizer.pad_token_id] * num_free
        ids = (tokenizer.bos_token_id, *chunk.ids, tokenizer.eos_token_id, *padding)
        self.chunks.append(TokenChunk(ids, (1.0, *chunk.weights, 1.0, *[1.0] * num_free)))
        self.open = _OpenChunk()


def split_into_chunks(provider: ClipSkipProvider, text: Text) -> list[TokenChunk]:
    """Tokenise a text; at least one chunk.

    Args:
        provider: The text encoder.
        text: Its chunks are those that BREAK makes; a long one becomes several.
    """
    chunker = _Chunker(provider)
    for number, parts in enumerate(text):
        if number:
            chunker.close()
        for part in parts:
            assert isinstance(part, Fragment)
            for unit in provider.tokenize_units(part.text):
                # An embedding that fits into no chunk is cut.
                for first, end in pairwise([*range(0, len(unit), chunker.capacity), len(unit)]):
                    chunker.add(unit[first:end], part.weight)
    if chunker.open.ids or not chunker.chunks:
        chunker.close()
    return chunker.chunks


def weigh_states(states: torch.Tensor, weights: torch.Tensor, emphasis: Emphasis) -> torch.Tensor:
    """Multiply the vectors of tokens by their weights.

    Args:
        states: (texts, tokens, width): the same chunk of all texts that a prompt's schedule has,
            for A1111 encodes them together.
        weights: (texts, tokens).
        emphasis: "Original" gives all of them the mean back that they had before.
    """
    if emphasis in ("Ignore", "None") or bool((weights == 1).all()):
        return states
    exact = states.float()
    weighted = exact * weights.to(exact)[..., None]
    if emphasis == "Original":
        weighted = weighted * (exact.mean() / weighted.mean())
    return weighted.to(states.dtype)
