"""What studio.engine.models.private_compel relies on in compel: where it calls the text encoder."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from studio.engine.models.private_compel import TextEncoderProvider


class IdProvider(TextEncoderProvider):
    """Embeds each token as its id, twice; remembers the attention masks."""

    def run_text_encoder(
        self, token_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        self.attention_mask = attention_mask
        return token_ids[..., None].expand(-1, -1, 2).float()


def make_provider() -> IdProvider:
    tokenizer = SimpleNamespace(bos_token_id=7, eos_token_id=8, pad_token_id=9, model_max_length=5)
    return IdProvider(tokenizer, SimpleNamespace(), device="cpu")


def test_compel_embeds_a_prompt_by_our_call() -> None:
    provider = make_provider()
    token_ids = torch.tensor([7, 1, 2, 8, 9])
    mask = torch.ones(5, dtype=torch.long)
    embeddings = provider.build_weighted_embedding_tensor(token_ids, torch.ones(5), mask)
    assert embeddings[0].tolist() == [[7, 7], [1, 1], [2, 2], [8, 8], [9, 9]]
    assert provider.attention_mask is not None
    assert provider.attention_mask.shape == (1, 5)


def test_compel_weighs_against_the_empty_prompt_by_our_call() -> None:
    provider = make_provider()
    token_ids = torch.tensor([7, 1, 2, 8, 9])
    weights = torch.tensor([1.0, 1.0, 2.0, 1.0, 1.0])
    embeddings = provider.build_weighted_embedding_tensor(token_ids, weights)
    # The empty prompt is 7 8 9 9 9: the third token goes twice as far from 9 to 2.
    assert embeddings[0, :, 0].tolist() == [7, 1, -5, 8, 9]
