"""The value syntax of a sweep's axes: text ⇄ values.

Knows: lists, ranges, exact decimals, quotes; how to say which value is wrong. Does not know: axes and fields, or which values
are possible (the request says that, cell by cell).

    7, 7.5, 8                     values with commas (or lines) between them
    1-10   10-1   -2..2           from, to: both included, rising or falling; the step is 1
    1-10 (+2)   0..1 +0.25        with a step; what does not fit before the end is left out
    0-1 [6]                       so many values, evenly
    512x768, 768x512              sizes: width, height
    "a cat, asleep", a dog        texts; quotes around one with a comma, "" within quotes for a quote

A1111 knows the same ranges, but some come out odd there. Here `10-5` is 10 9 8 7 6 5, not nothing; `0-1 (+0.3)` ends with
0.9, not 1.2; `0.7-1.0` asks for a step instead of giving 0.7 1.7; whole numbers of `1-10 [5]` are rounded (1 3 6 8 10), not cut
off; `1-10 (2)` and `.5-1 (+.25)` are taken; `1-5 [0]` and `1-10 (+0)` are refused in words; `0.1-0.5 (+0.1)` holds 0.3, not
0.30000000000000004. A step is a size, `+` or not; one with a minus has to lead downwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from math import isfinite

from studio.core.catalog import AxisKind
from studio.errors import InvalidSpec

Plain = int | float | str

MOST_VALUES = 10_000  # of one axis
LONGEST = 1_000_000  # characters of a list
MOST_FAULTS = 10  # told of one axis
_EXACT = Context(prec=60)
_LARGEST, _PLACES, _LONGEST_NUMBER = 10**20, 15, 100

_UNSIGNED = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?"
_NUMBER = rf"[+-]?{_UNSIGNED}"
_ONE = re.compile(_NUMBER)
_STEP = rf"\(\s*(?P<step>{_NUMBER})\s*\)|(?P<bare>[+-]{_UNSIGNED})|\[\s*(?P<many>[0-9]{{1,9}})\s*\]"
_RANGE = re.compile(rf"(?P<first>{_NUMBER})\s*(?:-|\.\.)\s*(?P<last>{_NUMBER})\s*(?:{_STEP})?")
_SIZE = re.compile(r"([0-9]{1,9})\s*[xX×]\s*([0-9]{1,9})")
_BETWEEN = re.compile(r"[,\n]")


class _Bad(ValueError):
    """What is wrong with one value, as the end of a sentence that starts with it."""


def read(values: str | Sequence[object], kind: AxisKind) -> tuple[Plain, ...]:
    """The values that a list, or a text in the syntax above, stands for; a size comes as "512x768".

    Raises InvalidSpec, which names every bad value by its place, counted from 1.
    """
    faults: list[str] = []
    found: list[Plain] = []
    for place, (token, broken) in enumerate(_tokens(values), 1):
        try:
            if broken:
                raise _Bad(broken)
            found += (
                _words(token)
                if kind == "text"
                else _sizes(token)
                if kind == "size"
                else _numbers(token, kind == "whole")
            )
        except _Bad as bad:
            faults.append(f"value {place}, {_shown(token)}, {bad}.")
        if len(found) > MOST_VALUES or len(faults) > MOST_VALUES:
            raise InvalidSpec([f"there are more than {MOST_VALUES:,} values."])
    if len(faults) > MOST_FAULTS:
        faults[MOST_FAULTS:] = [f"{len(faults) - MOST_FAULTS:,} more values are wrong."]
    if faults or not found:
        raise InvalidSpec(faults or ["there are no values."])
    return tuple(found)


def write(values: Iterable[Plain]) -> str:
    """Values as a text that reads back as the same values."""
    shown = []
    for value in values:
        text = plain(value)
        special = (
            not text
            or text != text.strip()
            or text[0] == '"'
            or any(character in text for character in ",\n")
        )
        shown.append('"' + text.replace('"', '""') + '"' if special else text)
    return ", ".join(shown)


def plain(value: Plain) -> str:
    """A value for people: 7.0 is 7, and 1e-05 is 0.00001."""
    if isinstance(value, float) and 1e-15 <= abs(value) < _LARGEST:
        text = f"{Decimal(repr(value)):f}"
        return text.rstrip("0").removesuffix(".") if "." in text else text
    return f"{value:g}" if isinstance(value, float) else str(value)


def pair(size: str) -> tuple[int, int]:
    """Width and height of a size that `read` gave."""
    width, height = size.split("x")
    return int(width), int(height)


def _tokens(values: str | Sequence[object]) -> Iterator[tuple[object, str]]:
    """Each value as written, and what is wrong with its quotes."""
    if not isinstance(values, str):
        yield from ((value, "") for value in values)
        return
    if len(values) > LONGEST:
        raise InvalidSpec([f"the list of values is longer than {LONGEST:,} characters."])
    at, end = 0, len(values)
    while at < end:
        while at < end and values[at] in " \t\r":
            at += 1
        if values[at : at + 1] == '"':
            closing = at + 1
            while (closing := values.find('"', closing)) >= 0 and values[
                closing + 1 : closing + 2
            ] == '"':
                closing += 2
            if closing < 0:
                yield values[at:], "has no closing quote"
                return
            between = _BETWEEN.search(values, closing + 1)
            stop = between.start() if between else end
            after = values[closing + 1 : stop].strip()
            yield (
                (values[at:stop], f"goes on after its closing quote with {after!r:.40}")
                if after
                else (values[at + 1 : closing].replace('""', '"'), "")
            )
        else:
            between = _BETWEEN.search(values, at)
            stop = between.start() if between else end
            token = values[at:stop].strip()
            if token or (
                values[stop : stop + 1] == ","
            ):  # an empty line, or nothing after the last comma, is no value
                yield token, "" if token else 'is empty: leave out a comma, or write "" for no text'
        at = stop + 1


def _words(token: object) -> list[Plain]:
    if isinstance(token, bool) or not isinstance(token, Plain):
        raise _Bad("is neither text nor a number")
    try:
        text = token if isinstance(token, str) else plain(token)
        text.encode()
    except ValueError:  # half a character, or a number that Python does not write out
        raise _Bad("is no text") from None
    return [text]


def _sizes(token: object) -> list[Plain]:
    found = (
        _SIZE.fullmatch(token.strip())
        if isinstance(token, str) and len(token) <= _LONGEST_NUMBER
        else None
    )
    if not found:
        raise _Bad("is no size such as 512x768")
    return [f"{int(found[1])}x{int(found[2])}"]


def _numbers(token: object, whole: bool) -> list[Plain]:
    if isinstance(token, str):
        token = token.strip()
        if len(token) <= _LONGEST_NUMBER:
            if found := _RANGE.fullmatch(token):
                return [_number(value, whole) for value in _range(found, whole)]
            if _ONE.fullmatch(token):
                return [_number(_exact(token), whole)]
        raise _Bad("is no number, and no range such as 1-10 (+2)")
    if (
        isinstance(token, bool)
        or not isinstance(token, int | float)
        or not (isinstance(token, int) or isfinite(token))
    ):
        raise _Bad("is no number")
    if abs(token) >= _LARGEST:
        raise _Bad("is too large")
    if whole and token != int(token):
        raise _Bad("is not a whole number")
    return [int(token) if whole else float(token)]


def _exact(text: str) -> Decimal:
    value = _EXACT.create_decimal(text)
    if abs(value) >= _LARGEST:
        raise _Bad("is too large")
    if not isinstance(exponent := value.as_tuple().exponent, int) or exponent < -_PLACES:
        raise _Bad(f"has more than {_PLACES} digits after the point")
    return value


def _number(value: Decimal, whole: bool) -> Plain:
    if whole and value != int(value):
        raise _Bad("is not a whole number")
    return int(value) if whole else float(value)


def _range(found: re.Match[str], whole: bool) -> list[Decimal]:
    first, last = _exact(found["first"]), _exact(found["last"])
    if found["many"]:
        return _even(first, last, int(found["many"]), whole)
    written = found["step"] or found["bare"]
    step = _exact(written or "1")
    with localcontext(_EXACT):
        if not step:
            raise _Bad("has a step of 0")
        if step < 0 and last > first:
            raise _Bad(f"rises, so its step cannot be {written}")
        if not written and (last - first) % 1:
            raise _Bad(f"needs a step, such as {found['first']}-{found['last']} (+0.1)")
        if whole and (first % 1 or step % 1):
            raise _Bad("does not give whole numbers")
        step = -abs(step) if last < first else abs(step)
        many = int((last - first) // step) + 1
        if many > MOST_VALUES:
            raise _Bad(f"gives {many:,} values; at most {MOST_VALUES:,} are possible")
        return [first + step * k for k in range(many)]


def _even(first: Decimal, last: Decimal, many: int, whole: bool) -> list[Decimal]:
    """`many` numbers from `first` to `last`, to seven digits of their distance; whole ones are rounded."""
    if first == last and many == 1:
        return [first]
    if not 2 <= many <= MOST_VALUES:
        raise _Bad(f"has to give 2 to {MOST_VALUES:,} values")
    with localcontext(_EXACT):
        span = last - first
        if not span:
            raise _Bad("has only one number to give")
        digits = Decimal(1) if whole else Decimal(1).scaleb(min(0, span.adjusted()) - 7)
        values = [
            (first + span * k / (many - 1)).quantize(digits, ROUND_HALF_UP) for k in range(many)
        ]
        values[-1] = last
    if len(set(values)) < many:
        raise _Bad(f"has fewer than {many} {'whole ' * whole}numbers to give")
    return values


def _shown(token: object) -> str:
    try:
        return f"{token!r:.40}".encode(errors="replace").decode()
    except (
        ValueError,
        RecursionError,
    ):  # Python writes out neither a number of 5000 digits nor lists 1000 deep
        return f"this {type(token).__name__}"
