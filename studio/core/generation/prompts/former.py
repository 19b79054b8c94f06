r"""The studio's first grammar: A1111's and compel's ways to stress words at once.

Knows: what a prompt said before each of them was read by a grammar of its own; what was made then
stays as it was. Does not know: tokens or embeddings, the other grammars.

    plain words                   weight 1
    (x)  ((x))  [x]               A1111: times 1.1, times 1.21, divided by 1.1
    (x:1.3)                       A1111: times 1.3
    x+  x--  (x y)++  (x y)0.8    compel: times 1.1 for each +, 0.9 for each -, or the number
    ("a", "b").and()              compel: both, each encoded on its own; .and(1, 0.5) weighs them
    ("a", "b").blend(0.7, 0.3)    compel: a mixture
    \( \) \[ \] \+ \- \\          the character itself
    <lora:name:0.8>               no word: core/generation/lora_use.py reads it

Sources: A1111's wiki "Attention/emphasis"; compel's doc/syntax.md. What is not built yet (AND,
BREAK, [a:b:0.5], [a|b], hypernetworks, .swap()) is refused by name: as plain words it would
silently do something else.
"""

from __future__ import annotations

import re
from functools import lru_cache

from studio.core.generation.prompts.characters import reject_bad_characters
from studio.core.generation.prompts.plan import Fragment, Wording
from studio.errors import quote

EMPHASIS_FACTOR = 1.1
DEEMPHASIS_FACTOR = 0.9  # of compel's -
MAX_WEIGHT = 10.0  # a weight beyond this only gives noise
MAX_NESTING = 50  # brackets within brackets
MAX_SIGNS = 1000  # that count of a run; 8000 would be beyond a float

_ESCAPABLE_CHARACTERS = "()[]+-\\"
_WORD_SEPARATORS = (" ", "\n", "\t", ",")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_COLON_WEIGHT = re.compile(rf":\s*({_NUMBER})\s*\)")
_WEIGHT_SUFFIX = re.compile(r"(\d+\.?\d*|\.\d+)|(\++|-+)(?![\w+-])")
_SIGNS = re.compile(r"(\++|-+)(?=[\s,.;:()\[\]]|$)")
_METHOD_CALL = re.compile(r'^\s*\(\s*(".*")\s*\)\s*\.(and|blend)\(\s*([^()]*)\)\s*$', re.DOTALL)
_PARTIAL_METHOD_CALL = re.compile(r'"\s*\)\s*\.(and|blend)\s*\(')
_QUOTED_TEXT = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
_QUOTED_LIST = re.compile(rf"{_QUOTED_TEXT.pattern}(?:\s*,\s*{_QUOTED_TEXT.pattern})*", re.DOTALL)
_UNSUPPORTED_SYNTAX = (
    (re.compile(r"<\s*hypernet\s*:[^>]*>", re.IGNORECASE), "Hypernetworks"),
    (re.compile(r"(?<!\w)AND(?!\w)"), "AND (several prompts at once)"),
    (re.compile(r"(?<!\w)BREAK(?!\w)"), "BREAK (a new chunk of tokens)"),
    (re.compile(r"\.swap\s*\("), "compel's .swap()"),
)


@lru_cache(maxsize=128)
def parse_words(text: str) -> Wording:
    """Parse a prompt that has no LoRA tags.

    Raises ValueError that names what is wrong and the place (counted from 1).
    """
    reject_bad_characters(text)
    for pattern, name in _UNSUPPORTED_SYNTAX:
        match = pattern.search(text)
        if match:
            raise ValueError(
                f"{name} cannot be used yet: {quote(match[0])} at character {match.start() + 1}."
            )
    call = _METHOD_CALL.match(text)
    if call:
        return _parse_method_call(*call.groups())
    partial_call = _PARTIAL_METHOD_CALL.search(text)
    if partial_call:
        method = partial_call[1]
        raise ValueError(
            f".{method}() at character {partial_call.start(1)} must be the whole prompt: "
            f'("a", "b").{method}().'
        )
    return Wording(((_parse_fragments(text),),))


def _parse_method_call(quoted: str, join: str, numbers: str) -> Wording:
    if not _QUOTED_LIST.fullmatch(quoted):
        raise ValueError(
            f'.{join}() joins prompts in quotes with commas between them: ("a", "b").{join}().'
        )
    texts = [match[1].replace('\\"', '"') for match in _QUOTED_TEXT.finditer(quoted)]
    try:
        weights = [float(number) for number in numbers.split(",") if number.strip()]
    except ValueError:
        raise ValueError(f".{join}({numbers}) must list numbers.") from None
    if not weights:
        weights = [1.0] * len(texts)
    if len(weights) != len(texts):
        raise ValueError(
            f".{join}() has {len(weights)} weights for {len(texts)} prompts; give one for each."
        )
    are_in_range = all(0 <= weight <= MAX_WEIGHT for weight in weights)
    if not are_in_range or (join == "blend" and sum(weights) == 0):
        raise ValueError(
            f".{join}({numbers}): weights go from 0 to {MAX_WEIGHT:g}, and not all may be 0."
        )
    parsed = tuple((_parse_fragments(text),) for text in texts)
    return Wording(parsed, "and" if join == "and" else "blend", tuple(weights))


def _parse_fragments(text: str) -> tuple[Fragment, ...]:
    """Parse brackets and signs; neighbours of equal weight become one fragment.

    So a prompt without weights stays one text, letter for letter.
    """
    merged: list[Fragment] = []
    for fragment in _PromptParser(text).parse():
        weight = round(fragment.weight, 6)
        if not 0 <= weight <= MAX_WEIGHT:
            raise ValueError(
                f"the weight {weight:g} of {quote(fragment.text.strip())} must be between 0 and "
                f"{MAX_WEIGHT:g}."
            )
        if merged and merged[-1].weight == weight:
            merged[-1] = Fragment(merged[-1].text + fragment.text, weight)
        elif fragment.text:
            merged.append(Fragment(fragment.text, weight))
    return tuple(merged)


class _PromptParser:
    """One pass over a prompt, recursing into brackets."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0

    def parse(self) -> list[Fragment]:
        """Return the fragments of the whole text."""
        fragments, _ = self._parse_until("", 0)
        return fragments

    def _parse_until(
        self, closing: str, opening_position: int
    ) -> tuple[list[Fragment], float | None]:
        """Return the fragments up to `closing` or the end, and the number of a final `:1.3)`."""
        fragments: list[Fragment] = []
        word = ""
        while self.position < len(self.text):
            character = self.text[self.position]
            escaped = self.text[self.position + 1 : self.position + 2]
            weight_match = signs = None
            if closing == ")":
                weight_match = _COLON_WEIGHT.match(self.text, self.position)
            if character in "+-" and _ends_word(word):
                signs = _SIGNS.match(self.text, self.position)
            if character == "\\" and escaped and escaped in _ESCAPABLE_CHARACTERS:
                word += escaped
                self.position += 2
            elif character == closing:
                self.position += 1
                return [*fragments, Fragment(word, 1.0)], None
            elif weight_match:
                self.position = weight_match.end()
                return [*fragments, Fragment(word, 1.0)], float(weight_match[1])
            elif character in "([":
                fragments.append(Fragment(word, 1.0))
                fragments += self._parse_bracket(character)
                word = ""
            elif signs:
                start = max(word.rfind(separator) for separator in _WORD_SEPARATORS) + 1
                fragments.append(Fragment(word[:start], 1.0))
                fragments.append(Fragment(word[start:], _sign_weight(signs[1])))
                word = ""
                self.position = signs.end()
            else:
                word += character
                self.position += 1
        if closing:
            bracket = self.text[opening_position]
            raise ValueError(
                f"the '{bracket}' at character {opening_position + 1} is not closed; write "
                f"\\{bracket} for the character itself."
            )
        return [*fragments, Fragment(word, 1.0)], None

    def _parse_bracket(self, character: str) -> list[Fragment]:
        """Return the fragments of a bracket, with its weight."""
        opening_position = self.position
        self.position += 1
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise ValueError(
                f"brackets are nested more than {MAX_NESTING} deep at character "
                f"{opening_position + 1}."
            )
        closing = ")" if character == "(" else "]"
        fragments, weight = self._parse_until(closing, opening_position)
        self.depth -= 1
        if character == "[":
            self._reject_prompt_editing(opening_position)
            weight = 1 / EMPHASIS_FACTOR
        elif weight is None:
            weight = self._parse_weight_suffix()
        return [Fragment(fragment.text, fragment.weight * weight) for fragment in fragments]

    def _parse_weight_suffix(self) -> float:
        """Return the weight after a closing `)`: compel's number or signs, else A1111's 1.1."""
        suffix = _WEIGHT_SUFFIX.match(self.text, self.position)
        if not suffix:
            return EMPHASIS_FACTOR
        self.position = suffix.end()
        number, signs = suffix.groups()
        return float(number) if number else _sign_weight(signs)

    def _reject_prompt_editing(self, opening_position: int) -> None:
        bracket = self.text[opening_position : self.position]
        place = f"{quote(bracket)} at character {opening_position + 1}"
        if re.search(rf":\s*{_NUMBER}\s*\]$", bracket):
            raise ValueError(f"prompt editing [from:to:when] cannot be used yet: {place}.")
        if "|" in bracket:
            raise ValueError(f"alternating words [a|b] cannot be used yet: {place}.")


def _ends_word(text: str) -> bool:
    return bool(text) and not text[-1].isspace() and text[-1] != ","


def _sign_weight(signs: str) -> float:
    factor = EMPHASIS_FACTOR if signs[0] == "+" else DEEMPHASIS_FACTOR
    return float(factor ** min(len(signs), MAX_SIGNS))
