"""How many tokens a caption has for a model's text encoder, without torch.

Knows: CLIP's byte-level BPE as the `tokenizers` library runs it, from tokenizer.json or from vocab.json and merges.txt.
Does not know: what is done with long captions (engine/training/text_encoding.py). A count includes the two that mark begin and end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from studio.errors import BadFile
from studio.settings import shipped

LIMIT = 77  # of CLIP's text encoders; a longer caption is cut, or read in pieces
WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


class Tokens:
    """Counts tokens and remembers them. `model` is a folder in diffusers layout; without one the embedded model's."""

    def __init__(self, model: Path | None = None) -> None:
        self._engine = _load((model or shipped("assets") / "pocket") / "tokenizer")
        self._known: dict[str, int] = {"": 2}

    def __call__(self, caption: str) -> int:
        """Tokens of a caption, begin and end included."""
        if caption not in self._known:
            self._known[caption] = (
                len(self._engine.encode(caption, add_special_tokens=False).ids) + 2
            )
        return self._known[caption]

    def learn(self, captions: Iterable[str]) -> None:
        """Count many at once, which is quicker."""
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._known]
        for caption, found in zip(new, self._engine.encode_batch(new, add_special_tokens=False)):
            self._known[caption] = len(found.ids) + 2


def _load(folder: Path) -> Tokenizer:
    try:
        if (folder / "tokenizer.json").is_file():
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
        lines = (folder / "merges.txt").read_text("utf-8").split("\n")
        merges = [
            (a, b)
            for line in lines
            if not line.startswith("#version") and len(pair := line.split()) == 2
            for a, b in [pair]
        ]
        engine = Tokenizer(
            models.BPE(
                vocabulary,
                merges,
                end_of_word_suffix="</w>",
                continuing_subword_prefix="",
                fuse_unk=False,
                unk_token="<|endoftext|>",
            )
        )
    except Exception as error:  # the library raises nothing narrower
        raise BadFile(f"The tokenizer in {folder} cannot be read: {error!s:.120}") from None
    engine.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return engine
