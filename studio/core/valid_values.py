"""Values from outside, taken as far as they are valid.

Knows: which of several values a spec takes. Does not know: where they came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from studio.core.base import validate
from studio.errors import InvalidSpec


def merge_valid(
    spec_class: type[BaseModel], base: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return the values that are valid over a valid `base`, and the faults of the rest."""
    accepted: dict[str, Any] = {}
    faults: list[str] = []
    # Some values go only together with a second one: Euler a and Simple.
    partners: list[dict[str, Any]] = [{}, *({name: values[name]} for name in values)]
    for name, value in values.items():
        first_faults: tuple[str, ...] = ()
        for partner in partners:
            candidate = {name: value, **partner}
            try:
                validate(spec_class, {**base, **accepted, **candidate})
            except InvalidSpec as error:
                first_faults = first_faults or error.faults
            else:
                accepted |= candidate
                break
        else:
            faults += [fault for fault in first_faults if fault not in faults]
    return accepted, faults
