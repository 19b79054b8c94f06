"""The value syntax: A1111's ranges without their oddities, exact decimals, every bad value named by its place."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from studio.core.catalog import AxisKind
from studio.core.sweeps.value_syntax import (
    MAX_LIST_CHARS,
    MAX_REPORTED_FAULTS,
    MAX_VALUES,
    format_value,
    format_values,
    parse_size,
    parse_values,
)
from studio.errors import InvalidSpec
from support.limits import hang_limit
from support.sentences import refused

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(), st.lists
)
KINDS: tuple[AxisKind, ...] = ("whole", "number", "text", "size")
NUMBERS = st.decimals(-1000, 1000, places=3, allow_nan=False, allow_infinity=False)


def faults(values: str | list[object], kind: AxisKind = "number") -> tuple[str, ...]:
    with pytest.raises(InvalidSpec) as caught:
        parse_values(values, kind)
    return caught.value.faults


def refuse(values: str | list[object], kind: AxisKind = "number") -> str:
    """The faults in the words of the file."""
    with refused(InvalidSpec) as caught:
        parse_values(values, kind)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("7", [7]),
        ("1, 2,4", [1, 2, 4]),
        ("1\n2\n\n4\n", [1, 2, 4]),
        ("1, 2,", [1, 2]),
        ("-1", [-1]),
        ("5.0", [5]),
        ("1e2", [100]),
        ("1-5", [1, 2, 3, 4, 5]),
        ("1-10 (+2)", [1, 3, 5, 7, 9]),
        ("10-5 (-3)", [10, 7]),
        ("3-15 [4]", [3, 7, 11, 15]),  # as A1111
        ("1-10 [5]", [1, 3, 6, 8, 10]),
        ("1-10 [4]", [1, 4, 7, 10]),  # rounded, there cut off
        ("10-5", [10, 9, 8, 7, 6, 5]),
        ("10-5 (+3)", [10, 7]),  # nothing there
        ("1-10 (2)", [1, 3, 5, 7, 9]),
        ("1-10(+4)", [1, 5, 9]),
        ("1 - 3", [1, 2, 3]),
        ("1..5", [1, 2, 3, 4, 5]),
        ("1..10 +3", [1, 4, 7, 10]),
        ("10..1 -3", [10, 7, 4, 1]),
        ("10..1 +3", [10, 7, 4, 1]),
        ("1..9 [3]", [1, 5, 9]),
        ("-2..2", [-2, -1, 0, 1, 2]),
        ("-2--4", [-2, -3, -4]),
        ("5-5", [5]),
        ("5-5 [1]", [5]),
        ("1-3, 10, 20-10 (-5)", [1, 2, 3, 10, 20, 15, 10]),
        ('"1", "2-3"', [1, 2, 3]),
        ("4294967290-4294967295 (+5)", [4294967290, 4294967295]),
    ],
)
def test_whole_numbers(text: str, values: list[int]) -> None:
    found = parse_values(text, "whole")
    assert list(found) == values
    assert all(type(value) is int for value in found)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("5-8 (+0.5)", [5, 5.5, 6, 6.5, 7, 7.5, 8]),
        ("1-0 (-0.25)", [1, 0.75, 0.5, 0.25, 0]),
        ("1-0 (0.25)", [1, 0.75, 0.5, 0.25, 0]),
        ("0-1 (+0.3)", [0, 0.3, 0.6, 0.9]),  # A1111 goes on to 1.2
        ("0-1 [6]", [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ("0.1-0.5 (+0.1)", [0.1, 0.2, 0.3, 0.4, 0.5]),  # without 0.30000000000000004
        (".5-1 (+.25)", [0.5, 0.75, 1]),
        ("1e-3", [0.001]),
        ("1e-3..3e-3 +1e-3", [0.001, 0.002, 0.003]),  # a ValueError there
        ("0-1 [4]", [0, 0.3333333, 0.6666667, 1]),
        ("0.7-1.7", [0.7, 1.7]),
        ("0..1e-6 [3]", [0, 5e-7, 1e-6]),
    ],
)
def test_numbers_are_exact(text: str, values: list[float]) -> None:
    found = parse_values(text, "number")
    assert list(found) == values
    assert all(type(value) is float for value in found)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1-5 [0]", "whole"),
        ("1-10 [1]", "whole"),
        ("1-10 (+0)", "whole"),
        ("5-10 (-2)", "whole"),
        ("0.7-1.0", "number"),
        ("1-3 [5]", "whole"),
        ("2-2 [3]", "number"),
        ("1.5", "whole"),
        ("1-2 (+0.5)", "whole"),
        ("seven", "number"),
        ("nan", "number"),
        ("inf", "number"),
        ("1e99", "number"),
        ("1e-99", "number"),
        ("0-1 (+0.00001)", "number"),
        ("1-9999999999", "whole"),
        ("1-5 (+2", "whole"),
        ("٣", "whole"),
        ("512", "size"),
        ("512x", "size"),
        ("x" * 500, "size"),
        ("9" * 500, "whole"),
        ('"a', "text"),
        ('"a" b', "text"),
        ("", "text"),
        (" \n ", "number"),
        (",", "text"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_wrong_is_said(text: str, kind: AxisKind) -> None:
    assert len(refuse(text, kind)) < 200


def test_every_bad_value_is_named_by_its_place() -> None:
    told = refuse("1, two, 3, fo ur, ,5", "whole").splitlines()
    assert [line.split(",")[0] for line in told] == ["value 2", "value 4", "value 5"]
    assert [
        fault.split(",")[0]
        for fault in faults([1, 2.5, True, None, "1-3", 10**5000, float("nan"), 10**300], "whole")
    ] == [f"value {place}" for place in (2, 3, 4, 6, 7, 8)]
    assert len(refuse("x," * 50).splitlines()) == MAX_REPORTED_FAULTS + 1
    refuse("1-9999, 1-9999")
    refuse("1" * (MAX_LIST_CHARS + 1))


def test_texts_and_quotes() -> None:
    assert parse_values(
        'a moon, "a cat, asleep" ,"she said ""hi""", "", 5" disk,("a", b', "text"
    ) == (
        "a moon",
        "a cat, asleep",
        'she said "hi"',
        "",
        '5" disk',
        '("a"',
        "b",
    )
    assert parse_values("DPM++ 2M\r\nEuler a, 1-5", "text") == ("DPM++ 2M", "Euler a", "1-5")
    assert parse_values(["a, b", 7, 0.5, ""], "text") == (
        "a, b",
        "7",
        "0.5",
        "",
    )  # what stands in a list stands for itself
    assert refuse(["a", "\ud800", True, [1]], "text").startswith("value 2, '\\ud800'")


def test_lists() -> None:
    assert parse_values([1, 2.0, "3-5"], "whole") == (1, 2, 3, 4, 5)
    assert parse_values([1, "0-1 [3]"], "number") == (
        1,
        0,
        0.5,
        1,
    )
    refuse([], "whole")
    assert parse_values("512x768, 768 × 512", "size") == ("512x768", "768x512")
    assert parse_size("512x768") == (
        512,
        768,
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7.0, "7"),
        (0.5, "0.5"),
        (1e-05, "0.00001"),
        (100.0, "100"),
        (1e15, "1000000000000000"),
        (10, "10"),
        ("a", "a"),
        (0.0, "0"),
        (1e300, "1e+300"),
    ],
)
def test_plain(value: int | float | str, text: str) -> None:
    assert format_value(value) == text


@given(st.lists(st.integers(-(10**19), 10**19), min_size=1))
def test_whole_numbers_come_back(values: list[int]) -> None:
    assert (
        parse_values(format_values(values), "whole")
        == tuple(values)
        == parse_values(values, "whole")
    )


@given(st.lists(st.decimals(-(10**12), 10**12, places=6, allow_nan=False).map(float), min_size=1))
def test_numbers_come_back(values: list[float]) -> None:
    assert (
        parse_values(format_values(values), "number")
        == tuple(values)
        == parse_values(values, "number")
    )


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
@example([' "', "", "a,b", "\n", "\r", '"', '""', "x\x0b", '\x1c"a', "\u2028,"])
def test_texts_come_back(values: list[str]) -> None:
    assert (
        parse_values(format_values(values), "text") == tuple(values) == parse_values(values, "text")
    )


@given(st.lists(st.tuples(st.integers(1, 99999), st.integers(1, 99999)), min_size=1))
def test_sizes_come_back(sizes: list[tuple[int, int]]) -> None:
    assert [
        parse_size(str(size))
        for size in parse_values(", ".join(f"{width}x{height}" for width, height in sizes), "size")
    ] == sizes


@given(
    NUMBERS,
    NUMBERS,
    st.decimals("0.01", 100, places=3, allow_nan=False),
    st.sampled_from(["{}-{} (+{})", "{}..{} +{}", "{} .. {} ({})"]),
)
def test_ranges_are_exact_and_inside(first: object, last: object, step: object, form: str) -> None:
    text = form.format(first, last, step)
    low, high, by = (float(str(number)) for number in (first, last, step))
    if abs(high - low) / by >= MAX_VALUES:
        assert "gives" in faults(text)[0]
        return
    found = parse_values(text, "number")
    assert found[0] == low
    assert all(min(low, high) <= float(value) <= max(low, high) for value in found)
    assert abs(float(found[-1]) - high) < by
    assert all(len(format_value(value).partition(".")[2]) <= 3 for value in found)
    assert list(found) == sorted(found, reverse=high < low)
    assert len(set(found)) == len(found)


@given(NUMBERS, NUMBERS, st.integers(2, 200))
def test_even_numbers(first: object, last: object, many: int) -> None:
    if first == last:
        return
    found = [float(value) for value in parse_values(f"{first}..{last} [{many}]", "number")]
    assert len(found) == many
    assert found[0] == float(str(first))
    assert found[-1] == float(str(last))
    gaps = [after - before for before, after in pairwise(found)]
    assert max(gaps) - min(gaps) <= 1e-6 * abs(found[-1] - found[0]) + 1e-9


def told(values: str | list[object], kind: AxisKind) -> tuple[tuple[int | float | str, ...], str]:
    """The values, or what is said instead. Nothing but InvalidSpec may come."""
    try:
        return parse_values(values, kind), ""
    except InvalidSpec as error:
        return (), str(error)


@given(st.text() | st.text('0123456789.,-+()[]e \n"x'), st.sampled_from(KINDS))
def test_any_text_is_read_or_refused_in_words(text: str, kind: AxisKind) -> None:
    found, said = told(text, kind)
    if found:
        assert parse_values(format_values(found), kind) == found
    else:
        assert said.endswith(".")
        assert said.encode()


@given(st.lists(ANY, max_size=5), st.sampled_from(KINDS))
def test_any_list_is_read_or_refused_in_words(values: list[object], kind: AxisKind) -> None:
    found, said = told(values, kind)
    assert bool(found) is not bool(said.encode())


PIECES = ('"', ",", " ", "1", "1-", "-", '""', '",', "1,", "(", "1 ", ".", "e1", "\n", "x1")


@pytest.mark.parametrize(
    ("piece", "kind"),
    [  # quick is every piece once, and every kind several times
        pytest.param(piece, kind, marks=() if k % len(KINDS) == n else pytest.mark.slow)
        for k, piece in enumerate(PIECES)
        for n, kind in enumerate(KINDS)
    ],
)
def test_no_text_takes_long(piece: str, kind: AxisKind) -> None:
    with hang_limit():  # a second at most is usual; quadratic time takes minutes
        found, said = told(piece * (MAX_LIST_CHARS // len(piece)), kind)
    assert len(found) <= MAX_VALUES
    assert len(said) < 2000
