"""A prompt in the words of ComfyUI's text node.

Knows: how that node reads weights, brackets and embeddings; what it has no words for. Does not
know: the graph around it (comfyui_writer.py), the grammars of prompts (prompts/).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from studio.core.generation.prompt_plans import PassPlan
from studio.core.generation.prompts.plan import PromptPlan, Swap


def format_pass(plan: PassPlan, embeddings: Iterable[str], faults: list[str]) -> dict[str, str]:
    """Return both prompts of a pass by the sampler's inputs; what cannot be said is a new fault."""
    texts = {}
    for name, title, prompt in (
        ("positive", "Prompt", plan.positive),
        ("negative", "Negative prompt", plan.negative),
    ):
        is_weighed = prompt.dialect != "A1111" or plan.emphasis != "Ignore"
        try:
            texts[name] = format_prompt(prompt, embeddings, is_weighed=is_weighed)
        except ValueError as error:
            fault = f"{title}: {error}"
            faults += [] if fault in faults else [fault]
    return texts


def format_prompt(
    plan: PromptPlan, embeddings: Iterable[str] = (), *, is_weighed: bool = True
) -> str:
    """Return a prompt as ComfyUI reads it: every weight as a number, embeddings by their prefix.

    Args:
        plan: What the prompt came to, by its own grammar.
        embeddings: Names of those that it was painted with.
        is_weighed: Whether weights are written.

    Raises:
        ValueError: ComfyUI has no words for it.
    """
    wordings = plan.wordings
    is_single = len(plan.branches) == 1 and plan.branches[0].weight == 1 and len(wordings) == 1
    if not is_single or len(wordings[0].texts) != 1 or len(wordings[0].texts[0]) > 1:
        raise ValueError(
            "ComfyUI's text node has no AND, BREAK, blend, or words that change between steps."
        )
    parts = []
    for chunk in wordings[0].texts[0]:
        for fragment in chunk:
            if isinstance(fragment, Swap):
                raise ValueError("ComfyUI's text node has no swap.")
            words = re.sub(r"([()])", r"\\\1", _mark_embeddings(fragment.text, embeddings))
            is_weighted = is_weighed and fragment.weight != 1 and words.strip()
            parts.append(f"({words}:{fragment.weight:.6g})" if is_weighted else words)
    # Of compel's words each stretch is without the blanks around it.
    return (" " if plan.dialect == "compel" else "").join(parts)


def _mark_embeddings(text: str, names: Iterable[str]) -> str:
    for name in names:
        pattern = rf"(?<![\w:/]){re.escape(name)}(?!\w)"
        text = re.sub(pattern, lambda match: f"embedding:{match[0]}", text, flags=re.IGNORECASE)
    return text
