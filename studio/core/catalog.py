"""Names and plain numbers: schedulers, ladders of noise levels, model families, axes of sweeps, kinds of captioner.

Knows: what there is to choose from and which pairs go together. Does not know: any class behind a name; the engine
resolves every name (engine/models/schedulers.py, families.py, engine/captioning/), and a test resolves all of them.
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
Schedule = Literal[
    "As shipped", "Karras", "Exponential", "Beta", "Uniform", "SGM Uniform", "Simple"
]
Family = Literal["sd1", "sd2", "sdxl"]

DEFAULT_MODEL = "pocket"  # the embedded one
FAST_BOUND = 1e-3  # how far latents of several pictures in one U-Net call may be from single ones (relative, float32)

_ALL: tuple[Schedule, ...] = get_args(Schedule)
_SPACED: tuple[Schedule, ...] = (
    "As shipped",
    "Uniform",
    "Simple",
)  # only the spacing of the timesteps can be chosen
_SHAPED: tuple[Schedule, ...] = ("As shipped", "Karras", "Exponential", "Beta", "Uniform", "Simple")
_TRAINED: tuple[Schedule, ...] = ("As shipped",)  # distilled along a ladder of their own
_SOLVER: tuple[Schedule, ...] = (
    "As shipped",
    "Karras",
    "Exponential",
    "Beta",
    "SGM Uniform",
    "Simple",
)


@dataclass(frozen=True)
class SchedulerInfo:
    """What a person has to know to choose: which ladders it runs on, and whether it adds noise on the way."""

    schedules: tuple[Schedule, ...]
    about: str
    adds_noise: bool = False
    calls: int = 1  # U-Net calls a step; the last step of a scheduler with two takes one
    again: bool = False  # whether it asks about its second timestep twice
    alone: bool = False  # whether rounding grows in it (to 2 % in 10 steps), so that fast sweeps paint it alone

    def asks(self, steps: int, of: int = 0) -> int:
        """How often it asks the U-Net in the last so many steps of `of` (0: in all steps)."""
        return (
            self.calls * steps - (self.calls - 1) + (self.again and max(steps, of) > 1)
            if steps
            else 0
        )


SCHEDULERS: dict[Scheduler, SchedulerInfo] = {
    "Euler": SchedulerInfo(_ALL, "plain and predictable"),
    "Euler a": SchedulerInfo(_SPACED, "adds fresh noise at each step: lively, never settles", True),
    "Heun": SchedulerInfo(_SHAPED, "second order: twice the work a step, finer", calls=2),
    "LMS": SchedulerInfo(_SHAPED, "looks back at the last steps"),
    "DPM2": SchedulerInfo(_SHAPED, "second order: twice the work a step", calls=2, alone=True),
    "DPM2 a": SchedulerInfo(_SHAPED, "DPM2 with fresh noise", True, calls=2, alone=True),
    "DPM++ 2M": SchedulerInfo(_ALL, "good pictures in few steps: the usual choice"),
    "DPM++ 2M SDE": SchedulerInfo(_ALL, "DPM++ 2M with fresh noise: more detail", True),
    "DPM++ SDE": SchedulerInfo(
        _SHAPED, "fresh noise, twice the work a step: detailed", True, calls=2
    ),
    "DDIM": SchedulerInfo(_SPACED, "the classic; repeatable"),
    "DDPM": SchedulerInfo(_SPACED, "the original way; wants many steps", True),
    "PLMS": SchedulerInfo(_SPACED, "the first fast one", again=True),
    "UniPC": SchedulerInfo(_SOLVER, "predicts and corrects: good in 8 to 15 steps"),
    "DEIS": SchedulerInfo(_SOLVER, "good in few steps"),
    "LCM": SchedulerInfo(
        _TRAINED, "only for models distilled for it: 4 to 8 steps, guidance 1 to 2", True
    ),
    "TCD": SchedulerInfo(
        _TRAINED, "only for models distilled for it: 4 to 8 steps, guidance 1 to 2", True
    ),
    "SA-Solver": SchedulerInfo(_SOLVER, "fresh noise, predicts and corrects", True),
}


@dataclass(frozen=True)
class FamilyInfo:
    """A kind of model: its name for people, and the size of picture it was made for unless its folder says otherwise."""

    title: str
    size: int
    sizes: tuple[
        tuple[int, int], ...
    ]  # usual (width, height) at `size`; other sizes are scaled from these


_CLASSIC = ((512, 512), (512, 768), (768, 512), (512, 640), (640, 512))
_LARGE = (
    (1024, 1024),
    (832, 1216),
    (1216, 832),
    (896, 1152),
    (1152, 896),
    (768, 1344),
    (1344, 768),
)

FAMILIES: dict[Family, FamilyInfo] = {
    "sd1": FamilyInfo("Stable Diffusion 1.x", 512, _CLASSIC),
    "sd2": FamilyInfo("Stable Diffusion 2.x", 768, _CLASSIC),
    "sdxl": FamilyInfo("Stable Diffusion XL", 1024, _LARGE),
}


def usual_sizes(family: Family, side: int) -> list[tuple[int, int]]:
    """The family's usual sizes for a model made for pictures of `side` pixels, each a multiple of 8."""
    base = FAMILIES[family].sizes[0][0]
    return [
        (round(w * side / base / 8) * 8, round(h * side / base / 8) * 8)
        for w, h in FAMILIES[family].sizes
    ]


AxisKind = Literal["whole", "number", "text", "size"]


@dataclass(frozen=True)
class AxisInfo:
    """What a sweep can vary: how its values are written, how dear a change is, what else has to be said."""

    title: str
    kind: AxisKind
    cost: int  # the dearest axis changes least often; those of the request's fields stand in the fields
    about: str
    needs: Literal["", "find"] = ""
    choices: tuple[str, ...] = ()  # for a field with names to choose from


# Axes that are no field of the request; every numeric, choice and text field of it is one without a line here.
AXES: dict[str, AxisInfo] = {
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
        needs="find",
    ),
}


@dataclass(frozen=True)
class CaptionerInfo:
    """A kind of captioner: what it says, what an instruction is to it, and what is usual where nothing is said."""

    title: str
    about: str
    batch: int  # pictures at once
    tokens: int | None  # that a caption has at most; None leaves it to the captioner
    asked: Literal[
        "opening", "task", "words"
    ]  # an instruction is how captions begin, one of `tasks`, or what is asked for
    tasks: tuple[str, ...] = ()
    module: str = ""  # in engine/captioning, where it is not called as its kind


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
ENDPOINT, DEFAULT_CAPTIONER, DEFAULT_CLIP = "endpoint", "pocket", "pocket"
