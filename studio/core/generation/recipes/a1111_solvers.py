"""Settings of solvers in A1111's text that change nothing with the sampler they stand beside.

Knows: with which samplers each has an effect there. Does not know: with which it has one here (the
request's rules say that), how the text is read (a1111.py).

Source: A1111's and k-diffusion's samplers, by what their functions take. Facts, no code.
"""

from __future__ import annotations

from collections.abc import Mapping

from studio.core.base import validate
from studio.core.catalog import SCHEDULERS
from studio.core.generation.fields import RequestFields
from studio.core.generation.recipes.draft import RecipeDraft
from studio.core.generation.request import GenerationRequest
from studio.errors import InvalidSpec

_ANCESTRAL = frozenset({"Euler a", "DPM2 a", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun"})
_CHURNING = frozenset({"Euler", "Heun", "DPM2"})
# Without noise levels of its own to be set: samplers on timesteps.
_ON_TIMESTEPS = frozenset({"DDIM", "PLMS", "UniPC", "LCM"})
_ON_LEVELS = frozenset(SCHEDULERS) - _ON_TIMESTEPS
EFFECTIVE_THERE: Mapping[str, frozenset[str]] = {
    "eta": _ANCESTRAL | {"DDIM"},
    "s_churn": _CHURNING,
    "s_tmin": _CHURNING,
    "s_tmax": _CHURNING,
    "s_noise": _CHURNING | _ANCESTRAL,
    "sigma_min": _ON_LEVELS,
    "sigma_max": _ON_LEVELS,
    "rho": _ON_LEVELS,
    "ensd": frozenset({"Euler a", "DPM2 a"}),  # the SDE ones draw in a way of their own
}


def leave_out_ineffective(draft: RecipeDraft) -> None:
    """Leave out solvers' settings that change nothing with the recipe's sampler; note each.

    One that changes nothing there must not change anything here either.
    """
    fields = RequestFields.model_fields
    values = draft.values
    scheduler = values.get("scheduler")
    named = [
        name for name in EFFECTIVE_THERE if name in values and values[name] != fields[name].default
    ]
    if not named or scheduler is None:
        return
    needed = {"scheduler", "noise_schedule", *EFFECTIVE_THERE}
    try:
        request = validate(
            GenerationRequest, {name: values[name] for name in needed if name in values}
        )
    except InvalidSpec:  # the form says what does not go together
        return
    for name in named:
        has_effect_there = scheduler in EFFECTIVE_THERE[name]
        if name not in request.inactive_fields and (has_effect_there or name != "ensd"):
            continue
        setting = f"{fields[name].title} {values.pop(name)!r}"
        if has_effect_there:
            draft.note(
                f"{setting} affects {scheduler} there, but not here; the image will look different."
            )
        else:
            draft.note(f"{setting} has no effect with {scheduler}.")
