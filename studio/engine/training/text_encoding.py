"""Captions, from text to the embeddings that the U-Net reads, with gradients if wanted.

Knows: tokens in chunks of 75, clip skip, SDXL's two encoders and its pooled prompt; captions are
plain text, without weights.
Does not know: which captions there are (batch_plan.py), which embeddings are cached
(data_loader.py).

The embeddings of a single chunk are bit for bit those of the stock pipelines. Longer captions are
cut every 75 tokens, as by kohya (compel, which encodes the prompts of generated images, looks for
the end of a sentence instead).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from studio.core.families.family import Family
from studio.engine.models import devices
from studio.engine.models.families.clip_encoder import get_max_clip_skip, select_hidden_state
from studio.errors import InvalidSpec


def tokenize(
    tokenizers: Sequence[Any], captions: Sequence[str], num_chunks: int = 1
) -> list[torch.Tensor]:
    """Return token ids for each encoder, as (captions, chunks, 77); longer captions are cut off."""
    token_ids = []
    for tokenizer in tokenizers:
        rows = [_tokenize_chunks(tokenizer, caption, num_chunks) for caption in captions]
        token_ids.append(torch.stack(rows))
    return token_ids


def encode_tokens(
    family: Family,
    encoders: Sequence[Any],
    token_ids: Sequence[torch.Tensor],
    clip_skip: int = 1,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Run the text encoders over token ids.

    Args:
        family: The model family; it decides which hidden layer the U-Net was trained on.
        encoders: The text encoders, one for SD 1.x and 2.x, two for SDXL.
        token_ids: Token ids for each encoder, as (captions, chunks, 77).
        clip_skip: Which layer is read, counted from the last; 1 is the usual one.

    Returns:
        The prompt embeddings as (captions, chunks · 77, width), and SDXL's pooled embeddings as
        (captions, width) or None.

    Raises:
        InvalidSpec: If an encoder has not enough layers for `clip_skip`.
    """
    prompt_embeds = []
    pooled = None
    for encoder, ids in zip(encoders, token_ids):
        captions, chunks, length = ids.shape
        max_skip = get_max_clip_skip(encoder, family)
        if not 1 <= clip_skip <= max_skip:
            raise InvalidSpec(
                [f"Clip skip: must be 1 to {max_skip} for this model (you entered {clip_skip})."]
            )
        flat_ids = devices.copy_to(encoder.device, ids.flatten(0, 1))
        output = encoder(flat_ids, output_hidden_states=True, return_dict=True)
        states = select_hidden_state(encoder, output, family, clip_skip)
        if family.pooled_prompt and "text_embeds" in output:
            pooled = output.text_embeds.unflatten(0, (captions, chunks))[:, 0]
        prompt_embeds.append(states.reshape(captions, chunks * length, -1))
    return torch.cat(prompt_embeds, dim=-1), pooled


def _tokenize_chunks(tokenizer: Any, caption: str, num_chunks: int) -> torch.Tensor:
    """Return one caption's token ids, as (chunks, 77)."""
    length = int(tokenizer.model_max_length)
    if num_chunks == 1:
        encoded = tokenizer(caption, padding="max_length", max_length=length, truncation=True)
        return torch.tensor(encoded.input_ids)[None]
    encoded = tokenizer(caption, add_special_tokens=False, truncation=False, verbose=False)
    chunk_size = length - 2
    rows = []
    for start in range(0, num_chunks * chunk_size, chunk_size):
        words = encoded.input_ids[start : start + chunk_size]
        row = [tokenizer.bos_token_id, *words, tokenizer.eos_token_id]
        rows.append(row + [tokenizer.pad_token_id] * (length - len(row)))
    return torch.tensor(rows)
