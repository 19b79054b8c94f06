"""One of CLIP's text encoders with its tokenizer, as prompts are put through it.

Knows: clip skip; that the ids of an embedding stay together. Does not know: chunks and weights
(clip_chunks.py), the grammars (core/generation/prompts), the vectors of embeddings (embeddings.py).

Clip skip is our own: with transformers 5 neither diffusers nor compel can do it for SD 1.x.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from studio.core.families.family import Family
from studio.engine.models.embeddings import EmbeddingTokens
from studio.engine.models.loaded_model import LoadedModel
from studio.engine.models.private_compel import TextEncoderProvider
from studio.errors import InvalidSpec


class ClipSkipProvider(TextEncoderProvider):
    """compel's provider with the text encoder's layer chosen by clip skip, and with embeddings."""

    def __init__(
        self,
        model: LoadedModel,
        tokenizer: Any,
        text_encoder: Any,
        *,
        clip_skip: int,
        embedding_tokens: EmbeddingTokens | None = None,
    ) -> None:
        super().__init__(
            tokenizer,
            text_encoder,
            truncate=False,
            device=model.device.torch_device,
            dtype_for_device_getter=lambda _device: model.device.dtype,
        )
        self._clip_skip = clip_skip
        self._family = model.family
        self.embedding_tokens = embedding_tokens
        max_clip_skip = get_max_clip_skip(text_encoder, model.family)
        if clip_skip > max_clip_skip:
            raise InvalidSpec(
                [
                    f"Clip skip: the text encoder of {model.info.name} goes up to {max_clip_skip} "
                    f"(you entered {clip_skip})."
                ]
            )

    def run_text_encoder(
        self, token_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the chosen layer's vectors (n, tokens, width)."""
        if attention_mask is not None and bool(attention_mask.all()):
            attention_mask = None  # as the stock pipeline calls it
        output = self.text_encoder(
            token_ids, attention_mask, output_hidden_states=True, return_dict=True
        )
        return select_hidden_state(self.text_encoder, output, self._family, self._clip_skip)

    def tokenize(self, text: str) -> list[int]:
        """Return a text's ids without begin and end, those of embeddings for their names."""
        return [token_id for unit in self.tokenize_units(text) for token_id in unit]

    def tokenize_units(self, text: str) -> list[list[int]]:
        """Return a text's ids as `tokenize` does, those of an embedding together."""
        if self.embedding_tokens is None:
            return [[token_id] for token_id in super().tokenize(text)]
        units: list[list[int]] = []
        for piece in self.embedding_tokens.split(text):
            if isinstance(piece, str):
                units += [[token_id] for token_id in super().tokenize(piece)]
            else:
                units.append(list(piece))
        return units

    def find_split(self, token_ids: Sequence[int], max_length: int) -> int:
        """Return where a long prompt is split: as compel does it, but through no embedding."""
        tokens = self.embedding_tokens
        if tokens is None:
            return super().find_split(token_ids, max_length)
        # To compel an embedding is a word: "a" without and with its end.
        ids = self.tokenizer.convert_tokens_to_ids(["a</w>", "a"])
        split = super().find_split(tokens.hide(token_ids, *ids), max_length)
        return tokens.move_split(token_ids, split)


def get_max_clip_skip(text_encoder: Any, family: Family) -> int:
    """Return the most that Clip skip can be, by the layers of a text encoder."""
    return int(text_encoder.config.num_hidden_layers) - family.penultimate_layer


def select_hidden_state(
    text_encoder: Any, output: Any, family: Family, clip_skip: int
) -> torch.Tensor:
    """Return the vectors that the denoiser reads.

    Args:
        text_encoder: CLIP's.
        output: What it returned, with all hidden states.
        family: Its U-Nets were trained on the last layer, or on the one before it.
        clip_skip: Which layer, counted from there; 1 is that itself.
    """
    states: torch.Tensor
    if family.penultimate_layer:
        states = output.hidden_states[-clip_skip - 1]  # without the final norm
    elif clip_skip == 1:
        states = output.last_hidden_state
    else:
        states = text_encoder.final_layer_norm(output.hidden_states[-clip_skip])
    return states
