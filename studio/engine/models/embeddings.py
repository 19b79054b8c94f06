"""Textual inversions (arXiv:2208.01618) on text encoders: vectors that stand for words of a prompt.

Knows: how vectors are read, the ids that stand for them, how a text encoder is shown them for the
time of a block. Does not know: which prompt names which (storage/models/embedding_index.py),
compel.

No vocabulary changes: an embedding's name is found before a prompt is tokenised, and its vectors
get ids above all that the encoder has. So a name may be an ordinary word, two embeddings cannot
clash, and the encoder is afterwards what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from studio.core.generation.embeddings import Mention, MentionFinder
from studio.core.generation.prompts.plan import Wording
from studio.core.generation.request import GenerationRequest
from studio.errors import BadFile, InvalidSpec
from studio.storage.models.embedding_index import EmbeddingInfo
from studio.storage.models.library import Library, ModelInfo
from studio.storage.odd_files import explain_odd_file


@dataclass(frozen=True, eq=False)
class LoadedEmbedding:
    """The vectors of an embedding.

    Attributes:
        content_hash: The sha256 of its file.
        vectors: For each text encoder (n, width), in the file's number format, on the CPU.
    """

    content_hash: str
    vectors: tuple[torch.Tensor, ...]


def load_embeddings(
    library: Library, model: ModelInfo, requests: Sequence[GenerationRequest]
) -> dict[str, LoadedEmbedding]:
    """Read the embeddings that requests for a model name, by the name that stands for each.

    Raises:
        InvalidSpec: A prompt asks for one that is not there or does not fit.
        BadFile: One cannot be read, or its vectors are no numbers.
    """
    uses = library.index_embeddings(model, requests).resolve(requests)
    if uses.faults:
        raise InvalidSpec(uses.faults)
    return {
        name: LoadedEmbedding(library.embeddings.get_content_hash(info), _read_vectors(info))
        for name, info in uses.by_name.items()
        if info.widths  # all pickles that can be were read before
    }


def _read_vectors(info: EmbeddingInfo) -> tuple[torch.Tensor, ...]:
    with explain_odd_file(info.weights_path, f"The embedding {info.name}"):
        with safe_open(info.weights_path, "pt") as file:
            tensors = [file.get_tensor(name) for name in info.tensors]
        for tensor in tensors:
            if not tensor.isfinite().all():
                raise BadFile(
                    f"The embedding {info.name} is damaged: not all of its numbers are finite."
                )
    return tuple(tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors)


@dataclass(frozen=True, eq=False)
class EmbeddingTokens:
    """The ids that stand for embeddings in one text encoder.

    Attributes:
        finder: Finds their names.
        ids: By name, in a row.
        first_ids: By id, the first of the same embedding.
        vectors: (all, width), in the files' number format; id i is row i - first.
        first: The lowest id.
    """

    finder: MentionFinder
    ids: Mapping[str, range]
    first_ids: Mapping[int, int]
    vectors: torch.Tensor
    first: int

    @classmethod
    def build(
        cls, encoder: Any, embeddings: Mapping[str, LoadedEmbedding], number: int
    ) -> EmbeddingTokens:
        """Give ids to embeddings.

        Args:
            encoder: The text encoder.
            embeddings: At least one, by name.
            number: Which of the model's text encoders it is, from 0.

        Raises:
            InvalidSpec: One is made for another text encoder.
        """
        words = encoder.get_input_embeddings()
        ids: dict[str, range] = {}
        first_ids: dict[int, int] = {}
        position = words.num_embeddings
        for name, embedding in embeddings.items():
            num_vectors, width = embedding.vectors[number].shape
            if width != words.embedding_dim:
                raise InvalidSpec(
                    [
                        f"Prompt: the embedding {name} has vectors of {width} numbers; this "
                        f"model's have {words.embedding_dim}."
                    ]
                )
            ids[name] = range(position, position + num_vectors)
            first_ids |= dict.fromkeys(ids[name], position)
            position += num_vectors
        vectors = torch.cat([embedding.vectors[number] for embedding in embeddings.values()])
        return cls(MentionFinder(ids), ids, first_ids, vectors, words.num_embeddings)

    def split(self, text: str) -> list[str | range]:
        """Split a text into ids of embeddings and the stretches between them."""
        pieces: list[str | range] = []
        for piece in self.finder.split(text):
            if not isinstance(piece, Mention):
                pieces.append(piece)
            elif piece.is_known:
                pieces.append(self.ids[piece.name])
            else:
                pieces.append(f"embedding:{piece.name}")
        return pieces

    def move_split(self, token_ids: Sequence[int], split: int) -> int:
        """Return the last place up to `split` where no embedding is cut in two."""
        if split >= len(token_ids):
            return split
        first_id = self.first_ids.get(token_ids[split])
        if first_id is None:
            return split
        return split - (token_ids[split] - first_id) or split

    def hide(self, token_ids: Sequence[int], end_id: int, inner_id: int) -> list[int]:
        """Return ids that a tokenizer has: `end_id` where an embedding ends, else `inner_id`."""
        last_ids = {ids[-1] for ids in self.ids.values()}
        return [
            token_id if token_id < self.first else end_id if token_id in last_ids else inner_id
            for token_id in token_ids
        ]


class WordsWithVectors(nn.Module):
    """An encoder's table of word vectors with more rows behind it."""

    def __init__(self, words: nn.Module, vectors: torch.Tensor, first: int) -> None:
        super().__init__()
        self.words = words
        self.vectors = vectors
        self.first = first

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Return a vector for each id: (n, tokens) → (n, tokens, width)."""
        is_word = token_ids < self.first
        words: torch.Tensor = self.words(token_ids.clamp(max=self.first - 1))
        # As the words come out, wherever and in whatever format the table is kept.
        vectors = self.vectors.to(words)[(token_ids - self.first).clamp(min=0)]
        return torch.where(is_word[..., None], words, vectors)


@contextmanager
def use_embeddings(encoder: Any, tokenizer: Any, tokens: EmbeddingTokens | None) -> Iterator[None]:
    """Show a text encoder the vectors of embeddings inside the block.

    The pooled prompt is read at the end of the text. Old configs (`eos_token_id: 2`) look for it
    at the highest id, which would be an embedding's.
    """
    if tokens is None:
        yield
        return
    words = encoder.get_input_embeddings()
    end_ids = [
        (module, module.eos_token_id)
        for module in encoder.modules()
        if hasattr(module, "eos_token_id")
    ]
    encoder.set_input_embeddings(WordsWithVectors(words, tokens.vectors, tokens.first))
    for module, _ in end_ids:
        module.eos_token_id = tokenizer.eos_token_id
    try:
        yield
    finally:
        encoder.set_input_embeddings(words)
        for module, end_id in end_ids:
            module.eos_token_id = end_id


def select_embeddings(
    embeddings: Mapping[str, LoadedEmbedding], wording: Wording
) -> dict[str, LoadedEmbedding]:
    """Return those that a prompt names."""
    if not embeddings:
        return {}
    finder = MentionFinder(embeddings)
    names = dict.fromkeys(
        mention.name
        for fragment in wording.fragments
        for mention in finder.find(fragment.text)
        if mention.is_known
    )
    return {name: embeddings[name] for name in names}
