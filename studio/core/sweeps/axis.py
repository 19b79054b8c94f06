"""One axis of a sweep: what varies and over which values.

Knows: what can be an axis, its values, its titles and labels for people, what it sets in a cell.
Does not know: the other axes, the request they change, whether a value is valid there.
"""

from __future__ import annotations

from collections.abc import Collection
from types import NoneType
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import field_validator, model_validator

from studio.core.base import Spec, field_meta, former_names, spec_field
from studio.core.catalog import SPECIAL_AXES, AxisInfo, AxisKind
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps import value_syntax
from studio.core.sweeps.value_syntax import AxisValue
from studio.errors import InvalidSpec, quote

LORA_WEIGHT_FIELDS = {
    "lora_weight": ("unet", "text_encoder"),
    "lora_unet": ("unet",),
    "lora_text_encoder": ("text_encoder",),
}
_EXCLUDED_FIELDS = {
    "num_images": "each cell is one image; vary the seed to get more",
    "batch_size": "batch size cannot be an axis; see fast",
}
_KIND_BY_TYPE: dict[Any, AxisKind] = {int: "whole", float: "number", str: "text", bool: "text"}
# What an empty text stands for, where that is not nothing.
_EMPTY_TEXT_LABELS = {"vae": "Model default", "hires_upscaler": "Lanczos"}
# Fields whose values need no title on a sheet.
_SELF_EXPLANATORY_FIELDS = ("prompt", "model", "scheduler", "noise_schedule")


def list_axes() -> dict[str, AxisInfo]:
    """Return everything that can be varied, by the name that an axis has as its `field`."""
    infos = {}
    for name, field in GenerationRequest.model_fields.items():
        if name in _EXCLUDED_FIELDS:
            continue
        value_type = _unwrap_optional(field.annotation)
        choices = _list_choices(value_type)
        if not choices and value_type not in _KIND_BY_TYPE:
            continue
        infos[name] = AxisInfo(
            str(field.title),
            "text" if choices else _KIND_BY_TYPE[value_type],
            int(field_meta(GenerationRequest, name).get("cost", 0)),
            field.description or "",
            choices=choices,
        )
    return infos | SPECIAL_AXES


def _unwrap_optional(annotation: Any) -> Any:
    """Return T of `T | None`, and any other annotation as it is."""
    arguments = get_args(annotation)
    if NoneType not in arguments:
        return annotation
    types = [argument for argument in arguments if argument is not NoneType]
    return types[0] if len(types) == 1 else annotation


def _list_choices(value_type: Any) -> tuple[str, ...]:
    if get_origin(value_type) is Literal:
        return get_args(value_type)
    return ("no", "yes") if value_type is bool else ()


_AXIS_INFOS = list_axes()


class Axis(Spec):
    """One thing that varies, and its values: a list, or a text in the syntax of `value_syntax`."""

    field: str = spec_field(
        ...,
        title="Field",
        help="What varies: the name of a setting, size, lora, lora_weight or prompt_replace.",
    )
    values: tuple[AxisValue, ...] | str = spec_field(
        ..., title="Values", help="A list, or text such as 10-40 (+10)."
    )
    lora: str = spec_field(
        "",
        title="LoRA",
        max_length=200,
        help="The LoRA a weight applies to; empty means any LoRA in the cell.",
    )
    find: str = spec_field(
        "",
        title="Find",
        max_length=200,
        help="The words in the prompts that prompt_replace replaces.",
    )
    group: int | None = spec_field(
        None,
        title="Group",
        help=(
            "Axes in the same group are linked: their values advance together instead of being "
            "combined."
        ),
    )

    def stable_dump(self, exclude: Collection[str] = ()) -> dict[str, Any]:
        """Return the values of a digest; the varied field keeps its first name there."""
        first_names = {name: former for former, name in former_names(GenerationRequest).items()}
        values = super().stable_dump(exclude)
        return values | {"field": first_names.get(self.field, self.field)}

    @field_validator("field")
    @classmethod
    def _validate_field(cls, name: str) -> str:
        name = former_names(GenerationRequest).get(name, name)
        if name in _EXCLUDED_FIELDS:
            raise ValueError(f"{_EXCLUDED_FIELDS[name]}.")
        if name not in _AXIS_INFOS:
            raise ValueError(
                f"{quote(name)} cannot be varied; available: {', '.join(_AXIS_INFOS)}."
            )
        return name

    @field_validator("values", mode="before")
    @classmethod
    def _validate_values(cls, values: Any) -> Any:
        if not isinstance(values, str | list | tuple):
            raise ValueError("must be a list or text.")
        # As texts, whatever the axis: here only what is neither text nor number is refused.
        entries = [values] if isinstance(values, str) else values or [""]
        try:
            value_syntax.parse_values(entries, "text")
        except InvalidSpec as error:
            raise ValueError(" ".join(error.faults)) from None
        return values

    @model_validator(mode="after")
    def _validate_axis(self) -> Self:
        if _AXIS_INFOS[self.field].requires and not self.find:
            raise InvalidSpec(["Find: enter the words to replace."])
        if self.find and not _AXIS_INFOS[self.field].requires:
            raise InvalidSpec([f"Find: only works with prompt_replace, not {self.field}."])
        if self.lora and not self.field.startswith("lora"):
            raise InvalidSpec([f"LoRA: {self.field} has nothing to do with a LoRA."])
        try:
            value_syntax.parse_values(self.values, _AXIS_INFOS[self.field].kind)
        except InvalidSpec as error:
            raise InvalidSpec([f"{self.title}: {fault}" for fault in error.faults]) from None
        return self

    @property
    def parsed_values(self) -> tuple[AxisValue, ...]:
        """The values one by one."""
        return value_syntax.parse_values(self.values, _AXIS_INFOS[self.field].kind)

    @property
    def values_text(self) -> str:
        """The parsed values as a text, to be shown before the run."""
        return value_syntax.format_values(self.parsed_values)

    @property
    def title(self) -> str:
        """The title of the axis on a sheet."""
        match self.field:
            case "prompt_replace":
                subject = self.find
            case "lora":
                subject = ""
            case _:
                subject = self.lora
        return f"{_AXIS_INFOS[self.field].title} {subject:.60}".rstrip()

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each value on a sheet."""
        return tuple(self._format_label(value) for value in self.parsed_values)

    @property
    def affected_settings(self) -> frozenset[str]:
        """The settings that it decides; axes that share one exclude each other."""
        match self.field:
            case "size":
                return frozenset({"width", "height"})
            case "prompt_replace":
                return frozenset({f"the words {self.find!r}"})
            case "lora":
                return frozenset({"the LoRAs"})
            case "prompt_template":
                return frozenset({"prompt"})
        if self.field in LORA_WEIGHT_FIELDS:
            owner = self.lora or "all LoRAs"
            parts = LORA_WEIGHT_FIELDS[self.field]
            return frozenset(f"the {part} weight of {owner}" for part in parts)
        return frozenset({self.field})

    def _format_label(self, value: AxisValue) -> str:
        text = value_syntax.format_value(value)
        match self.field:
            case "lora":
                return text if lora_name(value) else "No LoRA"
            case "lora_weight":
                return f"{self.lora or 'LoRA'} {text}"
            case "prompt_replace":
                return text if text == self.find else f"{self.find} → {text or 'nothing'}"
            case "size":
                return text.replace("x", "×")
            case "image" | "mask":
                return f"{self.title} {text[:8]}" if text else f"no {self.title.lower()}"
        info = _AXIS_INFOS[self.field]
        if info.kind == "text" and self.field in _SELF_EXPLANATORY_FIELDS:
            return text or "no prompt"
        if info.kind == "text":
            return f"{info.title}: {text or _EMPTY_TEXT_LABELS.get(self.field, 'none')}"
        if self.field in SPECIAL_AXES:
            return f"{self.title} {text}".rstrip()
        unit = field_meta(GenerationRequest, self.field).get("unit", "")
        return f"{self.title} {text} {unit}".rstrip()


def lora_name(value: AxisValue) -> str:
    """Return the LoRA that a value of the axis `lora` names; empty for none."""
    return "" if str(value).strip().casefold() in ("", "none") else str(value)
