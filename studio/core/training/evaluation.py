"""Whether a training was worth it: which images are generated, and what follows from their scores.

Knows: prompts for what was learned, the sweep over checkpoints and weights, the rule by which one
of them is recommended.
Does not know: how images are generated or scored (engine/evaluation/job.py), how it looks on the
page.

Two numbers decide, both from CLIP's embeddings, and neither needs a scale of its own. *Concept*:
how far images have come from the base model's of the same prompt and seed (0) in the direction in
which the dataset's images differ from the base model's of the same captions (1). *Following*: the
share of images that CLIP, given all prompts, assigns to their own prompt; it falls when a LoRA has
learned too much and its images look alike whatever the prompt is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.core.base import validate
from studio.core.generation.request import SEED_LIMIT
from studio.core.sweeps.spec import SweepSpec
from studio.core.training.config import TrainingConfig

LORA_WEIGHTS = (0.0, 0.4, 0.7, 1.0, 1.3)  # 0 is the base model
MAX_CHECKPOINTS = 4  # that are compared
MAX_SCENES = 8  # prompts for each of them
MAX_REFERENCES = 24  # images of the dataset that they are compared to
MIN_FOLLOWING_RATIO = 0.9  # of the base model's following, for a recommendation
MIN_CONCEPT = 0.1  # less is not worth a LoRA
CONCEPT_TOLERANCE = 0.1  # within it the weight nearest to 1 and the shorter training win
MIN_CAPTION_SHARE = 0.9  # of the captions that have to share the words of a concept's name
# Of DreamBooth's prompts for judging a subject in new scenes (Ruiz et al., arXiv:2208.12242), those
# that suit things and people.
PROMPT_TEMPLATES = (
    "a photo of a {} in the jungle",
    "a photo of a {} in the snow",
    "a photo of a {} on the beach",
    "a photo of a {} on a cobblestone street",
    "a photo of a {} on top of a wooden floor",
    "a photo of a {} with a city in the background",
    "a watercolor painting of a {} with a mountain in the background",
    "a photo of a {} floating on top of water",
)
# Words that a name does not contain.
_STOP_WORDS = frozenset(
    ("a", "an", "the", "of", "in", "on", "at", "by", "with", "from", "to", "for", "and", "or", "is")
)


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
    following: float
    fit: float
    judged: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The recommended point, if any, and the sentences that say why."""

    best: EvaluationPoint | None
    sentences: tuple[str, ...]


def derive_concept_name(config: TrainingConfig, captions: Iterable[str]) -> str:
    """Return what the learned thing is called in a prompt.

    Args:
        config: The settings of the training.
        captions: The captions that it was trained with.

    Returns:
        The longest run of words around the trigger that nearly all captions share, or trigger and
        class word. Without a trigger (a style) the class word, which may be empty.
    """
    trigger = _split_words(config.trigger)
    if not config.trigger.strip():
        return config.class_word.strip()
    texts = [_split_words(caption) for caption in captions]
    trigger_texts = [words for words in texts if _find_run(words, trigger) >= 0]
    default = [*trigger, *_split_words(config.class_word)]
    min_texts = MIN_CAPTION_SHARE * len(texts)
    if not texts or len(trigger_texts) < min_texts:
        return " ".join(default)
    for run in _list_runs_around(trigger_texts[0], trigger):
        if len(run) <= len(default):
            break
        if _STOP_WORDS & set(run):
            continue
        if sum(_find_run(words, run) >= 0 for words in trigger_texts) >= min_texts:
            return " ".join(run)
    return " ".join(default)


def _list_runs_around(words: Sequence[str], core: Sequence[str]) -> list[Sequence[str]]:
    """List the runs of words that contain a core, the longest first."""
    position = _find_run(words, core)
    starts = range(position, -1, -1)
    ends = range(position + len(core), len(words) + 1)
    runs = [words[start:end] for start in starts for end in ends]
    return sorted(runs, key=len, reverse=True)


def build_scene_prompts(
    config: TrainingConfig, captions: Sequence[str], templates: Sequence[str] = PROMPT_TEMPLATES
) -> list[str]:
    """Build prompts that are not among the captions.

    Args:
        config: The settings of the training.
        captions: The captions that it was trained with.
        templates: Prompts with {} in place of the learned thing.

    Returns:
        At most MAX_SCENES prompts. Without a name for what was learned they are the sample prompts
        and the captions themselves.
    """
    name = derive_concept_name(config, captions)
    if not name:
        prompts = [*config.sample_prompt_list, *(caption for caption in captions if caption)]
        return list(dict.fromkeys(prompts))[:MAX_SCENES]
    if name[0].lower() in "aeiou":
        templates = [template.replace(" a {}", " an {}") for template in templates]
    caption_words = [_split_words(caption) for caption in captions]
    scenes = [template.format(name) for template in templates]
    return [scene for scene in scenes if _split_words(scene) not in caption_words][:MAX_SCENES]


def select_checkpoints(steps: Sequence[int]) -> list[int]:
    """Return at most MAX_CHECKPOINTS of the steps, evenly spread and always with the last one."""
    count = min(len(steps), MAX_CHECKPOINTS)
    ordered = sorted(steps)
    return [ordered[round((k + 1) * len(steps) / count) - 1] for k in range(count)]


def build_sweep(config: TrainingConfig, loras: Sequence[str], prompts: Sequence[str]) -> SweepSpec:
    """Build the sweep scene × checkpoint × weight.

    Args:
        config: The settings of the training.
        loras: The library names of the checkpoints to compare.
        prompts: One for each scene. A scene has a seed of its own, the same for all checkpoints and
            weights; at weight 0 it is the base model's, generated once.
    """
    seeds = [(config.seed + 1000 + k) % SEED_LIMIT for k in range(len(prompts))]
    axes: list[dict[str, Any]] = [
        {"field": "prompt", "values": list(prompts), "group": 1},
        {"field": "seed", "values": seeds, "group": 1},
        {"field": "lora", "values": list(loras)},
        {"field": "lora_weight", "values": list(LORA_WEIGHTS)},
    ]
    return _validate_sweep(config, f"Was {config.name} worth it?", axes)


def select_references(
    config: TrainingConfig, captions: Sequence[str]
) -> tuple[list[int], SweepSpec]:
    """Choose the images of the dataset that others are compared to.

    Args:
        config: The settings of the training.
        captions: The caption of every image.

    Returns:
        Their indexes, and a sweep of the base model on their captions.
    """
    count = min(len(captions), MAX_REFERENCES)
    indexes = [k * len(captions) // count for k in range(count)]
    name = derive_concept_name(config, captions)
    fallback = f"a picture of {name}" if name else "a picture"
    prompts = [captions[k] or fallback for k in indexes]
    seeds = [(config.seed + 2000 + k) % SEED_LIMIT for k in indexes]
    axes = [
        {"field": "prompt", "values": prompts, "group": 1},
        {"field": "seed", "values": seeds, "group": 1},
    ]
    title = f"{config.model} without {config.name}, on the captions of {config.dataset}"[:200]
    return indexes, _validate_sweep(config, title, axes)


def _validate_sweep(
    config: TrainingConfig, title: str, axes: Sequence[Mapping[str, Any]]
) -> SweepSpec:
    base = {"model": config.model, "clip_skip": config.clip_skip}
    return validate(SweepSpec, {"title": title, "base": base, "axes": list(axes), "fast": True})


def recommend(points: Sequence[EvaluationPoint], base: EvaluationPoint) -> Verdict:
    """Recommend a checkpoint and weight.

    Of the points that follow nearly as well as the base model it is the one that shows the concept
    best.

    Args:
        points: The scores of every checkpoint at every weight.
        base: The base model's scores.

    Returns:
        The point and the reasons, with where following ends.
    """
    if not points:
        return Verdict(None, ("Nothing could be judged.",))
    following_points = [point for point in points if _follows_prompt(point, base)]
    # More than the dataset itself is no gain.
    top_concept = min(1.0, max((point.concept for point in following_points), default=0.0))
    if not following_points or top_concept < MIN_CONCEPT:
        return _explain_failure(points, base)
    min_concept = max(MIN_CONCEPT, top_concept - CONCEPT_TOLERANCE)
    best = min(
        (point for point in following_points if point.concept >= min_concept),
        key=lambda point: (abs(point.weight - 1), point.step),
    )
    reason = (
        f"Recommended: {_describe_point(best)}. It comes {best.concept:.0%} of the way from the "
        f"base model's pictures to the dataset's, and {best.following:.0%} of its pictures follow "
        f"their prompt ({base.following:.0%} without the LoRA)."
    )
    return Verdict(best, (reason, *_describe_limits(points, base, best)))


def _follows_prompt(point: EvaluationPoint, base: EvaluationPoint) -> bool:
    return point.following >= MIN_FOLLOWING_RATIO * base.following


def _explain_failure(points: Sequence[EvaluationPoint], base: EvaluationPoint) -> Verdict:
    """Say why nothing can be recommended, with the point that comes nearest if there is one."""
    if max(point.concept for point in points) < MIN_CONCEPT:
        reason = (
            "It has learned little: at no weight do the pictures come nearer to the dataset's. "
            "Train longer, or with a higher learning rate."
        )
        return Verdict(None, (reason,))
    nearest = max(points, key=lambda point: min(point.concept, 1.0) * point.following)
    reason = (
        "No setting both shows what was learned and follows the prompt. "
        f"{_describe_point(nearest)} comes nearest ({nearest.concept:.0%} of the way to the "
        f"dataset's pictures), and {nearest.following:.0%} of them follow their prompt "
        f"({base.following:.0%} without the LoRA). Train shorter, or with more varied captions."
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
            f"Above that, at weight {limit.weight:g}, pictures stop following the prompt "
            f"({limit.following:.0%})."
        )
    if longer:
        limit = min(longer, key=lambda point: point.step)
        sentences.append(
            f"Trained longer it overfits: from step {limit.step:,} on pictures stop following the "
            f"prompt ({limit.following:.0%})."
        )
    if not sentences:
        sentences.append(
            "None of the weights and checkpoints that were tried stops following the prompt."
        )
    return sentences


def _describe_point(point: EvaluationPoint) -> str:
    return f"{point.lora} (step {point.step:,}) at weight {point.weight:g}"


def _split_words(text: str) -> list[str]:
    return re.sub(r"[,.;:!?]", " ", text.lower()).split()


def _find_run(words: Sequence[str], run: Sequence[str]) -> int:
    """Return the index at which a run of words begins; -1 if it is not there."""
    for start in range(len(words) - len(run) + 1):
        if list(words[start : start + len(run)]) == list(run):
            return start
    return -1


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
