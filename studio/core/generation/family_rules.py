"""What a model's family makes of a request: what cannot be, and what has no effect.

Knows: the request's values and the family. Does not know: files, the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.core.base import field_meta
from studio.core.catalog import (
    AUTOMATIC,
    SCHEDULERS,
    NoiseSchedule,
    Scheduler,
    get_automatic_schedule,
)
from studio.core.families.family import Family
from studio.core.generation.fields import RequestFields
from studio.core.generation.prompt_plans import asks_negative, list_wordings
from studio.core.generation.requirements import REQUIRES_GUIDANCE
from studio.core.generation.rules import find_inactive_fields

# Settings of solvers that only work on diffusion.
_DIFFUSION_FIELDS = ("s_churn", "sigma_min", "sigma_max", "rho")


def find_family_faults(request: RequestFields, family: Family) -> list[str]:
    """Return a sentence for each setting that a model of the family cannot do."""
    faults = find_scheduler_faults(request.scheduler, family)
    noise_schedules = list_schedule_choices(request.scheduler, family)
    if not faults and request.noise_schedule not in noise_schedules:
        faults.append(
            f"Schedule: with {family.title}, {request.scheduler} does not support "
            f"{request.noise_schedule}; choose {', '.join(noise_schedules)}."
        )
    if family.noise_process == "flow":
        fields = type(request).model_fields
        faults += [
            f"{fields[name].title}: {family.title} is a flow model, whose samplers have no such "
            f"setting; leave it at {fields[name].default:g}."
            for name in _DIFFUSION_FIELDS
            if getattr(request, name) != fields[name].default
            and not find_inactive_fields(request, {name: _get_requirement(name)}) & {name}
        ]
    if family.max_clip_skip is not None and request.clip_skip > family.max_clip_skip:
        faults.append(
            f"Clip skip: {family.title} always reads the same layer of its text encoder; leave it "
            f"at {family.max_clip_skip} (you entered {request.clip_skip})."
        )
    return faults


def _get_requirement(name: str) -> str:
    return str(field_meta(RequestFields, name)["requires"])


def list_schedule_choices(scheduler: Scheduler, family: Family) -> tuple[NoiseSchedule, ...]:
    """Return what may be asked of a scheduler, Automatic first; nothing if it does not fit."""
    noise_schedules = family.list_noise_schedules(scheduler)
    return (AUTOMATIC, *noise_schedules) if noise_schedules else ()


def resolve_noise_schedule(
    noise_schedule: NoiseSchedule, scheduler: Scheduler, family: Family
) -> NoiseSchedule:
    """Return what a schedule means for a scheduler and a model of the family: never Automatic."""
    if noise_schedule != AUTOMATIC:
        return noise_schedule
    return get_automatic_schedule(scheduler, family.list_noise_schedules(scheduler))


def is_suitable(scheduler: str, noise_schedule: str, family: Family) -> bool:
    """Return whether a model of the family can use the two."""
    return any(
        name == scheduler and noise_schedule in list_schedule_choices(name, family)
        for name in family.list_schedulers()
    )


def asks_for_recommended(
    scheduler: str, noise_schedule: str, family: Family, recommended: Mapping[str, Any]
) -> bool:
    """Return whether the settings of a model's authors are to be taken for it.

    They are where the chosen scheduler does not suit it, or none was chosen: a model that wants 8
    steps without guidance is not made for what suits most.
    """
    if not is_suitable(scheduler, noise_schedule, family):
        return True
    fields = RequestFields.model_fields
    defaults = fields["scheduler"].default, fields["noise_schedule"].default
    return bool(recommended) and (scheduler, noise_schedule) == defaults


def find_scheduler_faults(scheduler: str, family: Family) -> list[str]:
    """Return a sentence for a scheduler of the catalog that no model of the family can use."""
    schedulers = family.list_schedulers()
    if scheduler not in SCHEDULERS or scheduler in schedulers:
        return []
    return [
        (f"Sampler: {scheduler} does not work with {family.title}; choose {', '.join(schedulers)}.")
    ]


def list_family_notes(request: RequestFields, family: Family) -> list[str]:
    """Return a sentence for each part of a request that has no effect with the family."""
    notes = []
    is_negative_asked = asks_negative(request)
    if request.negative_prompt and not is_negative_asked:
        notes.append(f"Negative prompt: has no effect without {REQUIRES_GUIDANCE}.")
    if family.weighs_words:
        return notes
    prompt_wordings, negative_wordings = list_wordings(request)
    prompts = {"prompt": prompt_wordings}
    if is_negative_asked:
        prompts["negative prompt"] = negative_wordings
    return notes + [
        f"{family.title} ignores weights and operators: of the {name} only the words count."
        for name, wordings in prompts.items()
        if any(wording.is_weighted for wording in wordings)
    ]
