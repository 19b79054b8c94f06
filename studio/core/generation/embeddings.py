"""Textual inversions in a prompt: where a text names which.

Knows: the spellings of A1111, ComfyUI and diffusers. Does not know: which embeddings the library
has (storage/models/embedding_index.py), the vectors they stand for (engine/models/embeddings.py).

    EasyNegative                  A1111: the name of the file, in any case, as whole words
    embedding:EasyNegative        ComfyUI; also embedding:folder/EasyNegative.safetensors
    <birb-style>                  diffusers: the word that the file itself gives

Of several names that begin at one place the longest counts, as in A1111. A text is compared word by
word, so blanks between the words of a name may be more or fewer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_WORD_PATTERN = re.compile(r"\w+|[^\w\s]")
_PREFIX_PATTERN = re.compile(r"(?<!\w)embedding:(?=\S)", re.IGNORECASE)
_SUFFIX_PATTERN = re.compile(r"\.(?:safetensors|pt|pth|bin|ckpt)(?!\w)", re.IGNORECASE)
# What follows `embedding:` where no name of the library does: a word of diffusers, a name, or
# anything else that has a letter or number in it.
_UNKNOWN_NAME_PATTERN = re.compile(r"<[^<>]+>|[^\s,;:()\[\]<>\"']+|[^\s,;]*\w[^\s,;]*")


def asks_for_embeddings(text: str) -> bool:
    """Whether a text has `embedding:` in it: what follows has to be there."""
    return _PREFIX_PATTERN.search(text) is not None


@dataclass(frozen=True)
class Mention:
    """A place in a text that names an embedding.

    Attributes:
        name: The name, as it was given to the finder; of one that it does not know, as it stands
            in the text.
        is_explicit: Whether `embedding:` stands before it.
        is_known: Whether the finder has it.
    """

    name: str
    is_explicit: bool
    is_known: bool


class MentionFinder:
    """Finds names in texts."""

    def __init__(self, names: Iterable[str]) -> None:
        """Take the names that there are; of two that differ only in case the first counts."""
        self._names: dict[tuple[str, ...], str] = {}
        lengths: dict[str, set[int]] = {}  # by first word
        for name in names:
            words = tuple(word for word, _, _ in _split_words(name))
            if words:
                self._names.setdefault(words, name)
                lengths.setdefault(words[0], set()).add(len(words))
        self._lengths = {word: sorted(numbers)[::-1] for word, numbers in lengths.items()}

    def split(self, text: str) -> list[str | Mention]:
        """Split a text into mentions and the stretches between them, none of which is empty."""
        pieces: list[str | Mention] = []
        words = _split_words(text)
        prefixes = {match.start(): match.end() for match in _PREFIX_PATTERN.finditer(text)}
        index = text_start = 0
        while index < len(words):
            word_start = words[index][1]
            name_start = prefixes.get(word_start)
            mention, end = self._match(text, words, index, name_start)
            if mention is None:
                index += 1
                continue
            if text[text_start:word_start].strip():
                pieces.append(text[text_start:word_start])
            pieces.append(mention)
            text_start = end
            while index < len(words) and words[index][1] < end:
                index += 1
        if text[text_start:].strip() or not pieces:
            pieces.append(text[text_start:])
        return [piece for piece in pieces if piece]

    def find(self, text: str) -> list[Mention]:
        """Return the mentions in a text, in order."""
        return [piece for piece in self.split(text) if isinstance(piece, Mention)]

    def _match(
        self, text: str, words: list[tuple[str, int, int]], index: int, name_start: int | None
    ) -> tuple[Mention | None, int]:
        """Return the mention that begins at a word, and where it ends."""
        if name_start is None:
            name, end = self._match_name(words, index)
            return (Mention(name, False, True), end) if name else (None, 0)
        first = next(at for at in range(index, len(words)) if words[at][1] >= name_start)
        name, end = self._match_name(words, first)
        if name:
            suffix = _SUFFIX_PATTERN.match(text, end)
            return Mention(name, True, True), suffix.end() if suffix else end
        unknown = _UNKNOWN_NAME_PATTERN.match(text, name_start)
        if unknown is None:
            return None, 0
        return Mention(unknown[0], True, False), unknown.end()

    def _match_name(self, words: list[tuple[str, int, int]], index: int) -> tuple[str, int]:
        """Return the longest name that begins at a word and where it ends; empty if none does."""
        for length in self._lengths.get(words[index][0], ()):
            candidate = words[index : index + length]
            name = self._names.get(tuple(word for word, _, _ in candidate))
            if name is not None:
                return name, candidate[-1][2]
        return "", 0


def _split_words(text: str) -> list[tuple[str, int, int]]:
    """Return words and signs in any case, each with where it begins and ends."""
    return [
        (match[0].casefold(), match.start(), match.end()) for match in _WORD_PATTERN.finditer(text)
    ]
