"""Where a prompt names a textual inversion: A1111's, ComfyUI's and diffusers' spellings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.generation.embeddings import Mention, MentionFinder

pytestmark = pytest.mark.smoke
FINDER = MentionFinder(["EasyNegative", "hands", "bad hands", "neg/hands", "<birb-style>", "v1.5"])


def bare(name: str) -> Mention:
    return Mention(name, is_explicit=False, is_known=True)


def explicit(name: str, is_known: bool = True) -> Mention:
    return Mention(name, is_explicit=True, is_known=is_known)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a cat", ["a cat"]),
        ("", []),
        ("easynegative", [bare("EasyNegative")]),
        ("fog, EASYNEGATIVE, rain", ["fog, ", bare("EasyNegative"), ", rain"]),
        ("EasyNegatives", ["EasyNegatives"]),
        ("xEasyNegative", ["xEasyNegative"]),
        ("my bad  hands", ["my ", bare("bad hands")]),
        ("bad, hands", ["bad, ", bare("hands")]),
        ("bad_hands", ["bad_hands"]),
        ("hands hands", [bare("hands"), bare("hands")]),
        ("in <birb-style> now", ["in ", bare("<birb-style>"), " now"]),
        ("neg/hands", [bare("neg/hands")]),
        ("v1.5 v1.55", [bare("v1.5"), " v1.55"]),
        ("embedding:hands", [explicit("hands")]),
        ("a embedding:Bad Hands b", ["a ", explicit("bad hands"), " b"]),
        ("embedding:neg/hands.pt, x", [explicit("neg/hands"), ", x"]),
        ("Embedding:hands.safetensors", [explicit("hands")]),
        ("embedding:<birb-style>", [explicit("<birb-style>")]),
        ("embedding:nope, x", [explicit("nope", is_known=False), ", x"]),
        ("embedding: hands", ["embedding: ", bare("hands")]),
        ("reembedding:hands", ["reembedding:", bare("hands")]),
        ("embedding:", ["embedding:"]),
    ],
)
def test_names_in_a_text(text: str, pieces: list[str | Mention]) -> None:
    assert FINDER.split(text) == pieces


def test_of_two_names_that_differ_in_case_the_first_counts() -> None:
    assert MentionFinder(["Hands", "hands"]).find("HANDS") == [bare("Hands")]


@given(st.text(max_size=80), st.lists(st.text(max_size=10), max_size=4))
def test_no_text_is_lost(text: str, names: list[str]) -> None:
    pieces = MentionFinder(names).split(text)
    plain = [piece for piece in pieces if isinstance(piece, str)]
    position = 0
    for piece in plain:  # in order, letter for letter
        position = text.index(piece, position) + len(piece)
    if len(plain) == len(pieces):
        assert "".join(plain) == text


@given(st.text(max_size=80))
def test_without_names_only_explicit_ones_are_seen(text: str) -> None:
    assert all(mention.is_explicit for mention in MentionFinder([]).find(text))
