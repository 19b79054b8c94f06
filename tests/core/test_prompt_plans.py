"""What the prompts of a request come to in each pass, and how many rows that takes."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.catalog import SCHEDULERS, Scheduler
from studio.core.generation import rules
from studio.core.generation.prompt_plans import (
    PassPlan,
    count_rows,
    list_wordings,
    plan_hires_pass,
    plan_pass,
)
from studio.core.generation.request import GenerationRequest

HIRES = {"hires_scale": 2, "hires_steps": 20, "hires_strength": 0.5}  # of 20 steps 10 run
IMAGE = {"image": "0" * 64, "strength": 0.5}


def asked(prompt: str = "", **values: Any) -> GenerationRequest:
    return GenerationRequest(prompt=prompt, **({"steps": 10} | values))


def read(plan: PassPlan) -> list[str]:
    """What is read at each step."""
    (branch,) = plan.positive.branches
    return [branch.find_wording(step).plain_text for step in range(plan.steps)]


def test_a_change_comes_one_step_after_its_number() -> None:
    """A1111 compares the number with steps that it counts from 0."""
    assert read(plan_pass(asked("[a:b:3]"))) == ["a"] * 4 + ["b"] * 6
    assert read(plan_pass(asked("[a:b:0.5]"))) == ["a"] * 6 + ["b"] * 4
    assert read(plan_pass(asked("[a|b]"))) == ["a", *["a", "b"] * 4, "a"]


def test_the_second_pass_counts_on() -> None:
    """Its steps are those that run in it."""
    shares = asked("a [b:1.5]", **HIRES)
    assert read(plan_pass(shares)) == ["a "] * 10
    assert read(plan_hires_pass(shares)) == ["a "] * 6 + ["a b"] * 4
    steps = asked("a [b:13]", **HIRES)
    assert read(plan_pass(steps)) == ["a "] * 10
    assert read(plan_hires_pass(steps)) == ["a "] * 4 + ["a b"] * 6
    assert set(read(plan_hires_pass(asked("a [b:.5]", **HIRES)))) == {"a b"}


def test_an_image_that_is_only_enlarged_has_one_pass() -> None:
    request = asked("a [b:.5]", **IMAGE | {"strength": 0}, **HIRES)
    assert read(plan_pass(request)) == read(plan_hires_pass(request))
    assert read(plan_hires_pass(request)) == ["a "] * 6 + ["a b"] * 4


def test_a_repainted_image_is_planned_for_all_its_steps() -> None:
    assert plan_pass(asked("[a:b:0.5]", **IMAGE)).steps == 10


def test_all_that_is_ever_read_is_listed() -> None:
    prompt, negative = list_wordings(asked("[a:b:15]", negative_prompt="[c|d]", **HIRES))
    assert [wording.plain_text for wording in prompt] == ["a", "b"]
    assert [wording.plain_text for wording in negative] == ["c", "d"]
    (alone,), _ = list_wordings(asked("[a:b:15]"))
    assert alone.plain_text == "a"


@pytest.mark.parametrize(
    ("prompt", "guidance", "rows"),
    [
        ("a", 7, 2),
        ("a", 1, 1),
        ("a AND b", 7, 3),
        ("a AND b", 1, 3),
        ("a :0.5", 1, 2),
        ("a :0.5", 7, 2),
        ("a AND b :-1 AND c", 7, 4),
    ],
)
def test_rows(prompt: str, guidance: float, rows: int) -> None:
    request = asked(prompt, guidance=guidance)
    assert count_rows(request, request.is_guided) == rows
    assert rules.count_unet_rows(request, (512, 512)) == 10 * rows


def test_a_negative_prompt_has_no_branches() -> None:
    plan = plan_pass(asked("a", negative_prompt="b AND c"))
    (branch,) = plan.negative.branches
    assert branch.find_wording(0).plain_text == "b AND c"
    assert not plan.is_composed


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_calls_belong_to_steps(scheduler: Scheduler) -> None:
    """All steps are there, in order, none with more calls than the solver takes."""
    info = SCHEDULERS[scheduler]
    steps = [info.find_step(call) for call in range(info.count_model_calls(6, 6))]
    assert sorted(set(steps)) == list(range(6))
    assert steps == sorted(steps)
    assert max(steps.count(step) for step in steps) <= 2
