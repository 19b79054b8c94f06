"""Every program's spelling of samplers and noise schedules, in one table.

Knows: how A1111 of all ages, Forge, SD.Next, ComfyUI, InvokeAI, NovelAI, Stability Matrix, Fooocus,
Draw Things and Easy Diffusion write them. Does not know: which of them can be painted with (the
catalog says that, and is asked each time).

    DPM++ 2M Karras · dpmpp_2m + karras · dpmpp_2m_k · k_dpmpp_2m     →     DPM++ 2M, Karras

Source: facts of their public menus and of the files that they write, no code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from studio.core.catalog import (
    AUTOMATIC,
    MODEL_DEFAULT,
    NOT_AVAILABLE,
    SCHEDULERS,
    NoiseSchedule,
    Scheduler,
)
from studio.errors import quote

MAX_NAME_CHARS = 80  # more is no name
# What the names are called here; those that the catalog lacks are named in a note.
_SAMPLERS = (
    *("Euler", "Euler a", "Heun", "LMS", "DPM2", "DPM2 a", "DPM++ 2M", "DPM++ 2M SDE"),
    *("DPM++ SDE", "DDIM", "DDPM", "PLMS", "UniPC", "DEIS", "LCM", "TCD", "SA-Solver"),
    *("DPM++ 2M SDE Heun", "DPM++ 3M SDE", "DPM++ 3M", "DPM++ 2S", "DPM++ 2S a", "DPM fast"),
    *("DPM adaptive", "Restart", "HeunPP2", "IPNDM", "IPNDM_V", "DDIM CFG++", "Euler CFG++"),
    *("Euler a CFG++", "DPM++ 2M CFG++", "DPM++ 2S a CFG++", "RES Multistep", "ER SDE"),
    *("Gradient estimation", "Euler EDM", "DPM++ 2M EDM", "DC Solver", "DPM++ 1S", "Euler SMEA"),
)
_SAMPLER_ALIASES = {
    "pndm": "PLMS",
    "lmsd": "LMS",
    "lmsdiscrete": "LMS",
    "ddimv3": "DDIM",  # NovelAI's
    "dpmsde": "DPM++ SDE",  # SD.Next's
    "dpmpp2": "DPM++ 2M",  # InvokeAI 2's k_dpmpp_2
    "dpmpp2a": "DPM++ 2S a",
    "dpmppsingle": "DPM++ 2S",
    "dpmsolvermultistep": "DPM++ 2M",  # diffusers' classes, by which AI Horde and others go
    "dpmsolversinglestep": "DPM++ 2S",
    "eulerdiscrete": "Euler",
    "euleradiscrete": "Euler a",
    "heundiscrete": "Heun",
    "unipcmultistep": "UniPC",
    "unipcsnr": "UniPC",  # Easy Diffusion's
    "unipctu": "UniPC",
    "unipctq": "UniPC",
}
# The same solver with other inner settings: taken, and said.
_NEAR_SAMPLERS = {
    "unipcbh2": "UniPC",
    "unipcsnr2": "UniPC",
    "unipctu2": "UniPC",
    "euleratrailing": "Euler a",
}
_SCHEDULES: dict[str, NoiseSchedule] = {
    "karras": "Karras",
    "exponential": "Exponential",
    "polyexponential": "Exponential",  # the same levels with its usual rho
    "beta": "Beta",
    "uniform": "Uniform",
    "sgmuniform": "SGM Uniform",
    "simple": "Simple",
    "trailing": "Simple",  # Draw Things: timesteps spaced from the end
    "normal": "Uniform",  # ComfyUI's: evenly spaced timesteps, as A1111's Uniform
    "ddim": "DDIM",
    "ddimuniform": "DDIM",
    "linearquadratic": "Linear Quadratic",
    "kloptimal": "KL Optimal",
    "ays": "Align Your Steps",
    "alignyoursteps": "Align Your Steps",
    "asshipped": MODEL_DEFAULT,
    "modeldefault": MODEL_DEFAULT,
    "native": MODEL_DEFAULT,  # NovelAI's
}
_SUFFIXES = sorted(_SCHEDULES, key=len, reverse=True)


@dataclass(frozen=True)
class SamplerReading:
    """What the names of a sampler and a noise schedule come to here.

    Attributes:
        scheduler: None where the studio has no such sampler.
        noise_schedule: None where the names say none, and without a scheduler.
        notes: A sentence for each name that is not here, or means something else here.
    """

    scheduler: Scheduler | None = None
    noise_schedule: NoiseSchedule | None = None
    notes: tuple[str, ...] = ()


def read_sampler(sampler: str, schedule: str = "") -> SamplerReading:
    """Return what the names of a sampler and a noise schedule come to.

    Args:
        sampler: In any program's spelling; the schedule may stand at its end.
        schedule: Empty where the file has no such setting. "Automatic" counts as none.
    """
    if not sampler.strip():
        return SamplerReading()
    folded = _fold(sampler)
    name, suffix = _find_sampler(folded, sampler)
    scheduler = name if name in SCHEDULERS else None
    if scheduler is None:
        reason = f": {NOT_AVAILABLE[name]}" if name in NOT_AVAILABLE else ""
        note = f"Sampler {quote(name or sampler)} is not available here{reason}; "
        return SamplerReading(notes=(f"{note}the sampler is left unchanged.",))
    notes = []
    if folded in _NEAR_SAMPLERS:
        notes.append(
            f"Sampler {quote(sampler)} is a variant of {name}; the image will look slightly "
            "different."
        )
    words = suffix if _fold(schedule) in ("", "automatic") else _fold(schedule)
    if not words:
        return SamplerReading(scheduler, None, tuple(notes))
    noise_schedule = _find_schedule(words, scheduler)
    if noise_schedule is None:
        noise_schedule = AUTOMATIC
        spelling = schedule.strip() or suffix
        notes.append(
            f"Schedule type {quote(spelling)} does not work with {scheduler} here; {AUTOMATIC} is "
            "used."
        )
    return SamplerReading(scheduler, noise_schedule, tuple(notes))


def _fold(name: str) -> str:
    """Return a name without what programs write differently: case, blanks, marks, "ancestral"."""
    text = name[:MAX_NAME_CHARS].casefold().replace("++", "pp")
    letters = re.sub(r"[^a-z0-9]", "", text)
    return letters.replace("ancestral", "a").replace("scheduler", "").removesuffix("gpu")


def _find_sampler(folded: str, spelling: str) -> tuple[str, str]:
    """Return a sampler's name and the folded schedule at its end; two empty texts for no name."""
    for text in (folded, folded.removeprefix("k"), folded.removeprefix("sample")):
        if name := _NAMES_BY_FOLDED.get(text):
            return name, ""
        for suffix in _SUFFIXES:
            name = _NAMES_BY_FOLDED.get(text.removesuffix(suffix))
            if text.endswith(suffix) and name:
                return name, suffix
        name = _NAMES_BY_FOLDED.get(text.removesuffix("k"))
        if name and spelling.strip().lower().endswith("_k"):  # InvokeAI's: dpmpp_2m_k
            return name, "karras"
    return "", ""


def _find_schedule(folded: str, scheduler: Scheduler) -> NoiseSchedule | None:
    """Return a schedule by its folded spelling, None where the scheduler cannot run on it."""
    schedule = _SCHEDULES.get(folded)
    return schedule if schedule in SCHEDULERS[scheduler].noise_schedules else None


_NAMES_BY_FOLDED = {
    **_SAMPLER_ALIASES,
    **_NEAR_SAMPLERS,
    **{_fold(name): name for name in (*_SAMPLERS, *NOT_AVAILABLE)},
    **{_fold(name): str(name) for name in SCHEDULERS},
}
