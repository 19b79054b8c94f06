"""The line that says how a prompt is read, and what its words weigh on hover."""

from __future__ import annotations

import re
from typing import Any

import pytest

from studio.core.base import validate
from studio.core.generation.request import GenerationRequest
from studio.ui.components.prompt_reading import list_syntaxes, render_reading

pytestmark = pytest.mark.smoke


def render(**values: Any) -> str:
    return render_reading(validate(GenerationRequest, values))


def list_titles(html: str) -> list[tuple[str, str]]:
    return re.findall(r'title="([^"]*)">([^<]*)<', html)


def test_nothing_is_said_of_plain_words() -> None:
    assert render(prompt="a cat by a lake", negative_prompt="fog").strip() == ""


def test_a_line_names_the_grammar_and_what_is_in_the_prompt() -> None:
    html = render(prompt="((a)) (b:1.3) BREAK c")
    assert "Prompt, read as A1111&#39;s; 2 weights, BREAK: 2 chunks" in html
    assert ("weight 1.21", "a") in list_titles(html)
    assert ("weight 1.3", "b") in list_titles(html)
    assert "Negative prompt, read as compel&#39;s; 1 weight" in render(negative_prompt="blue++")


def test_words_that_change_say_their_steps() -> None:
    html = render(prompt="[(a:1.5):b:0.5]", steps=20)
    assert list_titles(html) == [("weight 1.5, steps 1–11", "a"), ("weight 1, steps 12–20", "b")]


def test_branches_say_their_weight() -> None:
    html = render(prompt="a :0.5 AND b")
    assert "AND: 2 prompts" in html
    assert ("weight 1, AND weight 0.5", "a") in list_titles(html)


def test_an_alternation_is_cut_short() -> None:
    assert "… and 143 more" in render(prompt="[a|b]", steps=150)


def test_a_prompt_is_no_html() -> None:
    assert "<script>" not in render(prompt="(<script>:1.2)")


def test_the_first_syntax_is_offered_only_where_it_is_chosen() -> None:
    assert list_syntaxes("auto") == ["auto", "A1111", "compel"]
    assert list_syntaxes("both") == ["auto", "A1111", "compel", "both"]
