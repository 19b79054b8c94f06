r"""A1111's prompts: its documented examples, what it does with odd brackets, bounds of time and size.

The examples are those of A1111's wiki and of the docstrings in its prompt parser (v1.10), worked by
hand. One of them is marked there as not handled: `a [{b|d{:.5] c` is plain letters, as it is run.
"""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.core.generation.prompts.a1111_attention import MAX_WEIGHT
from studio.core.generation.prompts.a1111_dialect import MAX_BRANCHES
from studio.core.generation.prompts.a1111_schedules import MAX_NESTING, Pass, plan_words
from studio.core.generation.prompts.dialects import choose_dialect, plan_prompt
from studio.core.generation.prompts.plan import Branch, PromptPlan, Text
from support.examples import examples
from support.sentences import refused

pytestmark = pytest.mark.smoke

STEPS = 10


def plan(text: str, *, is_negative: bool = False) -> PromptPlan:
    return plan_prompt(text, STEPS, syntax="A1111", is_negative=is_negative)


def read_text(text: str) -> Text:
    (wording,) = plan(text).wordings
    (read,) = wording.texts
    return read


def read_chunks(text: str) -> list[list[tuple[str, float]]]:
    return [
        [(fragment.text, round(fragment.weight, 4)) for fragment in chunk]  # type: ignore[union-attr]
        for chunk in read_text(text)
    ]


def read_phases(branch: Branch) -> list[tuple[int, str]]:
    return [(phase.last_step, phase.wording.plain_text) for phase in branch.phases]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test", [(10, "test")]),
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b: 3]", [(3, "a "), (10, "a b")]),
        ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
        ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
        ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("a [unbalanced", [(10, "a [unbalanced")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
        ("[a|(b:1.1)]", [(step, "(b:1.1)" if step % 2 == 0 else "a") for step in range(1, 11)]),
        ("[fe|]male", [(step, "male" if step % 2 == 0 else "female") for step in range(1, 11)]),
        ("[from::5]", [(5, "from"), (10, "")]),
        ("[a:b:10]", [(10, "a")]),
        ("[a:b:0]", [(10, "b")]),
        ("[a:b:-1]", [(10, "b")]),
        ("[a:b:1e1]", [(10, "a")]),
        ("[a:b:9" + "9" * 400 + "]", [(10, "a")]),
        (r"\[a:3]", [(10, r"\[a:3]")]),
        (r"[a\:b:3]", [(3, ""), (10, r"a\:b")]),
        ("[a:b]", [(10, "[a:b]")]),
        ("[a:b:c:3]", [(10, "[a:b:c:3]")]),
        ("[a:3|b]", [(10, "[a:3|b]")]),
        ("[a:b:3] | c", [(10, "[a:b:3] | c")]),
        ("[a:b:3] \\", [(10, "[a:b:3] \\")]),
        ("a [{b|d{:.5] c", [(10, "a [{b|d{:.5] c")]),
    ],
)
def test_words_that_change(text: str, expected: list[tuple[int, str]]) -> None:
    phases = plan_words(text, Pass(STEPS))
    assert phases == expected


def test_three_empty_choices_between_two_words() -> None:
    words = [words for _, words in plan_words("[fe|||]male", Pass(5))]
    assert words == ["female", "male", "female"], "equal neighbours are one phase"


def test_an_alternation_within_a_change_and_the_other_way_round() -> None:
    assert plan_words("[a|[b:c:3]]", Pass(5)) == [(1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "a")]
    assert plan_words("[[a|b]:c:2]", Pass(4)) == [(1, "a"), (2, "b"), (4, "c")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a [b:.5] c", [(10, "a b c")]),
        ("a [b:1.5] c", [(5, "a  c"), (10, "a b c")]),
        ("a [b:12] c", [(2, "a  c"), (10, "a b c")]),
        ("a [b:8] c", [(10, "a b c")]),
        ("a [b:20] c", [(10, "a  c")]),
    ],
)
def test_a_second_pass_counts_on(text: str, expected: list[tuple[int, str]]) -> None:
    assert plan_words(text, Pass(10, first_pass_steps=10)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        ("((a (b", [("a ", 1.21), ("b", 1.331)]),
        ("[a", [("a", 0.9091)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
        ("a) b] c", [("a) b] c", 1.0)]),
        ("a :1.3) b", [("a :1.3) b", 1.0)]),
        (":( , :) ", [(":", 1.0), (" , :", 1.1), (" ", 1.0)]),
        ("+_+ c++ C-- 18+", [("+_+ c++ C-- 18+", 1.0)]),
        ("(a: 1.2 )", [("a", 1.2)]),
        ("(a:-1)", [("a", -1.0)]),
        ("(a:99)", [("a", 99.0)]),
        ("(a:0)", [("a", 0.0)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("(12:30)", [("12", 30.0)]),
        (r"C:\data \\ \o/", [(r"C:data \ o/", 1.0)]),
        ("", []),
    ],
)
def test_attention(text: str, expected: list[tuple[str, float]]) -> None:
    assert read_chunks(text) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a BREAK b", [[("a", 1.0)], [("b", 1.0)]]),
        ("a\nBREAK\nb", [[("a", 1.0)], [("b", 1.0)]]),
        # In brackets its weight of -1 is multiplied too, and it is a word, as in A1111 v1.10.
        ("(a BREAK b:1.5)", [[("a", 1.5), ("BREAK", -1.5), ("b", 1.5)]]),
        ("(a BREAK b)", [[("a", 1.1), ("BREAK", -1.1), ("b", 1.1)]]),
        ("a [b BREAK", [[("a ", 1.0), ("b", 0.9091), ("BREAK", -0.9091)]]),
        ("(a BREAK b:1)", [[("a", 1.0)], [("b", 1.0)]]),
        ("[(a BREAK b)] c", [[("a", 1.0)], [("b c", 1.0)]]),
        ("(a BREAK b:-1)", [[("a", -1.0), ("BREAK", 1.0), ("b", -1.0)]]),
        ("(a:1.2) BREAK (b:1.2)", [[("a", 1.2)], [("b", 1.2)]]),
        ("BREAK a", [[], [("a", 1.0)]]),
        ("a BREAK", [[("a", 1.0)]]),
        ("a BREAK BREAK b", [[("a", 1.0)], [], [("b", 1.0)]]),
        ("a BREAKFAST break", [[("a BREAKFAST break", 1.0)]]),
    ],
)
def test_break_begins_a_chunk(text: str, expected: list[list[tuple[str, float]]]) -> None:
    assert read_chunks(text) == expected


def test_and_makes_branches_with_weights() -> None:
    branches = plan("a cat :0.5 AND a [b:dog:3] : 1.2 AND rain:-1 AND SAND").branches
    assert [branch.weight for branch in branches] == [0.5, 1.2, -1.0, 1.0]
    assert [read_phases(branch) for branch in branches] == [
        [(10, "a cat")],
        [(3, " a b"), (10, " a dog")],
        [(10, " rain")],
        [(10, " SAND")],
    ]
    assert plan("a cat :1.2").branches[0].weight == 1.2
    assert not plan("a cat :1.2").is_plain


def test_a_negative_prompt_has_no_branches() -> None:
    (branch,) = plan("a AND b :0.5", is_negative=True).branches
    assert (branch.weight, read_phases(branch)) == (1.0, [(10, "a AND b :0.5")])


def test_brackets_are_words_without_emphasis() -> None:
    text = "(a:1.3) BREAK [b:c:5] \\( AND x"
    bare_plan = plan_prompt(text, STEPS, syntax="A1111", emphasis="None")
    assert [read_phases(branch) for branch in bare_plan.branches] == [
        [(5, "(a:1.3) BREAK b \\( "), (10, "(a:1.3) BREAK c \\( ")],
        [(10, " x")],
    ]


def test_tags_are_taken_out_first() -> None:
    (wording,) = plan("(a <lora:moon:0.8> b:1.2)").wordings
    assert wording.plain_text == "a  b"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a <hypernet:x:1>", "'<hypernet:x:1>' at character 3"),
        ("<lora:moon:1> a <hypernet:x:1>", "at character 17"),
        ("a\0b", "U+0000"),
        ("\ud800", "U+D800"),
        ("(a:2000)", "2000"),
        ("(a:" + "9" * 400 + ")", "inf"),
        ("(" * (MAX_NESTING + 1), "deep"),
        ("[" * (MAX_NESTING + 1), "deep"),
        (" AND ".join("a" * (MAX_BRANCHES + 1)), "AND"),
        ("a :1000", "1000"),
        ("".join(f"[{'|'.join('abcdefghijk'[:n])}]" for n in range(2, 12)) + "x" * 9000, "steps"),
    ],
    ids=lambda value: value[:24],
)
def test_refused_by_name(text: str, named: str) -> None:
    with refused(ValueError) as caught:
        plan_prompt(text, 150, syntax="A1111")
    assert named in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("a cat, (red:1.2)", "A1111"),
        ("blue++ sky", "compel"),
        ("a cat--", "compel"),
        ("(a b)1.3", "compel"),
        ("(a b)1.3, x", "compel"),
        ("(a b)-", "compel"),
        ("(a b)+ c", "compel"),
        ("(a b)--, c", "compel"),
        ("(a b)1., c", "compel"),
        ("blue--, sky", "compel"),
        ('"a b".swap(c)', "compel"),
        ("(a b).attend(1.2)", "compel"),
        ("trees.and (x)", "A1111"),
        ("trees.and(x)", "A1111"),
        ("the swap.swap (x)", "A1111"),
        ("(x) .and (y)", "A1111"),
        ("it's 'so'.blend(x)", "A1111"),
        ("(masterpiece)1", "A1111"),
        ("(masterpiece)12, x", "A1111"),
        ("(1982)- noir", "A1111"),
        ("(1982)-- noir", "A1111"),
        ("high-res--", "A1111"),
        ("high-res-- photo", "A1111"),
        ("a portrait-- oil on canvas", "A1111"),
        ('("a", "b").blend(0.7, 0.3)', "compel"),
        ('("a", "b").and()', "compel"),
        ("a cat.swap(dog)", "compel"),
        ("flames.attend(0.5)", "compel"),
        ("c++", "A1111"),
        ("C-- code", "A1111"),
        ("+_+ -_- 18+", "A1111"),
        ("(cat)2girls", "A1111"),
        (r"moon \(planet\)2, x", "A1111"),
        ("one - two -- three", "A1111"),
        ("blue++ (sky:1.2)", "A1111"),
        ("blue++ BREAK sky", "A1111"),
        ("blue+ sky", "A1111"),
        ("the end. and then", "A1111"),
    ],
)
def test_which_grammar_reads_it(text: str, dialect: str) -> None:
    assert choose_dialect(text) == dialect
    assert plan_prompt(text).dialect == dialect


SIGNS = st.lists(
    st.sampled_from(
        [*"()[]:|,\\ \n<>-+\"'", "a", "cat", "1.3", "5", ":2]", "AND", "BREAK", "[a:b:3]", ".swap("]
    ),
    max_size=40,
).map("".join)


@settings(max_examples=examples(120))
@given(
    st.text(max_size=60) | SIGNS, st.integers(1, 30), st.sampled_from(["A1111", "compel", "auto"])
)
def test_never_anything_but_a_value_error(text: str, steps: int, syntax: str) -> None:
    try:
        read = plan_prompt(text, steps, syntax=syntax)  # type: ignore[arg-type]
    except ValueError:
        return
    for branch in read.branches:
        last_steps = [phase.last_step for phase in branch.phases]
        assert last_steps == sorted(set(last_steps))
        assert last_steps[-1] == steps
    for wording in read.wordings:
        assert len(wording.texts) == len(wording.weights)
        assert all(abs(fragment.weight) <= MAX_WEIGHT for fragment in wording.fragments)


@pytest.mark.parametrize(
    "syntax",
    ["auto", *(pytest.param(syntax, marks=pytest.mark.slow) for syntax in ("A1111", "compel"))],
)
@pytest.mark.parametrize(
    "part",
    [
        *("a red cat, ", "(a [b] c:1.2), ", "[a:b:3]", "[a|b|c]", "(", ":( ", "\\", "a++ ", '"'),
        *("()", "(a)1.2 ", "a.swap(b) ", "a_", "a'", " ", "|", ".", ":1", '("a",', "[a", "\\("),
        *(
            "a.swap(",
            '"a".swap(',
            '( "',
            '"(a" ',
            "((a",
            "# ",
            "<lora:a:1>",
            "[[a|b]|c]",
            "(a:1.1)",
        ),
    ],
)
def test_ten_thousand_characters_take_no_time(part: str, syntax: str) -> None:
    text = (part * 10_000)[:10_000]
    seconds = []
    for _ in range(3):
        start = time.process_time()
        with contextlib.suppress(ValueError):
            plan_prompt(text, 20, syntax=syntax)  # type: ignore[arg-type]
        seconds.append(time.process_time() - start)
    assert (
        min(seconds) < 0.5
    )  # less than 0.1 s on an idle machine; a quadratic reader takes minutes
