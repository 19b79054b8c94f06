"""Prompts in chunks of tokens as A1111 makes them, and the weights of their vectors.

Knows: how chunks are padded, how weights are applied. Does not know: where a long prompt goes on in
the next chunk (core/generation/prompts/token_chunks.py), the grammars, the text encoders
(clip_encoder.py), compel.

A chunk holds 75 tokens between begin and end. What is left free is padded as the stock pipelines
pad: with the end of the text for SD 1.x and SDXL's first encoder, with token 0 after one end for
SD 2.x and SDXL's second. A1111 pads them so, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from studio.core.generation.prompts.dialects import Emphasis
from studio.core.generation.prompts.plan import Text
from studio.core.generation.prompts.token_chunks import fill_chunks
from studio.engine.models.families.clip_encoder import ClipSkipProvider


@dataclass(frozen=True)
class TokenChunk:
    """A chunk as a text encoder is given it: with begin, end and padding."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


def split_into_chunks(provider: ClipSkipProvider, text: Text) -> list[TokenChunk]:
    """Tokenise a text; at least one chunk.

    Args:
        provider: The text encoder.
        text: Its chunks are those that BREAK makes; a long one becomes several.
    """
    tokenizer = provider.tokenizer
    capacity = int(tokenizer.model_max_length) - 2  # without begin and end
    comma_id = tokenizer.get_vocab().get(",</w>")
    filled = fill_chunks(text, provider.tokenize_units, capacity=capacity, comma_id=comma_id)
    chunks = []
    for chunk in filled:
        num_free = capacity - len(chunk.ids)
        padding = [tokenizer.pad_token_id] * num_free
        ids = (tokenizer.bos_token_id, *chunk.ids, tokenizer.eos_token_id, *padding)
        chunks.append(TokenChunk(ids, (1.0, *chunk.weights, 1.0, *[1.0] * num_free)))
    return chunks


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
