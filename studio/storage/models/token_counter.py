"""How many tokens a caption has for a model's text encoder, without torch.

Knows: CLIP's byte-level BPE as the `tokenizers` library runs it, from tokenizer.json or from
vocab.json and merges.txt. Does not know: what is done with long captions
(engine/training/text_encoding.py). A count includes the tokens that mark beginning and end.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from studio.errors import BadFile
from studio.settings import shipped
from studio.storage.odd_files import read_file, read_json

MAX_TOKENS = 77  # of CLIP's text encoders; a longer caption is cut, or read in pieces
TOKEN_PATTERN = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|"
    r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


class TokenCounter:
    """Counts tokens and remembers the counts.

    `model_folder` is a folder in diffusers layout; without one the embedded model's is used.
    """

    def __init__(self, model_folder: Path | None = None) -> None:
        """Load the tokenizer; raise BadFile if it cannot be read."""
        model_folder = model_folder or shipped("assets") / "pocket"
        self._tokenizer = _load_tokenizer(model_folder / "tokenizer")
        self._counts: dict[str, int] = {"": 2}

    def __call__(self, caption: str) -> int:
        """Count the tokens of a caption, begin and end included."""
        if caption not in self._counts:
            encoding = self._tokenizer.encode(caption, add_special_tokens=False)
            self._counts[caption] = len(encoding.ids) + 2
        return self._counts[caption]

    def count_batch(self, captions: Iterable[str]) -> None:
        """Count many captions at once, which is quicker than one by one; calls then return fast."""
        uncounted = [caption for caption in dict.fromkeys(captions) if caption not in self._counts]
        encodings = self._tokenizer.encode_batch(uncounted, add_special_tokens=False)
        for caption, encoding in zip(uncounted, encodings):
            self._counts[caption] = len(encoding.ids) + 2


def _load_tokenizer(folder: Path) -> Tokenizer:
    try:
        if (folder / "tokenizer.json").is_file():
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer = Tokenizer(
            models.BPE(
                read_json(folder / "vocab.json"),
                _parse_merges(read_file(folder / "merges.txt").decode("utf-8")),
                end_of_word_suffix="</w>",
                continuing_subword_prefix="",
                fuse_unk=False,
                unk_token="<|endoftext|>",
            )
        )
    except Exception as error:  # the library raises nothing narrower
        raise BadFile(f"The tokenizer in {folder} cannot be read: {error!s:.120}") from None
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(TOKEN_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


def _parse_merges(text: str) -> list[tuple[str, str]]:
    """Parse merges.txt: a pair of tokens a line, below a line with the version."""
    merges = []
    for line in text.split("\n"):
        tokens = line.split()
        if not line.startswith("#version") and len(tokens) == 2:
            merges.append((tokens[0], tokens[1]))
    return merges
