"""How many tokens a caption has for a model's text encoder, without torch.

Knows: CLIP's byte-level BPE as the `tokenizers` library runs it, from tokenizer.json, from
vocab.json and merges.txt, or from the merges that came with the studio. Does not know: what is done
with long captions (engine/training/text_encoding.py). A count includes the tokens that mark
beginning and end.

CLIP's own vocabulary follows from its merges (https://github.com/openai/CLIP): the letters for the
256 bytes, the same at the end of a word, a token for each merge, and the two that mark the ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
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
CLIP_VOCABULARY_SIZE = 49_408
BEGIN_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"


class TokenCounter:
    """Counts tokens and remembers the counts.

    `model_folder` is a folder in diffusers layout; without one it counts as CLIP, which reads the
    prompts of all Stable Diffusion models.
    """

    def __init__(self, model_folder: Path | None = None) -> None:
        """Load the tokenizer; raise BadFile if it cannot be read."""
        if model_folder is None:
            self._tokenizer = _load_clip_tokenizer(shipped("assets") / "clip-tokenizer")
        else:
            self._tokenizer = _load_tokenizer(model_folder / "tokenizer")
        self._counts: dict[str, int] = {"": 2}

    def encode(self, caption: str) -> list[int]:
        """Return the ids of a caption's tokens, without those that mark beginning and end."""
        ids: list[int] = self._tokenizer.encode(caption, add_special_tokens=False).ids
        return ids

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


def list_clip_tokens(merges: Sequence[tuple[str, str]]) -> list[str]:
    """Return CLIP's vocabulary, a token's place in it being its id.

    Args:
        merges: Its 48,894 pairs, in their order.
    """
    # The visible bytes stand for themselves, the others for letters from 256 on.
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in visible]
    letters += [chr(256 + index) for index in range(256 - len(visible))]
    words = [letter + "</w>" for letter in letters]
    return [*letters, *words, *map("".join, merges), BEGIN_TOKEN, END_TOKEN]


def read_merges(path: Path) -> list[tuple[str, str]]:
    """Read merges.txt: a pair of tokens a line, below a line with the version.

    Raises OSError and ValueError.
    """
    merges = []
    for line in read_file(path).decode("utf-8").split("\n"):
        tokens = line.split()
        if not line.startswith("#version") and len(tokens) == 2:
            merges.append((tokens[0], tokens[1]))
    return merges


@cache  # 48,894 merges take a tenth of a second
def _load_clip_tokenizer(folder: Path) -> Tokenizer:
    try:
        merges = read_merges(folder / "merges.txt")
        vocabulary = {token: index for index, token in enumerate(list_clip_tokens(merges))}
        return _build_tokenizer(vocabulary, merges)
    except Exception as error:  # the library raises nothing narrower
        raise BadFile(f"The tokenizer in {folder} cannot be read: {error!s:.120}") from None


def _load_tokenizer(folder: Path) -> Tokenizer:
    try:
        if (folder / "tokenizer.json").is_file():
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        return _build_tokenizer(
            read_json(folder / "vocab.json"), read_merges(folder / "merges.txt")
        )
    except Exception as error:  # the library raises nothing narrower
        raise BadFile(f"The tokenizer in {folder} cannot be read: {error!s:.120}") from None


def _build_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary,
            merges,
            end_of_word_suffix="</w>",
            continuing_subword_prefix="",
            fuse_unk=False,
            unk_token=END_TOKEN,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(TOKEN_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens([BEGIN_TOKEN, END_TOKEN])
    return tokenizer
