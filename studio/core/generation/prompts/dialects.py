"""Which grammar a prompt is read by, and what it comes to.

Knows: the grammars by name. Does not know: how any of them reads, tokens.

    both      A1111's and compel's signs at once, as the studio read them at first (former.py)
"""

from __future__ import annotations

from studio.core.generation import lora_use
from studio.core.generation.prompts import former
from studio.core.generation.prompts.plan import Branch, Phase, PromptPlan

# Stands for the steps of a pass where only the words matter.
ANY_STEPS = 20


def plan_prompt(text: str, steps: int = ANY_STEPS) -> PromptPlan:
    """Parse a prompt, without its LoRA tags, for a pass.

    Args:
        text: The prompt.
        steps: Of the pass.

    Raises:
        ValueError: Names what is wrong and the place (counted from 1).
    """
    words, tags = lora_use.extract_tags(text)
    if tags:
        # Errors first, while the places are those of the text that the user wrote.
        former.parse_words(lora_use.blank_tags(text))
    wording = former.parse_words(words)
    return PromptPlan((Branch((Phase(steps, wording),)),), "both")
