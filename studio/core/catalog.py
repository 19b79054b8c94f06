"""Names and plain numbers: schedulers, noise schedules, sweep axes, captioners.

Knows: what there is to choose from and which pairs go together. Does not know: any class behind a
name; the engine resolves every name (engine/models/schedulers.py, engine/captioning/),
and a test resolves all of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal, get_args

Scheduler = Literal[
    "Euler",
    "Euler a",
    "Heun",
    "LMS",
    "DPM2",
    "DPM2 a",
    "DPM++ 2M",
    "DPM++ 2M SDE",
    "DPM++ 2M SDE Heun",
    "DPM++ 3M",
    "DPM++ 2S",
    "DPM++ SDE",
    "DDIM",
    "DDPM",
    "PLMS",
    "UniPC",
    "DEIS",
    "LCM",
    "TCD",
    "SA-Solver",
]
NoiseSchedule = Literal[
    "Automatic",
    "Model default",
    "Karras",
    "Exponential",
    "Beta",
    "Uniform",
    "SGM Uniform",
    "Simple",
    "DDIM",
    "Align Your Steps",
    "KL Optimal",
    "Linear Quadratic",
]
NoiseSource = Literal["CPU", "GPU", "NV"]
GuidanceMethod = Literal["CFG", "CFG-Zero*", "APG"]
AUTOMATIC: Final = "Automatic"  # the schedule that suits the scheduler
MODEL_DEFAULT: Final = "Model default"  # the spacing that the model's own config says
# Names that files of before hold, and what they are called now.
FORMER_SCHEDULE_NAMES: dict[str, NoiseSchedule] = {"As shipped": MODEL_DEFAULT}
# Other programs' names for what is here under another one: A1111's and ComfyUI's Normal has the
# levels of Uniform, and A1111's Polyexponential, unless its rho is changed, those of Exponential.
SCHEDULE_ALIASES: dict[str, NoiseSchedule] = {
    **FORMER_SCHEDULE_NAMES,
    "Normal": "Uniform",
    "Polyexponential": "Exponential",
    "DDIM Uniform": "DDIM",
    "AYS": "Align Your Steps",
}
# What A1111's "Automatic" means for a sampler; for all others it is Uniform.
_AUTOMATIC_SCHEDULES: dict[str, NoiseSchedule] = {
    "DPM++ 2M": "Karras",
    "DPM++ SDE": "Karras",
    "DPM2": "Karras",
    "DPM2 a": "Karras",
    "DPM++ 2M SDE": "Exponential",
    "DPM++ 2M SDE Heun": "Exponential",
    "DPM++ 3M": "Karras",
    "DPM++ 2S": "Karras",
    "UniPC": "SGM Uniform",
}

DEFAULT_MODEL = "pocket"  # the embedded one
DEFAULT_CAPTIONER = "pocket"
DEFAULT_CLIP = "pocket"
ENDPOINT = "endpoint"  # the kind of captioner without a folder
# How far latents of several images in one U-Net call may be from single ones (relative, float32).
BATCHING_TOLERANCE = 1e-3

# Levels by formula, which a scheduler's class has to be told one by one.
LEVEL_SCHEDULES: tuple[NoiseSchedule, ...] = ("Align Your Steps", "KL Optimal", "Linear Quadratic")
_ALL_SCHEDULES: tuple[NoiseSchedule, ...] = get_args(NoiseSchedule)[1:]  # but for Automatic
# Only the spacing of the timesteps can be chosen.
_SPACING_SCHEDULES: tuple[NoiseSchedule, ...] = ("Model default", "Uniform", "Simple")
_ANCESTRAL_SCHEDULES: tuple[NoiseSchedule, ...] = (*_SPACING_SCHEDULES, "DDIM")
_SIGMA_SCHEDULES: tuple[NoiseSchedule, ...] = (
    "Model default",
    "Karras",
    "Exponential",
    "Beta",
    "Uniform",
    "Simple",
    "DDIM",
)
_FORMED_SCHEDULES: tuple[NoiseSchedule, ...] = (
    "Model default",
    "Karras",
    "Exponential",
    "Beta",
    "Uniform",
)
# Told in whole timesteps, where Linear Quadratic's first steps would be one.
_MULTISTEP_SCHEDULES: tuple[NoiseSchedule, ...] = (
    *_FORMED_SCHEDULES,
    "SGM Uniform",
    "Simple",
    "Align Your Steps",
    "KL Optimal",
)
_SINGLESTEP_SCHEDULES: tuple[NoiseSchedule, ...] = (
    "Model default",
    "Karras",
    "Exponential",
    "Beta",
)
_HEUN_SCHEDULES: tuple[NoiseSchedule, ...] = (*_SIGMA_SCHEDULES, "Align Your Steps")
# Distilled along noise levels of their own.
_DISTILLED_SCHEDULES: tuple[NoiseSchedule, ...] = ("Model default",)
_SOLVER_SCHEDULES: tuple[NoiseSchedule, ...] = (
    "Model default",
    "Karras",
    "Exponential",
    "Beta",
    "SGM Uniform",
    "Simple",
)


@dataclass(frozen=True)
class SchedulerInfo:
    """What is known of a scheduler without its class.

    Attributes:
        noise_schedules: What it can run on; Automatic is one of them.
        description: A few words for people.
        is_stochastic: Whether it adds noise at each step.
        calls_per_step: U-Net calls a step; the last step of a scheduler with two takes one.
        repeats_second_timestep: Whether it asks about its second timestep twice.
        is_rounding_sensitive: Whether rounding grows in it (to 2 % in 10 steps), so that fast
            sweeps run it unbatched.
    """

    noise_schedules: tuple[NoiseSchedule, ...]
    description: str
    is_stochastic: bool = False
    calls_per_step: int = 1
    repeats_second_timestep: bool = False
    is_rounding_sensitive: bool = False

    def count_model_calls(self, steps: int, total_steps: int = 0) -> int:
        """Return the U-Net calls of the last `steps` of `total_steps` (0: of all steps)."""
        if not steps:
            return 0
        calls = self.calls_per_step * steps - (self.calls_per_step - 1)
        if self.repeats_second_timestep and max(steps, total_steps) > 1:
            calls += 1
        return calls

    def find_step(self, call: int) -> int:
        """Return the step that a U-Net call belongs to, both counted from 0."""
        if self.repeats_second_timestep:
            return max(0, call - 1)
        return call // self.calls_per_step


SCHEDULERS: dict[Scheduler, SchedulerInfo] = {
    "Euler": SchedulerInfo(_ALL_SCHEDULES, "plain and predictable"),
    "Euler a": SchedulerInfo(
        _ANCESTRAL_SCHEDULES, "adds fresh noise at each step: varied, never converges", True
    ),
    "Heun": SchedulerInfo(
        _HEUN_SCHEDULES, "second order: twice the work per step, finer", calls_per_step=2
    ),
    "LMS": SchedulerInfo(_SIGMA_SCHEDULES, "uses the previous steps"),
    "DPM2": SchedulerInfo(
        _SIGMA_SCHEDULES,
        "second order: twice the work per step",
        calls_per_step=2,
        is_rounding_sensitive=True,
    ),
    "DPM2 a": SchedulerInfo(
        _SIGMA_SCHEDULES,
        "DPM2 with fresh noise",
        True,
        calls_per_step=2,
        is_rounding_sensitive=True,
    ),
    "DPM++ 2M": SchedulerInfo(_MULTISTEP_SCHEDULES, "good images in few steps: the usual choice"),
    "DPM++ 2M SDE": SchedulerInfo(
        _MULTISTEP_SCHEDULES, "DPM++ 2M with fresh noise: more detail", True
    ),
    "DPM++ 2M SDE Heun": SchedulerInfo(
        _MULTISTEP_SCHEDULES, "DPM++ 2M SDE by Heun's formula", True
    ),
    "DPM++ 3M": SchedulerInfo(_MULTISTEP_SCHEDULES, "uses three steps; adds no noise"),
    "DPM++ 2S": SchedulerInfo(_SINGLESTEP_SCHEDULES, "second order over two steps; adds no noise"),
    "DPM++ SDE": SchedulerInfo(
        _SIGMA_SCHEDULES, "fresh noise, twice the work per step: detailed", True, calls_per_step=2
    ),
    "DDIM": SchedulerInfo(_SPACING_SCHEDULES, "the classic; repeatable"),
    "DDPM": SchedulerInfo(_SPACING_SCHEDULES, "the original method; needs many steps", True),
    "PLMS": SchedulerInfo(
        _SPACING_SCHEDULES, ("the first fast sampler"), repeats_second_timestep=True
    ),
    "UniPC": SchedulerInfo(_SOLVER_SCHEDULES, "predictor-corrector: good in 8 to 15 steps"),
    "DEIS": SchedulerInfo(_SOLVER_SCHEDULES, "good in few steps"),
    "LCM": SchedulerInfo(
        _DISTILLED_SCHEDULES,
        "only for models distilled for it: 4 to 8 steps, CFG scale 1 to 2",
        True,
    ),
    "TCD": SchedulerInfo(
        _DISTILLED_SCHEDULES,
        "only for models distilled for it: 4 to 8 steps, CFG scale 1 to 2",
        True,
    ),
    "SA-Solver": SchedulerInfo(_SOLVER_SCHEDULES, "predictor-corrector with fresh noise", True),
}


# Samplers of other programs that diffusers has no class for, or none that does the same. None is
# replaced in silence.
NOT_AVAILABLE: dict[str, str] = {
    "DPM++ 3M SDE": "the third-order solver of diffusers differs (rms 0.23)",
    "DPM++ 2S a": "diffusers has it only without fresh noise, as DPM++ 2S",
    "DPM fast": "diffusers has no such solver",
    "DPM adaptive": "it chooses its own number of steps, which diffusers cannot do",
    "Restart": "diffusers has no such solver",
    "DDIM CFG++": "it steps with two predictions, which diffusers' DDIM cannot do",
    "Euler CFG++": "it steps with two predictions, which diffusers' Euler cannot do",
    "Euler a CFG++": "it steps with two predictions, which diffusers' Euler a cannot do",
    "HeunPP2": "diffusers has no such solver",
    "IPNDM": "diffusers' class of that name is made for sound, without Stable Diffusion's levels",
    "IPNDM_V": "diffusers has no such solver",
    "LCM Karras": "latent consistency models have noise levels of their own",
    "Res Multistep": "diffusers has no such solver",
    "Gradient Estimation": "diffusers has no such solver",
    "ER SDE": "diffusers has no such solver",
    "SEEDS 2": "diffusers has no such solver",
    "SEEDS 3": "diffusers has no such solver",
}


def explain_missing_scheduler(name: str) -> str:
    """Return why a sampler of other programs is not here; empty for an unknown name."""
    reasons = {missing.casefold(): reason for missing, reason in NOT_AVAILABLE.items()}
    return reasons.get(name.strip().casefold(), "")


def get_automatic_schedule(
    scheduler: Scheduler, possible: Collection[NoiseSchedule] | None = None
) -> NoiseSchedule:
    """Return what Automatic means for a scheduler.

    Args:
        scheduler: Its name.
        possible: What it can run on, where a model's family says so.
    """
    schedule = _AUTOMATIC_SCHEDULES.get(scheduler, "Uniform")
    if possible is None:
        possible = SCHEDULERS[scheduler].noise_schedules
    return schedule if schedule in possible else MODEL_DEFAULT


AxisKind = Literal["whole", "number", "text", "size"]


@dataclass(frozen=True)
class AxisInfo:
    """What a sweep can vary.

    Attributes:
        title: Its name for people.
        kind: How its values are written.
        cost: The dearest axis changes least often; the request's fields carry their own cost.
        description: A few words for people.
        requires: What else has to be given.
        choices: For a field with names to choose from.
    """

    title: str
    kind: AxisKind
    cost: int
    description: str
    requires: Literal["", "find"] = ""
    choices: tuple[str, ...] = ()


# Axes that are no field of the request; its numeric, choice and text fields are axes by themselves.
SPECIAL_AXES: dict[str, AxisInfo] = {
    "size": AxisInfo("Size", "size", 10, "width and height together: 512x768"),
    "lora": AxisInfo(
        "LoRA",
        "text",
        60,
        "one LoRA, or a checkpoint of a training run, instead of all others; None uses none",
    ),
    "lora_weight": AxisInfo(
        "LoRA weight", "number", 30, "how strong the LoRA is in the U-Net and the text encoder"
    ),
    "lora_unet": AxisInfo(
        "LoRA weight in the U-Net", "number", 5, "how strong the LoRA is in the U-Net alone"
    ),
    "lora_text_encoder": AxisInfo(
        "LoRA weight in the text encoder",
        "number",
        30,
        "how strong it is in the text encoder alone",
    ),
    "prompt_replace": AxisInfo(
        "Replace",
        "text",
        20,
        "other words in place of the ones to find, in both prompts",
        requires="find",
    ),
    "prompt_template": AxisInfo(
        "All wordings",
        "text",
        20,
        "every wording a template can produce; all means those of the prompt",
    ),
}


@dataclass(frozen=True)
class CaptionerInfo:
    """A kind of captioner.

    Attributes:
        title: Its name for people.
        description: What its captions are, in a few words.
        default_batch_size: Images at once.
        max_tokens: The most that a caption has; None leaves it to the captioner.
        instruction_kind: Whether an instruction is how captions begin, one of `tasks`, or words
            that say what is wanted.
        tasks: Instructions to choose from.
        module: Its module in engine/captioning, where that is not named like its kind.
    """

    title: str
    description: str
    default_batch_size: int
    max_tokens: int | None
    instruction_kind: Literal["opening", "task", "words"]
    tasks: tuple[str, ...] = ()
    module: str = ""


# By `model_type` in a folder's config.json; "endpoint" has no folder.
CAPTIONERS: dict[str, CaptionerInfo] = {
    "git": CaptionerInfo(
        "GIT", "one short sentence; the embedded captioner is one", 16, 50, "opening"
    ),
    "blip": CaptionerInfo("BLIP", "one short sentence", 8, 75, "opening"),
    "florence2": CaptionerInfo(
        "Florence-2",
        "a sentence or a paragraph",
        8,
        512,
        "task",
        ("caption", "detailed caption", "more detailed caption"),
    ),
    "endpoint": CaptionerInfo(
        "An endpoint",
        "whatever its model can be told in words",
        4,
        None,
        "words",
        module="openai_endpoint",
    ),
}
