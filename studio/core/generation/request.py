"""A request for images, checked as a whole; and the same with nothing left open.

Knows: which settings go together, how open ones are filled in, one request per image, the digest.
Does not know: gradio, torch, files; the settings themselves (fields.py).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import Any, Self, get_args

from pydantic import field_validator, model_validator

from studio.core.base import field_meta, guest_limit_faults, is_sha256, validate
from studio.core.catalog import (
    AUTOMATIC,
    FORMER_SCHEDULE_NAMES,
    SCHEDULE_ALIASES,
    SCHEDULERS,
    GuidanceMethod,
    NoiseSchedule,
    NoiseSource,
    explain_missing_scheduler,
    get_automatic_schedule,
)
from studio.core.generation import geometry, lora_use, rules
from studio.core.generation.fields import SEED_LIMIT, RequestFields
from studio.core.generation.geometry import CHOICE_NAMES, Size
from studio.core.generation.lora_use import LoraUse
from studio.core.generation.prompts.dialects import plan_prompt
from studio.core.generation.upscaler_names import (
    LANCZOS,
    is_latent_formula,
    normalize_upscaler_name,
)
from studio.errors import InvalidSpec, quote

__all__ = [
    "DIGEST_EXCLUDED_FIELDS",
    "SEED_LIMIT",
    "GenerationRequest",
    "LoraUse",
    "ResolvedRequest",
]

# A model counts by its content, the number of images by their own seeds.
DIGEST_EXCLUDED_FIELDS = frozenset({"model", "num_images"})
UPSCALER_KEY = "hires upscaler"  # of its content hash, where a request has one
VAE_KEY = "vae"  # and a VAE that a request names


class GenerationRequest(RequestFields):
    """A request for one or several images. `resolve` fills in what is None or -1."""

    @classmethod
    def complete_stored(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return stored values with what they mean; no scheduler gets what it cannot run."""
        completed = super().complete_stored(values)
        if not {"noise_schedule", "schedule"} & values.keys():
            scheduler = cls._match_choice_case(values.get("scheduler", ""))
            info = next((info for name, info in SCHEDULERS.items() if name == scheduler), None)
            if info and completed["noise_schedule"] not in info.noise_schedules:
                completed["noise_schedule"] = AUTOMATIC
        return completed

    def stable_dump(self, exclude: Collection[str] = ()) -> dict[str, Any]:
        """Return the values of a digest: the schedule under its first name, Automatic as meant.

        So the image that was made on Karras is found when Automatic asks for it.
        """
        schedule = self.noise_schedule
        if schedule == AUTOMATIC:
            schedule = get_automatic_schedule(self.scheduler)
        first_names = {new: old for old, new in FORMER_SCHEDULE_NAMES.items()}
        return super().stable_dump(exclude) | {"schedule": first_names.get(schedule, schedule)}

    @field_validator("image", "mask")
    @classmethod
    def _require_sha256(cls, sha256: str) -> str:
        if sha256 and not is_sha256(sha256):
            raise ValueError(
                "has to be the sha256 of a picture in home/inputs, 64 digits "
                f"(not {quote(sha256)})."
            )
        return sha256

    @field_validator("extend_colour")
    @classmethod
    def _normalize_colour(cls, colour: str) -> str:
        if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
            raise ValueError(
                f"has to be written as #rrggbb, such as #808080 (not {quote(colour)})."
            )
        return colour.lower()

    @field_validator("hires_upscaler")
    @classmethod
    def _normalize_upscaler(cls, name: str) -> str:
        name = normalize_upscaler_name(name)
        if is_latent_formula(name):
            raise ValueError("latents are enlarged by a hires resize of latent; leave it empty.")
        return "" if name == LANCZOS else name

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _validate_prompt_syntax(cls, text: str) -> str:
        plan_prompt(text)  # raises ValueError with a sentence that names the place
        return text

    @field_validator("negative_prompt")
    @classmethod
    def _reject_lora_tags(cls, text: str) -> str:
        tags = lora_use.extract_tags(text)[1]
        if tags:
            raise ValueError(
                f"the tag {tags[0].tag:.60} belongs into the prompt: a LoRA works on the whole "
                "picture."
            )
        return text

    @field_validator("loras", mode="before")
    @classmethod
    def _parse_loras(cls, value: Any) -> tuple[LoraUse, ...]:
        return lora_use.parse_loras(value)

    @field_validator(
        "scheduler",
        "noise_schedule",
        "resize_mode",
        "masked_content",
        "inpaint_area",
        "extend_fill",
        "hires_resize",
        "noise_source",
        "guidance_method",
        mode="before",
    )
    @classmethod
    def _match_choice_case(cls, name: Any) -> Any:
        """Take `euler A` for `Euler a`, as long as that is a name."""
        if not isinstance(name, str):
            return name
        kinds = (NoiseSchedule, NoiseSource, GuidanceMethod)
        names = [name for kind in kinds for name in get_args(kind)]
        choices = (*SCHEDULERS, *names, *CHOICE_NAMES)
        by_folded_name = {choice.casefold(): choice for choice in choices}
        by_folded_name |= {old.casefold(): new for old, new in SCHEDULE_ALIASES.items()}
        return by_folded_name.get(name.strip().casefold(), name)

    @field_validator("scheduler", mode="before")
    @classmethod
    def _explain_missing_scheduler(cls, name: Any) -> Any:
        reason = explain_missing_scheduler(name) if isinstance(name, str) else ""
        if reason:
            raise ValueError(f"{name.strip()} is not here: {reason}; choose another.")
        return name

    @model_validator(mode="after")
    def _validate_combination(self) -> Self:
        faults = []
        possible = (AUTOMATIC, *SCHEDULERS[self.scheduler].noise_schedules)
        if self.noise_schedule not in possible:
            faults.append(
                f"Schedule: {self.scheduler} cannot run on {self.noise_schedule}; choose "
                f"{', '.join(possible)}."
            )
        names = [use.name for use in self.with_inline_loras().loras]
        if len(names) > lora_use.MAX_LORAS:
            faults.append(
                f"LoRAs: {lora_use.MAX_LORAS} at most (not {len(names)}, with the tags in the "
                "prompt)."
            )
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            faults.append(
                f"LoRAs: {repeated[0]:.80} is there twice, tags in the prompt included; give it "
                "one weight."
            )
        faults += rules.find_faults(self)
        if faults:
            raise InvalidSpec(faults)
        return self

    @cached_property
    def inactive_fields(self) -> frozenset[str]:
        """Settings that change nothing in this request, for what they need is not there.

        A switch that is off is one of them.
        """
        return rules.find_inactive_fields(self, FIELD_REQUIRES)

    @property
    def prompts(self) -> tuple[str, str]:
        """The prompt and the negative prompt."""
        return self.prompt, self.negative_prompt

    def reject_inactive(self, field_names: Iterable[str] | None = None) -> None:
        """Raise InvalidSpec if a setting that is not at its default changes nothing.

        For callers that say what they want by name; a preset may well hold a strength for images to
        come.

        Args:
            field_names: Settings that were given; None is all that are not at their defaults.
        """
        fields, inactive = type(self).model_fields, self.inactive_fields
        faults = [
            f"{fields[name].title}: changes nothing without {FIELD_REQUIRES[name]}."
            for name in (fields if field_names is None else field_names)
            if name in FIELD_REQUIRES
            and name in inactive
            and getattr(self, name) != fields[name].default
        ]
        if faults:
            raise InvalidSpec(faults)

    def with_inline_loras(self) -> Self:
        """Return the request with the tags of the prompt moved into `loras`."""
        return self._lifted or self

    @cached_property
    def _lifted(self) -> Self | None:
        """The request without tags; None where there are none, lest it refers to itself."""
        text, tags = lora_use.extract_tags(self.prompt)
        if not tags:
            return None
        return self.model_copy(update={"prompt": text, "loras": (*self.loras, *tags)})

    @property
    def active_upscaler(self) -> str:
        """The name of the upscaler between the passes; empty where none is used."""
        return "" if "hires_upscaler" in self.inactive_fields else self.hires_upscaler

    @property
    def key(self) -> str:
        """What identifies a cell of a sweep: a request has the same key resolved or not."""
        return _compute_digest(self.with_inline_loras(), {"model": self.model})

    def resolve(
        self, native_size: int, seed: int, image_size: Size | None = None
    ) -> ResolvedRequest:
        """Return the request with nothing left open.

        Args:
            native_size: The side in pixels of the images that the model was made for.
            seed: The one drawn for -1.
            image_size: Width and height in pixels of the image that is worked on.

        Raises:
            InvalidSpec: It comes to what cannot be.
        """
        width, height = self._resolve_size(native_size, image_size)
        values = dict(self.with_inline_loras()) | {
            "width": width,
            "height": height,
            "seed": seed % SEED_LIMIT if self.seed < 0 else self.seed,
        }
        if self.variation_strength and self.variation_seed < 0:
            values["variation_seed"] = _derive_seed(seed)
        if self.has_hires_pass:  # its size is known only now
            return validate(ResolvedRequest, values)
        return ResolvedRequest.model_construct(**values)

    def _resolve_size(self, native_size: int, image_size: Size | None) -> Size:
        paints_only_mask = self.is_masked and self.inpaint_area == "only masked"
        if self.image and image_size and not paints_only_mask:
            left, top, right, bottom = self.extension
            reference = image_size[0] + left + right, image_size[1] + top + bottom
            if reference != (native_size, native_size):
                return geometry.resolve_size((self.width, self.height), reference)
        return self.width or native_size, self.height or native_size

    def validate_for_guest(self) -> None:
        """Raise InvalidSpec if a visitor who is not the owner asks for too much."""
        faults = guest_limit_faults(self.with_inline_loras())
        if faults:
            raise InvalidSpec(faults)


class ResolvedRequest(GenerationRequest):
    """A request with nothing open: size and seed are numbers, LoRA tags are moved into `loras`.

    Gallery, digests, costs and the engine take only this.
    """

    width: int
    height: int

    @property
    def size(self) -> Size:
        """Width and height in pixels of what the first pass paints."""
        return self.width, self.height

    def with_inline_loras(self) -> Self:
        """Return the request itself: its tags are lifted already."""
        return self

    def split(self) -> list[Self]:
        """Return one request per image, each with a seed of its own.

        Of variations the seed stays and the variation seed counts up, as in A1111.
        """
        batch_size = min(self.batch_size, self.num_images)
        name = "variation_seed" if self.variation_strength else "seed"
        first_seed = getattr(self, name)
        return [
            self.model_copy(
                update={
                    "num_images": 1,
                    "batch_size": batch_size,
                    name: (first_seed + number) % SEED_LIMIT,
                }
            )
            for number in range(self.num_images)
        ]

    def digest(self, content_hashes: Mapping[str, str]) -> str:
        """Return the sha256 over all that decides the pixels: the same digest is the same image.

        Batched images differ from exact ones in the last bits, so the batch size counts; a LoRA
        counts by its content and weights, and not at all if both are 0; a VAE by its content; what
        is inactive does not count, nor does a field at its neutral value.

        Args:
            content_hashes: What is named here ("model", "vae", "lora moon", "hires upscaler") and
                how it is run ("dtype", "device"), each with the hash or name that storage and
                engine found.
        """
        return _compute_digest(self, content_hashes)


def _derive_seed(seed: int) -> int:
    """Return another seed for a drawn one: the next of a linear congruence (Knuth's MMIX)."""
    return (seed * 6364136223846793005 + 1442695040888963407) % 2**64 >> 32


def _compute_digest(request: GenerationRequest, content_hashes: Mapping[str, str]) -> str:
    excluded = {*DIGEST_EXCLUDED_FIELDS, "loras", *request.inactive_fields}
    fields = request.stable_dump(excluded)
    fields["loras"] = [
        [content_hashes.get(f"lora {use.name}", use.name), use.unet, use.text_encoder]
        for use in request.loras
        if not use.is_inactive
    ]
    hashes = {
        key: name
        for key, name in content_hashes.items()
        if not key.startswith("lora ") and key not in (UPSCALER_KEY, VAE_KEY)
    }
    if "hires_upscaler" in fields:
        fields["hires_upscaler"] = content_hashes.get(UPSCALER_KEY, fields["hires_upscaler"])
    if request.vae:
        fields["vae"] = content_hashes.get(VAE_KEY, request.vae)
    text = json.dumps([fields, hashes], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


FIELD_REQUIRES = {
    name: str(requirement)
    for name in GenerationRequest.model_fields
    if (requirement := field_meta(GenerationRequest, name).get("requires"))
}
