"""The private parts of compel that we use, under names of our own.

Knows: where compel 2.5 calls the text encoder and the tokenizer, and where it splits long prompts.
Does not know: layers, prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from compel.embeddings_provider import EmbeddingsProvider


class TextEncoderProvider(EmbeddingsProvider):
    """compel's provider; what it does at three places is in methods of ours."""

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text without those that mark begin and end."""
        ids: list[int] = super().get_token_ids([text], include_start_and_end_markers=False)[0]
        return ids

    def find_split(self, token_ids: Sequence[int], max_length: int) -> int:
        """Return how many ids of a long prompt go into the next chunk, at most `max_length`."""
        return int(super()._find_next_best_split_point(list(token_ids), max_length))

    def run_text_encoder(
        self, token_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return a vector for each token.

        Args:
            token_ids: (n, tokens).
            attention_mask: (n, tokens), or None to attend to all.

        Returns:
            (n, tokens, width).
        """
        raise NotImplementedError

    def get_token_ids(
        self,
        texts: list[str],
        include_start_and_end_markers: bool = True,
        padding: str = "do_not_pad",
        truncation_override: bool | None = None,
    ) -> list[list[int]]:
        # Chunks are cut and padded elsewhere: compel asks for bare ids only.
        assert not include_start_and_end_markers
        assert padding == "do_not_pad"
        assert truncation_override is None
        return [self.tokenize(text) for text in texts]

    def _find_next_best_split_point(
        self, token_ids: list[int], max_length: int, *_separators: Any
    ) -> int:
        return self.find_split(token_ids, max_length)

    def _encode_token_ids_to_embeddings(
        self, token_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.run_text_encoder(token_ids, attention_mask)
