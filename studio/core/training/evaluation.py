"""Was a training worth it: which pictures are made of it, and what follows from how they are judged.

Knows: prompts for what was learned, the sweep over checkpoints and weights, the rule by which one of them is recommended.
Does not know: how pictures are made or judged (engine/evaluation/job.py), how it looks on the page.

Two numbers say it, and neither needs a scale of its own. *Concept*: how far pictures have come from the base model's of the same
prompt and seed (0) in the direction in which the dataset's pictures differ from the base model's of the same captions (1), in
CLIP's eyes. *Following*: the share of pictures that CLIP, shown all prompts, gives back to their own prompt; it falls when a LoRA
has learned too much and its pictures look alike whatever is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.core.base import check
from studio.core.generation.request import MOST_SEEDS
from studio.core.sweeps.spec import SweepSpec
from studio.core.training.config import TrainingConfig

WEIGHTS = (0.0, 0.4, 0.7, 1.0, 1.3)  # 0 is the base model
CHECKPOINTS, SCENES, REFERENCES = (
    4,
    8,
    24,
)  # checkpoints, prompts and pictures of the dataset that are compared, at most
KEEPS = 0.9  # of the base model's following is what a recommended one has at least
LITTLE = 0.1  # of concept; less is not worth a LoRA
NEAR = 0.1  # of concept: among equals the weight nearest to 1 and the shorter training win
# Of DreamBooth's prompts for judging a subject in new scenes (Ruiz et al., arXiv:2208.12242), those that suit things and people.
TEMPLATES = (
    "a photo of a {} in the jungle",
    "a photo of a {} in the snow",
    "a photo of a {} on the beach",
    "a photo of a {} on a cobblestone street",
    "a photo of a {} on top of a wooden floor",
    "a photo of a {} with a city in the background",
    "a watercolor painting of a {} with a mountain in the background",
    "a photo of a {} floating on top of water",
)
# Words that end a name.
_SMALL = frozenset(
    ("a", "an", "the", "of", "in", "on", "at", "by", "with", "from", "to", "for", "and", "or", "is")
)


@dataclass(frozen=True)
class Point:
    """One checkpoint at one weight, judged over all scenes. `fit` is CLIP's cosine to the prompts; `judged` are shares that the
    embedded world's judge found, where there is one."""

    lora: str
    step: int
    weight: float
    concept: float
    following: float
    fit: float
    judged: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What is recommended, if anything, and the sentences that say why."""

    best: Point | None
    sentences: tuple[str, ...]


def called(config: TrainingConfig, captions: Iterable[str]) -> str:
    """What the learned thing is called in a prompt: the longest run of words around the trigger that nearly all captions share,
    or trigger and class word; "" where there is no trigger (a style)."""
    trigger = config.trigger.strip()
    if not trigger:
        return config.class_word.strip()
    texts = [_words(text) for text in captions]
    having = [words for words in texts if _at(words, _words(trigger)) >= 0]
    best = [*_words(trigger), *_words(config.class_word)]
    if len(having) < 0.9 * len(texts) or not texts:
        return " ".join(best)
    first, at, size = having[0], _at(having[0], _words(trigger)), len(_words(trigger))
    runs = [first[a:b] for a in range(at, -1, -1) for b in range(at + size, len(first) + 1)]
    for run in sorted(runs, key=len, reverse=True):
        if (
            len(run) > len(best)
            and not _SMALL & set(run)
            and sum(_at(words, run) >= 0 for words in having) >= 0.9 * len(texts)
        ):
            best = run
            break
    return " ".join(best)


def scenes(
    config: TrainingConfig, captions: Sequence[str], templates: Sequence[str] = TEMPLATES
) -> list[str]:
    """Prompts that are not among the captions. Without a word for what was learned the captions themselves have to do."""
    name, known = called(config, captions), {" ".join(_words(text)) for text in captions}
    if not name:
        return list(dict.fromkeys([*config.samples, *(text for text in captions if text)]))[:SCENES]
    an = name[0].lower() in "aeiou"
    made = [
        (template.replace(" a {}", " an {}") if an else template).format(name)
        for template in templates
    ]
    return [text for text in made if " ".join(_words(text)) not in known][:SCENES]


def spread(steps: Sequence[int]) -> list[int]:
    """At most CHECKPOINTS of them, the last one always, evenly spread."""
    few = min(len(steps), CHECKPOINTS)
    return [sorted(steps)[round((k + 1) * len(steps) / few) - 1] for k in range(few)]


def sweep(config: TrainingConfig, loras: Sequence[str], prompts: Sequence[str]) -> SweepSpec:
    """Scene × checkpoint × weight. Each scene has a seed of its own, the same for all; weight 0 is the base model once."""
    base = {"model": config.model, "clip_skip": config.clip_skip}
    scene = [
        {"field": "prompt", "values": list(prompts), "group": 1},
        {
            "field": "seed",
            "values": [(config.seed + 1000 + k) % MOST_SEEDS for k in range(len(prompts))],
            "group": 1,
        },
    ]
    axes = [
        *scene,
        {"field": "lora", "values": list(loras)},
        {"field": "lora_weight", "values": list(WEIGHTS)},
    ]
    return check(
        SweepSpec,
        {"title": f"Was {config.name} worth it?", "base": base, "axes": axes, "fast": True},
    )


def references(config: TrainingConfig, captions: Sequence[str]) -> tuple[list[int], SweepSpec]:
    """Which of the dataset's pictures others are compared to, by their place, and a sweep of the base model on their captions."""
    few = min(len(captions), REFERENCES)
    which = [k * len(captions) // few for k in range(few)]
    name = called(config, captions)
    said = [captions[k] or (f"a picture of {name}" if name else "a picture") for k in which]
    axes = [
        {"field": "prompt", "values": said, "group": 1},
        {
            "field": "seed",
            "values": [(config.seed + 2000 + k) % MOST_SEEDS for k in which],
            "group": 1,
        },
    ]
    title = f"{config.model} without {config.name}, on the captions of {config.dataset}"[:200]
    return which, check(
        SweepSpec,
        {
            "title": title,
            "base": {"model": config.model, "clip_skip": config.clip_skip},
            "axes": axes,
            "fast": True,
        },
    )


def weigh(points: Sequence[Point], base: Point) -> Verdict:
    """Of those that follow nearly as well as the base model, the one that shows the concept best; and where following ends."""
    keeps = [one for one in points if one.following >= KEEPS * base.following]
    if not points:
        return Verdict(None, ("Nothing could be judged.",))
    top = min(
        1.0, max((one.concept for one in keeps), default=0.0)
    )  # more than the dataset itself is no gain
    if not keeps or top < LITTLE:
        most = max(points, key=lambda one: min(one.concept, 1.0) * one.following)
        if max(one.concept for one in points) < LITTLE:
            return Verdict(
                None,
                (
                    "It has learned little: at no weight do the pictures come nearer to the dataset's. Train longer, "
                    "or with a higher learning rate.",
                ),
            )
        return Verdict(
            most,
            (
                f"No setting both shows what was learned and follows the prompt. {_named(most)} comes nearest "
                f"({most.concept:.0%} of the way to the dataset's pictures), and {most.following:.0%} of them "
                f"follow their prompt ({base.following:.0%} without the LoRA). Train shorter, or with more varied "
                "captions.",
            ),
        )
    best = min(
        (one for one in keeps if one.concept >= max(LITTLE, top - NEAR)),
        key=lambda one: (abs(one.weight - 1), one.step),
    )
    said = [
        f"Recommended: {_named(best)}. It comes {best.concept:.0%} of the way from the base model's pictures to the dataset's, "
        f"and {best.following:.0%} of its pictures follow their prompt ({base.following:.0%} without the LoRA)."
    ]
    return Verdict(best, (*said, *_ends(points, base, best)))


def _ends(points: Sequence[Point], base: Point, best: Point) -> list[str]:
    """Where pictures stop following the prompt, looking from the recommended one to more weight and to more steps."""

    def lost(one: Point) -> bool:
        return one.following < KEEPS * base.following

    heavier = [
        one for one in points if one.step == best.step and one.weight > best.weight and lost(one)
    ]
    longer = [
        one for one in points if one.weight == best.weight and one.step > best.step and lost(one)
    ]
    said = []
    if heavier:
        one = min(heavier, key=lambda one: one.weight)
        said.append(
            f"Above that, at weight {one.weight:g}, pictures stop following the prompt ({one.following:.0%})."
        )
    if longer:
        one = min(longer, key=lambda one: one.step)
        said.append(
            f"Trained longer it overfits: from step {one.step:,} on pictures stop following the prompt "
            f"({one.following:.0%})."
        )
    if not said:
        said.append(
            "None of the weights and checkpoints that were tried stops following the prompt."
        )
    return said


def _named(point: Point) -> str:
    return f"{point.lora} (step {point.step:,}) at weight {point.weight:g}"


def _words(text: str) -> list[str]:
    return re.sub(r"[,.;:!?]", " ", text.lower()).split()


def _at(words: Sequence[str], run: Sequence[str]) -> int:
    """Where a run of words begins; -1 if it is not there."""
    return next(
        (k for k in range(len(words) - len(run) + 1) if list(words[k : k + len(run)]) == list(run)),
        -1,
    )


def told(points: Sequence[Point], base: Point, verdict: Verdict) -> dict[str, Any]:
    """As plain data, for JSON."""

    def plain(one: Point) -> dict[str, Any]:
        return {**vars(one), "judged": dict(one.judged)}

    return {
        "base": plain(base),
        "points": [plain(one) for one in points],
        "best": plain(verdict.best) if verdict.best else None,
        "sentences": list(verdict.sentences),
    }
