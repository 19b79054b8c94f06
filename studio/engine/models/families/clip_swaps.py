"""compel's `.swap()` in a prompt: its two sides, which tokens they share, when it holds.

Knows: compel's options. Does not know: what attention makes of it (attention_swaps.py), how texts
are encoded (clip_prompts.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from studio.core.generation.prompts.plan import Fragment, Swap, Wording
from studio.engine.models.families.clip_encoder import ClipSkipProvider
from studio.errors import InvalidSpec

# compel's own, of `.swap(…, t_start=…)`: shares of the steps.
DEFAULT_START, DEFAULT_END = 0.2, 1.0
TOO_LONG_MESSAGE = (
    "Prompt: with .swap() it can have at most 75 tokens, before and after the swap; shorten it."
)
JOINED_MESSAGE = "Prompt: .swap() cannot be used inside .and(); remove one of them."


def has_swap(wording: Wording) -> bool:
    """Whether words are painted in place of others."""
    return any(isinstance(part, Swap) for text in wording.texts for chunk in text for part in chunk)


def take_side(wording: Wording, is_edited: bool) -> Wording:
    """Return a wording without swaps: as it was, or as it is edited."""
    texts = tuple(
        tuple(
            tuple(
                fragment
                for part in chunk
                for fragment in (
                    (part,)
                    if isinstance(part, Fragment)
                    else part.edited
                    if is_edited
                    else part.original
                )
            )
            for chunk in text
        )
        for text in wording.texts
    )
    return replace(wording, texts=texts)


def holds_at(wording: Wording, share: float) -> bool:
    """Whether the swaps of a wording are in effect at a share of the steps.

    Of several the first one's options count, as for InvokeAI.
    """
    (chunk,) = wording.texts[0]
    first = next(part for part in chunk if isinstance(part, Swap))
    options = dict(first.options)
    start, end = options.get("t_start", DEFAULT_START), options.get("t_end", DEFAULT_END)
    return start <= share < end


def locate_tokens(
    provider: ClipSkipProvider, wording: Wording
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each token of the edited prompt its place in the original, and 1 if it is shared.

    Raises:
        InvalidSpec: The prompt is too long, or one of several.
    """
    if len(wording.texts) > 1:
        raise InvalidSpec([JOINED_MESSAGE])
    length = int(provider.tokenizer.model_max_length)
    sources, shared = list(range(length)), [0] * length
    shared[0] = 1  # the begin
    original = edited = 1
    (chunk,) = wording.texts[0]
    for part in chunk:
        if isinstance(part, Swap):
            original += _count_tokens(provider, part.original)
            edited += _count_tokens(provider, part.edited)
            continue
        num_tokens = _count_tokens(provider, [part])
        sources[edited : edited + num_tokens] = range(original, original + num_tokens)
        shared[edited : edited + num_tokens] = [1] * num_tokens
        original += num_tokens
        edited += num_tokens
    if max(original, edited) >= length:
        raise InvalidSpec([TOO_LONG_MESSAGE])
    sources[edited], shared[edited] = original, 1  # the end
    return torch.tensor([sources]), torch.tensor([shared])


def _count_tokens(provider: ClipSkipProvider, fragments: Sequence[Fragment]) -> int:
    return sum(len(provider.tokenize(fragment.text)) for fragment in fragments)
