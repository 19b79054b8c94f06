"""Emphasis counts wherever it may change an image: at any step, in any pass, in what is open."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.generation.request import GenerationRequest

LONG = ", ".join(f"word{number} big boat" for number in range(30))


def digest(prompt: str, **values: Any) -> str:
    return GenerationRequest(prompt=prompt, **values).resolve(512, 1).digest({"model": "0"})


@pytest.mark.parametrize(
    ("prompt", "values", "other"),
    [
        ("[a boat:(red moon:1.9):21]", {"steps": 24}, "No norm"),
        ("[a:(b:1.3):30]", {"steps": 40}, "No norm"),
        ("[a:(b:1.3):1.5]", {"hires_scale": 2}, "Ignore"),
        ("[a:(b:1.3):25]", {"hires_scale": 2}, "Ignore"),
        (LONG, {}, "compel"),
    ],
)
def test_another_emphasis_is_another_image(prompt: str, values: dict[str, Any], other: str) -> None:
    assert digest(prompt, **values) != digest(prompt, **values, emphasis=other)
    GenerationRequest(prompt=prompt, **values, emphasis=other).reject_inactive(["emphasis"])


def test_a_short_prompt_without_weights_has_none() -> None:
    assert digest("a red boat") == digest("a red boat", emphasis="No norm")
    assert digest("[a:b:3]") == digest("[a:b:3]", emphasis="No norm")


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "<lora:moon:{0.5|1}> a boat"},
        {"prompt": "<lora:moon:__w__> x"},
        {"prompt": "{(a:2000)|b} boat"},
        {"prompt": "{a|b} <hypernet:x:1>"},
        {"prompt": "{a|b}" + " AND a" * 30},
        {"prompt": "__c__"},
        {"prompt": "a", "styles": ["Ink"]},
    ],
)
def test_what_is_open_may_be_weighed(values: dict[str, Any]) -> None:
    request = GenerationRequest(**values, emphasis="No norm")
    request.reject_inactive(["emphasis"])
    assert not {"emphasis", "prompt_syntax"} & request.inactive_fields
    assert request.key != GenerationRequest(**values).key
