"""Everything that one can ask of a picture, said once.

Knows: the settings, their ranges and help, which of them go together, one request per picture, the digest.
Does not know: gradio, torch, files. Form, API, command line, presets, PNG text and history are derived from the fields.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from studio.errors import InvalidSpec
from studio.spec import loras as loras_of
from studio.spec import prompt as prompts
from studio.spec.loras import LoraUse
from studio.spec.tables import DEFAULT_MODEL, SCHEDULERS, Schedule, Scheduler
from studio.spec.value import Value, above_guests, setting

__all__ = ["MOST_SEEDS", "NOT_IN_PIXELS", "GenerationRequest", "LoraUse"]

MOST_SEEDS = 2**32
NOT_IN_PIXELS = frozenset({"model", "count"})  # a model counts by its content, the count by the pictures' own seeds


class GenerationRequest(Value):
    """A picture, or `count` of them, before it is made. `None` and -1 are filled in by `resolved`."""

    prompt: str = setting("", title="Prompt", max_length=10_000, cost=20,
                          help="What the picture should show. (word:1.3) stresses a word, [word] tones it down.")
    negative_prompt: str = setting("", title="Negative prompt", max_length=10_000, infotext="Negative prompt", cost=20,
                                   help="What it should not show; needs a guidance above 1.")
    model: str = setting(DEFAULT_MODEL, title="Model", min_length=1, max_length=200, infotext="Model", cost=100,
                         help="The checkpoint that paints: the name of a folder in home/models.")
    width: int | None = setting(None, title="Width", ge=64, le=2048, multiple_of=8, unit="px", guest=1024, cost=10,
                                help="Pixels, a multiple of 8; empty takes the size the model was made for.")
    height: int | None = setting(None, title="Height", ge=64, le=2048, multiple_of=8, unit="px", guest=1024, cost=10,
                                 help="Pixels, a multiple of 8; empty takes the size the model was made for.")
    steps: int = setting(20, title="Steps", ge=1, le=150, infotext="Steps", guest=60, cost=2,
                         help="Denoising steps: more is slower and finer.")
    guidance: float = setting(7.0, title="Guidance", ge=1, le=30, infotext="CFG scale", step=0.5, cost=1,
                              help="CFG scale: how strictly the prompt is followed. 1 is unguided, and twice as fast.")
    scheduler: Scheduler = setting("DPM++ 2M", title="Scheduler", infotext="Sampler", cost=3,
                                   help="Sampler: how the noise is taken away.")
    schedule: Schedule = setting("Karras", title="Schedule", infotext="Schedule type", cost=3,
                                 help="Schedule type: how the noise levels are spread over the steps.")
    seed: int = setting(-1, title="Seed", ge=-1, lt=MOST_SEEDS, infotext="Seed", cost=0,
                        help="The same seed and settings give the same picture. -1 draws a new one.")
    count: int = setting(1, title="Pictures", ge=1, le=100, guest=8,
                         help="Batch count: how many pictures; each has the next seed.")
    batch: int = setting(1, title="At once", ge=1, le=16, infotext="Batch size", guest=4,
                         help="Batch size: pictures painted together. Faster for many; 1 repeats bit for bit.")
    clip_skip: int = setting(1, title="Clip skip", ge=1, le=12, infotext="Clip skip", cost=15,
                             help="Which layer of the text encoder speaks, from the last: 1, or 2 for some anime models.")
    loras: tuple[LoraUse, ...] = setting((), title="LoRAs", guest=4, cost=60,
                                         help="Small additions that paint along: <lora:name:0.8>, or <lora:name:text:picture> "
                                              "for two weights; the same tags may stand in the prompt.")

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _readable(cls, text: str) -> str:
        prompts.parse(text)  # raises ValueError with a sentence that names the place
        return text

    @field_validator("negative_prompt")
    @classmethod
    def _no_tags(cls, text: str) -> str:
        if tags := loras_of.lift(text)[1]:
            raise ValueError(f"the tag {tags[0].tag:.60} belongs into the prompt: a LoRA works on the whole picture.")
        return text

    @field_validator("loras", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> tuple[LoraUse, ...]:
        return loras_of.read(given)

    @field_validator("scheduler", "schedule", mode="before")
    @classmethod
    def _any_case(cls, name: Any) -> Any:
        """`euler A` is `Euler a`, as long as that is a name."""
        known = {item.casefold(): item for item in (*SCHEDULERS, *SCHEDULERS["Euler"].schedules)}
        return known.get(name.strip().casefold(), name) if isinstance(name, str) else name

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        possible = SCHEDULERS[self.scheduler].schedules
        if self.schedule not in possible:
            raise ValueError(f"Schedule: {self.scheduler} cannot run on {self.schedule}; choose {', '.join(possible)}.")
        names = [use.name for use in self.untagged().loras]
        if len(names) > loras_of.MOST:
            raise ValueError(f"LoRAs: {loras_of.MOST} at most (not {len(names)}, with the tags in the prompt).")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"LoRAs: {twice[0]:.80} is there twice, tags in the prompt included; give it one weight.")
        return self

    @property
    def task(self) -> Literal["txt2img"]:
        """What kind of work this is, read off which inputs are there."""
        return "txt2img"

    @property
    def guided(self) -> bool:
        """Whether each step also asks the U-Net about the negative prompt."""
        return self.guidance > 1

    def untagged(self) -> Self:
        """With the tags of the prompt moved into `loras`."""
        words, tags = loras_of.lift(self.prompt)
        return self.model_copy(update={"prompt": words, "loras": (*self.loras, *tags)}) if tags else self

    def resolved(self, side: int, seed: int) -> Self:
        """With nothing left open: `side` is the model's own size, `seed` the one drawn for -1; no tag in the prompt."""
        return self.untagged().model_copy(update={"width": self.width or side, "height": self.height or side,
                                       "seed": seed % MOST_SEEDS if self.seed < 0 else self.seed})

    def expand(self) -> list[Self]:
        """One request per picture, each with a count of 1 and a seed of its own. Needs a resolved seed."""
        if self.seed < 0:
            raise ValueError("expand() needs a resolved request: its seed is still -1")
        together, one = min(self.batch, self.count), self.untagged()
        return [one.model_copy(update={"count": 1, "batch": together, "seed": (self.seed + k) % MOST_SEEDS})
                for k in range(self.count)]

    def digest(self, contents: Mapping[str, str]) -> str:
        """sha256 over everything that decides the pixels; the same digest is the same picture.

        `contents` maps what is named here ("model", "lora moon") and how it is run ("dtype", "device") to hashes and names
        that store and engine found. Batched pictures differ from exact ones in the last bits, so the batch counts; a LoRA
        counts by its content and weights, and not at all if both are 0.
        """
        one, given = self.untagged(), {key: value for key, value in contents.items() if not key.startswith("lora ")}
        fields = one.model_dump(mode="json", exclude={*NOT_IN_PIXELS, "loras"})
        fields["loras"] = [[contents.get(f"lora {use.name}", use.name), use.unet, use.text_encoder]
                           for use in one.loras if not use.off]
        text = json.dumps([fields, given], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def check_guest(self) -> None:
        """Raise InvalidSpec if a visitor who is not the owner asks for too much."""
        if faults := above_guests(self.untagged()):
            raise InvalidSpec(faults)
