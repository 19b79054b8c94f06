"""A1111's prompts as a whole: branches, then what changes over the steps, then attention.

Knows: `a AND b :0.5`, and the order in which A1111 v1.10 reads. Does not know: LoRA tags, which
are taken out before (core/generation/lora_use.py); tokens and chunks of 75.

    a AND b             both are predicted for, and their directions added up
    a :0.5 AND b :1.2   with weights; below 0 it leads away
    a :1.2              the weight of a whole prompt counts as well: 1.2 times the guidance
"""

from __future__ import annotations

import re
from functools import lru_cache

from studio.core.generation.prompts.a1111_attention import parse_attention, reject_wild_weights
from studio.core.generation.prompts.a1111_schedules import Pass, plan_words
from studio.core.generation.prompts.characters import reject_bad_characters, reject_unknown_tags
from studio.core.generation.prompts.plan import Branch, Fragment, Phase, Text, Wording

MAX_BRANCHES = 16  # each is a row of its own at every step
MAX_BRANCH_WEIGHT = 100.0

_AND = re.compile(r"\bAND\b")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?|[0-9]*\.[0-9]+)")


def plan_branches(
    text: str, timing: Pass, *, is_negative: bool = False, reads_brackets: bool = True
) -> tuple[Branch, ...]:
    """Parse a prompt without LoRA tags.

    Args:
        text: The prompt.
        timing: The pass that it is for.
        is_negative: In the negative prompt, AND and a weight at the end are words.
        reads_brackets: Whether brackets weigh and BREAK breaks, or both are words.

    Raises:
        ValueError: Names what is wrong.
    """
    reject_bad_characters(text)
    reject_unknown_tags(text)
    texts = [text] if is_negative else _AND.split(text)
    if len(texts) > MAX_BRANCHES:
        raise ValueError(f"AND joins at most {MAX_BRANCHES} prompts (you entered {len(texts)}).")
    wordings: dict[str, Wording] = {}
    branches = []
    for branch_text in texts:
        words, weight = (branch_text, 1.0) if is_negative else _split_weight(branch_text)
        phases = []
        for last_step, phase_words in plan_words(words, timing):
            if phase_words not in wordings:
                wordings[phase_words] = Wording((_parse_words(phase_words, reads_brackets),))
            phases.append(Phase(last_step, wordings[phase_words]))
        branches.append(Branch(tuple(phases), weight))
    return tuple(branches)


def _split_weight(text: str) -> tuple[str, float]:
    """Return a branch and the weight at its end."""
    words, colon, number = text.rpartition(":")
    if not colon or not _NUMBER.fullmatch(number.strip()):
        return text, 1.0
    weight = float(number)
    if not abs(weight) <= MAX_BRANCH_WEIGHT:
        raise ValueError(
            f"the weight {number.strip():.40} at the end of a prompt must be between "
            f"-{MAX_BRANCH_WEIGHT:g} and {MAX_BRANCH_WEIGHT:g}; if it is meant as a word, put a "
            "comma after it."
        )
    return words.rstrip(), weight


@lru_cache(maxsize=512)
def _parse_words(text: str, reads_brackets: bool) -> Text:
    if not reads_brackets:
        return ((Fragment(text, 1.0),) if text else (),)
    chunks = parse_attention(text)
    for chunk in chunks:
        reject_wild_weights(chunk)
    return chunks
