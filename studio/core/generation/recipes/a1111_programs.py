"""Who wrote a text of A1111's family, and what that program means by what it does not write.

Knows: marks of programs and their ages, where their noise is drawn, what a sampler's bare name is
on, which settings are written only where they differ from their default. Does not know: how any
setting is read (a1111.py, a1111_passes.py).

Sources: texts of real images; A1111 writes `Schedule type` always since 1.9 and wrote "DPM++ 2M
Karras" as a sampler's name before; SD.Next's settings (Generator device: GPU). Facts, no code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from studio.core.catalog import (
    AUTOMATIC,
    MODEL_DEFAULT,
    SCHEDULERS,
    NoiseSchedule,
    Scheduler,
    get_automatic_schedule,
)
from studio.core.generation.fields import RequestFields
from studio.core.generation.recipes.a1111_files import CIVITAI_KEY
from studio.core.generation.recipes.clip_skip import ClipSkipCounting

OWN = "studio"
COMFYUI = "ComfyUI, as A1111's text"
SD_NEXT = "SD.Next"
FORGE = "Forge"
FOOOCUS = "Fooocus"
CIVITAI = "Civitai"
_PROGRAMS_BY_VERSION = (
    (re.compile(r"studio \d"), OWN),
    (re.compile(r"f\d|neo", re.IGNORECASE), FORGE),
    (re.compile(r"comfyui", re.IGNORECASE), COMFYUI),
    (re.compile(r"fooocus", re.IGNORECASE), FOOOCUS),
)
# A1111's own number, also behind Forge's: f0.0.17v1.8.0rc-latest-276-g29be1da7
_A1111_VERSION = re.compile(r"(?:^|v)(\d{1,3})\.(\d{1,3})\.")
_FIRST_WITH_SCHEDULES = (1, 9)
_CPU_NOISE_PROGRAMS = (OWN, COMFYUI, FOOOCUS)
_COUNTING_BY_PROGRAM: Mapping[str, ClipSkipCounting] = {
    FORGE: "Forge",
    CIVITAI: "Forge",  # its generator leaves 1 at the usual layer too
    COMFYUI: "ComfyUI",
    FOOOCUS: "ComfyUI",
    "A1111": "A1111",
}
# Fields that A1111 and its relatives write only where they are not at their default: a text that
# does not name them says that they were. Names of files are no such settings (many leave them out),
# nor is anything of a picture that was worked on.
_UNWRITTEN_DEFAULTS = (
    *("clip_skip", "hires_scale", "hires_tile", "emphasis", "ensd", "eta"),
    *("variation_strength", "seed_resize_width", "seed_resize_height"),
    *("s_churn", "s_tmin", "s_tmax", "s_noise", "sigma_min", "sigma_max", "rho"),
    *("guidance_rescale", "guidance_start", "guidance_end", "guidance_method"),
)
DEFAULTS: Mapping[str, Any] = {
    name: RequestFields.model_fields[name].default for name in _UNWRITTEN_DEFAULTS
}
# Styles stand in the prompt of such a text with all their words.
PROMPT_DEFAULTS: Mapping[str, Any] = {"styles": []}
StepCounting = Literal["A1111", "all", "SD.Next"]


@dataclass(frozen=True)
class Writer:
    """A program that writes A1111's text.

    Attributes:
        program: Its name for people.
        names_schedules: Whether it always says the schedule, so that none is Automatic.
    """

    program: str
    names_schedules: bool = True

    @property
    def is_own(self) -> bool:
        """Whether it is this studio."""
        return self.program == OWN

    @property
    def draws_on_cpu(self) -> bool:
        """Whether its noise is the CPU's where nothing is said."""
        return self.program in _CPU_NOISE_PROGRAMS

    @property
    def clip_skip_counting(self) -> ClipSkipCounting | None:
        """How it counts Clip skip; None where it counts as the studio does."""
        return _COUNTING_BY_PROGRAM.get(self.program)

    @property
    def step_counting(self) -> StepCounting:
        """Which steps it runs on a picture: a share of them, or all."""
        if self.program == SD_NEXT:
            return "SD.Next"
        return "all" if self.program == COMFYUI else "A1111"

    def find_unnamed_schedule(self, scheduler: Scheduler) -> NoiseSchedule:
        """Return what a sampler without any word for a schedule runs on.

        A bare "DPM++ 2M" was never on Karras before 1.9; "DPM++ 2M Karras" was a name of its own.
        """
        if self.program == SD_NEXT:
            return MODEL_DEFAULT
        has_own = get_automatic_schedule(scheduler) in ("Karras", "Exponential")
        is_possible = "Uniform" in SCHEDULERS[scheduler].noise_schedules
        if self.names_schedules or not has_own or not is_possible:
            return AUTOMATIC
        return "Uniform"


def find_writer(pairs: Mapping[str, str]) -> Writer:
    """Return who wrote a text's settings."""
    if pairs.get("App", "").casefold().startswith("sd.next"):
        return Writer(SD_NEXT)
    version = pairs.get("Version", "")[:100]
    program = next((name for mark, name in _PROGRAMS_BY_VERSION if mark.match(version)), "")
    if not program:
        program = CIVITAI if CIVITAI_KEY in pairs else "A1111"
    number = _A1111_VERSION.search(version)
    if program in (OWN, FOOOCUS):
        return Writer(program)
    if program == FORGE and (number is None or version.casefold().startswith("neo")):
        return Writer(program)
    is_new = bool(number) and (int(number[1]), int(number[2])) >= _FIRST_WITH_SCHEDULES
    return Writer(program, is_new)
