"""The private parts of compel that we use, under names of our own.

Knows: where compel 2.5 calls the text encoder. Does not know: layers, prompts.
"""

from __future__ import annotations

import torch
from compel.embeddings_provider import EmbeddingsProvider


class TextEncoderProvider(EmbeddingsProvider):
    """compel's provider whose call of the text encoder is `run_text_encoder`."""

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

    def _encode_token_ids_to_embeddings(
        self, token_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.run_text_encoder(token_ids, attention_mask)
