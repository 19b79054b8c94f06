"""Was it worth it: the rule by which one is recommended, and what is said when nothing was learned."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from studio.core.training.verdict import (
    MIN_CONCEPT,
    MIN_FOLLOWING_RATIO,
    MIN_SHOWN,
    Evaluated,
    EvaluationPoint,
    recommend,
    serialize_report,
)
from support.training_tab import config

TOY = Evaluated("mysks", num_scenes=8, num_images=15, trigger="mysks")


def point(
    step: int, weight: float, concept: float, following: float, shown: float = 1.0
) -> EvaluationPoint:
    return EvaluationPoint(f"moon-{step}", step, weight, concept, shown, following, 0.3)


BASE = point(0, 0, 0.0, 1.0, 0.0)


def test_it_recommends_what_shows_most_and_still_follows() -> None:
    points = [
        point(100, 0.7, 0.2, 1),
        point(100, 1, 0.4, 1),
        point(200, 0.7, 0.7, 1),
        point(200, 1, 0.72, 0.5),
        point(300, 0.7, 0.9, 0.4),
    ]
    verdict = recommend(points, BASE, TOY)
    assert verdict.best == points[2]
    text = " ".join(verdict.sentences)
    assert "moon-200 (step 200) at weight 0.7" in text
    assert "70% of the dataset’s look was learned" in text
    assert "8 of 8 scenes show mysks" in text
    assert "From weight 1 on, images stop following their prompts (50%)" in text
    assert "from step 300 on" in text
    assert "every tested weight" not in text


def test_nothing_learned_is_not_recommended_whatever_clip_says() -> None:
    """The fault: 40 steps over 15 images, nothing to be seen, "47 % of the way" at weight 1."""
    points = [point(40, weight, concept, 1.0, 0.0) for weight, concept in LEARNED_NOTHING]
    verdict = recommend(points, BASE, TOY)
    assert verdict.best is None
    (sentence,) = verdict.sentences
    assert sentence.startswith("Not yet: none of the 8 scenes shows mysks at any tested weight.")
    assert "Train longer: 40 steps show each of the 15 images about 3 times" in sentence


LEARNED_NOTHING = [(0.4, 0.2), (0.7, 0.52), (1.0, 0.47), (1.3, 0.54)]


@pytest.mark.parametrize(
    ("shown", "concept", "words"),
    [
        (0.0, 0.5, "none of the 8 scenes shows mysks"),
        (0.125, 0.5, "at best 1 of the 8 scenes shows mysks"),
        (0.2, 0.5, "at best 2 of the 8 scenes show mysks"),
        (0.9, 0.02, "hardly come closer to the dataset’s"),
    ],
)
def test_it_says_what_is_missing(shown: float, concept: float, words: str) -> None:
    verdict = recommend([point(40, 1, concept, 1, shown)], BASE, TOY)
    assert verdict.best is None
    assert words in verdict.sentences[0]


@pytest.mark.parametrize(
    ("steps", "batch", "trigger", "words"),
    [
        (10, 1, "mysks", "about once, where 40"),
        (500, 1, "mysks", "about 33 times"),
        (500, 2, "mysks", "Raise the learning rate or the rank, and check that the captions"),
        (2000, 1, "", "Raise the learning rate or the rank, or train longer."),
    ],
)
def test_it_says_what_to_do(steps: int, batch: int, trigger: str, words: str) -> None:
    spec = config(steps=steps, train_batch_size=batch, trigger=trigger)
    evaluated = Evaluated.from_config(spec, trigger, num_scenes=8, num_images=15)
    assert words in recommend([point(steps, 1, 0.3, 1, 0.0)], BASE, evaluated).sentences[0]


def test_too_much_learned_says_so_and_what_comes_closest() -> None:
    verdict = recommend([point(100, 1, 0.9, 0.3), point(100, 0.4, 0.6, 0.5)], BASE, TOY)
    assert verdict.best is not None
    assert verdict.best.concept == 0.6
    assert "It learned too much" in verdict.sentences[0]
    assert recommend([], BASE, TOY).best is None


def test_within_chance_the_plain_weight_and_the_shorter_training_win_and_it_is_said() -> None:
    points = [point(200, 1.3, 0.80, 1), point(300, 1, 0.79, 1), point(200, 1, 0.78, 1)]
    verdict = recommend(points, BASE, TOY)
    assert verdict.best == points[2]
    assert "Step 200 at weight 1.3 scores slightly higher (80%)" in verdict.sentences[1]
    assert "Prompts are followed at every tested weight" in verdict.sentences[-1]


@pytest.mark.parametrize(
    ("rival", "words"),
    [
        (point(300, 1.3, 0.9, 0.4), "learned more (90%), but only 40% of its images follow"),
        (point(300, 1.3, 0.9, 1, 0.5), "scores 90%, but shows it in fewer scenes (4 of 8)"),
        (point(200, 1.3, 0.65, 1), "scores slightly higher (65%)"),
    ],
)
def test_the_highest_figure_is_chosen_or_it_is_said_why_not(
    rival: EvaluationPoint, words: str
) -> None:
    verdict = recommend([point(200, 1, 0.6, 1), rival], BASE, TOY)
    assert verdict.best is not None
    assert verdict.best.weight == 1
    assert any(words in sentence for sentence in verdict.sentences)


def test_more_than_the_dataset_is_no_gain() -> None:
    verdict = recommend([point(200, 1, 1.1, 1), point(200, 1.3, 1.4, 1)], BASE, TOY)
    assert verdict.best is not None
    assert verdict.best.weight == 1
    assert "beyond 100% there is nothing to gain" in verdict.sentences[1]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([100, 200]),
            st.sampled_from([0.4, 1.0]),
            st.floats(-1, 2),
            st.floats(0, 1),
            st.floats(0, 1),
        ),
        max_size=8,
    )
)
@example([(100, 0.4, 0.0625, 1.0, 1.0), (100, 0.4, 0.125, 1.0, 1.0)])
def test_what_is_recommended_learned_and_follows_if_anything_does(
    rows: list[tuple[int, float, float, float, float]],
) -> None:
    points = [point(*row) for row in rows]
    verdict = recommend(points, BASE, TOY)
    best = verdict.best
    learned = [row for row in points if row.concept >= MIN_CONCEPT and row.shown >= MIN_SHOWN]
    keeping = [row for row in learned if row.following >= MIN_FOLLOWING_RATIO]
    assert best is None or best in learned
    assert not keeping or best in keeping
    assert bool(learned) == (best is not None)
    highest = max((row.concept for row in keeping), default=0.0)
    if best in keeping and best and round(highest, 2) > round(best.concept, 2):
        assert " scores " in " ".join(verdict.sentences)
    assert serialize_report(points, BASE, verdict)["points"] == [vars(row) for row in points]
