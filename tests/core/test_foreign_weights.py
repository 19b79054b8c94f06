"""Weights of ComfyUI's and NovelAI's grammars come to the same in A1111's.

Each prompt is made together with what every letter of it has to come to, by those programs' rules.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.generation.prompts.dialects import plan_prompt
from studio.core.generation.recipes.comfyui_prompts import adapt_words
from studio.core.generation.recipes.novelai import convert_weights

Letters = list[tuple[str, float]]


@dataclass(frozen=True)
class Piece:
    """A part of a prompt: as it is written, and its letters with their weights within it.

    Attributes:
        text: As it is written.
        letters: Each with its weight, and whether brackets around it still multiply that.
    """

    text: str
    letters: tuple[tuple[str, float, bool], ...]


def words(text: str, letters: str | None = None) -> Piece:
    shown = text if letters is None else letters
    return Piece(text, tuple((letter, 1.0, True) for letter in shown if not letter.isspace()))


def join(pieces: list[Piece]) -> Piece:
    return Piece(
        "".join(piece.text for piece in pieces),
        tuple(letter for piece in pieces for letter in piece.letters),
    )


def scale(piece: Piece, factor: float, opening: str, closing: str, *, is_fixed: bool) -> Piece:
    letters = tuple(
        (letter, weight * factor if is_open else weight, is_open and not is_fixed)
        for letter, weight, is_open in piece.letters
    )
    return Piece(f"{opening}{piece.text}{closing}", letters)


WORDS = st.sampled_from(["a", "boat ", "red, ", " on water", "c++ ", "x:y "]).map(words)
COMFY_SIGNS = st.sampled_from(
    [
        words("[", "["),
        words("]", "]"),
        words("[b:c:0.5]"),
        words(r"\(", "("),
        words(r"\)", ")"),
        words(" AND ", "and"),
        words(" BREAK ", "break"),
    ]
)
NUMBERS = st.sampled_from([0.5, 0.8, 1.2, 1.5, 2.0])
COMFY = st.recursive(
    WORDS | COMFY_SIGNS,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        .map(join)
        .flatmap(
            lambda piece: st.one_of(
                st.just(scale(piece, 1.1, "(", ")", is_fixed=False)),
                NUMBERS.map(lambda number: scale(piece, number, "(", f":{number})", is_fixed=True)),
            )
        )
    ),
    max_leaves=8,
)
NOVELAI_SIGNS = st.sampled_from([words("(", "("), words(")", ")"), words(" AND ", "and")])
NOVELAI = st.recursive(
    WORDS | NOVELAI_SIGNS,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        .map(join)
        .flatmap(
            lambda piece: st.sampled_from(
                [
                    scale(piece, 1.05, "{", "}", is_fixed=False),
                    scale(piece, 1 / 1.05, "[", "]", is_fixed=False),
                ]
            )
        )
    ),
    max_leaves=8,
)


def read_letters(prompt: str) -> Letters:
    """Every letter of a prompt of A1111's grammar that is no blank, with its weight."""
    plan = plan_prompt(prompt, syntax="A1111")
    assert (len(plan.branches), len(plan.wordings)) == (1, 1), prompt
    return [
        (letter, fragment.weight)
        for fragment in plan.wordings[0].fragments
        for letter in fragment.text
        if not letter.isspace()
    ]


def check(piece: Piece, prompt: str) -> None:
    letters = read_letters(prompt)
    assert [letter for letter, _ in letters] == [letter for letter, _, _ in piece.letters], prompt
    weights = [weight for _, weight in letters]
    assert weights == pytest.approx([weight for _, weight, _ in piece.letters], abs=1e-3), prompt


@given(st.lists(COMFY, min_size=1, max_size=4).map(join))
def test_comfyuis_weights(piece: Piece) -> None:
    """A bracket's own number replaces what is around it; one without multiplies by 1.1."""
    check(piece, adapt_words(piece.text))


@given(st.lists(NOVELAI, min_size=1, max_size=4).map(join))
def test_novelais_weights(piece: Piece) -> None:
    check(piece, convert_weights(piece.text))
