"""How the prompts on the page are read: by which grammar, and what each word's weight came to.

Knows: the line and the words beneath a prompt. Does not know: the grammars
(core/generation/prompts), where on the page this stands.
"""

from __future__ import annotations

from dataclasses import dataclass

from studio.core.generation.fields import RequestFields
from studio.core.generation.prompts.dialects import PROMPT_SYNTAXES, plan_prompt
from studio.core.generation.prompts.plan import Branch, Phase, PromptPlan, Swap
from studio.ui.views.common import pluralize
from studio.ui.views.templates import render_macro

MAX_SHOWN_PHASES = 6  # of a branch; an alternation has one for each step
MAX_SHOWN_WORDS = 300  # of a phase
_DIALECT_TITLES = {
    "A1111": "A1111's",
    "compel": "compel's",
    "both": "the studio's first syntax, which mixes A1111's and compel's",
}


@dataclass(frozen=True)
class ShownWords:
    """A stretch of words, and what the page says of them on hover."""

    text: str
    about: str
    is_weighted: bool


def list_syntaxes(chosen: str) -> list[str]:
    """Return the ways to read prompts; that of older pictures only where it is chosen."""
    return [name for name in PROMPT_SYNTAXES if name in ("auto", "A1111", "compel", chosen)]


def render_reading(request: RequestFields) -> str:
    """Render how both prompts are read; nothing for those that are words and no more."""
    readings = []
    for title, text, is_negative in (
        ("Prompt", request.prompt, False),
        ("Negative prompt", request.negative_prompt, True),
    ):
        plan = plan_prompt(
            text,
            request.steps,
            syntax=request.prompt_syntax,
            is_negative=is_negative,
            emphasis=request.emphasis,
        )
        if not plan.is_plain:
            lines = [line for branch in plan.branches for line in _list_lines(branch)]
            readings.append({"title": title, "summary": summarize(plan), "lines": lines})
    return render_macro("components.html", "prompt_reading", readings=readings)


def summarize(plan: PromptPlan) -> str:
    """Return in a line what a prompt is made of: `A1111's; 2 weights, BREAK: 2 chunks`."""
    weights = {
        (fragment.text, fragment.weight)
        for wording in plan.wordings
        for fragment in wording.fragments
        if fragment.weight != 1
    }
    num_chunks = max(len(text) for wording in plan.wordings for text in wording.texts)
    num_phases = max(len(branch.phases) for branch in plan.branches)
    joins = {wording.join for wording in plan.wordings if len(wording.texts) > 1}
    num_swaps = sum(isinstance(part, Swap) for part in _list_parts(plan))
    facts = [
        pluralize(len(weights), "weight") if weights else "",
        f"AND: {len(plan.branches)} prompts" if len(plan.branches) > 1 else "",
        f"BREAK: {num_chunks} chunks" if num_chunks > 1 else "",
        f"words change {pluralize(num_phases - 1, 'time')}" if num_phases > 1 else "",
        *(f".{join}()" for join in sorted(joins)),
        pluralize(num_swaps, "swap") if num_swaps else "",
    ]
    if len(plan.branches) == 1 and plan.branches[0].weight != 1:
        facts.append(f"whole prompt weighted {plan.branches[0].weight:g}")
    facts = [fact for fact in facts if fact]
    return f"{_DIALECT_TITLES[plan.dialect]}{'; ' if facts else ''}{', '.join(facts)}"


def _list_parts(plan: PromptPlan) -> list[object]:
    return [
        part
        for wording in plan.wordings
        for text in wording.texts
        for chunk in text
        for part in chunk
    ]


def _list_lines(branch: Branch) -> list[list[ShownWords]]:
    """Return a line of words for each phase of a branch that comes."""
    lines = []
    num_steps = branch.phases[-1].last_step
    first_step = 1
    phases = [phase for phase in branch.phases if phase.last_step < num_steps]
    if not phases or phases[-1].last_step + 1 < num_steps:
        phases.append(branch.phases[-1])
    for phase in phases[:MAX_SHOWN_PHASES]:
        steps = ""
        if len(phases) > 1:
            last_step = min(phase.last_step + 1, num_steps)  # the plan counts from 0
            is_single = first_step == last_step
            steps = f"step {first_step}" if is_single else f"steps {first_step}–{last_step}"
            first_step = last_step + 1
        lines.append(_list_words(phase, branch.weight, steps))
    if len(phases) > MAX_SHOWN_PHASES:
        num_more = len(phases) - MAX_SHOWN_PHASES
        lines.append([ShownWords(f"… and {num_more} more", "", is_weighted=False)])
    return lines


def _list_words(phase: Phase, branch_weight: float, steps: str) -> list[ShownWords]:
    words = []
    for text, text_weight in zip(phase.wording.texts, phase.wording.weights, strict=True):
        for number, chunk in enumerate(text):
            if number:
                words.append(ShownWords("BREAK", "a new chunk of tokens", is_weighted=False))
            for part in chunk:
                fragments = part.edited if isinstance(part, Swap) else (part,)
                for fragment in fragments:
                    facts = [f"weight {fragment.weight:.4g}", steps]
                    if isinstance(part, Swap):
                        original = " ".join(fragment.text for fragment in part.original)
                        facts.append(f"instead of {original}")
                    if text_weight != 1:
                        facts.append(f"prompt weight {text_weight:.4g}")
                    if branch_weight != 1:
                        facts.append(f"AND weight {branch_weight:.4g}")
                    about = ", ".join(fact for fact in facts if fact)
                    words.append(ShownWords(fragment.text, about, fragment.weight != 1))
    return words[:MAX_SHOWN_WORDS]
