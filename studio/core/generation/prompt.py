r"""The prompt grammar: A1111's and compel's ways to stress words, turned into weighted pieces.

Knows: what a prompt says. Does not know: tokens or embeddings; engine/models/prompt_encoding.py makes those with compel.

    plain words                   weight 1
    (x)  ((x))  [x]               A1111: times 1.1, times 1.21, divided by 1.1
    (x:1.3)                       A1111: times 1.3
    x+  x--  (x y)++  (x y)0.8    compel: times 1.1 for each +, times 0.9 for each -, times the number
    ("a", "b").and()              compel: both, each encoded on its own; .and(1, 0.5) weighs them
    ("a", "b").blend(0.7, 0.3)    compel: a mixture
    \( \) \[ \] \+ \- \\          the character itself
    <lora:name:0.8>               no word: core/generation/lora_use.py reads it

Sources: A1111's wiki "Attention/emphasis"; compel's doc/syntax.md. What is not built yet (AND, BREAK, [a:b:0.5], [a|b],
hypernetworks, .swap()) is refused by name: taken as plain words, it would silently do something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from studio.core.generation import lora_use

STRESS = 1.1
MOST = 10.0  # a weight beyond this only gives noise
DEEPEST = 50  # brackets within brackets

_ESCAPED = "()[]+-\\"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_COLON_WEIGHT = re.compile(rf":\s*({_NUMBER})\s*\)")
_AFTER = re.compile(r"(\d+\.?\d*|\.\d+)|(\++|-+)(?![\w+-])")
_SIGNS = re.compile(r"(\++|-+)(?=[\s,.;:()\[\]]|$)")
_CALL = re.compile(r'^\s*\(\s*(".*")\s*\)\s*\.(and|blend)\(\s*([^()]*)\)\s*$', re.DOTALL)
_QUOTED = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
_LISTED = re.compile(rf"{_QUOTED.pattern}(?:\s*,\s*{_QUOTED.pattern})*", re.DOTALL)
_NOT_BUILT = (
    (re.compile(r"<\s*hypernet\s*:[^>]*>", re.IGNORECASE), "Hypernetworks"),
    (re.compile(r"(?<!\w)AND(?!\w)"), "AND (several prompts at once)"),
    (re.compile(r"(?<!\w)BREAK(?!\w)"), "BREAK (a new chunk of tokens)"),
    (re.compile(r"\.swap\s*\("), "compel's .swap()"),
)


@dataclass(frozen=True)
class Piece:
    """A stretch of text and its weight (1 is neutral)."""

    text: str
    weight: float


@dataclass(frozen=True)
class Prompt:
    """What `parse` found: one list of pieces, or several that are put side by side ("and") or mixed ("blend")."""

    parts: tuple[tuple[Piece, ...], ...]
    join: Literal["and", "blend"] = "and"
    weights: tuple[float, ...] = (1.0,)

    @property
    def plain(self) -> str:
        """The words alone, without weights."""
        return " ".join("".join(piece.text for piece in part) for part in self.parts)


def parse(text: str) -> Prompt:
    """Read a prompt; tags of LoRAs are no words of it. Raises ValueError that names what is wrong and the place (from 1)."""
    words, tags = lora_use.lift(text)
    if tags:
        _parsed(lora_use.blank(text))  # where what is wrong is in its place
    return _parsed(words)


def _parsed(text: str) -> Prompt:
    for place, character in enumerate(text, 1):
        if character == "\0" or 0xD800 <= ord(character) <= 0xDFFF:
            raise ValueError(
                f"character {place} is not text (U+{ord(character):04X}); take it out."
            )
    for pattern, name in _NOT_BUILT:
        if found := pattern.search(text):
            raise ValueError(
                f"{name} cannot be used yet: {found[0]!r:.40} at character {found.start() + 1}."
            )
    if call := _CALL.match(text):
        return _joined(*call.groups())
    if found := re.search(r'"\s*\)\s*\.(and|blend)\s*\(', text):
        raise ValueError(
            f'.{found[1]}() at character {found.start(1)} has to be the whole prompt: ("a", "b").{found[1]}().'
        )
    return Prompt((tuple(_merged(_Reader(text).all())),))


def _joined(quoted: str, join: str, numbers: str) -> Prompt:
    if not _LISTED.fullmatch(quoted):
        raise ValueError(
            f'.{join}() joins prompts in quotes with commas between them: ("a", "b").{join}().'
        )
    texts = [re.sub(r'\\"', '"', found[1]) for found in _QUOTED.finditer(quoted)]
    try:
        weights = tuple(float(number) for number in numbers.split(",") if number.strip()) or (
            1.0,
        ) * len(texts)
    except ValueError:
        raise ValueError(f".{join}({numbers}) has to list numbers.") from None
    if len(weights) != len(texts):
        raise ValueError(
            f".{join}() has {len(weights)} weights for {len(texts)} prompts; give one for each."
        )
    if any(not 0 <= weight <= MOST for weight in weights) or (
        join == "blend" and sum(weights) == 0
    ):
        raise ValueError(
            f".{join}({numbers}): weights go from 0 to {MOST:g}, and not all may be 0."
        )
    return Prompt(
        tuple(tuple(_merged(_Reader(part).all())) for part in texts),
        "and" if join == "and" else "blend",
        weights,
    )


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of equal weight as one piece, so that a prompt without weights stays one text, letter for letter."""
    merged: list[Piece] = []
    for piece in pieces:
        weight = round(piece.weight, 6)
        if not 0 <= weight <= MOST:
            raise ValueError(
                f"the weight {weight:g} of {piece.text.strip()!r:.40} has to lie between 0 and {MOST:g}."
            )
        if merged and merged[-1].weight == weight:
            merged[-1] = Piece(merged[-1].text + piece.text, weight)
        elif piece.text:
            merged.append(Piece(piece.text, weight))
    return merged


class _Reader:
    """One pass over a prompt, recursing into brackets."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    def all(self) -> list[Piece]:
        return self._until("", 0)[0]

    def _until(self, closing: str, opened: int) -> tuple[list[Piece], float | None]:
        """Pieces up to `closing` or the end, and the number of `(x:1.3)` if that is how they end."""
        pieces: list[Piece] = []
        word = ""
        while self.at < len(self.text):
            character = self.text[self.at]
            if character == "\\" and self.text[self.at + 1 : self.at + 2] in tuple(_ESCAPED):
                word += self.text[self.at + 1]
                self.at += 2
            elif character == closing:
                self.at += 1
                return [*pieces, Piece(word, 1.0)], None
            elif closing == ")" and (found := _COLON_WEIGHT.match(self.text, self.at)):
                self.at = found.end()
                return [*pieces, Piece(word, 1.0)], float(found[1])
            elif character in "([":
                pieces += [Piece(word, 1.0), *self._bracket(character)]
                word = ""
            elif (
                character in "+-"
                and _ends_word(word)
                and (found := _SIGNS.match(self.text, self.at))
            ):
                start = max(word.rfind(space) for space in (" ", "\n", "\t", ",")) + 1
                pieces += [Piece(word[:start], 1.0), Piece(word[start:], _signs(found[1]))]
                word = ""
                self.at = found.end()
            else:
                word += character
                self.at += 1
        if closing:
            raise ValueError(
                f"the '{self.text[opened]}' at character {opened + 1} is never closed; write "
                f"\\{self.text[opened]} for the character itself."
            )
        return [*pieces, Piece(word, 1.0)], None

    def _bracket(self, character: str) -> list[Piece]:
        opened = self.at
        self.at += 1
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError(f"brackets lie more than {DEEPEST} deep at character {opened + 1}.")
        inner, weight = self._until(")" if character == "(" else "]", opened)
        self.depth -= 1
        if character == "[":
            self._refuse_edits(opened)
            weight = 1 / STRESS
        elif weight is None and (found := _AFTER.match(self.text, self.at)):
            self.at = found.end()
            weight = float(found[1]) if found[1] else _signs(found[2])
        factor = STRESS if weight is None else weight
        return [Piece(piece.text, piece.weight * factor) for piece in inner]

    def _refuse_edits(self, opened: int) -> None:
        written = self.text[opened : self.at]
        if re.search(rf":\s*{_NUMBER}\s*\]$", written):
            raise ValueError(
                f"prompt editing [from:to:when] cannot be used yet: {written!r:.40} at character {opened + 1}."
            )
        if "|" in written:
            raise ValueError(
                f"alternating words [a|b] cannot be used yet: {written!r:.40} at character {opened + 1}."
            )


def _ends_word(text: str) -> bool:
    return bool(text) and not text[-1].isspace() and text[-1] != ","


def _signs(signs: str) -> float:
    return float(
        (STRESS if signs[0] == "+" else 0.9) ** min(len(signs), 1000)
    )  # 8000 would be beyond a float
