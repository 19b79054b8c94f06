"""What a model's family makes of a request: what cannot be, and what has no effect.

Knows: the request's values and the family. Does not know: files, the engine.
"""

from __future__ import annotations

from studio.core.catalog import SCHEDULERS
from studio.core.families.family import Family
from studio.core.generation.fields import RequestFields
from studio.core.generation.prompts.dialects import plan_prompt
from studio.core.generation.requirements import REQUIRES_GUIDANCE


def find_family_faults(request: RequestFields, family: Family) -> list[str]:
    """Return a sentence for each setting that a model of the family cannot do."""
    faults = find_scheduler_faults(request.scheduler, family)
    noise_schedules = family.list_noise_schedules(request.scheduler)
    if not faults and request.noise_schedule not in noise_schedules:
        faults.append(
            f"Schedule: with {family.title}, {request.scheduler} cannot run on "
            f"{request.noise_schedule}; choose {', '.join(noise_schedules)}."
        )
    if family.max_clip_skip is not None and request.clip_skip > family.max_clip_skip:
        faults.append(
            f"Clip skip: {family.title} always reads the same layer of its text encoder; leave it "
            f"at {family.max_clip_skip} (not {request.clip_skip})."
        )
    return faults


def is_suitable(scheduler: str, noise_schedule: str, family: Family) -> bool:
    """Return whether a model of the family can use the two."""
    return any(
        name == scheduler and noise_schedule in family.list_noise_schedules(name)
        for name in family.list_schedulers()
    )


def find_scheduler_faults(scheduler: str, family: Family) -> list[str]:
    """Return a sentence for a scheduler of the catalog that no model of the family can use."""
    schedulers = family.list_schedulers()
    if scheduler not in SCHEDULERS or scheduler in schedulers:
        return []
    return [f"Scheduler: {scheduler} does not suit {family.title}; choose {', '.join(schedulers)}."]


def list_family_notes(request: RequestFields, family: Family) -> list[str]:
    """Return a sentence for each part of a request that has no effect with the family."""
    notes = []
    if request.negative_prompt and not request.is_guided:
        notes.append(f"Negative prompt: has no effect without {REQUIRES_GUIDANCE}.")
    if family.weighs_words:
        return notes
    prompts = {"prompt": request.prompt}
    if request.is_guided:
        prompts["negative prompt"] = request.negative_prompt
    return notes + [
        f"{family.title} reads no weights and no joins: of the {name} only the words count."
        for name, text in prompts.items()
        if not plan_prompt(text).is_plain
    ]
