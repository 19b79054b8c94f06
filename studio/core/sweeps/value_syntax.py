"""The value syntax of a sweep's axes: text ⇄ values.

Knows: lists, ranges, exact decimals, quotes; how to say which value is wrong.
Does not know: axes and fields, or which values are valid (the request checks that, cell by cell).

    7, 7.5, 8                     values with commas (or lines) between them
    1-10   10-1   -2..2           from, to: both included, rising or falling; the step is 1
    1-10 (+2)   0..1 +0.25        with a step; a value beyond the end is left out
    0-1 [6]                       so many values, evenly
    512x768, 768x512              sizes: width, height
    0,5; 0,75; 1                  with semicolons between numbers, a comma is a decimal comma
    "a cat, asleep", a dog        texts; quotes around a comma, "" within quotes for a quote

A1111 has the same ranges, but some come out odd there. Here `10-5` is 10 9 8 7 6 5, not nothing;
`0-1 (+0.3)` ends with 0.9, not 1.2; `0.7-1.0` asks for a step instead of giving 0.7 1.7; whole
numbers of `1-10 [5]` are rounded (1 3 6 8 10), not cut off; `1-10 (2)` and `.5-1 (+.25)` are
accepted; `1-5 [0]` and `1-10 (+0)` are refused in words; `0.1-0.5 (+0.1)` holds 0.3, not
0.30000000000000004. A step is a size, `+` or not; one with a minus has to lead downwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from math import isfinite

from studio.core.catalog import AxisKind
from studio.core.decimals import replace_decimal_comma
from studio.errors import InvalidSpec, quote

AxisValue = int | float | str

MAX_VALUES = 10_000  # of one axis
MAX_LIST_CHARS = 1_000_000  # characters of a list
MAX_REPORTED_FAULTS = 10  # of one axis
_DECIMAL_CONTEXT = Context(prec=60)
_MAX_NUMBER = 10**20
_MAX_DECIMAL_PLACES = 15
_MAX_NUMBER_CHARS = 100

_UNSIGNED = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?"
_NUMBER = rf"[+-]?{_UNSIGNED}"
_NUMBER_PATTERN = re.compile(_NUMBER)
_STEP = (
    rf"\(\s*(?P<step>{_NUMBER})\s*\)|(?P<bare>[+-]{_UNSIGNED})|\[\s*(?P<count>[0-9]{{1,9}})\s*\]"
)
_RANGE_PATTERN = re.compile(
    rf"(?P<first>{_NUMBER})\s*(?:-|\.\.)\s*(?P<last>{_NUMBER})\s*(?:{_STEP})?"
)
_SIZE_PATTERN = re.compile(r"([0-9]{1,9})\s*[xX×]\s*([0-9]{1,9})")
_SEPARATOR_PATTERN = re.compile(r"[,\n]")
_COMMA_IN_NUMBER = re.compile(r"(?<=[0-9]),(?=[0-9])")
_SPACED_COMMA = re.compile(r",[ \t]")
_LEADING_ZERO = re.compile(r"(?<![0-9.])0,[0-9]")
_ZERO_BEFORE_DIGITS = re.compile(r"0[0-9]+")


class _BadValue(ValueError):
    """A fault of one value, as the end of a sentence that starts with the value."""


def parse_values(values: str | Sequence[object], kind: AxisKind) -> tuple[AxisValue, ...]:
    """Parse the values of an axis.

    Args:
        values: A list, or a text in the syntax above.
        kind: What the axis takes: `text`, `size`, `whole` (integers) or `number`.

    Returns:
        The values, ranges expanded; a size as "512x768".

    Raises:
        InvalidSpec: Values are wrong; it names each of them by its place, counted from 1.
    """
    if isinstance(values, str) and kind in ("number", "whole"):
        values = _read_decimal_commas(values, kind)
    faults: list[str] = []
    parsed: list[AxisValue] = []
    for place, (token, quote_fault) in enumerate(_split_tokens(values), 1):
        try:
            if quote_fault:
                raise _BadValue(quote_fault)
            parsed += _parse_token(token, kind)
        except _BadValue as error:
            faults.append(f"value {place}, {_format_token(token)}, {error}.")
        if len(parsed) > MAX_VALUES or len(faults) > MAX_VALUES:
            raise InvalidSpec([f"there are more than {MAX_VALUES:,} values."])
    surplus = len(faults) - MAX_REPORTED_FAULTS
    if surplus > 0:
        faults[MAX_REPORTED_FAULTS:] = [f"{surplus:,} more values are invalid."]
    if faults or not parsed:
        raise InvalidSpec(faults or ["there are no values."])
    return tuple(parsed)


def format_values(values: Iterable[AxisValue]) -> str:
    """Return values as a text that parses to the same values."""
    texts = [format_value(value) for value in values]
    return ", ".join(_quote(text) if _needs_quotes(text) else text for text in texts)


def _needs_quotes(text: str) -> bool:
    if not text or text != text.strip() or text[0] == '"':
        return True
    return "," in text or "\n" in text


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def format_value(value: AxisValue) -> str:
    """Return a value as people write it: 7.0 is 7, and 1e-05 is 0.00001."""
    if not isinstance(value, float):
        return str(value)
    if not 1e-15 <= abs(value) < _MAX_NUMBER:
        return f"{value:g}"
    text = f"{Decimal(repr(value)):f}"
    return text.rstrip("0").removesuffix(".") if "." in text else text


def parse_size(size: str) -> tuple[int, int]:
    """Return width and height of a size as `parse_values` writes it."""
    width, height = size.split("x")
    return int(width), int(height)


def _read_decimal_commas(text: str, kind: AxisKind) -> str:
    """Return a list of numbers with points for decimal commas, and commas between its values.

    Raises InvalidSpec where a comma may be either.
    """
    if len(text) > MAX_LIST_CHARS:
        return text  # which is refused for its length
    if ";" in text:
        return _COMMA_IN_NUMBER.sub(".", text).replace(";", ",")
    if kind == "number":
        tokens = re.split(r"[,\n]", text)
        has_cut_number = any(_ZERO_BEFORE_DIGITS.fullmatch(token) for token in tokens[1:])
        is_mixed = _SPACED_COMMA.search(text) and _LEADING_ZERO.search(text)
        if '"' not in text and (has_cut_number or is_mixed):
            raise InvalidSpec(
                [
                    f"{quote(text.strip())} can be read in two ways: write decimals with a point, "
                    "as in 0.5, or put semicolons between the values, as in 0,5; 0,75."
                ]
            )
    return text


def _split_tokens(values: str | Sequence[object]) -> Iterator[tuple[object, str]]:
    """Yield each value as written, with what is wrong with its quotes (usually empty)."""
    if not isinstance(values, str):
        yield from ((value, "") for value in values)
        return
    if len(values) > MAX_LIST_CHARS:
        raise InvalidSpec([f"the list of values is longer than {MAX_LIST_CHARS:,} characters."])
    start = 0
    while start < len(values):
        while start < len(values) and values[start] in " \t\r":
            start += 1
        if values[start : start + 1] == '"':
            closing = _find_closing_quote(values, start + 1)
            if closing < 0:
                yield values[start:], "has no closing quote"
                return
            stop = _find_separator(values, closing + 1)
            remainder = values[closing + 1 : stop].strip()
            if remainder:
                fault = f"has text after its closing quote: {quote(remainder)}"
                yield values[start:stop], fault
            else:
                yield values[start + 1 : closing].replace('""', '"'), ""
        else:
            stop = _find_separator(values, start)
            token = values[start:stop].strip()
            if token:
                yield token, ""
            elif values[stop : stop + 1] == ",":
                yield token, 'is empty: remove a comma, or write "" for an empty text'
            # An empty line, or nothing after the last comma, is no value.
        start = stop + 1


def _find_closing_quote(text: str, start: int) -> int:
    """Return the position of the first single quotation mark; -1 if there is none."""
    position = text.find('"', start)
    while position >= 0 and text[position + 1 : position + 2] == '"':
        position = text.find('"', position + 2)
    return position


def _find_separator(text: str, start: int) -> int:
    """Return where the next comma or line break is, or the text's end."""
    separator = _SEPARATOR_PATTERN.search(text, start)
    return separator.start() if separator else len(text)


def _parse_token(token: object, kind: AxisKind) -> list[AxisValue]:
    if kind == "text":
        return _parse_text(token)
    if kind == "size":
        return _parse_size_token(token)
    return _parse_numbers(token, kind == "whole")


def _parse_text(token: object) -> list[AxisValue]:
    if isinstance(token, bool) or not isinstance(token, AxisValue):
        raise _BadValue("is neither text nor a number")
    # ValueError: half a surrogate pair, or a number of more digits than Python writes out.
    try:
        text = token if isinstance(token, str) else format_value(token)
        text.encode()
    except ValueError:
        raise _BadValue("is not text") from None
    return [text]


def _parse_size_token(token: object) -> list[AxisValue]:
    size_match = None
    if isinstance(token, str) and len(token) <= _MAX_NUMBER_CHARS:
        size_match = _SIZE_PATTERN.fullmatch(token.strip())
    if not size_match:
        raise _BadValue("is not a size such as 512x768")
    width, height = map(int, size_match.groups())
    return [f"{width}x{height}"]


def _parse_numbers(token: object, integers_only: bool) -> list[AxisValue]:
    """Return one number, or those of a range."""
    if isinstance(token, str):
        text = token if integers_only else _COMMA_IN_NUMBER.sub(".", replace_decimal_comma(token))
        decimals = _parse_number_text(text.strip(), integers_only)
        return [_to_number(value, integers_only) for value in decimals]
    if isinstance(token, bool) or not isinstance(token, int | float):
        raise _BadValue("is not a number")
    if isinstance(token, float) and not isfinite(token):
        raise _BadValue("is not a number")
    if abs(token) >= _MAX_NUMBER:
        raise _BadValue("is too large")
    if integers_only and token != int(token):
        raise _BadValue("is not a whole number")
    return [int(token) if integers_only else float(token)]


def _parse_number_text(text: str, integers_only: bool) -> list[Decimal]:
    if len(text) <= _MAX_NUMBER_CHARS:
        if range_match := _RANGE_PATTERN.fullmatch(text):
            return _expand_range(range_match, integers_only)
        if _NUMBER_PATTERN.fullmatch(text):
            return [_parse_decimal(text)]
    raise _BadValue("is neither a number nor a range such as 1-10 (+2)")


def _parse_decimal(text: str) -> Decimal:
    value = _DECIMAL_CONTEXT.create_decimal(text)
    if abs(value) >= _MAX_NUMBER:
        raise _BadValue("is too large")
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -_MAX_DECIMAL_PLACES:
        raise _BadValue(f"has more than {_MAX_DECIMAL_PLACES} decimal places")
    return value


def _to_number(value: Decimal, integers_only: bool) -> AxisValue:
    if integers_only and value != int(value):
        raise _BadValue("is not a whole number")
    return int(value) if integers_only else float(value)


def _expand_range(range_match: re.Match[str], integers_only: bool) -> list[Decimal]:
    first = _parse_decimal(range_match["first"])
    last = _parse_decimal(range_match["last"])
    if range_match["count"]:
        return _space_evenly(first, last, int(range_match["count"]), integers_only)
    step_text = range_match["step"] or range_match["bare"]
    step = _parse_decimal(step_text or "1")
    with localcontext(_DECIMAL_CONTEXT):
        if not step:
            raise _BadValue("has a step of 0")
        if step < 0 and last > first:
            raise _BadValue(f"increases, so its step cannot be {step_text}")
        if not step_text and (last - first) % 1:
            raise _BadValue(
                f"needs a step, such as {range_match['first']}-{range_match['last']} (+0.1)"
            )
        if integers_only and (first % 1 or step % 1):
            raise _BadValue("does not produce whole numbers")
        step = -abs(step) if last < first else abs(step)
        count = int((last - first) // step) + 1
        if count > MAX_VALUES:
            raise _BadValue(f"gives {count:,} values; at most {MAX_VALUES:,} are allowed")
        return [first + step * k for k in range(count)]


def _space_evenly(first: Decimal, last: Decimal, count: int, integers_only: bool) -> list[Decimal]:
    """Return `count` numbers from `first` to `last`, to seven digits of their distance.

    Whole numbers are rounded.
    """
    if first == last and count == 1:
        return [first]
    if not 2 <= count <= MAX_VALUES:
        raise _BadValue(f"must give 2 to {MAX_VALUES:,} values")
    with localcontext(_DECIMAL_CONTEXT):
        span = last - first
        if not span:
            raise _BadValue("contains only one number")
        exponent = 0 if integers_only else min(0, span.adjusted()) - 7
        quantum = Decimal(1).scaleb(exponent)
        exact_values = [first + span * k / (count - 1) for k in range(count)]
        values = [value.quantize(quantum, ROUND_HALF_UP) for value in exact_values]
        values[-1] = last
    if len(set(values)) < count:
        unit = "whole numbers" if integers_only else "numbers"
        raise _BadValue(f"does not contain {count} {unit}")
    return values


def _format_token(token: object) -> str:
    # Python writes out neither a number of 5000 digits nor lists 1000 deep.
    try:
        return f"{quote(token)}".encode(errors="replace").decode()
    except (ValueError, RecursionError):
        return f"this {type(token).__name__}"
