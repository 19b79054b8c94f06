"""What follows from the scores of an evaluation: which checkpoint at which weight, or what to do.

Knows: the rule by which a LoRA is recommended, and the sentences that say why.
Does not know: how images are generated or scored (engine/evaluation/job.py), which scenes they show
(evaluation.py).

Three numbers decide. *Concept*: how far images have come from the base model's of the same prompt
and seed (0) in the direction in which the dataset's images differ from the base model's of the same
captions (1). *Shown*: the share of scenes that show what was taught. *Following*: the share of
images that CLIP, given all prompts, assigns to their own prompt; it falls when a LoRA has learned
too much and its images look alike whatever the prompt is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.core.training.config import TrainingConfig

MIN_FOLLOWING_RATIO = 0.9  # of the base model's following, for a recommendation
MIN_CONCEPT = 0.1  # less is not worth a LoRA
MIN_SHOWN = 0.25  # of the scenes; a quarter, for a single one may be chance
HALFWAY_CONCEPT = 0.5  # from here on an image is nearer to the dataset's than to the base model's
CONCEPT_TOLERANCE = 0.1  # within it the weight nearest to 1 and the shorter training win
SHOWN_TOLERANCE = 0.13  # one scene of eight
# The shipped presets, which learn their things, see each image 40 to 110 times.
USUAL_PASSES = 40


@dataclass(frozen=True)
class EvaluationPoint:
    """One checkpoint at one weight, scored over all scenes.

    `fit` is CLIP's cosine to the prompts; `judged` are shares that the judge of the embedded world
    measured, where there is one.
    """

    lora: str
    step: int
    weight: float
    concept: float
    shown: float
    following: float
    fit: float
    judged: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """What the sentences say of a training beside its scores.

    Attributes:
        subject: What was taught, in words; empty for a style without a name.
        num_scenes: Of the comparison.
        num_images: Of the dataset.
        images_per_step: That a step learned from.
        trigger: The trigger word, if there is one.
    """

    subject: str
    num_scenes: int
    num_images: int
    images_per_step: int = 1
    trigger: str = ""

    @classmethod
    def from_config(
        cls, config: TrainingConfig, subject: str, *, num_scenes: int, num_images: int
    ) -> Evaluated:
        """Describe an evaluated training."""
        images_per_step = config.train_batch_size * config.gradient_accumulation_steps
        return cls(subject, num_scenes, num_images, images_per_step, config.trigger)

    def count_scenes(self, share: float) -> int:
        """Return how many scenes a share of them is."""
        return round(share * self.num_scenes)


@dataclass(frozen=True)
class Verdict:
    """The recommended point, if any, and the sentences that say why."""

    best: EvaluationPoint | None
    sentences: tuple[str, ...]


def recommend(
    points: Sequence[EvaluationPoint], base: EvaluationPoint, evaluated: Evaluated
) -> Verdict:
    """Recommend a checkpoint and weight, or say that it is too early and what to do.

    Of the points that follow nearly as well as the base model it is the one that shows the concept
    best; where that is not the highest figure of the table, a sentence says why.

    Args:
        points: The scores of every checkpoint at every weight.
        base: The base model's scores.
        evaluated: What the sentences say beside.

    Returns:
        The point and the reasons, with where following ends.
    """
    if not points:
        return Verdict(None, ("There was nothing to evaluate.",))
    learned = [point for point in points if _has_learned(point)]
    if not learned:
        return Verdict(None, (_describe_failure(points, evaluated),))
    following = [point for point in learned if _follows_prompt(point, base)]
    if not following:
        return _explain_overfitting(learned, base)
    best = _choose_best(following)
    scenes = f"{evaluated.count_scenes(best.shown)} of {evaluated.num_scenes} scenes show"
    reason = (
        f"Recommended: {_describe_point(best)}. {best.concept:.0%} of the dataset’s look was "
        f"learned, {scenes} {evaluated.subject or 'it'}, and {best.following:.0%} of the images "
        f"follow their prompts ({base.following:.0%} without the LoRA)."
    )
    return Verdict(
        best,
        (
            reason,
            *_explain_choice(points, base, best, evaluated),
            *_describe_limits(points, base, best),
        ),
    )


def _has_learned(point: EvaluationPoint) -> bool:
    return point.shown >= MIN_SHOWN and point.concept >= MIN_CONCEPT


def _follows_prompt(point: EvaluationPoint, base: EvaluationPoint) -> bool:
    return point.following >= MIN_FOLLOWING_RATIO * base.following


def _cap_concept(point: EvaluationPoint) -> float:
    return min(1.0, point.concept)  # more than the dataset itself is no gain


def _choose_best(points: Sequence[EvaluationPoint]) -> EvaluationPoint:
    """Choose the point that shows most; within chance the one nearest to weight 1, then shorter."""
    top_shown = max(point.shown for point in points)
    points = [point for point in points if point.shown >= top_shown - SHOWN_TOLERANCE]
    top_concept = max(map(_cap_concept, points))
    return min(
        (point for point in points if _cap_concept(point) >= top_concept - CONCEPT_TOLERANCE),
        key=lambda point: (abs(point.weight - 1), point.step),
    )


def _explain_choice(
    points: Sequence[EvaluationPoint],
    base: EvaluationPoint,
    best: EvaluationPoint,
    evaluated: Evaluated,
) -> list[str]:
    """Say why the best is not the point with the highest figure of the table, if it is not."""
    higher = [point for point in points if round(point.concept, 2) > round(best.concept, 2)]
    sentences = []
    for is_following in (True, False):
        rivals = [point for point in higher if _follows_prompt(point, base) == is_following]
        if not rivals:
            continue
        rival = max(rivals, key=lambda point: point.concept)
        name = f"Step {rival.step:,} at weight {rival.weight:g}"
        if is_following:
            sentences.append(f"{name} scores {_compare_follower(rival, best, evaluated)}")
        elif rival.step != best.step and rival.weight != best.weight:  # else `_describe_limits`
            sentences.append(
                f"{name} learned more ({rival.concept:.0%}), but only {rival.following:.0%} of its "
                "images follow their prompts."
            )
    return sentences


def _compare_follower(rival: EvaluationPoint, best: EvaluationPoint, evaluated: Evaluated) -> str:
    """Say why a point with a higher figure, which follows prompts too, is not the best."""
    if rival.shown < best.shown - SHOWN_TOLERANCE:
        num_shown = evaluated.count_scenes(rival.shown)
        return (
            f"{rival.concept:.0%}, but shows it in fewer scenes "
            f"({num_shown} of {evaluated.num_scenes})."
        )
    if _cap_concept(rival) <= _cap_concept(best):
        return f"{rival.concept:.0%}; beyond 100% there is nothing to gain."
    return (
        f"slightly higher ({rival.concept:.0%}). Such a difference can be chance, so the weight "
        "closest to 1 and the shorter training are preferred."
    )


def _describe_failure(points: Sequence[EvaluationPoint], evaluated: Evaluated) -> str:
    """Say that nothing was learned yet, and what to do."""
    num_shown = evaluated.count_scenes(max(point.shown for point in points))
    subject = evaluated.subject or "what it was trained on"
    if max(point.shown for point in points) >= MIN_SHOWN:
        outcome = "the images hardly come closer to the dataset’s at any tested weight"
    elif num_shown:
        outcome = f"at best {num_shown} of the {evaluated.num_scenes} scenes shows {subject}"
        if num_shown > 1:
            outcome = outcome.replace("shows", "show")
    else:
        outcome = f"none of the {evaluated.num_scenes} scenes shows {subject} at any tested weight"
    return f"Not yet: {outcome}. {_describe_remedy(points, evaluated)}"


def _describe_remedy(points: Sequence[EvaluationPoint], evaluated: Evaluated) -> str:
    """Say what to change before the next training."""
    steps = max(point.step for point in points)
    num_passes = steps * evaluated.images_per_step / max(1, evaluated.num_images)
    if num_passes < USUAL_PASSES:
        return (
            f"Train longer: {steps:,} steps show each of the {evaluated.num_images:,} images about "
            f"{_format_count(num_passes)}, where {USUAL_PASSES} or more times are usual."
        )
    if evaluated.trigger:
        return (
            "Raise the learning rate or the rank, and check that the captions contain the trigger "
            f"word {evaluated.trigger}."
        )
    return "Raise the learning rate or the rank, or train longer."


def _format_count(count: float) -> str:
    if count < 1.5:
        return "once"
    return f"{count:.0f} times"


def _explain_overfitting(points: Sequence[EvaluationPoint], base: EvaluationPoint) -> Verdict:
    """Say that whatever shows the concept ignores prompts, with the point that comes nearest."""
    nearest = max(points, key=lambda point: _cap_concept(point) * point.following)
    reason = (
        "It learned too much: no checkpoint and weight both shows the subject and follows "
        f"prompts. {_describe_point(nearest)} comes closest: {nearest.concept:.0%} of the "
        f"dataset’s look was learned, and {nearest.following:.0%} of its images follow their "
        f"prompts ({base.following:.0%} without the LoRA). Train for fewer steps, or use more "
        "varied captions."
    )
    return Verdict(nearest, (reason,))


def _describe_limits(
    points: Sequence[EvaluationPoint], base: EvaluationPoint, best: EvaluationPoint
) -> list[str]:
    """Say at which higher weight and which later step images stop following the prompt."""
    lost = [point for point in points if not _follows_prompt(point, base)]
    heavier = [point for point in lost if point.step == best.step and point.weight > best.weight]
    longer = [point for point in lost if point.weight == best.weight and point.step > best.step]
    sentences = []
    if heavier:
        limit = min(heavier, key=lambda point: point.weight)
        sentences.append(
            f"From weight {limit.weight:g} on, images stop following their prompts "
            f"({limit.following:.0%})."
        )
    if longer:
        limit = min(longer, key=lambda point: point.step)
        sentences.append(
            f"Longer training overfits: from step {limit.step:,} on, images stop following their "
            f"prompts ({limit.following:.0%})."
        )
    if not lost:
        sentences.append("Prompts are followed at every tested weight and checkpoint.")
    return sentences


def _describe_point(point: EvaluationPoint) -> str:
    return f"{point.lora} (step {point.step:,}) at weight {point.weight:g}"


def serialize_report(
    points: Sequence[EvaluationPoint], base: EvaluationPoint, verdict: Verdict
) -> dict[str, Any]:
    """Return the report as plain data, for JSON."""
    return {
        "base": _serialize_point(base),
        "points": [_serialize_point(point) for point in points],
        "best": _serialize_point(verdict.best) if verdict.best else None,
        "sentences": list(verdict.sentences),
    }


def _serialize_point(point: EvaluationPoint) -> dict[str, Any]:
    return {**vars(point), "judged": dict(point.judged)}
