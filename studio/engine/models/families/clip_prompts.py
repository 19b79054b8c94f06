"""Prompts as CLIP's text encoders read them: from plans to what the U-Net is given at each step.

Knows: which way a prompt is encoded, A1111's or compel's; a pooled prompt; that all rows of an
image are equally long. Does not know: the grammars (core/generation/prompts), chunks and weights
(clip_chunks.py, compel), swaps (clip_swaps.py), the vectors of embeddings (embeddings.py), the
loop.

Without weights the result is bit for bit that of the stock pipeline, up to 75 tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from compel import Compel
from compel.prompt_parser import Blend, Conjunction, FlattenedPrompt

from studio.core.generation.prompt_plans import PassPlan
from studio.core.generation.prompts.dialects import Emphasis
from studio.core.generation.prompts.plan import Branch, Chunk, Dialect, Fragment, Wording
from studio.engine.models.adapters.lora import list_text_encoder_adapters
from studio.engine.models.embeddings import EmbeddingTokens, select_embeddings, use_embeddings
from studio.engine.models.families import clip_swaps
from studio.engine.models.families.attention_swaps import (
    SWAP_EMBEDS,
    SWAP_SHARED,
    SWAP_SOURCES,
    pad_swap,
)
from studio.engine.models.families.clip_chunks import TokenChunk, split_into_chunks, weigh_states
from studio.engine.models.families.clip_encoder import ClipSkipProvider
from studio.engine.models.loaded_model import Conditioning, LoadedModel, Row, RowSchedule

_EMPTY = Wording((((Fragment("", 1.0),),),))


@dataclass(frozen=True, eq=False)
class EncodedWording:
    """The row of a wording; with a swap, also the one for the steps in which that holds."""

    row: Row
    swapped: Row | None = None


def encode_prompts(model: LoadedModel, plan: PassPlan, clip_skip: int) -> Conditioning:
    """Encode both prompts of a pass, all rows padded to the same number of tokens.

    Args:
        model: Its LoRAs that are on take part.
        plan: The prompts.
        clip_skip: Which layer is read.

    Raises:
        InvalidSpec: The text encoder has too few layers for the clip skip.
    """
    (negative_branch,) = plan.negative.branches
    negative = _encode_branch(model, negative_branch, plan, plan.negative.dialect, clip_skip)
    positives = encode_branches(model, plan, clip_skip, padded=False)
    negative, *padded = _pad_schedules(model, [negative, *positives], clip_skip)
    return Conditioning(negative, tuple(padded), plan.weights)


def encode_branches(
    model: LoadedModel, plan: PassPlan, clip_skip: int, padded: bool = True
) -> tuple[RowSchedule, ...]:
    """Encode the prompt of a pass alone. Raises as `encode_prompts`."""
    schedules = [
        _encode_branch(model, branch, plan, plan.positive.dialect, clip_skip)
        for branch in plan.positive.branches
    ]
    return tuple(_pad_schedules(model, schedules, clip_skip) if padded else schedules)


def _pad_schedules(
    model: LoadedModel, schedules: Sequence[RowSchedule], clip_skip: int
) -> list[RowSchedule]:
    """Make all rows as long as the longest, with chunks of the encoded empty text."""
    lengths = {row["prompt_embeds"].shape[1] for schedule in schedules for row in schedule.rows}
    if len(lengths) == 1:
        return list(schedules)
    num_tokens = max(lengths)
    empty = _encode_wordings(model, [_EMPTY], "A1111", "Ignore", clip_skip)[_EMPTY].row
    chunk = empty["prompt_embeds"]

    def pad(row: Row) -> Row:
        num_chunks = (num_tokens - row["prompt_embeds"].shape[1]) // chunk.shape[1]
        if not num_chunks:
            return row
        padded = dict(pad_swap(row, num_chunks * chunk.shape[1]))
        for name in {"prompt_embeds", SWAP_EMBEDS} & set(row):
            padded[name] = torch.cat([row[name], *[chunk] * num_chunks], dim=1)
        return padded

    return [schedule.change(pad) for schedule in schedules]


def _encode_branch(
    model: LoadedModel, branch: Branch, plan: PassPlan, dialect: Dialect, clip_skip: int
) -> RowSchedule:
    """Return a branch's row at each step."""
    wordings = [phase.wording for phase in branch.phases]
    encoded = _encode_wordings(model, wordings, dialect, plan.emphasis, clip_skip)

    def choose_row(step: int) -> Row:
        wording = branch.find_wording(step)
        row, swapped = encoded[wording].row, encoded[wording].swapped
        if swapped is not None and clip_swaps.holds_at(wording, step / plan.steps):
            return swapped
        return row

    return RowSchedule.build(choose_row(step) for step in range(plan.steps))


def _encode_wordings(
    model: LoadedModel,
    wordings: Sequence[Wording],
    dialect: Dialect,
    emphasis: Emphasis,
    clip_skip: int,
) -> Mapping[Wording, EncodedWording]:
    """Return the rows of a branch's wordings, remembered by all that changes how they are encoded.

    Args:
        model: Its LoRAs that are on take part.
        wordings: In the order of the phases, which may come to the same again.
        dialect: What the prompt was read by.
        emphasis: How weights are applied.
        clip_skip: Which layer is read.
    """
    inversions = {
        name: inversion
        for wording in dict.fromkeys(wordings)
        for name, inversion in select_embeddings(model.embeddings, wording).items()
    }
    by_compel = (
        dialect != "A1111"
        or emphasis == "compel"
        or any(len(wording.texts) > 1 for wording in wordings)
    )

    def encode() -> Mapping[Wording, EncodedWording]:
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
            if by_compel:
                return {
                    wording: _encode_by_compel(model, providers, wording)
                    for wording in dict.fromkeys(wordings)
                }
            return _encode_as_a1111(model, providers, wordings, emphasis)

    contents = tuple((name, inversion.content_hash) for name, inversion in inversions.items())
    way = "compel" if by_compel else emphasis
    plain_texts = tuple(wording.plain_text for wording in wordings)  # for the pooled prompt
    key = (
        tuple(wordings),
        plain_texts,
        way,
        clip_skip,
        list_text_encoder_adapters(model),
        contents,
    )
    encoded: Mapping[Wording, EncodedWording] = model.remember(key, encode)
    return encoded


# ---- as A1111 does it ---------------------------------------------------------------------------


def _encode_as_a1111(
    model: LoadedModel,
    providers: Sequence[ClipSkipProvider],
    wordings: Sequence[Wording],
    emphasis: Emphasis,
) -> dict[Wording, EncodedWording]:
    """Encode chunk by chunk; the k-th ones of all wordings share their mean."""
    chunks = [
        {wording: split_into_chunks(provider, wording.texts[0]) for wording in wordings}
        for provider in providers
    ]
    num_chunks = max(len(texts[wording]) for texts in chunks for wording in wordings)
    embeddings = []
    for provider, texts in zip(providers, chunks, strict=True):
        (empty,) = split_into_chunks(provider, _EMPTY.texts[0])
        columns = []
        for number in range(num_chunks):
            column = [
                texts[wording][number] if number < len(texts[wording]) else empty
                for wording in wordings
            ]
            columns.append(_encode_column(model, provider, column, emphasis))
        embeddings.append(torch.cat(columns, dim=1))
    prompt_embeds = torch.cat(embeddings, dim=-1)
    rows: dict[Wording, EncodedWording] = {}
    for index, wording in enumerate(wordings):
        if wording in rows:
            continue
        row = {"prompt_embeds": _to_device(model, prompt_embeds[index : index + 1])}
        if model.family.pooled_prompt:
            first = chunks[-1][wording][0]
            row["pooled_prompt_embeds"] = _encode_pooled(model, providers[-1], first.ids)
        rows[wording] = EncodedWording(row)
    return rows


def _encode_column(
    model: LoadedModel,
    provider: ClipSkipProvider,
    column: Sequence[TokenChunk],
    emphasis: Emphasis,
) -> torch.Tensor:
    """Return the vectors (texts, tokens, width) of one chunk of each text."""
    states: dict[tuple[int, ...], torch.Tensor] = {}
    for chunk in column:
        if chunk.ids not in states:  # one by one: bit for bit the stock pipeline's
            token_ids = torch.tensor([chunk.ids], device=model.device.torch_device)
            states[chunk.ids] = provider.run_text_encoder(token_ids, None)
    stacked = torch.cat([states[chunk.ids] for chunk in column])
    weights = torch.tensor([chunk.weights for chunk in column], device=stacked.device)
    return weigh_states(stacked, weights, emphasis)


# ---- as compel does it --------------------------------------------------------------------------


def _encode_by_compel(
    model: LoadedModel, providers: Sequence[ClipSkipProvider], wording: Wording
) -> EncodedWording:
    if not clip_swaps.has_swap(wording):
        return EncodedWording(_encode_side(model, providers, wording))
    sources, shared = clip_swaps.locate_tokens(providers[0], wording)
    row = _encode_side(model, providers, clip_swaps.take_side(wording, is_edited=False))
    edited = _encode_side(model, providers, clip_swaps.take_side(wording, is_edited=True))
    embeds = edited["prompt_embeds"]
    swapped = {
        **edited,
        "prompt_embeds": row["prompt_embeds"],
        SWAP_EMBEDS: embeds,
        SWAP_SOURCES: sources.to(embeds.device),
        SWAP_SHARED: shared.to(embeds),
    }
    return EncodedWording(row, swapped)


def _encode_side(
    model: LoadedModel, providers: Sequence[ClipSkipProvider], wording: Wording
) -> Row:
    embeddings = [_join_by_compel(provider, wording) for provider in providers]
    row = {"prompt_embeds": _to_device(model, torch.cat(embeddings, dim=-1))}
    if model.family.pooled_prompt:
        provider = providers[-1]
        token_ids = _cut_and_pad(provider, provider.tokenize(wording.plain_text))
        row["pooled_prompt_embeds"] = _encode_pooled(model, provider, token_ids)
    return row


def _join_by_compel(provider: ClipSkipProvider, wording: Wording) -> torch.Tensor:
    """Return one text encoder's embeddings (1, tokens, width)."""
    compel = Compel(
        provider.tokenizer,
        provider.text_encoder,
        truncate_long_prompts=False,
        device=provider.device,
    )
    compel.conditioning_provider = provider
    parts = []
    weights = []
    for text, weight in zip(wording.texts, wording.weights, strict=True):
        parts += [_flatten_chunk(provider, chunk) for chunk in text]
        weights += [weight] * len(text)
    if wording.join == "blend":
        blend = Blend(parts, weights, normalize_weights=wording.is_normalized)
        conjunction = Conjunction([blend])
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


def _cut_and_pad(provider: ClipSkipProvider, token_ids: list[int]) -> list[int]:
    """Return ids with begin and end, as many as the encoder takes; an embedding is not cut."""
    tokenizer, tokens = provider.tokenizer, provider.embedding_tokens
    length = int(tokenizer.model_max_length)
    num_words = tokens.move_split(token_ids, length - 2) if tokens else length - 2
    row = [tokenizer.bos_token_id, *token_ids[:num_words], tokenizer.eos_token_id]
    return row + [tokenizer.pad_token_id] * (length - len(row))


# ---- both ---------------------------------------------------------------------------------------


def _encode_pooled(
    model: LoadedModel, provider: ClipSkipProvider, token_ids: Sequence[int]
) -> torch.Tensor:
    """Return the pooled prompt (1, width) by the last encoder, which takes no weights.

    Args:
        model: Where it is computed.
        provider: The encoder.
        token_ids: Of one chunk, with begin, end and padding.
    """
    rows = torch.tensor([list(token_ids)], device=model.device.torch_device)
    pooled: torch.Tensor = provider.text_encoder(rows).text_embeds
    return pooled


def _to_device(model: LoadedModel, embeddings: torch.Tensor) -> torch.Tensor:
    """Bring embeddings from where the encoder's weights are, which may wait elsewhere."""
    return embeddings.to(model.device.torch_device, model.device.dtype)
