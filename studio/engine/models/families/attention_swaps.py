"""compel's `.swap()`: words painted in place of others, where the others would have been.

Knows: how the U-Net's attention to words is put together from two prompts (prompt-to-prompt,
arXiv:2208.01626, as InvokeAI ran it). Does not know: prompts, tokens, the loop.

For each place of the image attention says how much it takes from each token. What it takes comes
from the edited prompt; how much of the tokens that both prompts share is what the original prompt
says, of the edited ones what the edited prompt says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

# Of a row: the edited prompt's vectors (1, tokens, width); for each of its tokens the place in the
# original prompt (1, tokens), and 1 where the token is in both (1, tokens).
SWAP_EMBEDS, SWAP_SOURCES, SWAP_SHARED = "swap_embeds", "swap_sources", "swap_shared"
SWAP_NAMES = (SWAP_EMBEDS, SWAP_SOURCES, SWAP_SHARED)


def complete_row(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row with a swap: one without gets that of its prompt for itself."""
    if SWAP_EMBEDS in row:
        return row
    embeds = row["prompt_embeds"]
    sources = torch.arange(embeds.shape[1], device=embeds.device)[None]
    return {
        **row,
        SWAP_EMBEDS: embeds,
        SWAP_SOURCES: sources,
        SWAP_SHARED: torch.ones_like(sources, dtype=embeds.dtype),
    }


def pad_swap(row: Mapping[str, Any], num_tokens: int) -> Mapping[str, Any]:
    """Return a row whose swap goes on over so many tokens that are appended; they stand for none.

    The vectors themselves are appended by whoever encodes.
    """
    if SWAP_EMBEDS not in row:
        return row
    sources, shared = row[SWAP_SOURCES], row[SWAP_SHARED]
    length = sources.shape[1]
    further = torch.arange(length, length + num_tokens, device=sources.device)[None]
    nothing = torch.zeros_like(further, dtype=shared.dtype)
    return {
        **row,
        SWAP_SOURCES: torch.cat([sources, further], dim=1),
        SWAP_SHARED: torch.cat([shared, nothing], dim=1),
    }


@contextmanager
def use_swaps(denoiser: Any, stacked: Mapping[str, Any]) -> Iterator[None]:
    """Let a U-Net attend to words by stacked rows inside the block, if they have swaps."""
    if SWAP_EMBEDS not in stacked:
        yield
        return
    before = dict(denoiser.attn_processors)
    processor = _SwapProcessor(*(stacked[name] for name in SWAP_NAMES))
    denoiser.set_attn_processor(
        {name: processor if ".attn2." in name else own for name, own in before.items()}
    )
    try:
        yield
    finally:
        denoiser.set_attn_processor(before)


class _SwapProcessor:
    """Attention to the words of two prompts, as diffusers' attention calls it."""

    def __init__(self, embeds: torch.Tensor, sources: torch.Tensor, shared: torch.Tensor) -> None:
        self.embeds = embeds
        self.sources = sources
        self.shared = shared

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))

        def score(words: torch.Tensor) -> torch.Tensor:
            key = attn.head_to_batch_dim(attn.to_k(words))
            scores: torch.Tensor = attn.get_attention_scores(query, key, attention_mask)
            return scores

        edited = score(self.embeds)  # (rows * heads, places, tokens)
        sources = self.sources.repeat_interleave(attn.heads, dim=0)[:, None].expand_as(edited)
        original = score(encoder_hidden_states).gather(-1, sources)
        shared = self.shared.repeat_interleave(attn.heads, dim=0)[:, None].to(edited.dtype)
        scores = original * shared + edited * (1 - shared)
        values = attn.head_to_batch_dim(attn.to_v(self.embeds))
        output = attn.batch_to_head_dim(torch.bmm(scores, values))
        output = attn.to_out[1](attn.to_out[0](output))
        result: torch.Tensor = output / attn.rescale_output_factor
        return result
