"""One axis of a sweep: what varies and over which values.

Knows: what can be an axis, its values, its titles and labels for people, what it decides in a cell.
Does not know: the other axes, the request they change, whether a value is possible there.
"""

from __future__ import annotations

from types import NoneType
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import field_validator, model_validator

from studio.core.base import Value, extra, setting
from studio.core.catalog import AXES, AxisInfo, AxisKind
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps import value_syntax
from studio.core.sweeps.value_syntax import Plain
from studio.errors import InvalidSpec

LORA_WEIGHTS = {
    "lora_weight": ("unet", "text_encoder"),
    "lora_unet": ("unet",),
    "lora_text_encoder": ("text_encoder",),
}
_NO_AXES = {
    "count": "a cell is one picture; vary the seed for more",
    "batch": "how many are painted together is no axis; see fast",
}
_KINDS: dict[Any, AxisKind] = {int: "whole", float: "number", str: "text", bool: "text"}
_SAY_ENOUGH = ("prompt", "model", "scheduler", "schedule")  # their values need no title


def axes() -> dict[str, AxisInfo]:
    """All that can be varied, by the name that an axis has as its `field`."""
    found = {}
    for name, field in GenerationRequest.model_fields.items():
        inner = (
            set(get_args(field.annotation)) - {NoneType}
            if NoneType in get_args(field.annotation)
            else {field.annotation}
        )
        kind = inner.pop()
        choices = (
            get_args(kind) if get_origin(kind) is Literal else ("no", "yes") if kind is bool else ()
        )
        if name not in _NO_AXES and not inner and (choices or kind in _KINDS):
            cost, about = (
                int(extra(GenerationRequest, name).get("cost", 0)),
                field.description or "",
            )
            found[name] = AxisInfo(
                str(field.title), "text" if choices else _KINDS[kind], cost, about, choices=choices
            )
    return found | AXES


_AXES = axes()


class Axis(Value):
    """One thing that varies, and its values: a list, or a text in the syntax of `sweep_values`."""

    field: str = setting(
        ...,
        title="Field",
        help="What varies: a setting's name, size, lora, lora_weight or prompt_replace.",
    )
    values: tuple[Plain, ...] | str = setting(
        ..., title="Values", help="A list, or a text such as 10-40 (+10)."
    )
    lora: str = setting(
        "",
        title="LoRA",
        max_length=200,
        help="Which LoRA a weight is for; empty is whichever the cell has.",
    )
    find: str = setting(
        "",
        title="Find",
        max_length=200,
        help="The words in the prompts that prompt_replace replaces.",
    )
    group: int | None = setting(
        None, title="Group", help="Axes of the same group go hand in hand instead of multiplying."
    )

    @field_validator("field")
    @classmethod
    def _can_vary(cls, name: str) -> str:
        if name in _NO_AXES:
            raise ValueError(f"{_NO_AXES[name]}.")
        if name not in _AXES:
            raise ValueError(f"{name!r:.40} cannot be varied; there is {', '.join(_AXES)}.")
        return name

    @field_validator("values", mode="before")
    @classmethod
    def _listed(cls, values: Any) -> Any:
        if not isinstance(values, str | list | tuple):
            raise ValueError("have to be a list or a text.")
        try:
            value_syntax.read(
                [values] if isinstance(values, str) else values or [""], "text"
            )  # are they text and numbers?
        except InvalidSpec as error:
            raise ValueError(" ".join(error.faults)) from None
        return values

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if _AXES[self.field].needs and not self.find:
            raise InvalidSpec(["Find: is needed; which words shall be replaced?"])
        if self.find and not _AXES[self.field].needs:
            raise InvalidSpec([f"Find: only prompt_replace finds words, not {self.field}."])
        if self.lora and not self.field.startswith("lora"):
            raise InvalidSpec([f"LoRA: {self.field} is not about a LoRA."])
        try:
            value_syntax.read(self.values, _AXES[self.field].kind)
        except InvalidSpec as error:
            raise InvalidSpec([f"{self.title}: {fault}" for fault in error.faults]) from None
        return self

    @property
    def parsed(self) -> tuple[Plain, ...]:
        """The values one by one."""
        return value_syntax.read(self.values, _AXES[self.field].kind)

    @property
    def text(self) -> str:
        """What was understood, to be shown before the run."""
        return value_syntax.write(self.parsed)

    @property
    def title(self) -> str:
        """What stands over a sheet's axis."""
        about = (
            self.find
            if self.field == "prompt_replace"
            else self.lora
            if self.field != "lora"
            else ""
        )
        return f"{_AXES[self.field].title} {about:.60}".rstrip()

    @property
    def labels(self) -> tuple[str, ...]:
        """What stands at each value on a sheet."""
        return tuple(self._label(value) for value in self.parsed)

    @property
    def sets(self) -> frozenset[str]:
        """What it decides; two axes that decide the same cannot go together."""
        match self.field:
            case "size":
                return frozenset({"width", "height"})
            case "prompt_replace":
                return frozenset({f"the words {self.find!r}"})
            case "lora":
                return frozenset({"the LoRAs"})
        if self.field in LORA_WEIGHTS:
            return frozenset(
                f"the {part} weight of {self.lora or 'all LoRAs'}"
                for part in LORA_WEIGHTS[self.field]
            )
        return frozenset({self.field})

    def _label(self, value: Plain) -> str:
        told, info = value_syntax.plain(value), _AXES[self.field]
        match self.field:
            case "lora":
                return told if named(value) else "No LoRA"
            case "lora_weight":
                return f"{self.lora or 'LoRA'} {told}"
            case "prompt_replace":
                return f"{self.find} → {told or 'nothing'}" if told != self.find else told
            case "size":
                return told.replace("x", "×")
            case "image" | "mask":
                return f"{self.title} {told[:8]}" if told else f"no {self.title.lower()}"
        if info.kind == "text":
            return (
                (told or "no prompt")
                if self.field in _SAY_ENOUGH
                else f"{info.title}: {told or 'none'}"
            )
        unit = (
            extra(GenerationRequest, self.field).get("unit", "") if self.field not in AXES else ""
        )
        return f"{self.title} {told} {unit}".rstrip()


def named(lora: Plain) -> str:
    """The LoRA that a value of the axis `lora` names; empty for none."""
    return "" if str(lora).strip().casefold() in ("", "none") else str(lora)
