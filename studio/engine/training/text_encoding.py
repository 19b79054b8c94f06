"""Captions: from words to what the U-Net reads, with gradients if wanted.

Knows: tokens in chunks of 75, clip skip, SDXL's two encoders and its pooled prompt; captions are plain text, without weights.
Does not know: which captions there are (samples.py), what is remembered (data.py).

Of one chunk it is bit for bit what the stock pipelines read. Longer captions are cut every 75 tokens, as by kohya (compel, which
reads the prompts of pictures, looks for the end of a sentence instead).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from studio.core.catalog import Family
from studio.errors import InvalidSpec


def tokens(
    tokenizers: Sequence[Any], captions: Sequence[str], chunks: int = 1
) -> list[torch.Tensor]:
    """Token numbers for each encoder, as (captions, chunks, 77); what is longer is cut off."""
    return [
        torch.stack([_chunked(tokenizer, caption, chunks) for caption in captions])
        for tokenizer in tokenizers
    ]


def encode(
    family: Family,
    encoders: Sequence[Any],
    ids: Sequence[torch.Tensor],
    skip: int = 1,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What the U-Net reads, as (captions, chunks · 77, width), and SDXL's pooled captions. Raises InvalidSpec for a bad skip."""
    rows, pooled = [], None
    for encoder, numbers in zip(encoders, ids):
        captions, chunks, length = numbers.shape
        most = int(encoder.config.num_hidden_layers) - (family == "sdxl")
        if not 1 <= skip <= most:
            raise InvalidSpec([f"Clip skip: this text encoder goes from 1 to {most} (not {skip})."])
        said = encoder(
            numbers.flatten(0, 1).to(encoder.device), output_hidden_states=True, return_dict=True
        )
        if (
            family == "sdxl"
        ):  # its U-Net was trained on the layer before the last, without the final norm
            states = said.hidden_states[-skip - 1]
            pooled = (
                said.text_embeds.unflatten(0, (captions, chunks))[:, 0]
                if "text_embeds" in said
                else pooled
            )
        else:
            states = (
                said.last_hidden_state
                if skip == 1
                else encoder.final_layer_norm(said.hidden_states[-skip])
            )
        rows.append(states.reshape(captions, chunks * length, -1))
    return torch.cat(rows, dim=-1), pooled


def _chunked(tokenizer: Any, caption: str, chunks: int) -> torch.Tensor:
    length = int(tokenizer.model_max_length)
    if chunks == 1:
        return torch.tensor(
            tokenizer(caption, padding="max_length", max_length=length, truncation=True).input_ids
        )[None]
    words = tokenizer(caption, add_special_tokens=False, truncation=False, verbose=False).input_ids
    rows = []
    for k in range(chunks):
        row = [
            tokenizer.bos_token_id,
            *words[k * (length - 2) : (k + 1) * (length - 2)],
            tokenizer.eos_token_id,
        ]
        rows.append(row + [tokenizer.pad_token_id] * (length - len(row)))
    return torch.tensor(rows)
