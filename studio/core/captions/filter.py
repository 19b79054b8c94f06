"""Filters: a line of text that selects images of a dataset.

    boat                      "boat" stands in the caption
    "red boat"                these words in this order
    tag:boat  tag:red*        a whole tag, with * and ?
    name:img_*                the file's path
    concept:moon              the words in its folder's name
    is:missing  is:captioned  no caption; a caption
    is:broken                 cannot be used
    tokens:>77  words:<3      counts: = < <= > >=, or 3-8; also tags, chars, width, height,
                              side (the shorter one), repeats, bytes

    boat lake       both         boat OR lake        not boat, -boat        (boat OR ship) -tag:red

Capitals do not count; OR, AND and NOT work in any case.

Knows: this grammar and rows. Does not know: where images are.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from studio.core.captions.edits import CaptionRow
from studio.core.captions.text import split_tags
from studio.errors import InvalidSpec, quote

MAX_FILTER_CHARACTERS = 2000
MAX_NESTING = 40  # brackets within brackets
_TOKEN_PATTERN = re.compile(
    r"\s*(?:(?P<open>\()|(?P<close>\))|(?P<minus>-(?=[^\s)]))"
    r'|(?P<field>[A-Za-z]+):(?P<value>"[^"]*"|[^\s()"]*)'
    r'|"(?P<quoted>[^"]*)"|(?P<word>[^\s()"]+))'
)
_COUNT_PATTERN = re.compile(
    r"(?P<sign><=|>=|<|>|=)?(?P<number>\d{1,12})|(?P<minimum>\d{1,12})-(?P<maximum>\d{1,12})"
)
_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "": operator.eq,
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
COUNTED_FIELDS: dict[str, Callable[[CaptionRow], int]] = {
    "tokens": lambda row: row.token_count,
    "words": lambda row: len(row.caption.split()),
    "tags": lambda row: len(split_tags(row.caption)),
    "chars": lambda row: len(row.caption),
    "width": lambda row: row.width,
    "height": lambda row: row.height,
    "side": lambda row: min(row.width, row.height),
    "repeats": lambda row: row.repeats,
    "bytes": lambda row: row.file_size,
}
IMAGE_STATES: dict[str, Callable[[CaptionRow], bool]] = {
    "missing": lambda row: not row.caption,
    "captioned": lambda row: bool(row.caption),
    "broken": lambda row: bool(row.image_error or row.caption_error),
}
Predicate = Callable[[CaptionRow], bool]


@dataclass(frozen=True)
class Filter:
    """A parsed filter. `needs_tokens`: rows need their `token_count`, which is slow to compute."""

    matches: Predicate
    needs_tokens: bool


def parse_filter(text: str) -> Filter:
    """Parse a filter.

    Args:
        text: The filter, in the grammar above; an empty one lets every row through.

    Raises:
        InvalidSpec: The text is no filter; its sentence says where.
    """
    if len(text) > MAX_FILTER_CHARACTERS:
        raise InvalidSpec(
            [
                f"Filter: must be at most {MAX_FILTER_CHARACTERS} characters long, but has "
                f"{len(text)}."
            ]
        )
    parser = _Parser(text)
    if not parser.has_more:
        return Filter(lambda _row: True, needs_tokens=False)
    predicate = parser.parse_or()
    if parser.has_more:
        raise InvalidSpec(["Filter: a closing bracket is never opened; add the missing (."])
    return Filter(predicate, parser.needs_tokens)


class _Parser:
    """A recursive descent parser; reads a filter from left to right."""

    def __init__(self, text: str) -> None:
        self.depth = 0
        self.needs_tokens = False
        self.remaining: list[re.Match[str]] = []  # tokens, the next one last
        text = text.rstrip()
        position = 0
        while position < len(text):
            token = _TOKEN_PATTERN.match(text, position)
            if token is None:
                unclosed = text[position:].strip()
                raise InvalidSpec([f"Filter: a quotation mark is not closed at {quote(unclosed)}."])
            self.remaining.append(token)
            position = token.end()
        self.remaining.reverse()

    @property
    def has_more(self) -> bool:
        """Whether tokens remain."""
        return bool(self.remaining)

    def describe_next(self) -> str:
        """Name the next token in a fault."""
        return repr(self.remaining[-1].group().strip()) if self.remaining else "the end"

    def peek_word(self) -> str:
        """Return the next token in capitals if it is a plain word, else an empty text."""
        if not self.remaining:
            return ""
        return (self.remaining[-1]["word"] or "").upper()

    def parse_or(self) -> Predicate:
        """Parse terms between OR, the weakest operator."""
        predicates = [self.parse_and()]
        while self.peek_word() == "OR":
            self.remaining.pop()
            predicates.append(self.parse_and())
        if len(predicates) == 1:
            return predicates[0]
        return lambda row: any(predicate(row) for predicate in predicates)

    def parse_and(self) -> Predicate:
        """Parse terms beside each other, with or without AND."""
        predicates = [self.parse_term()]
        while self.remaining and self.peek_word() != "OR" and not self.remaining[-1]["close"]:
            if self.peek_word() == "AND":
                self.remaining.pop()
            predicates.append(self.parse_term())
        if len(predicates) == 1:
            return predicates[0]
        return lambda row: all(predicate(row) for predicate in predicates)

    def parse_term(self) -> Predicate:
        """Parse a word, a field, a negation or a bracket."""
        if not self.remaining or self.remaining[-1]["close"] or self.peek_word() in ("OR", "AND"):
            raise InvalidSpec([f"Filter: a search term is missing before {self.describe_next()}."])
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise InvalidSpec(
                [f"Filter: brackets or nots are nested more than {MAX_NESTING} deep; use fewer."]
            )
        try:
            token = self.remaining.pop()
            if token["minus"] or (token["word"] or "").upper() == "NOT":
                negated = self.parse_term()
                return lambda row: not negated(row)
            if token["open"]:
                return self._parse_bracket()
            if token["field"]:
                value = token["value"].strip('"')
                return self.parse_field(token["field"].lower(), value, token.group().strip())
            return _match_caption(token["word"] if token["quoted"] is None else token["quoted"])
        finally:
            self.depth -= 1

    def _parse_bracket(self) -> Predicate:
        content = self.parse_or()
        if not self.remaining or not self.remaining[-1]["close"]:
            raise InvalidSpec(["Filter: an opening bracket is never closed; add the missing )."])
        self.remaining.pop()
        return content

    def parse_field(self, name: str, value: str, term_text: str) -> Predicate:
        """Return the predicate of `name:value`; `term_text` is how it is written, for faults."""
        if name in COUNTED_FIELDS:
            self.needs_tokens |= name == "tokens"
            return _parse_count_test(COUNTED_FIELDS[name], value, term_text)
        if name == "is":
            if value.lower() not in IMAGE_STATES:
                raise InvalidSpec(
                    [f"Filter: {quote(term_text)} is unknown; is: takes {', '.join(IMAGE_STATES)}."]
                )
            return IMAGE_STATES[value.lower()]
        if name == "tag":
            return _match_tag(value)
        if name == "name":
            return _match_path(value)
        if name == "caption":
            return _match_caption(value)
        if name == "concept":
            concept = value.casefold()
            return lambda row: row.concept.casefold() == concept
        raise InvalidSpec(
            [
                f"Filter: there is no field {quote(name)}; available: tag, name, caption, concept, "
                f"is, {', '.join(COUNTED_FIELDS)}. Put words that contain a colon in quotes."
            ]
        )


def _match_caption(words: str) -> Predicate:
    folded = words.casefold()
    return lambda row: folded in row.caption.casefold()


def _match_tag(pattern: str) -> Predicate:
    folded = pattern.casefold()
    return lambda row: any(fnmatchcase(tag.casefold(), folded) for tag in split_tags(row.caption))


def _match_path(pattern: str) -> Predicate:
    """Match a pattern that fits the whole path, or stands in it."""
    folded = pattern.casefold()

    def matches(row: CaptionRow) -> bool:
        path = row.key.casefold()
        return fnmatchcase(path, folded) or folded in path

    return matches


def _parse_count_test(
    get_count: Callable[[CaptionRow], int], value: str, term_text: str
) -> Predicate:
    count_match = _COUNT_PATTERN.fullmatch(value)
    if count_match is None:
        raise InvalidSpec([f"Filter: {quote(term_text)} needs a number, such as >77 or 3-8."])
    if count_match["minimum"]:
        minimum = int(count_match["minimum"])
        maximum = int(count_match["maximum"])
        return lambda row: minimum <= get_count(row) <= maximum
    compare = _COMPARISONS[count_match["sign"] or ""]
    number = int(count_match["number"])
    return lambda row: compare(get_count(row), number)
