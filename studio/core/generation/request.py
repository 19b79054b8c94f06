"""A request for images, checked as a whole; and the same with nothing left open.

Knows: which settings go together, how open ones are filled in, one request per image, the digest.
Does not know: gradio, torch, files; the settings themselves (fields.py).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, cast, get_args

from pydantic import (
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

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
from studio.core.generation.fields import MAX_PROMPT_CHARS, SEED_LIMIT, RequestFields
from studio.core.generation.geometry import CHOICE_NAMES, Size
from studio.core.generation.lora_use import LoraUse
from studio.core.generation.prompts.dialects import (
    EMPHASES,
    LONGEST_PASS_STEPS,
    PROMPT_SYNTAXES,
    choose_dialect,
    plan_prompt,
)
from studio.core.generation.templates import writer
from studio.core.generation.templates.prompt_files import PromptFiles
from studio.core.generation.templates.written import PromptOrigin, write_prompts
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
MAX_STYLE_NAME_CHARS = 200
# Names of choices are taken in any case; made once, for they are looked up for each request.
_CHOICES_BY_FOLDED_NAME = {
    choice.casefold(): choice
    for choice in (
        *SCHEDULERS,
        *get_args(NoiseSchedule),
        *get_args(NoiseSource),
        *get_args(GuidanceMethod),
        *CHOICE_NAMES,
    )
} | {old.casefold(): new for old, new in SCHEDULE_ALIASES.items()}
_READINGS_BY_FOLDED_NAME = {choice.casefold(): choice for choice in (*PROMPT_SYNTAXES, *EMPHASES)}


@dataclass(frozen=True)
class UnreadablePrompt:
    """Stands for a prompt that cannot be read, until its field says what is wrong with it."""

    fault: str


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

    @model_validator(mode="before")
    @classmethod
    def _drop_origin(cls, values: Any) -> Any:
        """Take an image's settings for a request: its words count, not what they came of."""
        if not isinstance(values, dict) or "prompt_origin" in cls.model_fields:
            return values
        return {name: value for name, value in values.items() if name != "prompt_origin"}

    @field_validator("image", "mask")
    @classmethod
    def _require_sha256(cls, sha256: str) -> str:
        if sha256 and not is_sha256(sha256):
            raise ValueError(
                f"must be the sha256 of an image in home/inputs, 64 digits (you entered "
                f"{quote(sha256)})."
            )
        return sha256

    @field_validator("extend_colour")
    @classmethod
    def _normalize_colour(cls, colour: str) -> str:
        if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
            raise ValueError(
                f"must be written as #rrggbb, e.g. #808080 (you entered {quote(colour)})."
            )
        return colour.lower()

    @field_validator("hires_upscaler")
    @classmethod
    def _normalize_upscaler(cls, name: str) -> str:
        name = normalize_upscaler_name(name)
        if is_latent_formula(name):
            raise ValueError("only enlarges pixels; leave it empty to upscale latents.")
        return "" if name == LANCZOS else name

    @model_validator(mode="before")
    @classmethod
    def _mark_unreadable_prompts(cls, values: Any) -> Any:
        """Mark prompts that their grammar cannot read: other fields say which grammar it is."""
        if not isinstance(values, dict):
            return values
        return values | {
            name: UnreadablePrompt(fault)
            for name in ("prompt", "negative_prompt")
            if (fault := _find_prompt_fault(name, values))
        }

    @field_validator("prompt", "negative_prompt", mode="before")
    @classmethod
    def _reject_unreadable_prompt(cls, value: Any) -> Any:
        if isinstance(value, UnreadablePrompt):
            raise ValueError(value.fault)
        return value

    @field_validator("styles", mode="before")
    @classmethod
    def _split_styles(cls, value: Any) -> Any:
        """Take one name for a list of one."""
        return ([value] if value.strip() else []) if isinstance(value, str) else value

    @field_validator("styles")
    @classmethod
    def _reject_long_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if len(name) > MAX_STYLE_NAME_CHARS:
                raise ValueError(f"{quote(name)} is too long for a name.")
        return names

    @field_validator("negative_prompt")
    @classmethod
    def _reject_lora_tags(cls, text: str) -> str:
        tags = lora_use.extract_tags(text)[1]
        if tags:
            raise ValueError(
                f"the tag {tags[0].tag:.60} belongs in the prompt: a LoRA affects the whole image."
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
        return _CHOICES_BY_FOLDED_NAME.get(name.strip().casefold(), name)

    @field_validator("prompt_syntax", "emphasis", mode="before")
    @classmethod
    def _match_reading_case(cls, name: Any) -> Any:
        """Take `a1111` for `A1111`: names apart from those above, of which some differ in case."""
        if not isinstance(name, str):
            return name
        return _READINGS_BY_FOLDED_NAME.get(name.strip().casefold(), name)

    @field_validator("scheduler", mode="before")
    @classmethod
    def _explain_missing_scheduler(cls, name: Any) -> Any:
        reason = explain_missing_scheduler(name) if isinstance(name, str) else ""
        if reason:
            raise ValueError(f"{name.strip()} is not available: {reason}; choose another.")
        return name

    @model_validator(mode="after")
    def _validate_combination(self) -> Self:
        faults = []
        possible = (AUTOMATIC, *SCHEDULERS[self.scheduler].noise_schedules)
        if self.noise_schedule not in possible:
            faults.append(
                f"Schedule: {self.scheduler} does not support {self.noise_schedule}; choose "
                f"{', '.join(possible)}."
            )
        names = [use.name for use in self.with_inline_loras().loras]
        if len(names) > lora_use.MAX_LORAS:
            faults.append(
                f"LoRAs: at most {lora_use.MAX_LORAS} are allowed (you entered {len(names)}, "
                "counting the tags in the prompt)."
            )
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            faults.append(
                f"LoRAs: {repeated[0]:.80} is listed twice, counting the tags in the prompt; give "
                "it one weight."
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
        return rules.find_inactive_fields(self, FIELD_REQUIRES, self.is_open)

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
            f"{fields[name].title}: has no effect without {FIELD_REQUIRES[name]}."
            for name in (fields if field_names is None else field_names)
            if name in FIELD_REQUIRES
            and name in inactive
            and getattr(self, name) != fields[name].default
            # Of grammars that agree with the first one another may still read otherwise.
            and not (name == "prompt_syntax" and rules.may_be_read_apart(self))
        ]
        if faults:
            raise InvalidSpec(faults)

    def with_inline_loras(self) -> Self:
        """Return the request with the tags of the prompt moved into `loras`."""
        return self._lifted or self

    @cached_property
    def _lifted(self) -> Self | None:
        """The request without tags; None where there are none, lest it refers to itself."""
        if writer.is_template(self.prompt):  # which tags stand in it is known when it is filled in
            return None
        text, tags = lora_use.extract_tags(self.prompt)
        if not tags:
            return None
        return self.model_copy(update={"prompt": text, "loras": (*self.loras, *tags)})

    @property
    def active_upscaler(self) -> str:
        """The name of the upscaler between the passes; empty where none is used."""
        return "" if "hires_upscaler" in self.inactive_fields else self.hires_upscaler

    @cached_property
    def is_open(self) -> bool:
        """Whether what is painted is not what is typed: styles, or a template."""
        return bool(self.styles) or any(map(writer.is_template, self.prompts))

    def write_out(self, files: PromptFiles, seed: int = 0) -> GenerationRequest:
        """Return the request of one image with styles applied and templates filled in.

        Args:
            files: The wildcards and styles that there are.
            seed: The one drawn for -1.

        Raises:
            InvalidSpec: What a template asks for is not there, or it comes to what cannot be.
        """
        if not self.is_open or getattr(self, "prompt_origin", None):
            return self
        origin = PromptOrigin.model_construct(
            prompt=self.prompt, negative_prompt=self.negative_prompt, styles=self.styles
        )
        words = write_prompts(origin, seed if self.seed < 0 else self.seed, files)
        values = {name: getattr(self, name) for name in GenerationRequest.model_fields}
        values |= {"prompt": words[0], "negative_prompt": words[1], "styles": ()}
        # What comes out may look like a template again: it is read as words from here on.
        spec_class = type(self) if isinstance(self, WrittenRequest) else WrittenRequest
        try:
            return validate(spec_class, {**values, "prompt_origin": origin}).lift_tags()
        except InvalidSpec as error:
            faults = [f"{fault} The prompt became {quote(words[0])}." for fault in error.faults]
            raise InvalidSpec(faults) from None

    def write_out_each(self, files: PromptFiles, seed: int = 0) -> list[GenerationRequest]:
        """Return one request for each different wording of its images. Raises as `write_out`."""
        if not self.is_open:
            return [self]
        first = seed if self.seed < 0 else self.seed
        requests: dict[tuple[str, ...], GenerationRequest] = {}
        num_seeds = 1 if self.variation_strength else self.num_images
        for number in range(num_seeds):
            image = self.model_copy(
                update={"num_images": 1, "seed": (first + number) % SEED_LIMIT}
            ).write_out(files)
            requests.setdefault((*image.prompts, *map(str, image.loras)), image)
        return list(requests.values())

    @property
    def key(self) -> str:
        """What identifies a cell of a sweep: a request has the same key resolved or not."""
        return _compute_digest(self.with_inline_loras(), {"model": self.model})

    def resolve(
        self,
        native_size: int,
        seed: int,
        image_size: Size | None = None,
        files: PromptFiles | None = None,
    ) -> ResolvedRequest:
        """Return the request with nothing left open, but for the words of several images.

        Each of these has its own, by its seed: `ResolvedRequest.split` fills them in.

        Args:
            native_size: The side in pixels of the images that the model was made for.
            seed: The one drawn for -1; that of a variation is another by it.
            image_size: Width and height in pixels of the image that is worked on.
            files: The wildcards and styles that there are; None leaves prompts as they are typed.

        Raises:
            InvalidSpec: It comes to what cannot be.
        """
        width, height = self._resolve_size(native_size, image_size)
        drawn_seed = seed
        seed = seed % SEED_LIMIT if self.seed < 0 else self.seed
        request = self
        if files is not None and self.num_images == 1:
            request = self.write_out(files, seed)
        if not request.is_open:  # else tags are moved when the words are known
            request = request.with_inline_loras()
        values = dict(request) | {
            "width": width,
            "height": height,
            "seed": seed,
        }
        if self.variation_strength and self.variation_seed < 0:
            values["variation_seed"] = derive_seed(drawn_seed)
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


class WrittenRequest(GenerationRequest):
    """A request whose styles are applied and whose templates are filled in.

    Its prompts are words, whatever they look like.
    """

    prompt_origin: PromptOrigin | None = None

    @model_serializer(mode="wrap")
    def _leave_out_no_origin(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        if values.get("prompt_origin", ...) is None:
            del values["prompt_origin"]
        return values

    @cached_property
    def is_open(self) -> bool:
        """Whether there are styles or templates that are not written out yet."""
        return self.prompt_origin is None and super().is_open

    def lift_tags(self) -> Self:
        """Return it with the tags of the prompt moved into `loras`."""
        text, tags = lora_use.extract_tags(self.prompt)
        update = {"prompt": text, "loras": (*self.loras, *tags)}
        return validate(type(self), {**dict(self), **update}) if tags else self


class ResolvedRequest(WrittenRequest):
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

    def split(self, files: PromptFiles | None = None) -> list[Self]:
        """Return one request per image, each with a seed of its own, and words by it.

        Of variations the seed stays and the variation seed counts up, as in A1111.

        Args:
            files: The wildcards and styles that there are; None leaves prompts as they are typed.

        Raises:
            InvalidSpec: A template comes to what cannot be.
        """
        batch_size = min(self.batch_size, self.num_images)
        name = "variation_seed" if self.variation_strength else "seed"
        first_seed = getattr(self, name)
        images = [
            self.model_copy(
                update={
                    "num_images": 1,
                    "batch_size": batch_size,
                    name: (first_seed + number) % SEED_LIMIT,
                }
            )
            for number in range(self.num_images)
        ]
        if files is None or not self.is_open:
            return images
        return [cast(Self, image.write_out(files)) for image in images]

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


def derive_seed(seed: int) -> int:
    """Return another seed for a drawn one: the next of a linear congruence (Knuth's MMIX)."""
    return (seed * 6364136223846793005 + 1442695040888963407) % 2**64 >> 32


def _compute_digest(request: GenerationRequest, content_hashes: Mapping[str, str]) -> str:
    # What was typed does not count, only what is painted.
    excluded = {*DIGEST_EXCLUDED_FIELDS, "prompt_origin", "loras", *request.inactive_fields}
    # An embedding may be many tokens, so that its prompt is long for all its few letters.
    if any(key.startswith("embedding ") for key in content_hashes):
        excluded -= {"prompt_syntax", "emphasis"}
    fields = request.stable_dump(excluded)
    if fields.get("prompt_syntax") == "auto" and not request.is_open:  # it counts as what it chose
        fields["prompt_syntax"] = _name_dialects(request)
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


def _find_prompt_fault(name: str, values: Mapping[str, Any]) -> str:
    """Return what is wrong with a prompt by the grammar that raw values ask for, or nothing."""
    text = values.get(name)
    if not isinstance(text, str) or len(text) > MAX_PROMPT_CHARS:
        return ""
    try:
        if writer.is_template(text) and not values.get("prompt_origin"):
            return ""  # what it comes to is read when that is known
    except ValueError as error:
        return str(error)
    settings = {}
    for field_name in ("prompt_syntax", "emphasis"):
        default = GenerationRequest.model_fields[field_name].default
        value = GenerationRequest._match_reading_case(values.get(field_name, default))
        settings[field_name] = value if value in (*PROMPT_SYNTAXES, *EMPHASES) else default
    try:
        plan_prompt(
            text,
            LONGEST_PASS_STEPS,
            syntax=settings["prompt_syntax"],
            is_negative=name == "negative_prompt",
            emphasis=settings["emphasis"],
        )
    except ValueError as error:
        return str(error)
    return ""


def _name_dialects(request: GenerationRequest) -> str:
    dialects = rules.list_differing_dialects(request)
    return " and ".join(dialects) or choose_dialect(request.prompt)


FIELD_REQUIRES = {
    name: str(requirement)
    for name in GenerationRequest.model_fields
    if (requirement := field_meta(GenerationRequest, name).get("requires"))
}
