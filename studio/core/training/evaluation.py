"""Whether a training was worth it: which images are generated to find out.

Knows: prompts for what was learned, in the words of the captions; the sweep over checkpoints and
weights.
Does not know: how images are generated or scored (engine/evaluation/job.py), what follows from the
scores (verdict.py), how it looks on the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from studio.core.base import validate
from studio.core.captions.text import normalize_tag, split_tags
from studio.core.generation.request import SEED_LIMIT
from studio.core.sweeps.spec import SweepSpec
from studio.core.training.config import TrainingConfig

LORA_WEIGHTS = (0.0, 0.4, 0.7, 1.0, 1.3)  # 0 is the base model
MAX_CHECKPOINTS = 4  # that are compared
MAX_SCENES = 8  # prompts for each of them
MAX_REFERENCES = 24  # images of the dataset that they are compared to
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
MAX_NOUN_WORDS = 6  # of what captions call a thing; longer is a sentence that they share
MAX_NOUN_SEARCH_WORDS = 60  # of the caption that it is searched in
# What images are, not what they show.
_MEDIUM_WORDS = frozenset(
    (
        "photo", "photos", "photograph", "picture", "image", "painting", "drawing", "illustration",
        "sketch", "render", "cartoon", "watercolor", "pixel", "art", "close-up", "closeup", "shot",
    )
)  # fmt: skip
# Words that a name does not contain.
_STOP_WORDS = frozenset(
    ("a", "an", "the", "of", "in", "on", "at", "by", "with", "from", "to", "for", "and", "or", "is")
)


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


def _name_scene_subject(config: TrainingConfig, captions: Sequence[str]) -> tuple[str, str]:
    """Return what a scene calls the learned thing, and what stands in front of the scene.

    Captions such as "mysks, a photo of a white plush toy" have the trigger word as a tag: a scene
    then is "mysks, a photo of a white plush toy in the snow", which is what was learned. "a photo
    of a mysks" stands in none of them.
    """
    trigger = config.trigger.strip()
    written = [caption for caption in captions if caption]
    num_tagged = sum(
        normalize_tag(next(iter(split_tags(caption)), "")) == normalize_tag(trigger)
        for caption in written
    )
    if trigger and written and num_tagged >= MIN_CAPTION_SHARE * len(written):
        noun = _find_shared_noun(written, trigger) or " ".join(_split_words(config.class_word))
        if noun:
            return noun, f"{trigger}, "
    return derive_concept_name(config, captions), ""


def _find_shared_noun(captions: Sequence[str], trigger: str) -> str:
    """Return the longest run of words, beside the trigger word, that nearly all captions share."""
    ignored = {*_STOP_WORDS, *_MEDIUM_WORDS, *_split_words(trigger)}
    texts = [_split_words(caption) for caption in captions]
    first = texts[0][:MAX_NOUN_SEARCH_WORDS]
    runs = [
        first[start:end] for start in range(len(first)) for end in range(start + 1, len(first) + 1)
    ]
    for run in sorted(runs, key=len, reverse=True):
        if len(run) > MAX_NOUN_WORDS or ignored & set(run):
            continue
        if sum(_find_run(words, run) >= 0 for words in texts) >= MIN_CAPTION_SHARE * len(texts):
            return " ".join(run)
    return ""


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
        At most MAX_SCENES prompts, worded as the captions are. Without a name for what was learned
        they are the sample prompts and the captions themselves.
    """
    name, tag = _name_scene_subject(config, captions)
    if not name:
        prompts = [*config.sample_prompt_list, *(caption for caption in captions if caption)]
        return list(dict.fromkeys(prompts))[:MAX_SCENES]
    if name[0].lower() in "aeiou":
        templates = [template.replace(" a {}", " an {}") for template in templates]
    caption_words = [_split_words(caption) for caption in captions]
    scenes = [tag + template.format(name) for template in templates]
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


def _split_words(text: str) -> list[str]:
    return re.sub(r"[,.;:!?]", " ", text.lower()).split()


def _find_run(words: Sequence[str], run: Sequence[str]) -> int:
    """Return the index at which a run of words begins; -1 if it is not there."""
    for start in range(len(words) - len(run) + 1):
        if list(words[start : start + len(run)]) == list(run):
            return start
    return -1
