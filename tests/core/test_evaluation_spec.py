"""Was it worth it: prompts and the rule, without any picture."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from studio.core.base import validate
from studio.core.sweeps.spec import plan_sweep
from studio.core.training import evaluation
from studio.core.training.config import TrainingConfig
from studio.core.training.evaluation import (
    MAX_CHECKPOINTS,
    MAX_SCENES,
    MIN_FOLLOWING_RATIO,
    PROMPT_TEMPLATES,
    EvaluationPoint,
    build_scene_prompts,
    build_sweep,
    derive_concept_name,
    recommend,
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


def point(step: int, weight: float, concept: float, following: float) -> EvaluationPoint:
    return EvaluationPoint(f"moon-{step}", step, weight, concept, following, 0.3)


BASE = point(0, 0, 0.0, 1.0)


def test_it_recommends_what_shows_most_and_still_follows() -> None:
    points = [
        point(100, 0.7, 0.2, 1),
        point(100, 1, 0.4, 1),
        point(200, 0.7, 0.7, 1),
        point(200, 1, 0.72, 0.5),
        point(300, 0.7, 0.9, 0.4),
    ]
    found = recommend(points, BASE)
    assert found.best == points[2]
    said = " ".join(found.sentences)
    assert "moon-200 (step 200) at weight 0.7" in said
    assert "70%" in said
    assert "Above that, at weight 1, pictures stop following the prompt (50%)" in said
    assert "from step 300 on" in said


def test_of_equals_the_plain_weight_and_the_shorter_training_win() -> None:
    points = [point(200, 1.3, 0.80, 1), point(300, 1, 0.79, 1), point(200, 1, 0.78, 1)]
    assert recommend(points, BASE).best == points[2]
    assert "None of the weights" in recommend(points, BASE).sentences[-1]


def test_it_says_when_nothing_was_learned_or_nothing_follows() -> None:
    found = recommend([point(100, 1, 0.02, 1), point(100, 1.3, -0.1, 1)], BASE)
    assert found.best is None
    assert "learned little" in found.sentences[0]
    found = recommend([point(100, 1, 0.9, 0.3), point(100, 0.4, 0.6, 0.5)], BASE)
    assert found.best is not None
    assert found.best.concept == 0.6
    assert "No setting both" in found.sentences[0]
    assert recommend([], BASE).best is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([100, 200]),
            st.sampled_from([0.4, 1.0]),
            st.floats(-1, 2),
            st.floats(0, 1),
        ),
        max_size=8,
    )
)
@example([(100, 0.4, 0.0625, 1.0), (100, 0.4, 0.125, 1.0)])
def test_what_is_recommended_follows_if_anything_does(
    rows: list[tuple[int, float, float, float]],
) -> None:
    points = [point(*row) for row in rows]
    best = recommend(points, BASE).best
    keeping = [
        one
        for one in points
        if one.following >= MIN_FOLLOWING_RATIO and one.concept >= evaluation.MIN_CONCEPT
    ]
    assert best is None or best in points
    assert not keeping or best in keeping
    assert evaluation.serialize_report(points, BASE, recommend(points, BASE))["points"] == [
        vars(one) for one in points
    ]
