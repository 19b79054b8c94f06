r"""compel's prompts: what ours reads is what compel's own parser reads, for its tests' prompts and for any others."""

from __future__ import annotations

from typing import Any

import pytest
from compel.prompt_parser import Blend, PromptParser
from compel.prompt_parser import Fragment as CompelFragment
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.core.generation.prompts.compel_dialect import SWAP_OPTIONS, parse_wording
from studio.core.generation.prompts.dialects import plan_prompt
from studio.core.generation.prompts.plan import Chunk, Fragment, Swap
from support.examples import examples
from support.sentences import refused

Words = list[Any]
ORACLE = PromptParser()


def list_oracle_fragments(parts: list[CompelFragment]) -> Words:
    return [(part.text, round(part.weight, 6)) for part in parts if part.text.strip()]


def list_oracle_words(prompt: Any) -> Words:
    words: Words = []
    for part in prompt.children:
        if isinstance(part, CompelFragment):
            words += list_oracle_fragments([part])
        else:
            words.append((list_oracle_fragments(part.original), list_oracle_fragments(part.edited)))
    return words


def read_by_oracle(text: str) -> tuple[str, list[Words], list[float], bool]:
    conjunction = ORACLE.parse_conjunction(text)
    prompts = conjunction.prompts
    if len(prompts) == 1 and isinstance(prompts[0], Blend):
        (blend,) = prompts
        words = [list_oracle_words(prompt) for prompt in blend.prompts]
        return "blend", words, blend.weights, blend.normalize_weights
    words = [list_oracle_words(prompt) for prompt in prompts]
    return "and", words or [[]], conjunction.weights or [1.0], True


def list_fragments(parts: tuple[Fragment, ...]) -> Words:
    return [(part.text, round(part.weight, 6)) for part in parts]


def list_words(chunk: Chunk) -> Words:
    words: Words = []
    for part in chunk:
        if isinstance(part, Swap):
            words.append((list_fragments(part.original), list_fragments(part.edited)))
        else:
            words += list_fragments((part,))
    return words


def read(text: str) -> tuple[str, list[Words], list[float], bool]:
    wording = parse_wording(text)
    words = [list_words(chunk) for (chunk,) in wording.texts]
    return wording.join, words, list(wording.weights), wording.is_normalized


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fire (flames)",
        "fire, flames , fire",
        "cat hot-dog eating",
        "(flames)0.5",
        "flames.attend(0.5)",
        '"flames".attend(0.5)',
        "flames.attend(+)",
        "(flowers)--- flames+++",
        "(pretty flowers)+, the flames are too hot",
        "flowers fire++ flames",
        "fire (flames (trees)1.5)2.0",
        "a badly (formed +test prompt",
        "a badly (formed +test )prompt",
        pytest.param("(((a badly (formed +test )prompt", marks=pytest.mark.slow),  # compel's time
        "(a (ba)dly (f)ormed +test +prompt",
        "hamburger ((kaiser roll))",
        pytest.param('("((a badly (formed +test ").blend(1.0)', marks=pytest.mark.slow),
        '("mountain", "man").blend()',
        "((mountain), (tall man)).blend()",
        '("fire", "fire flames (hot)++", "hi").blend(0.7, 0.3, 1.0)',
        '("fire", "  ,  ").blend(0.7, 1)',
        '("mountain, man, hairy", "face, teeth, eyes--").blend(1,-1,no_normalize)',
        '("fire flames", "mountain man").and()',
        '("fire", "flames").and(2,1)',
        '("mountain man", "a person with a hat (riding a bicycle.swap(skateboard))++").and(0.5, 0.5)',
        'a "cat".swap(dog) eating a hotdog',
        'fire "flames".swap(trees)',
        "a (forest landscape).swap(cave) , old",
        'a "hot".swap("cold, wet", t_start=0.3) day',
        r"mountain \(man\)",
        r"a \"quoted\" word",
        r"c\+\+ code",
        "(x:1.3) literal",
        "Dalí",
        "c++ C--",
        "well-known +word -5 2-3",
    ],
)
def test_as_compel_reads_it(text: str) -> None:
    assert read(text) == read_by_oracle(text)


PARTS = st.lists(
    st.sampled_from(
        [
            *'()+-",.=: \n',
            *("++", "--", "a", "cat", "well-known", " ", " ", "1.3", "2", '"x y"', "(x y)1.2"),
            *(").blend(", ".blend(1,0.5)", ".and()", ".swap(", ".attend(1.5)", "\\(", "\\)"),
            *('("a", "b c++")', "b.swap(c, t_start=0.3)", '\\"', "\\+", "_", "no_normalize"),
        ]
    ),
    max_size=12,
).map("".join)


@pytest.mark.slow
@settings(max_examples=examples(100), deadline=None)
@given(PARTS)
def test_any_other_prompt_too(text: str) -> None:
    try:
        expected = read_by_oracle(text)
    except Exception:  # whatever it fails with, no reading is there to compare
        expected = None
    try:
        words = read(text)
    except ValueError:
        return  # what is refused is told; the table below says what
    assert expected is None or words == expected


def test_words_beside_each_other_stay_words() -> None:
    (wording,) = plan_prompt("a red++ boat", syntax="compel").wordings
    assert wording.plain_text == "a red boat"
    (wording,) = plan_prompt('("a red++ boat", "fog").blend(1, 1)').wordings
    assert wording.plain_text == "a red boat fog"


def test_options_of_a_swap() -> None:
    (((swap,),),) = parse_wording("cat.swap(dog, t_start=0.2, s_end=.5)").texts
    assert isinstance(swap, Swap)
    assert dict(swap.options) == {"t_start": 0.2, "s_end": 0.5}
    assert {"t_start", "s_end"} < set(SWAP_OPTIONS)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('("a", "b").blend(1)', "1 weights for 2 prompts"),
        ('("a", "b").and(1, 2, 3)', "3 weights for 2 prompts"),
        ('("a", "b").blend(1, -1)', "no_normalize"),
        ('("a", "b").blend(x, y)', "'x'"),
        ('("a", "b").blend() by a lake', "'by a lake'"),
        ('("a", "b").and() by a lake', "'by a lake'"),
        ('("a", "b.swap(c)").blend()', ".swap()"),
        ("(a.swap(b) c).swap(d)", ".swap()"),
        ("a.swap(b, strength=1)", "'strength=1'"),
        ("withLora(moon, 0.5) a", "<lora:"),
        ("(a)5000", "5000"),
        ("a" + "+" * 9000, "signs"),
        ("(" * 500, "deep"),
        ("a.swap(" * 500, "deep"),
        ("a <hypernet:x:1>", "'<hypernet:x:1>'"),
        ("a\0", "U+0000"),
    ],
    ids=lambda value: value[:24],
)
def test_refused_by_name(text: str, named: str) -> None:
    with refused(ValueError) as caught:
        parse_wording(text)
    assert named in str(caught.value)
