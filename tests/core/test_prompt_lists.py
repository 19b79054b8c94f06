"""Lists of prompts, A1111's and plain ones, and what is wrong with their lines."""

from __future__ import annotations

import pytest

from studio.core.generation.templates.prompt_list import build_requests, parse_prompt_list
from studio.errors import InvalidSpec
from support.sentences import check_sentence, refused


def test_plain_lines() -> None:
    prompts = parse_prompt_list("\ufeffa red boat\r\n\n  a -- b \n")
    assert [(prompt.number, prompt.values) for prompt in prompts] == [
        (1, {"prompt": "a red boat"}),
        (3, {"prompt": "a -- b"}),
    ]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ('--prompt "a boat" --steps 30', {"prompt": "a boat", "steps": "30"}),
        ("--prompt a red boat --seed 7", {"prompt": "a red boat", "seed": "7"}),
        (
            '--prompt "x" --sampler_name "DPM++ 2M Karras" --cfg_scale 5',
            {"prompt": "x", "scheduler": "DPM++ 2M", "noise_schedule": "Karras", "guidance": "5"},
        ),
        (
            "--prompt 'it''s' --negative_prompt fog and rain --width 64 --height 128 --n_iter 2",
            {
                "prompt": "its",
                "negative_prompt": "fog and rain",
                "width": "64",
                "height": "128",
                "num_images": "2",
            },
        ),
        ('--styles "Ink, Night" --prompt x', {"styles": ("Ink", "Night"), "prompt": "x"}),
        ("--sd_model moon --prompt x", {"model": "moon", "prompt": "x"}),
    ],
)
def test_lines_of_settings(line: str, values: dict[str, object]) -> None:
    assert parse_prompt_list(line)[0].values == values


def test_what_means_nothing_here_is_said() -> None:
    prompt = parse_prompt_list('--prompt x --outpath_samples "C:/mine" --tiling true')[0]
    assert prompt.values == {"prompt": "x"}
    check_sentence("\n".join(prompt.notes))
    assert "mine" not in str(prompt.notes)


def test_all_bad_lines_at_once() -> None:
    lines = ['--prompt "open', "fine", "--foo 1", "--steps", "--steps 5 6"]
    with refused(InvalidSpec, "Line 1", "Line 3", "Line 4", "Line 5"):
        parse_prompt_list("\n".join(lines))


def test_all_lines_that_are_no_request() -> None:
    prompts = parse_prompt_list("a\n--prompt b --steps 1000 --width 3\n--prompt {!a|b}\n")
    with refused(InvalidSpec, "Line 2", "Line 2", "Line 3"):
        build_requests(prompts, {})


def test_the_base_is_taken_for_the_rest() -> None:
    prompts = parse_prompt_list("a\n--prompt b --steps 5")
    requests = build_requests(prompts, {"steps": 9, "seed": 3, "prompt": "of the page"})
    assert [(r.prompt, r.steps, r.seed) for r in requests] == [("a", 9, 3), ("b", 5, 3)]


def test_too_long_a_list() -> None:
    with refused(InvalidSpec, "List"):
        parse_prompt_list("a\n" * 1001)


@pytest.mark.parametrize(
    ("line", "schedule", "num_notes"),
    [
        ('--prompt x --sampler_name "Euler Karras" --scheduler Simple', "Karras", 1),
        ('--prompt x --scheduler Simple --sampler_name "Euler Karras"', "Karras", 1),
        ("--prompt x --sampler_name Euler --scheduler simple", "Simple", 0),
        ("--prompt x --scheduler sgm_uniform --sampler_name euler", "SGM Uniform", 0),
        ('--prompt x --scheduler Karras --sampler_name "Euler a"', "Karras", 0),  # refused by name
    ],
)
def test_a_schedule_in_a_samplers_name_goes_first_as_in_a1111(
    line: str, schedule: str, num_notes: int
) -> None:
    prompt = parse_prompt_list(line)[0]
    assert prompt.values["noise_schedule"] == schedule
    assert len(prompt.notes) == num_notes
