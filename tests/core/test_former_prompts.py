"""The prompt grammar: A1111's and compel's stresses, plain text letter for letter, a ValueError in words for the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.generation.prompts.dialects import plan_prompt
from studio.core.generation.prompts.former import MAX_NESTING
from studio.core.generation.prompts.plan import Wording
from support.sentences import refused

pytestmark = pytest.mark.smoke

ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0<.")).filter(
    lambda text: "AND" not in text and "BREAK" not in text
)
GRAMMAR = st.lists(
    st.sampled_from(
        [
            "(",
            ")",
            "[",
            "]",
            ":",
            "1.3",
            "+",
            "-",
            "--",
            "|",
            "\\",
            '"',
            ",",
            " ",
            "a",
            "cat",
            ").and(",
            ").blend(",
            ".swap(",
            "AND",
            "BREAK",
            "<lora:x:1>",
            "0.5",
            "\n",
            "9" * 400,
            "\0",
        ]
    )
).map("".join)


def plan_wording(text: str) -> Wording:
    (wording,) = plan_prompt(text, syntax="both").wordings
    return wording


def pieces(text: str) -> list[tuple[str, float]]:
    ((chunk,),) = plan_wording(text).texts
    return [(piece.text, round(piece.weight, 4)) for piece in chunk]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(x)", [("x", 1.1)]),
        ("((x))", [("x", 1.21)]),
        ("[x]", [("x", 0.9091)]),
        ("[[x]]", [("x", 0.8264)]),
        ("([x])", [("x", 1.0)]),
        ("a (red cat:1.3), b", [("a ", 1.0), ("red cat", 1.3), (", b", 1.0)]),
        ("(x: 0.5 )", [("x", 0.5)]),
        ("(x:.5)", [("x", 0.5)]),
        ("(x:0)", [("x", 0.0)]),
        ("(a (b:1.2) c:1.5)", [("a ", 1.5), ("b", 1.8), (" c", 1.5)]),
        ("(a [b])", [("a ", 1.1), ("b", 1.0)]),
        ("(at 10:30 sharp)", [("at 10:30 sharp", 1.1)]),
        ("x+", [("x", 1.1)]),
        ("a x++ b--", [("a ", 1.0), ("x", 1.21), (" ", 1.0), ("b", 0.81)]),
        ("(a b)++, c", [("a b", 1.21), (", c", 1.0)]),
        ("(a b)-", [("a b", 0.9)]),
        ("(a b)0.8 c", [("a b", 0.8), (" c", 1.0)]),
        ("(a)--b", [("a", 1.1), ("--b", 1.0)]),
        (r"\(x\) \[y\] z\+ a\\b", [(r"(x) [y] z+ a\b", 1.0)]),
        (r"(smile :\):1.2)", [("smile :)", 1.2)]),
        ("C:\\data", [("C:\\data", 1.0)]),
        ("well-known, 1 - 2, a,- b", [("well-known, 1 - 2, a,- b", 1.0)]),
        ("", []),
        ("x <lora:moon:0.8>", [("x", 1.0)]),
        ("(x <lora:moon:te=0.5:unet=1> y:1.3), <LYCO:a>z", [("x  y", 1.3), (", z", 1.0)]),
    ],
)
def test_stressed_words(text: str, expected: list[tuple[str, float]]) -> None:
    assert pieces(text) == expected


@given(
    ANY.map(lambda text: "".join(character for character in text if character not in "()[]+-\\"))
)
def test_plain_text_comes_back_letter_for_letter(text: str) -> None:
    assert plan_wording(text).plain_text == text
    assert pieces(text) == ([(text, 1.0)] if text else [])


@given(ANY)
def test_escaped_text_comes_back_letter_for_letter(text: str) -> None:
    escaped = "".join(
        f"\\{character}" if character in "()[]+-\\" else character for character in text
    )
    assert plan_wording(escaped).plain_text == text


def test_compel_joins() -> None:
    both = plan_wording('("a cat", "a (dog:1.3)").and()')
    assert (both.join, both.weights) == ("and", (1.0, 1.0))
    told = [[(piece.text, piece.weight) for piece in chunk] for (chunk,) in both.texts]
    assert told == [[("a cat", 1.0)], [("a ", 1.0), ("dog", 1.3)]]
    assert plan_wording('("a", "b").and(1, 0.5)').weights == (1.0, 0.5)
    mixed = plan_wording(' ("say \\"a\\"",\n"b, c") .blend(0.7, 0.3) ')
    assert (mixed.join, mixed.weights, mixed.plain_text) == ("blend", (0.7, 0.3), 'say "a" b, c')


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a cat AND a dog", "AND"),
        ("a BREAK b", "BREAK"),
        ("[a:b:0.5]", ""),
        ("[a:0.5]", ""),
        ("[a|b]", ""),
        ("([a|b])", ""),
        ("x <lora:moon:x> y", "'<lora:moon:x>' at character 3"),
        ("x <lora:moon", "'<lora:moon' at character 3"),
        ("<lora>", ""),
        ("<lyco::1>", "Name"),
        ("<lora:moon:5>", ""),
        ("<lora:moon:nan>", ""),
        ("<lora:a:1:1:1>", ""),
        ("<lora:moon:1> a AND b", "'AND' at character 17"),
        ("<hypernet:x:1>", "Hypernetworks"),
        ("a cat.swap(dog)", "swap"),
        ('("a", "b").swap()', "swap"),
        ('("a" and "b").and()', ""),
        ('("a", "b").and(1)', ""),
        ('("a", "b").and(x, y)', ""),
        ('("a", "b").blend(0, 0)', ""),
        ('("a", "b").blend(nan, 1)', ""),
        ('("a", "b").and() by a lake', ""),
        ("a (b", "'(' at character 3"),
        ("a [b", "'[' at character 3"),
        ("(a]", "'(' at character 1"),
        ("((a)", "'(' at character 1"),
        ("(a:99)", "99"),
        ("(a:-1)", "-1"),
        ("x" + "+" * 25, ""),
        ("x" + "+" * 9000, ""),
        ("(a:" + "9" * 400 + ")", ""),
        ("a\0b", "U+0000"),
        ("\ud800", "U+D800"),
        ("(" * 5000, ""),
        ("(" * (MAX_NESTING + 1) + "a" + ")" * (MAX_NESTING + 1), ""),
        ("[" * 400 + "]" * 400, ""),
    ],
    ids=lambda value: value[:24],
)
def test_refused_by_name(text: str, named: str) -> None:
    with refused(ValueError) as caught:
        plan_wording(text)
    assert named in str(caught.value)
    assert len(str(caught.value)) < 250


def test_words_that_only_look_refused() -> None:
    for text in (
        "BRAND new",
        "a BREAKFAST",
        "sand and break",
        "a < b",
        "x | y",
        "12:30",
        "a ] b :)",
        "end.",
    ):
        assert plan_wording(text).plain_text == text
    assert pieces("(" * 24 + "a" + ")" * 24) == [("a", 9.8497)]


@given(st.text(max_size=200) | GRAMMAR)
def test_never_anything_but_a_value_error(text: str) -> None:
    try:
        prompt = plan_wording(text)
    except ValueError:
        return
    assert len(prompt.texts) == len(prompt.weights)
    assert all(0 <= piece.weight <= 10 and piece.text for piece in prompt.fragments)
