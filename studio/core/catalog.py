"""Names and plain numbers: schedulers, noise schedules, sweep axes, captioners.

Knows: what there is to choose from and which pairs go together. Does not know: any class behind a
name; the engine resolves every name (engine/models/schedulers.py, engine/captioning/),
and a test resolves all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Scheduler = Literal[
    "Euler",
    "Euler a",
    "Heun",
    "LMS",
    "DPM2",
    "DPM2 a",
    "DPM++ 2M",
    "DPM++ 2M SDE",
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
    "As shipped", "Karras", "Exponential", "Beta", "Uniform", "SGM Uniform", "Simple"
]

DEFAULT_MODEL = "pocket"  # the embedded one
DEFAULT_CAPTIONER = "pocket"
DEFAULT_CLIP = "pocket"
ENDPOINT = "endpoint"  # the kind of captioner without a folder
# How far latents of several images in one U-Net call may be from single ones (relative, float32).
BATCHING_TOLERANCE = 1e-3

_ALL_SCHEDULES: tuple[NoiseSchedule, ...] = get_args(NoiseSchedule)
# Only the spacing of the timesteps can be chosen.
_SPACING_SCHEDULES: tuple[NoiseSchedule, ...] = ("As shipped", "Uniform", "Simple")
_SIGMA_SCHEDULES: tuple[NoiseSchedule, ...] = (
    "As shipped",
    "Karras",
    "Exponential",
    "Beta",
    "Uniform",
    "Simple",
)
# Distilled along noise levels of their own.
_DISTILLED_SCHEDULES: tuple[NoiseSchedule, ...] = ("As shipped",)
_SOLVER_SCHEDULES: tuple[NoiseSchedule, ...] = (
    "As shipped",
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
        noise_schedules: What it can run on.
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


SCHEDULERS: dict[Scheduler, SchedulerInfo] = {
    "Euler": SchedulerInfo(_ALL_SCHEDULES, "plain and predictable"),
    "Euler a": SchedulerInfo(
        _SPACING_SCHEDULES, "adds fresh noise at each step: lively, never settles", True
    ),
    "Heun": SchedulerInfo(
        _SIGMA_SCHEDULES, "second order: twice the work a step, finer", calls_per_step=2
    ),
    "LMS": SchedulerInfo(_SIGMA_SCHEDULES, "looks back at the last steps"),
    "DPM2": SchedulerInfo(
        _SIGMA_SCHEDULES,
        "second order: twice the work a step",
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
    "DPM++ 2M": SchedulerInfo(_ALL_SCHEDULES, "good pictures in few steps: the usual choice"),
    "DPM++ 2M SDE": SchedulerInfo(_ALL_SCHEDULES, "DPM++ 2M with fresh noise: more detail", True),
    "DPM++ SDE": SchedulerInfo(
        _SIGMA_SCHEDULES, "fresh noise, twice the work a step: detailed", True, calls_per_step=2
    ),
    "DDIM": SchedulerInfo(_SPACING_SCHEDULES, "the classic; repeatable"),
    "DDPM": SchedulerInfo(_SPACING_SCHEDULES, "the original way; wants many steps", True),
    "PLMS": SchedulerInfo(_SPACING_SCHEDULES, "the first fast one", repeats_second_timestep=True),
    "UniPC": SchedulerInfo(_SOLVER_SCHEDULES, "predicts and corrects: good in 8 to 15 steps"),
    "DEIS": SchedulerInfo(_SOLVER_SCHEDULES, "good in few steps"),
    "LCM": SchedulerInfo(
        _DISTILLED_SCHEDULES,
        "only for models distilled for it: 4 to 8 steps, guidance 1 to 2",
        True,
    ),
    "TCD": SchedulerInfo(
        _DISTILLED_SCHEDULES,
        "only for models distilled for it: 4 to 8 steps, guidance 1 to 2",
        True,
    ),
    "SA-Solver": SchedulerInfo(_SOLVER_SCHEDULES, "fresh noise, predicts and corrects", True),
}


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
        "one LoRA, or a checkpoint of a training run, in place of all; None is none",
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
        "other words in place of those to find, in both prompts",
        requires="find",
    ),
    "prompt_template": AxisInfo(
        "All wordings",
        "text",
        20,
        "all that a template can come to, one after the other; all stands for the prompt's own",
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
