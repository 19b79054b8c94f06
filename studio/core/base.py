"""What every spec shares: frozen values, settings that carry all that is said about them, one door for values.

Knows: pydantic, and how to say in one sentence what is wrong with a value.
Does not know: any particular spec.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from studio.errors import InvalidSpec

M = TypeVar("M", bound=BaseModel)


class Value(BaseModel):
    """Frozen, no unknown field, no NaN and no infinity anywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic would take it for 1."""
        if isinstance(value, bool):
            annotation = cls.model_fields[info.field_name or ""].annotation
            kinds = {annotation, *get_args(annotation)}
            if kinds & {int, float} and bool not in kinds:
                raise ValueError(f"has to be a number (not {value}).")
        return value


def setting(
    default: Any,
    *,
    title: str,
    help: str,
    infotext: str = "",
    unit: str = "",
    step: float | None = None,
    cost: int = 0,
    guest: float | None = None,
    needs: str = "",
    **limits: Any,
) -> Any:
    """A field with everything that page, API, command line, PNG text and sweeps need to know about it.

    `infotext` is its name in A1111's text; `cost` orders sweep axes (the higher, the dearer a change); `guest` is the
    most that a visitor who is not the owner may ask for; `step` and `unit` are for sliders and help; `needs` is what has to
    be there for it to change anything.
    """
    extra = {
        "infotext": infotext,
        "unit": unit,
        "step": step,
        "cost": cost,
        "guest": guest,
        "needs": needs,
    }
    return Field(
        default,
        title=title,
        description=help,
        json_schema_extra={k: v for k, v in extra.items() if v},
        **limits,
    )


def check(model: type[M], values: Mapping[str, Any]) -> M:
    """The one door for values from outside. Raises InvalidSpec, which names every bad field."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise InvalidSpec([_fault(model, dict(fault)) for fault in error.errors()]) from None


@cache
def schema(model: type[BaseModel]) -> Mapping[str, dict[str, Any]]:
    """The JSON schema of every field, to be read only: pydantic makes it anew at each call, and a page asks hundreds of times."""
    properties: dict[str, dict[str, Any]] = model.model_json_schema()["properties"]
    return properties


def extra(model: type[BaseModel], name: str) -> dict[str, Any]:
    """What `setting` was told about a field beyond its title, help and limits."""
    told = model.model_fields[name].json_schema_extra
    return dict(told) if isinstance(told, dict) else {}


def above_guests(value: Value) -> list[str]:
    """A sentence for every field that is above what a visitor who is not the owner may ask for."""
    faults = []
    for name, field in type(value).model_fields.items():
        most, asked = extra(type(value), name).get("guest"), getattr(value, name)
        asked = len(asked) if isinstance(asked, tuple) else asked
        if most is not None and asked is not None and asked > most:
            faults.append(f"{field.title}: guests may ask for {most} at most (not {asked}).")
    return faults


EMPTY = (
    "missing",
    "string_type",
    "string_too_short",
    "int_type",
    "int_parsing",
    "float_type",
    "float_parsing",
)  # to pydantic


def _fault(model: type[BaseModel], fault: dict[str, Any]) -> str:
    where, value, more = fault["loc"], fault["input"], fault.get("ctx", {})
    if not where:  # from a validator that looked at several fields: it wrote the whole sentence
        return str(more.get("error", fault["msg"]))
    field = model.model_fields.get(str(where[0]))
    title = (field.title if field else None) or f"{where[0]!s:.40}"
    if (
        fault["type"] == "value_error"
    ):  # from a validator of one field: it says what is wrong, we say where
        return f"{title}: {more['error']}"
    if value in (None, "") and fault["type"] in EMPTY:
        return f"{title}: is needed."
    return f"{title}: {_wrong(fault['type'], value, more, fault['msg'])} (not {_shown(value, 60)})."


def _shown(value: Any, most: int) -> str:
    if isinstance(value, str) and len(value) > most:
        return f"{value[:40]!r} …"
    try:
        return f"{value!r:.{most}}"
    except (
        ValueError,
        RecursionError,
    ):  # Python writes out neither a number of 5000 digits nor lists 1000 deep
        return f"this {type(value).__name__}"


def _bound(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def _wrong(kind: str, value: Any, more: dict[str, Any], message: str) -> str:
    match kind:
        case "extra_forbidden":
            return "there is no such setting"
        case "missing":
            return "is needed"
        case "multiple_of":
            unit = more["multiple_of"]
            try:
                below = math.floor(float(value) / unit) * unit
            except (ValueError, OverflowError):
                return f"has to be a multiple of {unit}"
            if below < 0:  # no field that has a unit goes below 0
                return f"has to be a multiple of {unit}, 0 or more"
            return f"has to be a multiple of {unit}, such as {below} or {below + unit}"
        case "greater_than_equal":
            return f"has to be {_bound(more['ge'])} or more"
        case "greater_than":
            return f"has to be above {more['gt']:g}"
        case "less_than_equal":
            return f"has to be {_bound(more['le'])} or less"
        case "less_than":
            return f"has to be below {more['lt']}"
        case "int_type" | "int_parsing" | "int_parsing_size" | "int_from_float":
            return "has to be a whole number" + " that is not so large" * (
                kind == "int_parsing_size"
            )
        case "float_type" | "float_parsing" | "finite_number":
            return "has to be a number"
        case "string_too_long":
            return f"has to be at most {more['max_length']} characters long, but has {len(value)}"
        case "string_too_short":
            return "is needed"
        case "string_type" | "string_unicode":
            return "has to be text"
        case "literal_error":
            return f"has to be one of {more['expected']}".replace(" or ", ", ")
    return message[0].lower() + message[1:]
