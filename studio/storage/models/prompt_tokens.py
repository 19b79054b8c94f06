"""How many tokens a prompt has for the model that is to read it.

Knows: the model's own tokenizer, embeddings among the words, where a long prompt goes on in the
next chunk. Does not know: torch; who is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from studio.core.families.registry import FAMILIES
from studio.core.generation.embeddings import Mention, MentionFinder
from studio.core.generation.fields import RequestFields
from studio.core.generation.prompts.dialects import plan_prompt
from studio.core.generation.prompts.plan import PromptPlan, Wording
from studio.core.generation.prompts.token_chunks import CHUNK_TOKENS, fill_chunks
from studio.core.generation.request import GenerationRequest
from studio.errors import StudioError
from studio.storage.models.library import Library, ModelInfo
from studio.storage.models.token_counter import TokenCounter


@dataclass(frozen=True)
class TokenCount:
    """How long a prompt is.

    Attributes:
        tokens: Its tokens, and what is left free of the chunks before the last one.
        capacity: Of the chunks that it takes; 0 for a model that reads no chunks.
    """

    tokens: int
    capacity: int

    def __str__(self) -> str:
        return f"{self.tokens} / {self.capacity}" if self.capacity else str(self.tokens)


class PromptTokens:
    """Counts the tokens of prompts; the tokenizers that were read are kept."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._counters: dict[Path | None, TokenCounter] = {}

    def count(self, request: GenerationRequest) -> tuple[TokenCount, TokenCount] | None:
        """Count the tokens of both prompts of a request, as its model reads them.

        Of prompts that change from step to step the longest wording counts.

        Returns:
            The prompt's and the negative prompt's; None where the model, or its tokenizer, cannot
            be read.
        """
        try:
            model = self._library.get_model(request.model)
            counter = self._get_counter(model)
            embeddings = self._library.index_embeddings(model, [request]).resolve([request]).by_name
        except StudioError:
            return None
        sizes = {name: max(1, info.num_vectors) for name, info in embeddings.items()}
        tokenize = _build_tokenize(counter, sizes)
        has_chunks = FAMILIES[model.family].weighs_words
        prompt, negative = (
            _count_plan(plan, tokenize, counter.encode(",")[0] if has_chunks else None)
            for plan in (_plan(request, is_negative) for is_negative in (False, True))
        )
        return prompt, negative

    def _get_counter(self, model: ModelInfo) -> TokenCounter:
        """Return what counts as a model does; as CLIP where it has no tokenizer of its own."""
        folder = model.path if (model.path / "tokenizer").is_dir() else None
        if folder not in self._counters:
            self._counters[folder] = TokenCounter(folder)
        return self._counters[folder]


def _plan(request: RequestFields, is_negative: bool) -> PromptPlan:
    return plan_prompt(
        request.negative_prompt if is_negative else request.prompt,
        request.steps,
        syntax=request.prompt_syntax,
        is_negative=is_negative,
        emphasis=request.emphasis,
    )


def _build_tokenize(
    counter: TokenCounter, sizes: Mapping[str, int]
) -> Callable[[str], list[list[int]]]:
    """Return what splits a text into ids: each token for itself, those of an embedding together.

    Args:
        counter: The tokenizer.
        sizes: How many vectors each embedding has, by the name that stands for it.
    """
    finder = MentionFinder(sizes)

    def tokenize(text: str) -> list[list[int]]:
        units: list[list[int]] = []
        for piece in finder.split(text) if sizes else [text]:
            if isinstance(piece, Mention) and piece.is_known:
                units.append([-1] * sizes[piece.name])  # no word's id
            else:
                words = f"embedding:{piece.name}" if isinstance(piece, Mention) else piece
                units += [[token_id] for token_id in counter.encode(words)]
        return units

    return tokenize


def _count_plan(
    plan: PromptPlan, tokenize: Callable[[str], list[list[int]]], comma_id: int | None
) -> TokenCount:
    """Return the longest of a plan's wordings; without a comma's id the model reads no chunks."""
    if comma_id is None:
        return TokenCount(max(_count_plain(wording, tokenize) for wording in plan.wordings), 0)
    cuts_as_a1111 = plan.dialect == "A1111"
    tokens = 0
    for wording in plan.wordings:
        if cuts_as_a1111:
            chunks = fill_chunks(
                wording.texts[0], tokenize, capacity=CHUNK_TOKENS, comma_id=comma_id
            )
            tokens = max(tokens, CHUNK_TOKENS * (len(chunks) - 1) + len(chunks[-1].ids))
        else:
            tokens = max(tokens, _count_plain(wording, tokenize))
    return TokenCount(tokens, CHUNK_TOKENS * max(1, math.ceil(tokens / CHUNK_TOKENS)))


def _count_plain(wording: Wording, tokenize: Callable[[str], list[list[int]]]) -> int:
    units = [unit for fragment in wording.fragments for unit in tokenize(fragment.text)]
    return sum(len(unit) for unit in units)
