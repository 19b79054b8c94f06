"""What comes out otherwise in ComfyUI, and how its KSampler is told to run the same steps.

Knows: how ComfyUI weighs words, draws noise and counts steps. Does not know: the graph's nodes
(comfyui_writer.py).

ComfyUI runs so many steps as it is told, the last ones of int(steps / denoise) (KSampler.set_steps
in comfy.samplers); the studio runs int(steps * strength) of so many as it is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from studio.core.generation.geometry import count_effective_steps
from studio.core.generation.prompt_plans import PassPlan
from studio.core.generation.request import ResolvedRequest


def find_denoise(steps: int, strength: float) -> float:
    """Return the denoise at which ComfyUI's steps are the last of just as many as here.

    Args:
        steps: Of the whole way.
        strength: How much of them runs here, 0 to 1.
    """
    running_steps = count_effective_steps(steps, strength)
    if not 0 < running_steps < steps or int(running_steps / strength) == steps:
        return strength
    middle = running_steps / (steps + 0.5)
    for digits in range(2, 6):
        denoise = round(middle, digits)
        if denoise and int(running_steps / denoise) == steps:
            return denoise
    return middle


def list_differences(request: ResolvedRequest, plans: Iterable[PassPlan]) -> list[str]:
    """Return a sentence for each thing that a graph says and ComfyUI does otherwise.

    Args:
        request: Of one image.
        plans: Both prompts of each pass.
    """
    notes = list(dict.fromkeys(note for plan in plans for note in _list_word_notes(plan)))
    if request.draws_step_noise or request.scheduler == "DPM++ SDE":
        notes.append(
            "The sampler adds noise at each step, which ComfyUI draws from a different source."
        )
    if request.has_hires_pass:
        notes.append("ComfyUI draws the noise of the second pass differently.")
    return notes


def _list_word_notes(plan: PassPlan) -> Iterator[str]:
    """Yield what is to be said of how words are weighed."""
    for prompt in (plan.positive, plan.negative):
        is_a1111 = prompt.dialect == "A1111"
        if is_a1111 and plan.emphasis in ("Ignore", "None"):
            continue
        weights = {fragment.weight for text in prompt.wordings for fragment in text.fragments}
        if is_a1111 and plan.emphasis == "Original" and weights - {1}:
            yield (
                "Weighted words count slightly differently in ComfyUI, which does not restore "
                "their mean."
            )
        elif min(weights, default=1) < 1:
            yield "Weights below 1 count slightly differently in ComfyUI."
