r"""compel's prompts: words weighed by signs, mixtures, joins and swaps.

Knows: what compel 2.5.1 reads, which its own parser proves in the tests (it imports torch, so it
cannot be used here). Does not know: LoRA tags, tokens.

    word++  (a b)-           times 1.1 for each +, times 0.9 for each -
    (a b)1.3  "a b"1.3       times the number, which follows at once
    (a b).attend(1.3)        the same
    (a b)  "a b"             nothing but a group; what is not closed is letters
    ("a", "b").blend(.7, .3) a mixture; no_normalize as last leaves the weights as they are
    ("a", "b").and(1, 0.5)   joined, each encoded on its own
    a.swap(b, t_start=0.2)   painted as b, laid out as a
    \( \) \"              the character itself; of other signs the \ stays, as there
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from studio.core.generation.prompts.a1111_attention import MAX_WEIGHT
from studio.core.generation.prompts.a1111_schedules import MAX_NESTING
from studio.core.generation.prompts.characters import reject_bad_characters, reject_unknown_tags
from studio.core.generation.prompts.compel_nodes import Group, Node, SwapGroup, flatten_nodes
from studio.core.generation.prompts.plan import Swap, Wording
from studio.errors import quote

PLUS_FACTOR = 1.1
MINUS_FACTOR = 0.9
MAX_TEXTS = 16  # of a mixture or join
SWAP_OPTIONS = ("s_start", "s_end", "t_start", "t_end", "shape_freedom")

_BLANKS = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r'(?:\\[()",.+\-=]|[-+](?![ \t\r\n()",.+\-=]|\Z)|[^\s()",.+\-=])+')
_QUOTED = re.compile(r'"((?:\\"|[^"\n\r])*)"')
_FREE_WORD = re.compile(r"\S+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)|-?[0-9]+")
_SIGNS = re.compile(r"\++|-+")
_LORA = re.compile(r"(?:useLora|withLora)[ \t\r\n]*\(")
_OPTION = re.compile(
    rf"([\w-]+)[ \t\r\n]*=[ \t\r\n]*({_NUMBER.pattern}|[\w-]+)|{_NUMBER.pattern}|[\w-]+"
)
_CALL = re.compile(r"[ \t\r\n]*\.(attend|swap|blend|and|add)[ \t\r\n]*\(")
_METHODS = ("blend", "and", "add")

Match = tuple[int, tuple[Node, ...]]  # where it ends, and what it is


@lru_cache(maxsize=128)
def parse_wording(text: str) -> Wording:
    """Parse a prompt without LoRA tags.

    Raises ValueError that names what is wrong.
    """
    reject_bad_characters(text)
    reject_unknown_tags(text)
    # compel's own first step; it knows four blanks, and no more.
    text = re.sub(r",(\S)", r", \1", re.sub(r"[^\S \t\r\n]", " ", text))
    parser = _Parser(text)
    call = parser.match_method_call()
    if call is None:
        return Wording(((flatten_nodes(parser.parse_prompt()),),), separator=" ")
    end, method, texts, options = call
    if text[end:].strip():
        raise ValueError(
            f'.{method}() must be the whole prompt: ("a", "b").{method}(). Take out '
            f"{quote(text[end:].strip())}."
        )
    return _join_texts(method, texts, options)


def _join_texts(
    method: str, texts: list[tuple[Node, ...]], options: list[re.Match[str]]
) -> Wording:
    chunks = [flatten_nodes(nodes) for nodes in texts]
    names = [option[0] for option in options]
    is_normalized = not (method == "blend" and names[-1:] == ["no_normalize"])
    if not is_normalized:
        names.pop()
    for name in names:
        if not _NUMBER.fullmatch(name):
            raise ValueError(
                f".{method}() takes numbers, one for each prompt (you entered {quote(name)})."
            )
    weights = [float(name) for name in names] or [1.0] * len(chunks)
    if len(weights) != len(chunks):
        raise ValueError(
            f".{method}() has {len(weights)} weights for {len(chunks)} prompts; give one for each."
        )
    if not all(abs(weight) <= MAX_WEIGHT for weight in weights):
        raise ValueError(f".{method}(): weights go from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}.")
    if method != "blend":
        return Wording(tuple((chunk,) for chunk in chunks), "and", tuple(weights), separator=" ")
    if any(isinstance(part, Swap) for chunk in chunks for part in chunk):
        raise ValueError(".swap() cannot be a part of .blend().")
    if is_normalized and abs(sum(weights)) < 1e-6:
        raise ValueError(".blend(): the weights add up to 0; add no_normalize as the last.")
    parts = tuple((chunk,) for chunk in chunks)
    return Wording(parts, "blend", tuple(weights), is_normalized, separator=" ")


@dataclass
class _Parser:
    """A prompt read from left to right; what begins at a place is read once."""

    text: str
    depth: int = 0
    forms: dict[int, Match | None] = field(default_factory=dict)
    groups: dict[int, Match | None] = field(default_factory=dict)

    def parse_prompt(self) -> tuple[Node, ...]:
        """Return all words, the syntax in them read as far as it is syntax."""
        nodes: list[Node] = []
        position = self.skip_blanks(0)
        while position < len(self.text):
            match = self.match_form(position) or self.match_group(position)
            if match is None:
                word = _FREE_WORD.match(self.text, position)
                assert word
                match = word.end(), (word[0],)
            nodes += match[1]
            position = self.skip_blanks(match[0])
        return tuple(nodes)

    def match_method_call(
        self,
    ) -> tuple[int, str, list[tuple[Node, ...]], list[re.Match[str]]] | None:
        """Return the end, method, prompts and options of `("a", "b").blend(…)`, if it is that."""
        position = self.skip_blanks(0)
        if not self.text.startswith("(", position):
            return None
        texts = []
        while True:
            position = self.skip_blanks(position + 1)  # behind the bracket or a comma
            match = self._match_target(position) or self._match_quoted_prompt(position)
            if match is None:
                return None
            texts.append(match[1])
            position = self.skip_blanks(match[0])
            if len(texts) > MAX_TEXTS or not self.text.startswith(",", position):
                break
        if not self.text.startswith(")", position):
            return None
        call = _CALL.match(self.text, position + 1)
        options = call and call[1] in _METHODS and self._match_options(call.end())
        if not call or not options or not self.text.startswith(")", options[0]):
            return None
        return options[0] + 1, call[1], texts, options[1]

    def match_words(self, position: int, signs: str) -> Match:
        """Return the words from a place on, up to a sign that is neither syntax nor in `signs`."""
        nodes: list[Node] = []
        end = position
        while True:
            position = self.skip_blanks(end)
            match = self.match_form(position) or self._match_target(position)
            if match is None and self.text[position : position + 1] in tuple(signs):
                match = position + 1, (self.text[position],)
            if match is None:
                return end, tuple(nodes)
            nodes += match[1]
            end = match[0]

    def match_form(self, position: int) -> Match | None:
        """Return the swap or the weighed words that begin at a place."""
        if position not in self.forms:
            self.forms[position] = self._match_form(position)
        return self.forms[position]

    def match_group(self, position: int) -> Match | None:
        """Return the quotes or the bracket that begin at a place."""
        if self.text[position : position + 1] not in ('"', "("):
            return None
        if position not in self.groups:
            is_quoted = self.text[position] == '"'
            match = self._match_quoted if is_quoted else self._match_bracket
            self.groups[position] = match(position)
        return self.groups[position]

    def skip_blanks(self, position: int) -> int:
        """Return where the next character stands that is no blank."""
        match = _BLANKS.match(self.text, position)
        return match.end() if match else position

    def _match_target(self, position: int) -> Match | None:
        """Match what a weight or a swap may be about."""
        group = self.match_group(position)
        if group:
            return group
        word = _WORD.match(self.text, position)
        return (word.end(), (word[0],)) if word else None

    def _match_quoted(self, position: int) -> Match | None:
        """Match quotes whose words are syntax to the end; quotes in them are letters."""
        quoted = _QUOTED.match(self.text, position)
        if quoted is None:
            return None
        if not quoted[1].strip():
            return quoted.end(), ("",)
        parser = self._open_quotes(quoted[1])
        end, nodes = parser.match_words(0, ",.")
        return (quoted.end(), nodes) if parser.skip_blanks(end) == len(parser.text) else None

    def _match_quoted_prompt(self, position: int) -> Match | None:
        """Match quotes whose words are read as a whole prompt."""
        quoted = _QUOTED.match(self.text, position)
        if quoted is None:
            return None
        return quoted.end(), self._open_quotes(quoted[1]).parse_prompt()

    def _open_quotes(self, words: str) -> _Parser:
        return _Parser(words.replace('\\"', '"').replace('"', '\\"'), self.depth)

    def _match_bracket(self, position: int) -> Match | None:
        self._go_deeper()
        end, nodes = self.match_words(position + 1, ",.")
        self.depth -= 1
        end = self.skip_blanks(end)
        return (end + 1, nodes) if self.text.startswith(")", end) else None

    def _go_deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise ValueError(f"brackets are nested more than {MAX_NESTING} deep.")

    def _match_form(self, position: int) -> Match | None:
        lora = _LORA.match(self.text, position)
        if lora:
            raise ValueError(
                f"{lora[0]}…) is not supported: write <lora:name:0.8>, or add the LoRA beside the "
                "prompt."
            )
        target = self._match_target(position)
        if target is None:
            return None
        end, nodes = target
        call = _CALL.match(self.text, end)
        if call and call[1] == "swap":
            return self._match_swap(nodes, call.end())
        if call:
            return self._match_attend(nodes, call.end()) if call[1] == "attend" else None
        weight = _SIGNS.match(self.text, end)
        if weight is None and self.match_group(position):
            weight = _NUMBER.match(self.text, end)
        return (weight.end(), (Group(_read_weight(weight[0]), nodes),)) if weight else None

    def _match_attend(self, nodes: tuple[Node, ...], position: int) -> Match | None:
        """Match the weight of `.attend(`, from behind that on."""
        start = self.skip_blanks(position)
        weight = _SIGNS.match(self.text, start) or _NUMBER.match(self.text, start)
        end = self.skip_blanks(weight.end()) if weight else start
        if not weight or not self.text.startswith(")", end):
            return None
        return end + 1, (Group(_read_weight(weight[0]), nodes),)

    def _match_swap(self, nodes: tuple[Node, ...], position: int) -> Match | None:
        """Match the words and options of `.swap(`, from behind that on."""
        self._go_deeper()
        end, edited = self.match_words(position, "")
        self.depth -= 1
        end = self.skip_blanks(end)
        options: list[re.Match[str]] = []
        if self.text.startswith(",", end):
            end, options = self._match_options(end + 1)
        if not self.text.startswith(")", end):
            return None
        return end + 1, (SwapGroup(nodes, edited, _read_swap_options(options)),)

    def _match_options(self, position: int) -> tuple[int, list[re.Match[str]]]:
        """Return where options with commas between them end, and each; there may be none."""
        options: list[re.Match[str]] = []
        end = self.skip_blanks(position)
        option = _OPTION.match(self.text, end)
        while option:
            options.append(option)
            end = self.skip_blanks(option.end())
            if not self.text.startswith(",", end):
                break
            option = _OPTION.match(self.text, self.skip_blanks(end + 1))
        return end, options


def _read_weight(text: str) -> float:
    if text[0] == "+" and set(text) == {"+"}:
        return _raise(PLUS_FACTOR, len(text))
    if set(text) == {"-"}:
        return _raise(MINUS_FACTOR, len(text))
    return float(text)


def _raise(factor: float, exponent: int) -> float:
    try:
        return float(factor**exponent)
    except OverflowError:
        raise ValueError(f"{exponent} signs in a row are too many.") from None


def _read_swap_options(options: list[re.Match[str]]) -> tuple[tuple[str, float], ...]:
    values = {}
    for option in options:
        name, value = option[1], option[2]
        if name not in SWAP_OPTIONS or not _NUMBER.fullmatch(value):
            raise ValueError(
                f".swap() takes the options {', '.join(SWAP_OPTIONS)}, each with a number (you "
                f"entered {quote(option[0])})."
            )
        values[name] = float(value)
    return tuple(values.items())
