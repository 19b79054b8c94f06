"""Prompts that ask for what a training taught: samples on the way, and the first try afterwards.

Knows: captions, the trigger word, which captions can stand as prompts.
Does not know: files, components; the scenes of an evaluation (evaluation.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from studio.core.captions.text import add_affixes, collapse_whitespace, has_words
from studio.core.generation.prompts.dialects import plan_prompt
from studio.core.training.config import TrainingConfig

MAX_SAMPLE_PROMPTS = 4
MAX_SAMPLE_PROMPT_CHARS = 1000  # of a caption; longer ones make poor prompts
DEFAULT_SAMPLE_INTERVAL = 100  # steps between samples that nobody asked an interval for


def choose_sample_prompts(
    captions: Sequence[str], trigger: str = "", limit: int = MAX_SAMPLE_PROMPTS
) -> tuple[str, ...]:
    """Choose captions, spread over a dataset, as prompts that all contain the trigger word.

    Args:
        captions: The dataset's, in its order; some may be empty.
        trigger: The trigger word; it is put in front of captions that lack it. May be empty.
        limit: How many prompts at most.

    Returns:
        Different prompts. Captions that no prompt can be made of are left out, so there may be
        none.
    """
    trigger = trigger.strip()
    texts = (add_affixes(collapse_whitespace(caption), trigger=trigger) for caption in captions)
    unique = list(dict.fromkeys(text for text in texts if text and _is_prompt(text)))
    if trigger and len(unique) > 1:  # the bare trigger of an image without a caption says least
        unique = [text for text in unique if text != trigger]
    count = min(len(unique), limit)
    return tuple(unique[index * len(unique) // count] for index in range(count))


def choose_trial_prompt(config: TrainingConfig, captions: Iterable[str] = ()) -> str:
    """Choose the prompt that a trained LoRA is tried with first; the trigger word is always in it.

    Args:
        config: The settings that it was trained with.
        captions: The dataset's captions, if they can still be read.

    Returns:
        A sample prompt of the training, else a caption, else "a photo of a …"; "" if nothing is
        known of what was learned.
    """
    for prompt in config.sample_prompt_list:
        if not config.trigger or has_words(prompt, config.trigger):
            return prompt
    from_captions = choose_sample_prompts(tuple(captions), config.trigger, limit=1)
    if from_captions and from_captions[0] != config.trigger:
        return from_captions[0]
    subject = " ".join(part for part in (config.trigger, config.class_word) if part)
    return f"a photo of {_choose_article(subject)} {subject}" if subject else ""


def list_prompts_without_trigger(config: TrainingConfig) -> list[str]:
    """List the sample prompts that do not ask for what is learned."""
    if not config.trigger:
        return []
    return [prompt for prompt in config.sample_prompt_list if not has_words(prompt, config.trigger)]


def _is_prompt(text: str) -> bool:
    if len(text) > MAX_SAMPLE_PROMPT_CHARS:
        return False
    try:
        plan_prompt(text)
    except ValueError:  # such as a bracket that alternates
        return False
    return True


def _choose_article(subject: str) -> str:
    return "an" if subject[:1].lower() in "aeiou" else "a"
