"""Everything that one can ask of a picture, said once.

Knows: the settings, their ranges and help, which of them go together, one request per picture, the digest.
Does not know: gradio, torch, files. Form, API, command line, presets, PNG text and history are derived from the fields.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import field_validator, model_validator

from studio.core.base import Value, above_guests, check, extra, setting
from studio.core.catalog import DEFAULT_MODEL, SCHEDULERS, Schedule, Scheduler
from studio.core.generation import geometry as pictures
from studio.core.generation import lora_use as loras_of
from studio.core.generation import prompt as prompts
from studio.core.generation import rules
from studio.core.generation.geometry import (
    ExtendFill,
    HiresResize,
    InpaintArea,
    MaskedContent,
    ResizeMode,
    Size,
    Task,
)
from studio.core.generation.lora_use import LoraUse
from studio.core.generation.rules import (
    A_COLOUR,
    A_MASK,
    A_PICTURE,
    A_SECOND_PASS,
    AN_EXTENSION,
    ONLY_MASKED,
    ONLY_RESIZED,
    REPAINTED,
    TILES,
)
from studio.errors import InvalidSpec

__all__ = ["MOST_SEEDS", "NOT_IN_PIXELS", "GenerationRequest", "LoraUse"]

MOST_SEEDS = 2**32
NOT_IN_PIXELS = frozenset(
    {"model", "count"}
)  # a model counts by its content, the count by the pictures' own seeds


class GenerationRequest(Value):
    """A picture, or `count` of them, before it is made. `None` and -1 are filled in by `resolved`."""

    prompt: str = setting(
        "",
        title="Prompt",
        max_length=10_000,
        cost=20,
        help="What the picture should show. (word:1.3) stresses a word, [word] tones it down.",
    )
    negative_prompt: str = setting(
        "",
        title="Negative prompt",
        max_length=10_000,
        infotext="Negative prompt",
        cost=20,
        help="What it should not show; needs a guidance above 1.",
    )
    model: str = setting(
        DEFAULT_MODEL,
        title="Model",
        min_length=1,
        max_length=200,
        infotext="Model",
        cost=100,
        help="The checkpoint that paints: the name of a folder in home/models.",
    )
    width: int | None = setting(
        None,
        title="Width",
        ge=64,
        le=2048,
        multiple_of=8,
        unit="px",
        guest=1024,
        cost=10,
        help="Pixels, a multiple of 8; empty takes the size the model was made for.",
    )
    height: int | None = setting(
        None,
        title="Height",
        ge=64,
        le=2048,
        multiple_of=8,
        unit="px",
        guest=1024,
        cost=10,
        help="Pixels, a multiple of 8; empty takes the size the model was made for.",
    )
    steps: int = setting(
        20,
        title="Steps",
        ge=1,
        le=150,
        infotext="Steps",
        guest=60,
        cost=2,
        help="Denoising steps: more is slower and finer.",
    )
    guidance: float = setting(
        7.0,
        title="Guidance",
        ge=1,
        le=30,
        infotext="CFG scale",
        step=0.5,
        cost=1,
        help="CFG scale: how strictly the prompt is followed. 1 is unguided, and twice as fast.",
    )
    scheduler: Scheduler = setting(
        "DPM++ 2M",
        title="Scheduler",
        infotext="Sampler",
        cost=3,
        help="Sampler: how the noise is taken away.",
    )
    schedule: Schedule = setting(
        "Karras",
        title="Schedule",
        infotext="Schedule type",
        cost=3,
        help="Schedule type: how the noise levels are spread over the steps.",
    )
    seed: int = setting(
        -1,
        title="Seed",
        ge=-1,
        lt=MOST_SEEDS,
        infotext="Seed",
        cost=0,
        help="The same seed and settings give the same picture. -1 draws a new one.",
    )
    count: int = setting(
        1,
        title="Pictures",
        ge=1,
        le=100,
        guest=8,
        help="Batch count: how many pictures; each has the next seed.",
    )
    batch: int = setting(
        1,
        title="At once",
        ge=1,
        le=16,
        infotext="Batch size",
        guest=4,
        help="Batch size: pictures painted together. Faster for many; 1 repeats bit for bit.",
    )
    clip_skip: int = setting(
        1,
        title="Clip skip",
        ge=1,
        le=12,
        infotext="Clip skip",
        cost=15,
        help="Which layer of the text encoder speaks, from the last: 1, or 2 for some anime models.",
    )
    loras: tuple[LoraUse, ...] = setting(
        (),
        title="LoRAs",
        guest=4,
        cost=60,
        help="Small additions that paint along: <lora:name:0.8>, or <lora:name:text:picture> "
        "for two weights; the same tags may stand in the prompt.",
    )

    image: str = setting(
        "",
        title="Picture",
        cost=8,
        infotext="Init image",
        help="The picture to work on: its sha256 in home/inputs. Empty begins with noise alone.",
    )
    mask: str = setting(
        "",
        title="Mask",
        cost=8,
        infotext="Mask",
        needs=A_PICTURE,
        help="White where the picture is repainted, and as large as it: its sha256 in home/inputs.",
    )
    strength: float = setting(
        0.75,
        title="Strength",
        ge=0,
        le=1,
        step=0.05,
        infotext="Denoising strength",
        cost=2,
        needs=A_PICTURE,
        help="Denoising strength: how much of the picture may change; so much of the steps is run.",
    )
    resize_mode: ResizeMode = setting(
        "stretch",
        title="Resize mode",
        infotext="Resize mode",
        needs=ONLY_RESIZED,
        help="How a picture of another shape is brought to width and height: pulled, cut, or edges "
        "added.",
    )
    mask_blur: int = setting(
        4,
        title="Mask blur",
        ge=0,
        le=64,
        unit="px",
        infotext="Mask blur",
        needs=A_MASK,
        help="How soft the mask's edge is.",
    )
    mask_grow: int = setting(
        0,
        title="Mask grow",
        ge=-64,
        le=64,
        unit="px",
        infotext="Mask grow",
        needs=A_MASK,
        help="Makes the mask larger all around; below 0 smaller.",
    )
    invert_mask: bool = setting(
        False,
        title="Invert mask",
        infotext="Mask mode",
        needs=A_MASK,
        help="Repaint what is not masked.",
    )
    masked_content: MaskedContent = setting(
        "original",
        title="Masked content",
        infotext="Masked content",
        needs=A_MASK,
        help="What is under the mask before painting: the picture, colours from around, noise, "
        "or nothing.",
    )
    inpaint_area: InpaintArea = setting(
        "whole picture",
        title="Inpaint area",
        infotext="Inpaint area",
        needs=REPAINTED,
        help="Paint the whole picture at width and height, or only the masked part of it, enlarged "
        "to them.",
    )
    mask_padding: int = setting(
        32,
        title="Only masked padding",
        ge=0,
        le=256,
        unit="px",
        infotext="Masked area padding",
        needs=ONLY_MASKED,
        help="How much around the mask is seen while only that part is painted.",
    )
    extend_left: int = setting(
        0,
        title="Extend left",
        ge=0,
        le=1024,
        multiple_of=8,
        unit="px",
        infotext="Extend left",
        guest=512,
        cost=8,
        needs=A_PICTURE,
        help="Outpainting: pixels to add on the left.",
    )
    extend_top: int = setting(
        0,
        title="Extend top",
        ge=0,
        le=1024,
        multiple_of=8,
        unit="px",
        infotext="Extend top",
        guest=512,
        cost=8,
        needs=A_PICTURE,
        help="Outpainting: pixels to add above.",
    )
    extend_right: int = setting(
        0,
        title="Extend right",
        ge=0,
        le=1024,
        multiple_of=8,
        unit="px",
        infotext="Extend right",
        guest=512,
        cost=8,
        needs=A_PICTURE,
        help="Outpainting: pixels to add on the right.",
    )
    extend_bottom: int = setting(
        0,
        title="Extend bottom",
        ge=0,
        le=1024,
        multiple_of=8,
        unit="px",
        infotext="Extend bottom",
        guest=512,
        cost=8,
        needs=A_PICTURE,
        help="Outpainting: pixels to add below.",
    )
    extend_fill: ExtendFill = setting(
        "edge",
        title="Extend fill",
        infotext="Extend fill",
        needs=AN_EXTENSION,
        help="What the new area holds before it is painted: the edge's pixels, the picture mirrored, "
        "noise, or one colour.",
    )
    extend_colour: str = setting(
        "#808080",
        title="Extend colour",
        infotext="Extend colour",
        needs=A_COLOUR,
        help="The colour of that fill, as #rrggbb.",
    )
    seam_blur: int = setting(
        4,
        title="Seam blur",
        ge=0,
        le=64,
        unit="px",
        infotext="Seam blur",
        needs=AN_EXTENSION,
        help="How softly the new area goes over into the picture; about five times as many pixels of its edge "
        "change.",
    )
    hires_scale: float = setting(
        1.0,
        title="Hires scale",
        ge=1,
        le=4,
        step=0.25,
        infotext="Hires upscale",
        guest=2,
        cost=9,
        help="A second pass that paints the finished picture again, so many times as large; 1 is off.",
    )
    hires_resize: HiresResize = setting(
        "pixel",
        title="Hires resize",
        infotext="Hires upscaler",
        needs=A_SECOND_PASS,
        help="What is enlarged between the passes: the pixels, or the latents (which wants a "
        "strength above 0.5).",
    )
    hires_steps: int = setting(
        0,
        title="Hires steps",
        ge=0,
        le=150,
        infotext="Hires steps",
        guest=60,
        cost=2,
        needs=A_SECOND_PASS,
        help="Steps of the second pass; 0 takes those of the first.",
    )
    hires_strength: float = setting(
        0.7,
        title="Hires strength",
        ge=0,
        le=1,
        step=0.05,
        infotext="Hires strength",
        cost=2,
        needs=A_SECOND_PASS,
        help="Denoising strength of the second pass.",
    )
    hires_tile: int = setting(
        0,
        title="Hires tile",
        ge=0,
        le=2048,
        multiple_of=8,
        unit="px",
        infotext="Hires tile",
        guest=1024,
        cost=8,
        needs=A_SECOND_PASS,
        help="The second pass paints overlapping tiles of this size one by one; 0 paints all in one piece.",
    )
    hires_overlap: int = setting(
        32,
        title="Hires overlap",
        ge=0,
        le=512,
        multiple_of=8,
        unit="px",
        infotext="Hires overlap",
        needs=TILES,
        help="How far the tiles reach into each other, where they are blended.",
    )

    @field_validator("image", "mask")
    @classmethod
    def _a_digest(cls, name: str) -> str:
        if name and not re.fullmatch("[0-9a-f]{64}", name):
            raise ValueError(
                f"has to be the sha256 of a picture in home/inputs, 64 digits (not {name!r:.40})."
            )
        return name

    @field_validator("extend_colour")
    @classmethod
    def _a_colour(cls, colour: str) -> str:
        if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
            raise ValueError(f"has to be written as #rrggbb, such as #808080 (not {colour!r:.40}).")
        return colour.lower()

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _readable(cls, text: str) -> str:
        prompts.parse(text)  # raises ValueError with a sentence that names the place
        return text

    @field_validator("negative_prompt")
    @classmethod
    def _no_tags(cls, text: str) -> str:
        if tags := loras_of.lift(text)[1]:
            raise ValueError(
                f"the tag {tags[0].tag:.60} belongs into the prompt: a LoRA works on the whole picture."
            )
        return text

    @field_validator("loras", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> tuple[LoraUse, ...]:
        return loras_of.read(given)

    @field_validator(
        "scheduler",
        "schedule",
        "resize_mode",
        "masked_content",
        "inpaint_area",
        "extend_fill",
        "hires_resize",
        mode="before",
    )
    @classmethod
    def _any_case(cls, name: Any) -> Any:
        """`euler A` is `Euler a`, as long as that is a name."""
        known = {
            item.casefold(): item
            for item in (*SCHEDULERS, *SCHEDULERS["Euler"].schedules, *pictures.NAMES)
        }
        return known.get(name.strip().casefold(), name) if isinstance(name, str) else name

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        possible = SCHEDULERS[self.scheduler].schedules
        faults = (
            []
            if self.schedule in possible
            else [
                f"Schedule: {self.scheduler} cannot run on {self.schedule}; choose {', '.join(possible)}."
            ]
        )
        names = [use.name for use in self.untagged().loras]
        if len(names) > loras_of.MOST:
            faults.append(
                f"LoRAs: {loras_of.MOST} at most (not {len(names)}, with the tags in the prompt)."
            )
        if twice := [name for name in names if names.count(name) > 1]:
            faults.append(
                f"LoRAs: {twice[0]:.80} is there twice, tags in the prompt included; give it one weight."
            )
        if faults := [*faults, *rules.faults(self)]:
            raise InvalidSpec(faults)
        return self

    @property
    def task(self) -> Task:
        """What kind of work this is, read off which inputs are there."""
        if not self.image:
            return "txt2img"
        return "outpaint" if any(self.extension) else "inpaint" if self.mask else "img2img"

    @property
    def extension(self) -> tuple[int, int, int, int]:
        """Pixels to add: left, top, right, bottom."""
        return self.extend_left, self.extend_top, self.extend_right, self.extend_bottom

    @property
    def repaints(self) -> bool:
        """Whether a part of a picture is painted and the rest stays, bit for bit."""
        return self.task in ("inpaint", "outpaint")

    @property
    def hires(self) -> bool:
        """Whether there is a second pass."""
        return self.hires_scale > 1

    @property
    def steps_run(self) -> int:
        """How many steps really run in the first pass; 0 where a picture is only enlarged."""
        return pictures.steps_run(self.steps, self.strength) if self.image else self.steps

    @property
    def hires_steps_run(self) -> int:
        """How many steps run in the second pass, if there is one."""
        return (
            pictures.steps_run(self.hires_steps or self.steps, self.hires_strength)
            if self.hires
            else 0
        )

    @property
    def idle(self) -> frozenset[str]:
        """Settings that change nothing in this request, for what they need is not there. A switch that is off is one of them."""
        return rules.idle(self, NEEDS)

    def check_used(self, given: Iterable[str] | None = None) -> None:
        """Raise InvalidSpec if one of the `given` settings (if None: any that is not at its default) changes nothing.

        For callers that say what they want by name; a preset may well hold a strength for pictures to come.
        """
        fields = type(self).model_fields
        asked = (
            [name for name in fields if getattr(self, name) != fields[name].default]
            if given is None
            else list(given)
        )
        if faults := [
            f"{fields[name].title}: changes nothing without {NEEDS[name]}."
            for name in asked
            if name in NEEDS and name in self.idle and getattr(self, name) != fields[name].default
        ]:
            raise InvalidSpec(faults)

    @property
    def guided(self) -> bool:
        """Whether each step also asks the U-Net about the negative prompt."""
        return self.guidance > 1

    def untagged(self) -> Self:
        """With the tags of the prompt moved into `loras`."""
        words, tags = loras_of.lift(self.prompt)
        return (
            self.model_copy(update={"prompt": words, "loras": (*self.loras, *tags)})
            if tags
            else self
        )

    def resolved(self, side: int, seed: int, picture: Size | None = None) -> Self:
        """With nothing left open: `side` is the model's own size, `seed` the one drawn for -1, `picture` the size of the one
        that is worked on; no tag in the prompt. Raises InvalidSpec where that comes to what cannot be."""
        own = (side, side)
        if self.image and picture and not (self.repaints and self.inpaint_area == "only masked"):
            left, top, right, bottom = self.extension
            own = picture[0] + left + right, picture[1] + top + bottom
        width, height = (
            pictures.paint_size((self.width, self.height), own)
            if own != (side, side)
            else (self.width or side, self.height or side)
        )
        full = self.untagged().model_copy(
            update={
                "width": width,
                "height": height,
                "seed": seed % MOST_SEEDS if self.seed < 0 else self.seed,
            }
        )
        return (
            check(type(self), full.model_dump()) if self.hires else full
        )  # its size is known only now

    def expand(self) -> list[Self]:
        """One request per picture, each with a count of 1 and a seed of its own. Needs a resolved seed."""
        if self.seed < 0:
            raise ValueError("expand() needs a resolved request: its seed is still -1")
        together, one = min(self.batch, self.count), self.untagged()
        return [
            one.model_copy(
                update={"count": 1, "batch": together, "seed": (self.seed + k) % MOST_SEEDS}
            )
            for k in range(self.count)
        ]

    def digest(self, contents: Mapping[str, str]) -> str:
        """sha256 over everything that decides the pixels; the same digest is the same picture.

        `contents` maps what is named here ("model", "lora moon") and how it is run ("dtype", "device") to hashes and names
        that store and engine found. Batched pictures differ from exact ones in the last bits, so the batch counts; a LoRA
        counts by its content and weights, and not at all if both are 0; what is `idle` does not count.
        """
        one, given = (
            self.untagged(),
            {key: value for key, value in contents.items() if not key.startswith("lora ")},
        )
        fields = one.model_dump(mode="json", exclude={*NOT_IN_PIXELS, "loras", *self.idle})
        fields["loras"] = [
            [contents.get(f"lora {use.name}", use.name), use.unet, use.text_encoder]
            for use in one.loras
            if not use.off
        ]
        text = json.dumps([fields, given], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def check_guest(self) -> None:
        """Raise InvalidSpec if a visitor who is not the owner asks for too much."""
        if faults := above_guests(self.untagged()):
            raise InvalidSpec(faults)


NEEDS = {
    name: str(needs)
    for name in GenerationRequest.model_fields
    if (needs := extra(GenerationRequest, name).get("needs"))
}
