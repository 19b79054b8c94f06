"""Templates: what is one, what can come out of it, what is drawn, what is refused.

The tables are the documented syntax of dynamicprompts 0.31 worked by hand; the words drawn by a seed were taken down from that
library.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.base import validate
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.generation.templates.combinations import list_combinations
from studio.core.generation.templates.prompt_files import (
    NoPromptFiles,
    Style,
    WildcardLine,
    match_wildcards,
)
from studio.core.generation.templates.writer import (
    fill_template,
    find_missing_wildcards,
    is_template,
)
from studio.errors import InvalidSpec
from support.sentences import check_sentence, refused

LISTS: dict[str, list[str | tuple[str, float]]] = {
    "season": ["spring", "summer", "autumn"],
    "animals/cats": ["tabby", "persian"],
    "animals/dogs": ["poodle", "husky"],
    "nested": ["a __season__ day", "{big|small} __animals/*__"],
    "param": ["a ${c} car", "the ${c:blue} boat"],
    "weighted": [("rare", 0.1), ("often", 5.0), ("some", 1.0)],
    "lora": ["<lora:moon:0.5> moon", "sun"],
    "loop": ["__loop__"],
}


class Files(NoPromptFiles):
    """The lists above and two styles."""

    def list_wildcards(self) -> Sequence[str]:
        return list(LISTS)

    def read_wildcard(self, name: str) -> Sequence[WildcardLine]:
        return [
            WildcardLine(line) if isinstance(line, str) else WildcardLine(*line)
            for line in LISTS[name]
        ]

    def list_styles(self) -> Sequence[str]:
        return ["Ink", "Night"]

    def get_style(self, name: str) -> Style:
        return {
            "Ink": Style("Ink", "ink of {prompt}, fine", "blurry"),
            "Night": Style("Night", "at night"),
        }[name]


FILES = Files()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a red boat",
        "{",
        "}{",
        "{x}",
        "{{x}}",
        "a [{b|d{:.5] c",
        "[a|b]",
        "a | b",
        ">__<, foo, ^__^",
        "snake__case",
        "____",
        "$5 $$ 100%",
        "# no comment",
        "see https://example.com",
        "(a:1.2) <lora:moon:1>",
        "${}",
        "%{a}",
        "{}",
    ],
)
def test_words_are_no_template(text: str) -> None:
    assert not is_template(text)
    assert fill_template(text, 1, FILES) == text


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("text", "combinations"),
    [
        ("{summer|winter} is coming", ["summer is coming", "winter is coming"]),
        ("{a|}", ["a", ""]),
        (
            "{2$$ and $$A|B|C}",
            ["A and B", "A and C", "B and A", "B and C", "C and A", "C and B"],
        ),
        ("{2$$A|B}", ["A,B", "B,A"]),
        ("{1-2$$ + $$a|b}", ["a", "b", "a + b", "b + a"]),
        ("{-1$$a|b}", ["a", "b"]),
        ("{2-$$a|b}", ["a,b", "b,a"]),
        ("{0-1$$a|b}", ["", "a", "b"]),
        ("{3$$, $$a|b}", ["a, b", "b, a"]),
        ("{2$$|$$a|b}", ["a|b", "b|a"]),
        ("{0.5::a|2::b}", ["a", "b"]),
        ("{0::a|b}", ["b"]),
        ("{ a | b } x", ["a  x", "b  x"]),
        ("{a|{b|c}}", ["a", "b", "c"]),
        ("{x} and {a|b}", ["{x} and a", "{x} and b"]),
        ("__season__ is", ["autumn is", "spring is", "summer is"]),
        ("__animals/*__", ["husky", "persian", "poodle", "tabby"]),
        ("__cats__", ["persian", "tabby"]),
        ("{__cats__}", ["persian", "tabby"]),
        ("{2$$ & $$__cats__}", ["persian & tabby", "tabby & persian"]),
        ("__animals/{cats|dogs}__", ["persian", "tabby", "husky", "poodle"]),
        ("${k=cats}__animals/${k}__", ["persian", "tabby"]),
        ("${x={red|blue}}${x}", ["red", "blue"]),
        ("${x=!{red|blue}}${x} and ${x}", ["red and red", "blue and blue"]),
        ("${x={1|2}}${x}${x}", ["11", "12", "21", "22"]),
        ("${x:red} {a|b}", ["red a", "red b"]),
        ("${x?=a}${x?=b}${x}", ["b"]),
        ("__param(c=red)__", ["a red car", "the red boat"]),
        ("%{a photo of ... at dusk$${x|y}}", ["a photo of x at dusk", "a photo of y at dusk"]),
        ("# comment\n{a|b} // foo\nc/* d */", ["\na\nc", "\nb\nc"]),
        ("see https://a.b/c {a|b}", ["see https://a.b/c a", "see https://a.b/c b"]),
        ("#1 of {a|b}, #red", ["#1 of a, #red", "#1 of b, #red"]),
        ("{https://a|#2 b}//c", ["https://a//c", "#2 b//c"]),
        ("{a # | x  # gone\n|b}", ["a\n", "b"]),
        ("# {a|b}", [""]),
        ("// __season__", [""]),
        ("{0.5::__cats__}", ["persian", "tabby"]),
        ("{__cats__ }", ["persian ", "tabby "]),
        ("(a:{1.1|1.2}) [b|c]", ["(a:1.1) [b|c]", "(a:1.2) [b|c]"]),
    ],
)
def test_all_that_comes_out(text: str, combinations: list[str]) -> None:
    assert list_combinations(text, FILES, 100) == combinations


@pytest.mark.parametrize(
    ("text", "seed", "words"),
    [
        ("{2$$ and $$A|B|C}", 7, "C and A"),
        ("{2$$ and $$A|B|C}", 1234567890, "B and C"),
        ("{1-2$$ and $$a|b|c}", 7, "c and a"),
        ("{1-2$$ and $$a|b|c}", 1234567890, "b"),
        ("{0.5::a|2::b|c}", 7, "c"),
        ("{0.5::a|2::b|c}", 1234567890, "b"),
        ("__season__ is __season__", 7, "spring is autumn"),
        ("__season__ is __season__", 1234567890, "summer is summer"),
        ("a __animals/*__", 7, "a poodle"),
        ("a __animals/*__", 1234567890, "a persian"),
        ("__nested__, __nested__", 7, "big husky, a summer day"),
        ("__nested__, __nested__", 1234567890, "a spring day, a summer day"),
        ("${x=!{red|blue}}${x} and ${x} {a|b}", 7, "blue and blue b"),
        ("${x=!{red|blue}}${x} and ${x} {a|b}", 1234567890, "red and red a"),
        ("__param(c={red|blue|green})__", 7, "the blue boat"),
        ("__param(c={red|blue|green})__", 1234567890, "a red car"),
        ("{2$$ and $$__season__|__cats__|x}", 7, "x and autumn"),
        ("{2$$ and $$__season__|__cats__|x}", 1234567890, "tabby and x"),
        ("__weighted__ and __weighted__", 7, "often and often"),
        ("__weighted__ and __weighted__", 1234567890, "some and often"),
        ("{__season__}", 7, "summer"),
        ("{__season__}", 1234567890, "spring"),
        ("{ __season__ }", 7, "spring "),
        ("{0.5::__season__}", 7, "summer"),
        ("{__season__} is {a|b}", 3, "spring is a"),
        ("{2$$__season__}", 7, "summer,autumn"),
        ("{2$$__season__}", 1234567890, "spring,summer"),
    ],
)
def test_a_seed_draws_what_dynamicprompts_draws(text: str, seed: int, words: str) -> None:
    assert fill_template(text, seed, FILES) == words


def test_what_is_drawn_can_come_out() -> None:
    text = "{2$$ and $$a|b|c} __nested__ ${x=!{red|blue}}${x}${x}"
    assert {fill_template(text, seed, FILES) for seed in range(400)} <= set(
        list_combinations(text, FILES, 10_000)
    )


def test_weights_count() -> None:
    drawn = [fill_template("{9::a|b}", seed, FILES) for seed in range(1000)]
    assert 860 < drawn.count("a") < 940
    drawn = [fill_template("__weighted__", seed, FILES) for seed in range(1000)]
    assert drawn.count("often") > 5 * drawn.count("rare")


@pytest.mark.parametrize(
    "text",
    [
        "{!a|b}",
        "__@season__",
        "{0::a|0::b}",
        "${x}",
        "${x=${x}}${x}",
        "__loop__",
        "__season(red)__",
        "__seasons__",
        "{" * 30 + "a|b" + "}" * 30,
        "{a|b}" * 1990,
        "${x=" + "a" * 4000 + "}${x}${x}${x}",
        "{a|b}" + "a" * 10_000,
    ],
)
def test_refusals(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        fill_template(text, 1, FILES)
    check_sentence(str(caught.value))


def test_all_missing_wildcards_are_named_at_once() -> None:
    faults = find_missing_wildcards("__seeson__ {__x__|__cat__} __season__", FILES)
    assert [fault.split("'")[1] for fault in faults] == ["seeson", "x", "cat"]
    assert "season" in faults[0].partition(";")[2]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("season", ["season"]),
        ("Season", ["season"]),
        ("cats", ["animals/cats"]),
        ("animals/*", ["animals/cats", "animals/dogs"]),
        ("animals\\cats", ["animals/cats"]),
        ("*s", ["animals/cats", "animals/dogs"]),
        ("../season", []),
        ("/etc/passwd", []),
    ],
)
def test_names_of_lists(pattern: str, names: list[str]) -> None:
    assert match_wildcards(pattern, list(LISTS)) == names


PIECES = st.sampled_from(
    [
        "{",
        "}",
        "|",
        "$$",
        "${",
        "%{",
        "__",
        "season",
        "a",
        " ",
        "::",
        "2",
        "-",
        "0.5",
        "=",
        "!",
        "x",
        ":",
        "(",
        ")",
        ",",
        "#",
        "//",
        "/*",
        "*/",
        "\n",
        "...",
        "~",
        "@",
        "?",
        "*",
    ]
)


@given(st.lists(PIECES, max_size=24).map("".join) | st.text(max_size=40), st.integers(0, 2**32))
def test_no_text_breaks_it(text: str, seed: int) -> None:
    """Whatever is typed comes to words or to a sentence, soon, and always the same."""
    start_time = time.perf_counter()
    results = []
    for _ in range(2):
        try:
            results.append(fill_template(text, seed, FILES))
        except ValueError as error:
            results.append(f"{error}")
    assert results[0] == results[1]
    try:
        combinations = list_combinations(text, FILES, 50)
        assert len(combinations) <= 51
    except ValueError:
        pass
    assert time.perf_counter() - start_time < 10


@pytest.mark.parametrize(
    "text",
    [
        "{" * 5000 + "}" * 5000,
        "{a|" * 2000 + "}" * 2000,
        "__a" * 3000,
        "_" * 10_000,
        "/*" * 4000 + "{a|b}",
        "${x={a|b}}" + "${x}" * 2000,
        "{100$$" + "|".join("a" * 100) + "}",
        "{20$$" + "|".join("abcdefghijklmnopqrstuvwxyz") + "}",
        "{" + "|" * 9000 + "}",
        "".join(f"${{v{k + 1}=${{v{k}}}${{v{k}}}}}" for k in range(20)) + "${v0={1|2}}${v20}",
        "${x=!{a|b|c|d|e}}" * 100 + "${x}",
    ],
)
def test_hostile_templates_end(text: str) -> None:
    start_time = time.process_time()
    for work in (
        lambda: fill_template(text, 1, FILES),
        lambda: list_combinations(text, FILES, 10_000),
    ):
        with contextlib.suppress(ValueError):
            work()
    assert time.process_time() - start_time < 20


# ---- requests ------------------------------------------------------------------------------------


def resolve(**values: object) -> ResolvedRequest:
    request = validate(GenerationRequest, {"seed": 5, **values})
    return request.resolve(64, 0, None, FILES)


def test_each_image_has_its_own_words() -> None:
    images = resolve(prompt="a __season__ {boat|cat}", num_images=6).split(FILES)
    assert len({image.prompt for image in images}) > 1
    assert [image.prompt for image in images] == [
        resolve(prompt="a __season__ {boat|cat}", seed=5 + k).prompt for k in range(6)
    ]


def test_the_digest_is_over_the_words() -> None:
    image = resolve(prompt="a __season__ boat", styles=("Ink",))
    plain = resolve(prompt=image.prompt, negative_prompt=image.negative_prompt)
    assert image.digest({}) == plain.digest({})


def test_what_is_resolved_stays() -> None:
    image = resolve(prompt="{a|b} __season__", negative_prompt="{c|d}", styles=("Ink", "Night"))
    assert image.resolve(64, 9, None, FILES) == image
    assert image.split(FILES) == [image]
    assert image.styles == ()


def test_template_and_styles_are_kept() -> None:
    image = resolve(prompt="{a|b}", styles=("Ink",))
    assert image.prompt_origin is not None
    assert (image.prompt_origin.prompt, image.prompt_origin.styles) == ("{a|b}", ("Ink",))
    assert resolve(prompt="a boat").prompt_origin is None


def test_words_that_look_like_a_template_again_stay() -> None:
    image = resolve(prompt="{_|_}{_|_}season{_|_}{_|_}")
    assert image.prompt == "__season__"
    assert image.resolve(64, 0, None, FILES).prompt == "__season__"


def test_lora_tags_come_out_of_wildcards() -> None:
    images = resolve(prompt="a __lora__", num_images=8).split(FILES)
    assert {image.prompt: [use.name for use in image.loras] for image in images} == {
        "a  moon": ["moon"],
        "a sun": [],
    }


def test_styles_are_stacked_in_order() -> None:
    image = resolve(prompt="a boat", negative_prompt="fog", styles=("Ink", "Night"))
    assert image.prompts == ("ink of a boat, fine, at night", "fog, blurry")
    other = resolve(prompt="a boat", styles=("Night", "Ink"))
    assert other.prompt == "ink of a boat, at night, fine"


def test_without_files_prompts_stay_as_typed() -> None:
    request = GenerationRequest(prompt="{a|b}", styles=("Ink",))
    assert request.resolve(64, 0).prompt == "{a|b}"


@pytest.mark.parametrize(
    ("values", "titles"),
    [
        ({"prompt": "__seasons__", "negative_prompt": "__fog__"}, ["Prompt", "Negative prompt"]),
        ({"styles": ("ink", "Dusk")}, ["Styles", "Styles"]),
        ({"prompt": "{<lora:moon|<lora:moon} a"}, ["Prompt"]),
    ],
)
def test_requests_that_cannot_be_written_out(values: dict[str, object], titles: list[str]) -> None:
    with refused(InvalidSpec, *titles):
        resolve(**values)


def test_digests_without_styles_are_those_of_before() -> None:
    assert "styles" not in GenerationRequest(prompt="a").stable_dump()
