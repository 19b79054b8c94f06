"""Prompts: from weighted pieces to what the U-Net reads.

Knows: compel, which weighs words and joins prompts; clip skip; SDXL's two encoders and its pooled prompt.
Does not know: the grammar (core/generation/prompt.py), the loop.

Unweighted, the result is bit for bit that of the stock pipeline. Clip skip is ours: with transformers 5 neither diffusers
nor compel can do it for SD 1.x.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from compel import Compel
from compel.embeddings_provider import EmbeddingsProvider
from compel.prompt_parser import Blend, Conjunction, FlattenedPrompt

from studio.core.generation.prompt import Piece, Prompt, parse
from studio.core.generation.request import GenerationRequest
from studio.engine.models.adapters.lora import reading
from studio.engine.models.families import Parts
from studio.errors import InvalidSpec

REMEMBERED = 64  # prompts; one is 0.1 to 0.3 MB


@dataclass(frozen=True)
class Conditioning:
    """What the U-Net is told: rows for the negative prompt and the prompt; `pooled` only for SDXL."""

    negative: torch.Tensor
    positive: torch.Tensor
    negative_pooled: torch.Tensor | None
    pooled: torch.Tensor | None


class Encoder(EmbeddingsProvider):
    """compel's provider with the text encoder's layer chosen by us: the `skip`-th from the last."""

    def __init__(self, parts: Parts, which: int, skip: int) -> None:
        encoder = parts.text_encoders[which]
        super().__init__(
            parts.tokenizers[which],
            encoder,
            truncate=False,
            device=parts.device.torch,
            dtype_for_device_getter=lambda device: parts.device.dtype,
        )
        self._penultimate = (
            parts.info.family == "sdxl"
        )  # its U-Net was trained on that layer, without the final norm
        self._skip = skip
        most = int(encoder.config.num_hidden_layers) - self._penultimate  # type: ignore[arg-type, union-attr]
        if skip > most:
            raise InvalidSpec(
                [
                    f"Clip skip: the text encoder of {parts.info.name} goes up to {most} (not {skip})."
                ]
            )

    def _encode_token_ids_to_embeddings(
        self, token_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        if attention_mask is not None and bool(attention_mask.all()):
            attention_mask = None  # as the stock pipeline calls it
        said = self.text_encoder(
            token_ids, attention_mask, output_hidden_states=True, return_dict=True
        )
        if self._penultimate:
            return said.hidden_states[-self._skip - 1]
        return (
            said.last_hidden_state
            if self._skip == 1
            else self.text_encoder.final_layer_norm(said.hidden_states[-self._skip])
        )


@torch.no_grad()  # not inference_mode: these are remembered, and training may use them later
def condition(parts: Parts, request: GenerationRequest) -> Conditioning:
    """Both prompts of a request, padded to the same length. Raises InvalidSpec for a clip skip the model does not have."""
    positive, pooled = _encoded(parts, request.prompt, request.clip_skip)
    if parts.zeros_for_empty and not request.negative_prompt:
        empty = torch.zeros_like(pooled) if pooled is not None else None
        return Conditioning(torch.zeros_like(positive), positive, empty, pooled)
    negative, negative_pooled = _encoded(parts, request.negative_prompt, request.clip_skip)
    longest = max(positive.shape[1], negative.shape[1])
    if positive.shape[1] != negative.shape[1]:  # the shorter one goes on with chunks of nothing
        nothing, _ = _encoded(parts, "", request.clip_skip)
        positive, negative = (
            torch.cat([text, *[nothing] * ((longest - text.shape[1]) // nothing.shape[1])], dim=1)
            for text in (positive, negative)
        )
    return Conditioning(negative, positive, negative_pooled, pooled)


def _encoded(parts: Parts, text: str, skip: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    key = (text, skip, reading(parts))
    if key not in parts.remembered:
        prompt, began = parse(text), time.perf_counter()
        rows = torch.cat(
            [
                _read(Encoder(parts, which, skip), prompt)
                for which in range(len(parts.text_encoders))
            ],
            dim=-1,
        )
        parts.remembered[key] = rows.to(parts.device.dtype), _pooled(parts, prompt)
        parts.encoding = time.perf_counter() - began
        if len(parts.remembered) > REMEMBERED:
            parts.remembered.popitem(last=False)
    parts.remembered.move_to_end(key)
    return parts.remembered[key]


def _read(encoder: Encoder, prompt: Prompt) -> torch.Tensor:
    compel = Compel(
        encoder.tokenizer, encoder.text_encoder, truncate_long_prompts=False, device=encoder.device
    )
    compel.conditioning_provider = encoder
    texts = [_flat(encoder, part) for part in prompt.parts]
    weights = list(prompt.weights)
    whole = (
        Conjunction([Blend(texts, weights)])
        if prompt.join == "blend"
        else Conjunction(texts, weights)
    )
    rows, _ = compel.build_conditioning_tensor_for_conjunction(whole)
    return rows


def _flat(encoder: Encoder, pieces: tuple[Piece, ...]) -> Any:
    """compel's form of our pieces, without those that come to no token: compel stumbles over them."""
    worded = [
        piece
        for piece in pieces
        if encoder.get_token_ids([piece.text], include_start_and_end_markers=False)[0]
    ]
    return FlattenedPrompt([(piece.text, float(piece.weight)) for piece in worded] or [("", 1.0)])


def _pooled(parts: Parts, prompt: Prompt) -> torch.Tensor | None:
    """SDXL's summary of the whole text, by its second encoder; weights have no meaning in it."""
    if parts.info.family != "sdxl":
        return None
    tokenizer, encoder = parts.tokenizers[-1], parts.text_encoders[-1]
    tokens = tokenizer(
        prompt.plain,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return encoder(tokens.to(parts.device.torch)).text_embeds
