"""Sample prompts come from captions and always ask for what is learned."""

from __future__ import annotations

import pytest

from studio.core.captions.text import guess_trigger, has_words
from studio.core.generation.prompts.dialects import plan_prompt
from studio.core.training.samples import (
    MAX_SAMPLE_PROMPTS,
    choose_sample_prompts,
    choose_trial_prompt,
    list_prompts_without_trigger,
)
from support.training_tab import config

TOY = [f"mysks, a photo of a small white plush toy, number {k}" for k in range(15)]


def test_samples_are_captions_spread_over_the_dataset() -> None:
    chosen_prompts = choose_sample_prompts(TOY, "mysks")
    assert chosen_prompts == (TOY[0], TOY[3], TOY[7], TOY[11])
    assert len(chosen_prompts) == MAX_SAMPLE_PROMPTS


@pytest.mark.parametrize("trigger", ["mysks", "Mysks", " mysks "])
def test_the_trigger_is_in_every_sample_once(trigger: str) -> None:
    captions = ["mysks, a toy", "a toy on a table", "", "a toy in mysksland"]
    chosen_prompts = choose_sample_prompts(captions, trigger)
    assert chosen_prompts[0] == "mysks, a toy"
    assert chosen_prompts[1] == f"{trigger.strip()}, a toy on a table"
    assert all(has_words(prompt, trigger) for prompt in chosen_prompts)


def test_samples_are_prompts_that_can_be_made() -> None:
    captions = ["a [cat|dog", "a " * 2000, "one\ntwo", "a toy", "a toy"]
    chosen_prompts = choose_sample_prompts(captions, "mysks")
    assert "mysks, a toy" in chosen_prompts
    assert "mysks, one two" in chosen_prompts
    assert len(chosen_prompts) == len(set(chosen_prompts))
    for prompt in chosen_prompts:
        plan_prompt(prompt)
        assert "\n" not in prompt
        assert len(prompt) < 1100


@pytest.mark.parametrize("captions", [[], ["", ""]])
def test_a_dataset_without_captions_leaves_the_bare_trigger_or_nothing(captions: list[str]) -> None:
    assert choose_sample_prompts(captions, "") == ()
    assert choose_sample_prompts(captions, "mysks") == (("mysks",) if captions else ())


@pytest.mark.parametrize(
    ("samples", "captions", "expected"),
    [
        ("a mysks toy by a lake", TOY, "a mysks toy by a lake"),
        ("a photo of a moon\na mysks toy", TOY, "a mysks toy"),
        ("a photo of a moon in the night sky", TOY, TOY[0]),
        ("a photo of a moon in the night sky", ["a toy"], "mysks, a toy"),
        ("a photo of a moon in the night sky", [], "a photo of a mysks plush toy"),
        ("", ["", ""], "a photo of a mysks plush toy"),
    ],
)
def test_the_first_try_always_has_the_trigger(
    samples: str, captions: list[str], expected: str
) -> None:
    fields = {"trigger": "mysks", "class_word": "plush toy", "sample_prompts": samples}
    if samples:
        fields["sample_every"] = 10  # type: ignore[assignment]
    assert choose_trial_prompt(config(**fields), captions) == expected


def test_the_first_try_of_a_style_is_a_sample_or_a_caption() -> None:
    assert choose_trial_prompt(config(), ["a lake in winter"]) == "a lake in winter"
    assert choose_trial_prompt(config(sample_prompts="a boat", sample_every=5), TOY) == "a boat"
    assert choose_trial_prompt(config()) == ""
    assert choose_trial_prompt(config(class_word="owl")) == "a photo of an owl"


def test_samples_that_do_not_ask_for_it_are_known() -> None:
    asked = config(trigger="mysks", sample_prompts="a mysks\na moon", sample_every=5)
    assert list_prompts_without_trigger(asked) == ["a moon"]
    assert list_prompts_without_trigger(config(sample_prompts="a moon", sample_every=5)) == []


def test_a_trigger_is_guessed_from_what_all_captions_begin_with() -> None:
    assert guess_trigger(["", *TOY]) == "mysks"
    assert guess_trigger([*TOY, "a bear"]) == ""
    assert guess_trigger(["a small toy, red"]) == ""
    assert guess_trigger([]) == ""
