"""A decimal comma is a point wherever one number is meant; in a list it is asked about, not guessed."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.base import validate
from studio.core.generation.lora_use import extract_tags
from studio.core.generation.recipes.a1111_text import read_pairs
from studio.core.generation.recipes.json_text import as_number
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.value_syntax import parse_values
from studio.core.training.config import TrainingConfig
from studio.errors import InvalidSpec
from support.sentences import refused

pytestmark = pytest.mark.smoke


def test_a_number_with_a_comma_is_that_number() -> None:
    request = validate(GenerationRequest, {"guidance": "7,5", "guidance_rescale": " ,25 "})
    assert (request.guidance, request.guidance_rescale) == (7.5, 0.25)
    asked = {"name": "x", "dataset": "moon", "learning_rate": "0,0001"}
    assert validate(TrainingConfig, asked).learning_rate == 0.0001


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("guidance", "1,234,567"),
        ("guidance", "seven,five"),
        ("steps", "7,5"),
        ("steps", "1,000"),
    ],
)
def test_what_may_be_meant_otherwise_is_refused(field: str, text: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        validate(GenerationRequest, {field: text})
    assert text in str(caught.value)


def test_a_prompt_keeps_its_commas() -> None:
    assert validate(GenerationRequest, {"prompt": "7,5"}).prompt == "7,5"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0,5; 0,75; 1", (0.5, 0.75, 1)),
        ("0,5-1,0 (+0,25);2", (0.5, 0.75, 1, 2)),
        ("7,5;", (7.5,)),
        ("4,7,10", (4, 7, 10)),
        ("4,7, 10", (4, 7, 10)),
        ('"7,5"', (7.5,)),
    ],
)
def test_semicolons_part_numbers_with_commas(text: str, values: tuple[float, ...]) -> None:
    assert parse_values(text, "number") == values


@pytest.mark.parametrize("text", ["0,5, 0,75", "0,05", "1, 0,5"])
def test_a_list_that_has_two_readings_is_refused(text: str) -> None:
    with refused(InvalidSpec):
        parse_values(text, "number")


def test_values_of_a_list_are_numbers_of_their_own() -> None:
    values: list[Any] = ["7,5", "0,5-1 (+0,5)", 3]
    assert parse_values(values, "number")[0] == 7.5
    assert parse_values("8,12", "whole") == (8, 12)
    assert parse_values("red; blue, green", "text") == ("red; blue", "green")


def test_settings_of_other_programs() -> None:
    pairs = read_pairs("Steps: 20, CFG scale: 7,5, Seed: 3, Denoising strength: 0,4")
    assert (pairs["CFG scale"], pairs["Seed"]) == ("7,5", "3")
    assert as_number(pairs["Denoising strength"]) == 0.4
    assert read_pairs('Steps: 20, Sampler: Euler, Mask: "1,2", Size: 512x512')["Mask"] == "1,2"


def test_the_weight_of_a_lora_in_a_prompt() -> None:
    _, (use,) = extract_tags("a moon <lora:moon:0,8>")
    assert (use.unet, use.text_encoder) == (0.8, 0.8)
