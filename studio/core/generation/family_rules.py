"""What a model's family makes of a request: what cannot be, and what has no effect.

Knows: the request's values and the family. Does not know: files, the engine.
"""

from __future__ import annotations

from studio.core.families.family import Family
from studio.core.generation.fields import RequestFields
from studio.core.generation.prompt import parse_prompt


def find_family_faults(request: RequestFields, family: Family) -> list[str]:
    """Return a sentence for each setting that a model of the family cannot do."""
    faults = []
    schedulers = family.list_schedulers()
    noise_schedules = family.list_noise_schedules(request.scheduler)
    if request.scheduler not in schedulers:
        faults.append(
            f"Scheduler: {request.scheduler} does not suit {family.title}; choose "
            f"{', '.join(schedulers)}."
        )
    elif request.noise_schedule not in noise_schedules:
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


def list_family_notes(request: RequestFields, family: Family) -> list[str]:
    """Return a sentence for each part of a request that has no effect with the family."""
    if family.weighs_words:
        return []
    prompts = {"prompt": request.prompt}
    if request.is_guided:
        prompts["negative prompt"] = request.negative_prompt
    return [
        f"{family.title} reads no weights and no joins: of the {name} only the words count."
        for name, text in prompts.items()
        if parse_prompt(text).is_weighted
    ]
