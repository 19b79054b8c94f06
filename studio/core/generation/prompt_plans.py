"""What the prompts of a request come to in each of its passes, and how many rows that takes.

Knows: which settings decide how a prompt is read, over how many steps a pass goes. Does not know:
the grammars (prompts/), tokens, the denoiser.

A step is counted as A1111 counts it: from the first that really runs. An image that is repainted at
strength 0.5 in 20 steps runs 10, and `[a:b:0.5]`, step 10 of 20, never comes to b. The second pass
counts on: its plan is that of the steps that run in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from studio.core.generation.fields import RequestFields
from studio.core.generation.prompts.dialects import Emphasis, plan_prompt
from studio.core.generation.prompts.plan import PromptPlan, Wording


@dataclass(frozen=True)
class PassPlan:
    """Both prompts of one pass.

    Attributes:
        positive: The prompt.
        negative: The negative prompt, always of one branch.
        steps: Of the pass, those that a prompt's schedule counts.
        emphasis: How weights are applied.
    """

    positive: PromptPlan
    negative: PromptPlan
    steps: int
    emphasis: Emphasis = "Original"

    @property
    def weights(self) -> tuple[float, ...]:
        """How strongly each branch of the prompt counts."""
        return tuple(branch.weight for branch in self.positive.branches)

    @property
    def is_composed(self) -> bool:
        """Whether the prompt is more than one prediction at its full weight.

        Then what each adds to the negative prompt's is added up, which is asked always.
        """
        return self.weights != (1.0,)


def plan_pass(request: RequestFields) -> PassPlan:
    """Parse both prompts for the first pass, or for the only one."""
    if not request.effective_steps and request.has_hires_pass:  # only the second one runs
        return _plan_steps(request, request.hires_effective_steps, None)
    return _plan_steps(request, request.steps, None)


def plan_hires_pass(request: RequestFields) -> PassPlan:
    """Parse both prompts for the second pass of a request that has one."""
    first_pass_steps = request.steps if request.effective_steps else None
    return _plan_steps(request, request.hires_effective_steps, first_pass_steps)


def list_wordings(request: RequestFields) -> tuple[list[Wording], list[Wording]]:
    """Return all that is read of the prompt, and of the negative prompt, in any pass."""
    passes = _plan_passes(request)
    positive = dict.fromkeys(wording for plan in passes for wording in plan.positive.wordings)
    negative = dict.fromkeys(wording for plan in passes for wording in plan.negative.wordings)
    return list(positive), list(negative)


def asks_negative(request: RequestFields) -> bool:
    """Return whether the negative prompt has an effect: by guidance, or because of AND."""
    return request.is_guided or any(plan.is_composed for plan in _plan_passes(request))


def count_rows(request: RequestFields, is_guided: bool) -> int:
    """Return the denoiser's rows of one prediction: the branches', and the negative prompt's.

    Args:
        request: The request.
        is_guided: Whether the step is.
    """
    plan = plan_pass(request)
    return len(plan.weights) + (is_guided or plan.is_composed)


def _plan_passes(request: RequestFields) -> list[PassPlan]:
    hires_plans = [plan_hires_pass(request)] if request.has_hires_pass else []
    return [plan_pass(request), *hires_plans]


def _plan_steps(request: RequestFields, steps: int, first_pass_steps: int | None) -> PassPlan:
    def plan(text: str, is_negative: bool) -> PromptPlan:
        return plan_prompt(
            text,
            steps,
            syntax=request.prompt_syntax,
            first_pass_steps=first_pass_steps,
            is_negative=is_negative,
            emphasis=request.emphasis,
        )

    positive = plan(request.prompt, is_negative=False)
    negative = plan(request.negative_prompt, is_negative=True)
    return PassPlan(positive, negative, steps, request.emphasis)
