"""Prompt syntax and emphasis: what a digest counts of them, what files mean that name neither, which prompts are refused."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.base import validate, validate_stored
from studio.core.generation.infotext import format_infotext, parse_infotext
from studio.core.generation.request import GenerationRequest
from studio.errors import InvalidSpec
from support.sentences import refused

pytestmark = pytest.mark.smoke

PLAIN_PROMPTS = ("", "a cat", "a cat, by a lake: fog", "a + b - c", "Ünicode, ねこ")


def digest(hashes: dict[str, str] | None = None, **values: Any) -> str:
    return (
        validate(GenerationRequest, values).resolve(512, 7).digest({"model": "m"} | (hashes or {}))
    )


def digest_before(hashes: dict[str, str] | None = None, **values: Any) -> str:
    request = validate_stored(GenerationRequest, values)
    return request.resolve(512, 7).digest({"model": "m"} | (hashes or {}))


def test_what_was_made_before_keeps_its_reading() -> None:
    request = validate_stored(GenerationRequest, {"prompt": "(a:1.3) b++"})
    assert (request.prompt_syntax, request.emphasis) == ("both", "compel")
    assert {"prompt_syntax", "emphasis"} & request.stable_dump().keys() == set()


@pytest.mark.parametrize("prompt", PLAIN_PROMPTS)
def test_plain_words_have_one_digest_however_they_are_read(prompt: str) -> None:
    assert digest(prompt=prompt) == digest_before(prompt=prompt)
    assert digest(prompt=prompt, emphasis="No norm") == digest_before(prompt=prompt)
    assert digest(prompt=prompt, prompt_syntax="A1111") == digest_before(prompt=prompt)
    assert digest(negative_prompt=prompt) == digest_before(negative_prompt=prompt)


def test_auto_is_the_grammar_that_it_chooses() -> None:
    for prompt, syntax in (("(a:1.3)", "A1111"), ("a [b:3]", "A1111"), ("blue++ sky", "compel")):
        assert digest(prompt=prompt) == digest(prompt=prompt, prompt_syntax=syntax)
    assert digest(prompt="blue++ sky") != digest(prompt="blue++ sky", prompt_syntax="A1111")
    assert digest(prompt="[b:3]") != digest(prompt="[b:3]", prompt_syntax="compel")


def test_emphasis_counts_where_a_word_is_weighed() -> None:
    assert digest(prompt="(a:1.3)") != digest(prompt="(a:1.3)", emphasis="Ignore")
    assert digest(prompt="(a:1.3)", emphasis="compel") == digest_before(prompt="(a:1.3)")
    assert digest(prompt="blue++") == digest(prompt="blue++", emphasis="Ignore")
    assert digest(prompt=r"\(a\)") == digest(prompt=r"\(a\)", emphasis="No norm")
    assert digest(prompt=r"\(a\)") != digest(prompt=r"\(a\)", emphasis="None")


def test_a_long_prompt_is_cut_into_chunks_by_its_grammar() -> None:
    long_prompt = "word " * 30
    assert digest(prompt=long_prompt) != digest_before(prompt=long_prompt)
    assert digest(prompt=long_prompt) == digest(prompt=long_prompt, prompt_syntax="A1111")


def test_an_embedding_may_make_a_short_prompt_long() -> None:
    hashes = {"embedding ink": "e"}
    assert digest(hashes, prompt="ink") != digest_before(hashes, prompt="ink")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"prompt": "a [b|c]", "prompt_syntax": "both"}, "Prompt: "),
        ({"negative_prompt": "(a:2000)"}, "Negative prompt: "),
        ({"prompt": '("a", "b").blend(1)'}, "Prompt: "),
        ({"prompt": "a :1000"}, "Prompt: "),
        ({"prompt_syntax": "NovelAI"}, "Prompt syntax: "),
        ({"emphasis": "strong"}, "Emphasis: "),
    ],
)
def test_refused_under_its_title(values: dict[str, str], named: str) -> None:
    with refused(InvalidSpec, named.removesuffix(": ")) as caught:
        validate(GenerationRequest, values)
    assert str(caught.value).startswith(named)


def test_names_in_any_case() -> None:
    request = validate(GenerationRequest, {"prompt_syntax": "a1111", "emphasis": "no norm"})
    assert (request.prompt_syntax, request.emphasis) == ("A1111", "No norm")


def test_a1111_s_text_names_the_emphasis() -> None:
    values = {"prompt": "(a:1.3)", "emphasis": "No norm", "prompt_syntax": "A1111"}
    text = format_infotext(validate(GenerationRequest, values).resolve(512, 7))
    assert "Emphasis: No norm" in text
    assert parse_infotext(text).values["emphasis"] == "No norm"
    plain_text = format_infotext(validate(GenerationRequest, {"prompt": "a"}).resolve(512, 7))
    assert "Emphasis" not in plain_text
    assert "syntax" not in plain_text
