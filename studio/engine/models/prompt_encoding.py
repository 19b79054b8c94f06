"""Prompts: from weighted fragments to the U-Net's conditioning.

Knows: compel, which weighs words and joins prompts; clip skip; SDXL's two encoders and its pooled
prompt. Does not know: the grammar (core/generation/prompt.py), the loop.

Without weights the result is bit for bit that of the stock pipeline. Clip skip is our own: with
transformers 5 neither diffusers nor compel can do it for SD 1.x.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from compel import Compel
from compel.prompt_parser import Blend, Conjunction, FlattenedPrompt

from studio.core.generation.prompt import Fragment, Prompt, parse_prompt
from studio.core.generation.request import GenerationRequest
from studio.engine.models.adapters.lora import list_text_encoder_adapters
from studio.engine.models.families import LoadedModel
from studio.engine.models.private_compel import TextEncoderProvider
from studio.errors import InvalidSpec

MAX_CACHED_PROMPTS = 64  # of 0.1 to 0.3 MB each


@dataclass(frozen=True)
class Conditioning:
    """The U-Net's conditioning by the prompts: each (1, tokens, width), pooled (1, width).

    The pooled ones are None except for SDXL.
    """

    negative: torch.Tensor
    positive: torch.Tensor
    negative_pooled: torch.Tensor | None
    pooled: torch.Tensor | None


class ClipSkipProvider(TextEncoderProvider):
    """compel's provider with the text encoder's layer chosen by clip skip."""

    def __init__(self, model: LoadedModel, encoder_index: int, clip_skip: int) -> None:
        text_encoder = model.text_encoders[encoder_index]
        super().__init__(
            model.tokenizers[encoder_index],
            text_encoder,
            truncate=False,
            device=model.device.torch_device,
            dtype_for_device_getter=lambda _device: model.device.dtype,
        )
        self._clip_skip = clip_skip
        # SDXL's U-Net was trained on that layer, without the final norm.
        self._uses_penultimate_layer = model.info.family == "sdxl"
        text_config: Any = text_encoder.config
        max_clip_skip = int(text_config.num_hidden_layers)
        if self._uses_penultimate_layer:
            max_clip_skip -= 1
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
        if self._uses_penultimate_layer:
            return output.hidden_states[-self._clip_skip - 1]
        if self._clip_skip == 1:
            return output.last_hidden_state
        return self.text_encoder.final_layer_norm(output.hidden_states[-self._clip_skip])


# Not inference_mode: the results are cached, and training may use them later.
@torch.no_grad()
def encode_prompts(model: LoadedModel, request: GenerationRequest) -> Conditioning:
    """Encode both prompts of a request, padded to the same number of tokens.

    Args:
        model: Its LoRAs that are on take part.
        request: The prompts and the clip skip.

    Raises:
        InvalidSpec: The text encoder has too few layers for the clip skip.
    """
    positive, pooled = _encode_text(model, request.prompt, request.clip_skip)
    if model.force_zeros_for_empty_prompt and not request.negative_prompt:
        negative_pooled = None if pooled is None else torch.zeros_like(pooled)
        return Conditioning(torch.zeros_like(positive), positive, negative_pooled, pooled)
    negative, negative_pooled = _encode_text(model, request.negative_prompt, request.clip_skip)
    if positive.shape[1] != negative.shape[1]:
        num_tokens = max(positive.shape[1], negative.shape[1])
        empty, _ = _encode_text(model, "", request.clip_skip)
        positive = _pad(positive, empty, num_tokens)
        negative = _pad(negative, empty, num_tokens)
    return Conditioning(negative, positive, negative_pooled, pooled)


def _pad(embeddings: torch.Tensor, empty: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Append chunks of the encoded empty text; all are (1, tokens, width)."""
    num_chunks = (num_tokens - embeddings.shape[1]) // empty.shape[1]
    return torch.cat([embeddings, *[empty] * num_chunks], dim=1)


def _encode_text(
    model: LoadedModel, text: str, clip_skip: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a prompt's embeddings and its pooled one, from the model's cache if they are in it."""
    cache = model.prompt_cache
    key = (text, clip_skip, list_text_encoder_adapters(model))
    if key not in cache:
        start_time = time.perf_counter()
        prompt = parse_prompt(text)
        embeddings = [
            _encode_prompt(ClipSkipProvider(model, index, clip_skip), prompt)
            for index in range(len(model.text_encoders))
        ]
        cache[key] = (
            torch.cat(embeddings, dim=-1).to(model.device.dtype),
            _encode_pooled(model, prompt),
        )
        model.encode_seconds = time.perf_counter() - start_time
        if len(cache) > MAX_CACHED_PROMPTS:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]


def _encode_prompt(provider: ClipSkipProvider, prompt: Prompt) -> torch.Tensor:
    """Return one text encoder's embeddings (1, tokens, width)."""
    compel = Compel(
        provider.tokenizer,
        provider.text_encoder,
        truncate_long_prompts=False,
        device=provider.device,
    )
    compel.conditioning_provider = provider
    parts = [_flatten_prompt(provider, fragments) for fragments in prompt.parts]
    weights = list(prompt.weights)
    if prompt.join == "blend":
        conjunction = Conjunction([Blend(parts, weights)])
    else:
        conjunction = Conjunction(parts, weights)
    embeddings, _ = compel.build_conditioning_tensor_for_conjunction(conjunction)
    return embeddings


def _flatten_prompt(provider: ClipSkipProvider, fragments: tuple[Fragment, ...]) -> FlattenedPrompt:
    """Return compel's form, without fragments of no tokens: compel fails on them."""
    weighted_texts = [
        (fragment.text, float(fragment.weight))
        for fragment in fragments
        if provider.get_token_ids([fragment.text], include_start_and_end_markers=False)[0]
    ]
    return FlattenedPrompt(weighted_texts or [("", 1.0)])


def _encode_pooled(model: LoadedModel, prompt: Prompt) -> torch.Tensor | None:
    """Return SDXL's pooled prompt (1, width) by its second encoder, which takes no weights."""
    if model.info.family != "sdxl":
        return None
    tokenizer = model.tokenizers[-1]
    tokens = tokenizer(
        prompt.plain_text,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    token_ids = tokens.input_ids.to(model.device.torch_device)
    return model.text_encoders[-1](token_ids).text_embeds
