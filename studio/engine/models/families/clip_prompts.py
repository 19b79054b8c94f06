"""Prompts as CLIP's text encoders read them: from weighted fragments to the U-Net's conditioning.

Knows: compel, which weighs words and joins prompts; clip skip; a pooled prompt; that the ids of an
embedding stay together. Does not know: the grammars (core/generation/prompts), the vectors of
embeddings (embeddings.py), the loop.

Without weights the result is bit for bit that of the stock pipeline. Clip skip is our own: with
transformers 5 neither diffusers nor compel can do it for SD 1.x.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from compel import Compel
from compel.prompt_parser import Blend, Conjunction, FlattenedPrompt

from studio.core.families.family import Family
from studio.core.generation.prompts.dialects import plan_prompt
from studio.core.generation.prompts.plan import Chunk, Fragment, Wording
from studio.core.generation.request import GenerationRequest
from studio.engine.models.adapters.lora import list_text_encoder_adapters
from studio.engine.models.embeddings import EmbeddingTokens, select_embeddings, use_embeddings
from studio.engine.models.loaded_model import Conditioning, LoadedModel, Row
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
                    f"(not {clip_skip})."
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
        if self.embedding_tokens is None:
            return super().tokenize(text)
        token_ids: list[int] = []
        for piece in self.embedding_tokens.split(text):
            token_ids += super().tokenize(piece) if isinstance(piece, str) else piece
        return token_ids

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


def encode_prompts(model: LoadedModel, request: GenerationRequest) -> Conditioning:
    """Encode both prompts of a request, padded to the same number of tokens.

    Args:
        model: Its LoRAs that are on take part.
        request: The prompts and the clip skip.

    Raises:
        InvalidSpec: The text encoder has too few layers for the clip skip.
    """
    positive = encode_text(model, request.prompt, request.clip_skip)
    negative = encode_text(model, request.negative_prompt, request.clip_skip)
    num_tokens = [row["prompt_embeds"].shape[1] for row in (negative, positive)]
    if num_tokens[0] != num_tokens[1]:
        empty = encode_text(model, "", request.clip_skip)
        positive = _pad(positive, empty, max(num_tokens))
        negative = _pad(negative, empty, max(num_tokens))
    return Conditioning(negative, positive)


def _pad(row: Row, empty: Row, num_tokens: int) -> Row:
    """Append chunks of the encoded empty text until there are `num_tokens`."""
    embeddings, chunk = row["prompt_embeds"], empty["prompt_embeds"]
    num_chunks = (num_tokens - embeddings.shape[1]) // chunk.shape[1]
    return {**row, "prompt_embeds": torch.cat([embeddings, *[chunk] * num_chunks], dim=1)}


def encode_text(model: LoadedModel, text: str, clip_skip: int) -> Row:
    """Return a prompt's row, remembered by the text and all that changes how it is encoded."""
    (wording,) = plan_prompt(text).wordings
    inversions = select_embeddings(model.embeddings, wording)

    def encode() -> Row:
        with model.lend_text_encoders() as parts, ExitStack() as stack:
            providers = []
            for number, (tokenizer, encoder) in enumerate(zip(parts.tokenizers, parts.encoders)):
                tokens = None
                if inversions:
                    tokens = EmbeddingTokens.build(encoder, inversions, number)
                stack.enter_context(use_embeddings(encoder, tokenizer, tokens))
                provider = ClipSkipProvider(
                    model, tokenizer, encoder, clip_skip=clip_skip, embedding_tokens=tokens
                )
                providers.append(provider)
            embeddings = [_encode_wording(provider, wording) for provider in providers]
            # compel puts them where the encoder's weights are, which may wait elsewhere.
            prompt_embeds = torch.cat(embeddings, dim=-1)
            row = {"prompt_embeds": prompt_embeds.to(model.device.torch_device, model.device.dtype)}
            if model.family.pooled_prompt:
                row["pooled_prompt_embeds"] = _encode_pooled(model, providers[-1], wording)
        return row

    contents = tuple((name, inversion.content_hash) for name, inversion in inversions.items())
    key = (text, clip_skip, list_text_encoder_adapters(model), contents)
    row: Row = model.remember(key, encode)
    return row


def _encode_wording(provider: ClipSkipProvider, wording: Wording) -> torch.Tensor:
    """Return one text encoder's embeddings (1, tokens, width)."""
    compel = Compel(
        provider.tokenizer,
        provider.text_encoder,
        truncate_long_prompts=False,
        device=provider.device,
    )
    compel.conditioning_provider = provider
    parts = [_flatten_chunk(provider, chunk) for (chunk,) in wording.texts]
    weights = list(wording.weights)
    if wording.join == "blend":
        conjunction = Conjunction([Blend(parts, weights)])
    else:
        conjunction = Conjunction(parts, weights)
    embeddings, _ = compel.build_conditioning_tensor_for_conjunction(conjunction)
    return embeddings


def _flatten_chunk(provider: ClipSkipProvider, chunk: Chunk) -> FlattenedPrompt:
    """Return compel's form, without fragments of no tokens: compel fails on them."""
    weighted_texts = [
        (fragment.text, float(fragment.weight))
        for fragment in chunk
        if isinstance(fragment, Fragment) and provider.tokenize(fragment.text)
    ]
    return FlattenedPrompt(weighted_texts or [("", 1.0)])


def _encode_pooled(
    model: LoadedModel, provider: ClipSkipProvider, wording: Wording
) -> torch.Tensor:
    """Return the pooled prompt (1, width) by the last encoder, which takes no weights."""
    tokenizer = provider.tokenizer
    if provider.embedding_tokens is None:
        tokens = tokenizer(
            wording.plain_text,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        token_ids = tokens.input_ids
    else:
        token_ids = torch.tensor([_cut_and_pad(provider, provider.tokenize(wording.plain_text))])
    pooled: torch.Tensor = provider.text_encoder(
        token_ids.to(model.device.torch_device)
    ).text_embeds
    return pooled


def _cut_and_pad(provider: ClipSkipProvider, token_ids: list[int]) -> list[int]:
    """Return ids with begin and end, as many as the encoder takes; an embedding is not cut."""
    tokenizer, tokens = provider.tokenizer, provider.embedding_tokens
    assert tokens
    length = int(tokenizer.model_max_length)
    words = token_ids[: tokens.move_split(token_ids, length - 2)]
    row = [tokenizer.bos_token_id, *words, tokenizer.eos_token_id]
    return row + [tokenizer.pad_token_id] * (length - len(row))
