"""The base of every spec: frozen values, fields with their metadata, validation from outside.

Knows: pydantic, and how to say in one sentence what is wrong with a value.
Does not know: any particular spec.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Generator, Mapping
from functools import cache
from typing import Any, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from studio.core.decimals import replace_decimal_comma
from studio.errors import InvalidSpec, quote

# How images are named: the sha256 of their file.
SHA256_PATTERN = "[0-9a-f]{64}"
PLACEHOLDER_SHA256 = "0" * 64  # stands for an image while the settings alone are validated

ModelT = TypeVar("ModelT", bound=BaseModel)
SpecT = TypeVar("SpecT", bound="Spec")

# pydantic's names of the errors that an empty value makes.
MISSING_ERROR_TYPES = (
    "missing",
    "string_type",
    "string_too_short",
    "int_type",
    "int_parsing",
    "float_type",
    "float_parsing",
)


class Spec(BaseModel):
    """A frozen model: no unknown field, no NaN and no infinity anywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __iter__(self) -> Generator[tuple[str, Any], None, None]:
        """Yield names and values of the fields alone: `dict(spec)` has nothing that is cached."""
        for name in type(self).model_fields:
            yield name, getattr(self, name)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values; what the original has cached is computed anew."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied

    def stable_dump(self, exclude: Collection[str] = ()) -> dict[str, Any]:
        """Return the JSON values that a digest is made over, under names that never change.

        A renamed field keeps its first name here, and a field at its `neutral` value is left out.
        So a rename or a new field changes no digest: what was made before is found again.
        """
        dumped = self.model_dump(mode="json", exclude=set(exclude))
        values = {}
        for name, value in dumped.items():
            meta = field_meta(type(self), name)
            if "neutral" in meta and value == meta["neutral"][0]:
                continue
            values[meta.get("formerly") or name] = _stable(getattr(self, name), value)
        return values

    @classmethod
    def complete_stored(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values out of a file or a table, with what they mean by not naming a field.

        For presets, sweeps, queued jobs and images: a default that changed changes none of them.
        What a person or a program asks for anew is not completed: it gets today's defaults.
        """
        completed = dict(values)
        for name in cls.model_fields:
            meta = field_meta(cls, name)
            former = meta.get("formerly")
            if meta.get("default_before") and name not in values and former not in values:
                completed[name] = meta["default_before"][0]
        return completed

    def dump_for_file(self) -> dict[str, Any]:
        """Return what differs from the defaults, and what a file without it would not mean."""
        values = self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        for name in type(self).model_fields:
            if field_meta(type(self), name).get("default_before"):
                values[name] = self.model_dump(mode="json", include={name})[name]
        return values

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, values: Any) -> Any:
        """Rename what files, flags and presets call by a field's former name."""
        former = former_names(cls)
        if not former or not isinstance(values, dict) or former.keys().isdisjoint(values):
            return values
        renamed = {}
        for key, value in values.items():
            name = former.get(key, key)
            if name != key and name in values:  # both are given: the former name is an error
                name = key
            renamed[name] = value
        return renamed

    @field_validator("*", mode="before")
    @classmethod
    def _read_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Return what was typed for a number with a point for its comma.

        A whole number with a comma stays: 1,000 may be a thousand or one.

        Raises ValueError for a bool in a number's place: pydantic would take True for 1.
        """
        if isinstance(value, bool | str):
            annotation = cls.model_fields[info.field_name or ""].annotation
            kinds = {annotation, *get_args(annotation)}
            if isinstance(value, bool):
                if kinds & {int, float} and bool not in kinds:
                    raise ValueError(f"must be a number (you entered {value}).")
            elif float in kinds and str not in kinds:
                return replace_decimal_comma(value)
        return value


def spec_field(
    default: Any,
    *,
    title: str,
    help: str,
    infotext: str = "",
    unit: str = "",
    step: float | None = None,
    cost: int = 0,
    guest_max: float | None = None,
    requires: str = "",
    formerly: str = "",
    neutral: Any = ...,
    default_before: Any = ...,
    **limits: Any,
) -> Any:
    """Return a field with all that page, API, command line, PNG text and sweeps need to know of it.

    Args:
        default: Its value where none is given; `...` for a required field.
        title: Its name for people.
        help: One or two sentences for people.
        infotext: Its name in A1111's text.
        unit: Of its value, for sliders and help.
        step: Of sliders.
        cost: Orders sweep axes: the higher, the dearer a change.
        guest_max: The most that a visitor who is not the owner may ask for.
        requires: What has to be there for it to change anything.
        formerly: The name under which older files hold it.
        neutral: The value at which it does not count for digests, `...` for none; every field that
            is added to an existing spec has to have one.
        default_before: What files mean that do not name it, where that is another value than the
            default: what was made before it had this default, or before it was there, stays as it
            was (see `Spec.complete_stored`). `...` where there is none.
        limits: What pydantic's `Field` takes.
    """
    extra = {
        "infotext": infotext,
        "unit": unit,
        "step": step,
        "cost": cost,
        "guest_max": guest_max,
        "requires": requires,
        "formerly": formerly,
        "neutral": [] if neutral is ... else [neutral],
        "default_before": [] if default_before is ... else [default_before],
    }
    return Field(
        default,
        title=title,
        description=help,
        json_schema_extra={key: value for key, value in extra.items() if value},
        **limits,
    )


def _stable(value: Any, dumped: Any) -> Any:
    if isinstance(value, Spec):
        return value.stable_dump()
    if isinstance(value, tuple | list):
        return [_stable(item, item_dump) for item, item_dump in zip(value, dumped, strict=True)]
    return dumped


def is_sha256(name: str) -> bool:
    """Return whether a text could be the name of an image, and is no path."""
    return bool(re.fullmatch(SHA256_PATTERN, name))


@cache
def former_names(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the names that fields of a spec had in older files, each with today's."""
    return {
        former: name
        for name in model.model_fields
        if (former := str(field_meta(model, name).get("formerly", "")))
    }


def validate(model: type[ModelT], values: Mapping[str, Any]) -> ModelT:
    """Return a spec of values from outside. Raises InvalidSpec, which names every bad field."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise InvalidSpec([_format_error(model, dict(fault)) for fault in error.errors()]) from None


def validate_stored(model: type[SpecT], values: Mapping[str, Any]) -> SpecT:
    """Return a spec of values out of a file or a table (see `Spec.complete_stored`).

    Raises InvalidSpec, which names every bad field.
    """
    return validate(model, model.complete_stored(values))


@cache
def field_schemas(model: type[BaseModel]) -> Mapping[str, dict[str, Any]]:
    """Return the JSON schema of every field by its name; not to be changed.

    Cached: pydantic builds it anew at each call, and a page asks for it hundreds of times.
    """
    properties: dict[str, dict[str, Any]] = model.model_json_schema()["properties"]
    return properties


def field_meta(model: type[BaseModel], name: str) -> dict[str, Any]:
    """Return what `spec_field` stored about a field beyond its title, help and limits."""
    extra = model.model_fields[name].json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {}


def guest_limit_faults(spec: Spec) -> list[str]:
    """Return a sentence for every field above what a visitor who is not the owner may ask for."""
    faults = []
    for name, field in type(spec).model_fields.items():
        limit = field_meta(type(spec), name).get("guest_max")
        value = getattr(spec, name)
        if isinstance(value, tuple):
            value = len(value)
        if limit is not None and value is not None and value > limit:
            faults.append(
                f"{field.title}: guests may ask for at most {limit} (you entered {value})."
            )
    return faults


def _format_error(model: type[BaseModel], error: dict[str, Any]) -> str:
    """Return a sentence for one of pydantic's errors."""
    location = error["loc"]
    value = error["input"]
    context = error.get("ctx", {})
    if not location:  # from a validator of several fields: it wrote the whole sentence
        return str(context.get("error", error["msg"]))
    name = str(location[0])
    if error["type"] == "extra_forbidden" and len(location) == 1 and name in former_names(model):
        return f"{name}: is now called {former_names(model)[name]}, which is also given."
    field = model.model_fields.get(name)
    title = (field.title if field else None) or f"{location[0]!s:.40}"
    # From a validator of one field: it says what is wrong, we say where.
    if error["type"] == "value_error":
        return f"{title}: {context['error']}"
    is_missing = value in (None, "") and error["type"] in MISSING_ERROR_TYPES
    if is_missing or error["type"] == "missing":  # then the value is all that was given
        return f"{title}: required."
    description = _describe_error(error["type"], value, context, error["msg"])
    if _may_be_rounded(value):
        return f"{title}: {description}; what you entered is far beyond that."
    return f"{title}: {description} (you entered {quote(value)})."


def _may_be_rounded(value: Any) -> bool:
    """Return whether a page may have rounded a number before it was sent, as browsers do.

    A browser makes 100000000000000000000 of 99999999999999999999, which nobody typed.
    """
    if not isinstance(value, int) or abs(value) < 2**53:
        return False
    try:
        return float(value) == value
    except OverflowError:
        return False


def _format_bound(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def _describe_error(error_type: str, value: Any, context: dict[str, Any], message: str) -> str:
    match error_type:
        case "extra_forbidden":
            return "there is no such setting"
        case "multiple_of":
            return _describe_multiple(value, context["multiple_of"])
        case "greater_than_equal":
            return f"must be {_format_bound(context['ge'])} or more"
        case "greater_than":
            return f"must be above {context['gt']:g}"
        case "less_than_equal":
            return f"must be {_format_bound(context['le'])} or less"
        case "less_than":
            return f"must be below {context['lt']}"
        case "int_parsing_size":
            return "must be a smaller whole number"
        case "int_type" | "int_parsing" | "int_from_float":
            return "must be a whole number"
        case "float_type" | "float_parsing" | "finite_number":
            return "must be a number"
        case "string_too_long":
            return f"must be at most {context['max_length']} characters long, but has {len(value)}"
        case "string_too_short":
            return "required"
        case "bool_type" | "bool_parsing":
            return "must be yes or no"
        case "string_type" | "string_unicode":
            return "must be text"
        case "literal_error":
            return f"must be one of {context['expected']}".replace(" or ", ", ")
    return message[0].lower() + message[1:]


def _describe_multiple(value: Any, unit: int) -> str:
    try:
        below = math.floor(float(value) / unit) * unit
    except (ValueError, OverflowError):
        return f"must be a multiple of {unit}"
    if below < unit:  # no field that has a unit goes below 0
        return f"must be a multiple of {unit}"
    return f"must be a multiple of {unit}, e.g. {below} or {below + unit}"
