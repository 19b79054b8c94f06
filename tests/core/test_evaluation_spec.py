"""Was it worth it: the prompts and the sweep, without any picture."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.base import validate
from studio.core.sweeps.spec import plan_sweep
from studio.core.training import evaluation
from studio.core.training.config import TrainingConfig
from studio.core.training.evaluation import (
    MAX_CHECKPOINTS,
    MAX_SCENES,
    PROMPT_TEMPLATES,
    build_scene_prompts,
    build_sweep,
    derive_concept_name,
    select_checkpoints,
)


def config(**more: Any) -> TrainingConfig:
    return validate(TrainingConfig, {"dataset": "moon", "name": "moon", "steps": 4, **more})


MOON = [
    "a photo of a white moon in the night sky",
    "a cartoon of a white moon by a lake",
    "pixel art of a white moon on a beach",
]


@pytest.mark.parametrize(
    ("more", "captions", "name"),
    [
        ({"trigger": "moon"}, MOON, "white moon"),
        (
            {"trigger": "mysks", "class_word": "plush toy"},
            ["a mysks plush toy on a rug", "my mysks plush toy"],
            "mysks plush toy",
        ),
        ({"trigger": "mysks", "class_word": "plush toy"}, [], "mysks plush toy"),
        ({"trigger": "ohwx"}, ["ohwx, girl, red hair", "smile, ohwx, blue eyes"], "ohwx"),
        ({"trigger": "mysks"}, ["a toy", "another toy"], "mysks"),  # the captions do not say it
        ({}, MOON, ""),
    ],
)
def test_it_is_called_as_the_captions_do(
    more: dict[str, Any], captions: list[str], name: str
) -> None:
    assert derive_concept_name(config(**more), captions) == name


def test_scenes_are_new_ones() -> None:
    asked = config(trigger="moon")
    found = build_scene_prompts(asked, [*MOON, "a photo of a white moon in the snow"])
    assert len(found) == MAX_SCENES - 1
    assert "a photo of a white moon in the snow" not in found
    assert all("white moon" in one for one in found)
    assert build_scene_prompts(config(trigger="orb"), [])[0] == "a photo of an orb in the jungle"
    style = build_scene_prompts(
        config(sample_prompts="a house\na tree", sample_every=2), ["ink", "", "ink", "wash"]
    )
    assert style == ["a house", "a tree", "ink", "wash"]
    assert build_scene_prompts(config(), []) == []
    assert len(PROMPT_TEMPLATES) == MAX_SCENES


TOY = [
    "mysks, a photo of a small white plush toy on a sofa",
    "Mysks, a photo of a small white plush toy, close-up",
    "mysks, a cartoon of a small white plush toy in the rain",
]


def test_scenes_are_worded_as_captions_that_begin_with_the_trigger() -> None:
    """No class word was asked for, and "a photo of a mysks" stands in no caption."""
    scenes = build_scene_prompts(config(trigger="mysks"), TOY)
    assert scenes[0] == "mysks, a photo of a small white plush toy in the jungle"
    assert len(scenes) == MAX_SCENES
    assert all(scene.startswith("mysks, ") for scene in scenes)
    # their words win over a class word that no caption has
    named = build_scene_prompts(config(trigger="mysks", class_word="bear"), TOY)
    assert named == scenes


@pytest.mark.parametrize(
    ("class_word", "captions", "scene"),
    [
        ("plush toy", ["mysks, on a sofa", "mysks, red"], "mysks, a photo of a plush toy in the"),
        ("", ["mysks, on a sofa", "mysks, red"], "a photo of a mysks in the"),
        (
            "",
            ["mysks, a photo of an owl", "mysks, an owl asleep"],
            "mysks, a photo of an owl in the",
        ),
        ("", ["mysks", "mysks", ""], "a photo of a mysks in the"),
        ("", ["a mysks on a sofa", "mysks asleep"], "a photo of a mysks in the"),
    ],
)
def test_scenes_call_it_what_captions_call_it(
    class_word: str, captions: list[str], scene: str
) -> None:
    asked = config(trigger="mysks", class_word=class_word)
    assert build_scene_prompts(asked, captions)[0] == f"{scene} jungle"


def test_long_captions_do_not_make_long_scenes() -> None:
    captions = ["mysks, " + "very " * 500 + "white toy"] * 2
    assert max(map(len, build_scene_prompts(config(trigger="mysks"), captions))) < 150


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40, unique=True))
def test_the_last_checkpoint_is_always_compared(steps: list[int]) -> None:
    found = select_checkpoints(steps)
    assert found[-1] == max(steps)
    assert found == sorted(set(found))
    assert len(found) == min(len(steps), MAX_CHECKPOINTS)


def test_the_comparison_paints_the_base_once_on_equal_seeds() -> None:
    planned = plan_sweep(build_sweep(config(seed=2**32 - 1), ["moon-1", "moon"], ["a", "b", "c"]))
    base = [cell for cell in planned.cells if cell.coordinates[3] == 0]
    assert len(planned.cells) == 3 * 2 * len(evaluation.LORA_WEIGHTS)
    assert len({cell.request.key for cell in base}) == 3
    assert {(cell.request.prompt, cell.request.seed) for cell in planned.cells} == {
        ("a", 999),
        ("b", 1000),
        ("c", 1001),
    }
