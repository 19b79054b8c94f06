"""Filters: a line of text that says which pictures are meant.

    boat                     "boat" stands in the caption              tag:boat  tag:red*   a whole tag, with * and ?
    "red boat"               these words in this order                 name:img_*           the file's path
    tokens:>77  words:<3     counts: = < <= > >=, or 3-8               is:missing           no caption
    tags:0  chars:>200  width:<512  height:…  side:<512 (the shorter)  is:broken            cannot be used
    repeats:10  bytes:…  concept:moon                                  is:captioned

    boat lake        both          boat OR lake        not boat, -boat        (boat OR ship) -tag:red

Knows: this grammar and rows. Does not know: where pictures are. Capitals do not count, but OR, AND and NOT work in any case.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from studio.core.captions.edits import Row
from studio.core.captions.text import tags
from studio.errors import InvalidSpec

LONGEST, DEEPEST = 2000, 40  # characters of a filter, brackets within brackets
_TOKEN = re.compile(
    r'\s*(?:(?P<open>\()|(?P<close>\))|(?P<minus>-(?=[^\s)]))|(?P<field>[A-Za-z]+):(?P<value>"[^"]*"|[^\s()"]*)'
    r'|"(?P<quoted>[^"]*)"|(?P<word>[^\s()"]+))'
)
_COUNT = re.compile(
    r"(?P<sign><=|>=|<|>|=)?(?P<number>\d{1,12})|(?P<least>\d{1,12})-(?P<most>\d{1,12})"
)
_SIGNS: dict[str, Callable[[int, int], bool]] = {
    "": operator.eq,
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
COUNTS: dict[str, Callable[[Row], int]] = {
    "tokens": lambda row: row.tokens,
    "words": lambda row: len(row.caption.split()),
    "tags": lambda row: len(tags(row.caption)),
    "chars": lambda row: len(row.caption),
    "width": lambda row: row.width,
    "height": lambda row: row.height,
    "side": lambda row: min(row.width, row.height),
    "repeats": lambda row: row.repeats,
    "bytes": lambda row: row.bytes,
}
STATES: dict[str, Callable[[Row], bool]] = {
    "missing": lambda row: not row.caption,
    "captioned": lambda row: bool(row.caption),
    "broken": lambda row: bool(row.reason or row.fault),
}
Test = Callable[[Row], bool]


@dataclass(frozen=True)
class Filter:
    """A filter that was understood. `asks_tokens`: rows need their `tokens`, which take time to count."""

    holds: Test
    asks_tokens: bool


def parse(text: str) -> Filter:
    """Read a filter; an empty one lets everything through. Raises InvalidSpec with a sentence on what is wrong."""
    if len(text) > LONGEST:
        raise InvalidSpec([f"Filter: has {len(text)} characters; at most {LONGEST} can be."])
    reader = _Reader(text)
    test = reader.either() if reader.more else (lambda row: True)
    if reader.more:
        raise InvalidSpec([f"Filter: a ) at {reader.shown()} that nothing opened."])
    return Filter(test, reader.tokens)


class _Reader:
    """Reads a filter from left to right."""

    def __init__(self, text: str) -> None:
        self.left: list[re.Match[str]] = []
        self.depth, self.tokens, at = 0, False, 0
        text = text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise InvalidSpec([f"Filter: a quote is not closed at {text[at:].strip()!r:.40}."])
            self.left.append(match)
            at = match.end()
        self.left.reverse()

    @property
    def more(self) -> bool:
        return bool(self.left)

    def shown(self) -> str:
        return repr(self.left[-1].group().strip()) if self.left else "the end"

    def word(self) -> str:
        """The next piece in capitals, if it is a plain word."""
        return (self.left[-1]["word"] or "").upper() if self.left else ""

    def either(self) -> Test:
        tests = [self.all()]
        while self.word() == "OR":
            self.left.pop()
            tests.append(self.all())
        return tests[0] if len(tests) == 1 else lambda row: any(test(row) for test in tests)

    def all(self) -> Test:
        tests = [self.one()]
        while self.left and self.word() != "OR" and not self.left[-1]["close"]:
            if self.word() == "AND":
                self.left.pop()
            tests.append(self.one())
        return tests[0] if len(tests) == 1 else lambda row: all(test(row) for test in tests)

    def one(self) -> Test:
        if not self.left or self.left[-1]["close"] or self.word() in ("OR", "AND"):
            raise InvalidSpec([f"Filter: something to look for is missing before {self.shown()}."])
        self.depth += 1
        if self.depth > DEEPEST:
            raise InvalidSpec(
                [f"Filter: more than {DEEPEST} brackets or nots lie within each other."]
            )
        try:
            piece = self.left.pop()
            if piece["minus"] or (piece["word"] or "").upper() == "NOT":
                test = self.one()
                return lambda row: not test(row)
            if piece["open"]:
                inner = self.either()
                if not self.left or not self.left[-1]["close"]:
                    raise InvalidSpec(["Filter: a ( is not closed."])
                self.left.pop()
                return inner
            if piece["field"]:
                return self.field(
                    piece["field"].lower(), piece["value"].strip('"'), piece.group().strip()
                )
            wanted = (piece["quoted"] if piece["quoted"] is not None else piece["word"]).casefold()
            return lambda row: wanted in row.caption.casefold()
        finally:
            self.depth -= 1

    def field(self, name: str, value: str, shown: str) -> Test:
        if name in COUNTS:
            self.tokens |= name == "tokens"
            return _counting(COUNTS[name], value, shown)
        if name == "is":
            if value.lower() not in STATES:
                raise InvalidSpec(
                    [f"Filter: {shown!r:.60} is unknown; is: takes {', '.join(STATES)}."]
                )
            return STATES[value.lower()]
        wanted = value.casefold()
        if name == "tag":
            return lambda row: any(fnmatchcase(tag.casefold(), wanted) for tag in tags(row.caption))
        if name == "name":
            return lambda row: (
                fnmatchcase(row.key.casefold(), wanted) or wanted in row.key.casefold()
            )
        if name == "caption":
            return lambda row: wanted in row.caption.casefold()
        if name == "concept":
            return lambda row: row.concept.casefold() == wanted
        raise InvalidSpec(
            [
                f"Filter: there is no {name!r:.40} to look for; there is tag, name, caption, concept, is, "
                f"{', '.join(COUNTS)}. Write words with a colon in quotes."
            ]
        )


def _counting(count: Callable[[Row], int], value: str, shown: str) -> Test:
    found = _COUNT.fullmatch(value)
    if found is None:
        raise InvalidSpec([f"Filter: {shown!r:.60} needs a number, such as >77 or 3-8."])
    if found["least"]:
        least, most = int(found["least"]), int(found["most"])
        return lambda row: least <= count(row) <= most
    compare, number = _SIGNS[found["sign"] or ""], int(found["number"])
    return lambda row: compare(count(row), number)
