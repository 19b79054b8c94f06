"""Templates as text → nodes.

Knows: the signs, after the documentation of dynamicprompts 0.31 (MIT), whose parser is not used:
its last release is of March 2024, and it takes exponential time for nested braces. Does not know:
how anything is chosen, files.

A template is recognised by its forms alone, everything else is words: a lone `{`, `{x}`, `__x`,
`50%`. Comments (`# …`, `// …`, `/* … */`) are left out of templates, and are words elsewhere. Those
to the end of a line stand at its beginning or behind a blank, and `#` before one: `https://…`, `#1`
and `#ff0000` are words.
"""

from __future__ import annotations

import re
from functools import lru_cache

from studio.core.generation.templates.nodes import (
    Access,
    Assignment,
    Node,
    Option,
    Series,
    Variants,
    Wildcard,
    Words,
    Wrap,
)
from studio.errors import quote

MAX_NESTING = 24  # of forms in each other
MAX_TEMPLATE_CHARS = 10_000
MAX_WILDCARD_CHARS = 300
WILDCARD_SIGN = "__"
# No template is without one of these.
_SIGNS_PATTERN = re.compile(r"\{[^{}]*(?:\||\$\$)|\|[^{}]*\}|\$\{|%\{|__")
_LINE_COMMENT = r"(?:^[ \t]*|(?<![ \t])[ \t]+)(?:#(?=[#\s]|$)|//)[^\n]*"
_LINE_COMMENT_PATTERN = re.compile(_LINE_COMMENT, re.MULTILINE)
_COMMENT_PATTERN = re.compile(rf"/\*.*?\*/|{_LINE_COMMENT}", re.DOTALL | re.MULTILINE)
_VARIABLE_PATTERN = re.compile(r"\s*([A-Za-z_-][\w-]*)\s*(\?=!?|=!?|:|$)\s*")
_BOUNDS_PATTERN = re.compile(r"(?:(\d{1,6})\s*(-)?\s*(\d{1,6})?|-\s*(\d{1,6}))\$\$")
_SEPARATOR_PATTERN = re.compile(r"([^${}]+)\$\$")
_WEIGHT_PATTERN = re.compile(r"\s*(\d{1,9}\.?\d{0,9}|\.\d{1,9})\s*::")
_LONE_START_PATTERN = re.compile(rf"\s*(?:{_WEIGHT_PATTERN.pattern})?\s*")
_TURN_PATTERN = re.compile(r"\s*([~!@])")
# What a wildcard's name may hold beside letters and digits; `*`, `?`, `[` are a glob's.
_NAME_CHARACTERS = frozenset(" _-./\\*?[]&'+")


def parse_template(text: str) -> Node | None:
    """Return what a template is made of; None for a text that is no template.

    Args:
        text: The prompt.

    Raises:
        ValueError: A form is there that cannot be; it names the place.
    """
    if not _SIGNS_PATTERN.search(text):
        return None
    if len(text) > MAX_TEMPLATE_CHARS:
        raise ValueError(f"a template can have at most {MAX_TEMPLATE_CHARS:,} characters.")
    return _parse_known(text)


@lru_cache(maxsize=512)
def _parse_known(text: str) -> Node | None:
    template = _remove_comments(text)
    node = _Parser(template).parse()
    is_comment = template != text and _SIGNS_PATTERN.search(template) is None
    return None if isinstance(node, Words) and not is_comment else node


def _remove_comments(text: str) -> str:
    # Beyond the last end of a comment each beginning would look for one in vain.
    end = text.rfind("*/") + 2 if "*/" in text else 0
    return _COMMENT_PATTERN.sub("", text[:end]) + _LINE_COMMENT_PATTERN.sub("", text[end:])


class _Parser:
    """Reads one text. Which brackets belong together is found first, so that all is linear."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.ends = _match_braces(text)

    def parse(self) -> Node:
        return self._parse_series(0, len(self.text), 0)

    def _parse_series(self, start: int, end: int, depth: int) -> Node:
        """Read a stretch of text; words alone come to `Words`."""
        if depth > MAX_NESTING:
            raise ValueError(
                f"templates can be nested at most {MAX_NESTING} deep (at character {start + 1})."
            )
        parts: list[Node] = []
        words_start = position = start
        while position < end:
            form = self._parse_form(position, end, depth)
            if form is None:
                position += 1
                continue
            node, next_position = form
            if position > words_start:
                parts.append(Words(self.text[words_start:position]))
            parts.extend(node.parts if isinstance(node, Series) else [node])
            words_start = position = next_position
        if end > words_start:
            parts.append(Words(self.text[words_start:end]))
        return _join_words(parts)

    def _parse_form(self, position: int, end: int, depth: int) -> tuple[Node, int] | None:
        """Return the form that begins here and where it ends; None where none does."""
        text = self.text
        match text[position]:
            case "$" | "%" if text.startswith("{", position + 1) and position + 1 in self.ends:
                sign, brace = text[position], position + 1
                read = self._parse_variable if sign == "$" else self._parse_wrap
                node = read(brace + 1, self.ends[brace], depth)
                return (node, self.ends[brace] + 1) if node else None
            case "{" if position in self.ends:
                closing = self.ends[position]
                return self._parse_variants(position + 1, closing, depth), closing + 1
            case "_" if text.startswith(WILDCARD_SIGN, position):
                return self._parse_wildcard(position, end, depth)
        return None

    # ---- braces ----------------------------------------------------------------------------------

    def _parse_variants(self, start: int, end: int, depth: int) -> Node:
        """Read `2$$ and $$a|b`; braces are words where nothing says that these are variants."""
        text, position = self.text, start
        turn = _TURN_PATTERN.match(text, position, end)
        if turn:
            position = turn.end()
        bounds = _BOUNDS_PATTERN.match(text, _skip_blanks(text, position, end), end)
        separator = ","
        if bounds:
            position = bounds.end()
            if written := _SEPARATOR_PATTERN.match(text, position, end):
                separator, position = written[1], written.end()
        pieces = self._split(position, end, "|")
        if len(pieces) == 1 and not bounds:
            return self._parse_lone_braces(start, end, depth)
        options = tuple(self._parse_option(*piece, depth) for piece in pieces)
        source = text[start - 1 : end + 1]
        if turn and turn[1] != "~":
            raise ValueError(
                f"{quote(source)} goes through its options in turn ({turn[1]}), which a single "
                "image cannot do; remove that sign, or make all combinations in a sweep."
            )
        if not any(option.weight for option in options):
            raise ValueError(f"in {quote(source)} all weights are 0; raise at least one.")
        least, most = _read_bounds(bounds, len(options))
        return Variants(options, least, most, separator, source)

    def _parse_lone_braces(self, start: int, end: int, depth: int) -> Node:
        """Read `{__x__}`, some line of a list, or `{x}`, which are words."""
        inner = self._parse_series(start, end, depth + 1)
        parts = list(inner.parts if isinstance(inner, Series) else (inner,))
        if isinstance(parts[0], Words) and _LONE_START_PATTERN.fullmatch(parts[0].text):
            del parts[0]
        match parts:
            case [Wildcard() as wildcard]:  # drawn as one of several are, not as one alone
                return Variants((Option(wildcard),), source=self.text[start - 1 : end + 1])
            case [Access() | Variants()]:
                return parts[0]
            case [Wildcard() | Access() | Variants(), Words(text=text)] if text.isspace():
                return _join_words(parts)
        return _join_words([Words("{"), inner, Words("}")])

    def _parse_option(self, start: int, end: int, depth: int) -> Option:
        start = _skip_blanks(self.text, start, end)
        weight = _WEIGHT_PATTERN.match(self.text, start, end)
        if weight:
            start = weight.end()
        node = self._parse_series(start, end, depth + 1)
        return Option(node, float(weight[1]) if weight else 1.0)

    def _parse_variable(self, start: int, end: int, depth: int) -> Node | None:
        """Read `x`, `x:default`, `x=value`, `x=!value`, `x?=value`."""
        name = _VARIABLE_PATTERN.match(self.text, start, end)
        if name is None:
            return None
        sign = name[2]
        if not sign:
            return Access(name[1])
        value = self._parse_series(name.end(), end, depth + 1)
        if sign == ":":
            return Access(name[1], value)
        return Assignment(
            name[1], value, is_immediate=sign.endswith("!"), keeps_earlier=sign.startswith("?")
        )

    def _parse_wrap(self, start: int, end: int, depth: int) -> Wrap | None:
        pieces = self._split(start, end, "$$")
        if len(pieces) != 2:
            return None
        (start, middle), (inner_start, end) = pieces
        wrapper = self._parse_series(_skip_blanks(self.text, start, middle), middle, depth + 1)
        inner_start = _skip_blanks(self.text, inner_start, end)
        return Wrap(wrapper, self._parse_series(inner_start, end, depth + 1))

    def _split(self, start: int, end: int, sign: str) -> list[tuple[int, int]]:
        """Return the stretches between signs that are in no inner braces."""
        pieces = []
        piece_start = position = start
        while position < end:
            if position in self.ends:
                position = self.ends[position] + 1
            elif self.text.startswith(sign, position):
                pieces.append((piece_start, position))
                piece_start = position = position + len(sign)
            else:
                position += 1
        return [*pieces, (piece_start, end)]

    # ---- wildcards -------------------------------------------------------------------------------

    def _parse_wildcard(self, start: int, end: int, depth: int) -> tuple[Node, int] | None:
        """Read `__name__`, `__name(x=red)__`; None where it is not closed or no name."""
        text = self.text
        name_start = start + len(WILDCARD_SIGN)
        turn = text[name_start : name_start + 1] in ("!", "@", "~")
        name_start += turn
        name_end = self._find_name_end(name_start, min(end, name_start + MAX_WILDCARD_CHARS))
        name = text[name_start:name_end]
        closing, variables = name_end, ""
        if name_end < end and text[name_end] == "(":
            bracket = text.find(")", name_end, min(end, name_end + MAX_WILDCARD_CHARS))
            if bracket < 0:
                return None
            closing, variables = bracket + 1, text[name_end + 1 : bracket]
            name = name.rstrip()
        is_closed = text.startswith(WILDCARD_SIGN, closing) and closing + 2 <= end
        if not is_closed or not name or name != name.strip():
            return None
        source = text[start : closing + 2]
        if turn and source[2] != "~":
            raise ValueError(
                f"{quote(source)} goes through its lines in turn ({source[2]}), which a single "
                "image cannot do; remove that sign, or make all combinations in a sweep."
            )
        node = self._parse_series(name_start, name_start + len(name), depth + 1)
        return Wildcard(node, _parse_variables(variables, depth), source), closing + 2

    def _find_name_end(self, position: int, end: int) -> int:
        """Return where a wildcard's name ends: before `__`, `(`, or what no name has."""
        text = self.text
        while position < end and not text.startswith(WILDCARD_SIGN, position):
            brace = position + 1 if text[position] == "$" else position
            if brace in self.ends and self.ends[brace] < end:
                position = self.ends[brace] + 1
            elif text[position].isalnum() or text[position] in _NAME_CHARACTERS:
                position += 1
            else:
                break
        return position


def _parse_variables(text: str, depth: int) -> tuple[tuple[str, Node], ...]:
    """Read the values in a wildcard's brackets: `x=red, y={a|b}`."""
    variables = []
    for pair in text.split(",") if text.strip() else []:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_-][\w-]*", name.strip()):
            raise ValueError(
                f"{quote(pair.strip())} in a wildcard's parentheses sets no variable; write "
                "__name(x=red)__."
            )
        if depth > MAX_NESTING:
            raise ValueError(f"templates can be nested at most {MAX_NESTING} deep.")
        parser = _Parser(value.strip())
        variables.append((name.strip(), parser._parse_series(0, len(parser.text), depth + 1)))
    return tuple(variables)


def _match_braces(text: str) -> dict[int, int]:
    """Return for each opening brace that is closed where that is."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    for place in re.finditer("[{}]", text):
        if place[0] == "{":
            opened.append(place.start())
        elif opened:
            ends[opened.pop()] = place.start()
    return ends


def _skip_blanks(text: str, position: int, end: int) -> int:
    while position < end and text[position].isspace():
        position += 1
    return position


def _read_bounds(bounds: re.Match[str] | None, num_options: int) -> tuple[int, int]:
    """Return how many options are chosen at least and at most: `2`, `1-2`, `1-`, `-2`."""
    if bounds is None:
        return 1, 1
    least, hyphen, most, only_most = bounds.groups()
    if only_most is not None:
        least, most = "1", only_most
    elif not hyphen:
        least = most = least + (most or "")
    low = int(least)
    high = int(most) if most is not None else num_options
    return min(low, high), max(low, high)


def _join_words(parts: list[Node]) -> Node:
    """Return parts as one node, neighbouring words together; words alone stay words."""
    joined: list[Node] = []
    for part in parts:
        for node in part.parts if isinstance(part, Series) else (part,):
            if isinstance(node, Words) and joined and isinstance(joined[-1], Words):
                joined[-1] = Words(joined[-1].text + node.text)
            else:
                joined.append(node)
    if not joined:
        return Words("")
    if len(joined) == 1 and isinstance(joined[0], Words):
        return joined[0]
    if len(joined) == 1 and not isinstance(joined[0], Assignment):
        return joined[0]
    return Series(tuple(joined))
