"""Form: a pydantic model ⇄ gradio components.

Knows: which component shows which kind of field, and how a value goes in and out.
Does not know: what the fields mean; what happens with the object it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import gradio as gr
from gradio.components import Component
from pydantic import BaseModel

from studio.core.base import check, schema
from studio.errors import InvalidSpec
from studio.ui.components import lora_rows

M = TypeVar("M", bound=BaseModel)
Turn = Callable[[Any], Any]


class Form(Generic[M]):
    """Inputs by identity, never by position: `event(handler, form.inputs)` hands the handler a dict for `read`.

    Give those events `preprocess=False`: values then arrive as the browser sent them, and the model alone judges them.
    (gradio's own checks let NaN through, break on text, and name one bad field at a time.)
    """

    def __init__(self, model: type[M], name: str) -> None:
        self.model = model
        self.name = name  # a field's element id is `name-field`: what style sheets and browser tests hold on to
        self._schema = schema(model)
        self.parts: dict[str, Component] = {}

    def add(self, name: str, **settings: Any) -> Any:
        """Place a field here: its title, range, step, help and default choose the component."""
        made = _component(
            self._schema[name], {"elem_id": f"{self.name}-{name.replace('_', '-')}"} | settings
        )
        self.parts[name] = made
        return made

    def __getitem__(self, name: str) -> Any:  # a Component; its events are made at run time
        return self.parts[name]

    @property
    def inputs(self) -> set[Any]:
        return set(self.parts.values())

    @property
    def outputs(self) -> list[Any]:
        return list(self.parts.values())

    def raw(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """What the browser sent, by field name, unjudged."""
        return {
            name: None if values[part] == "" and self._open(name) else values[part]
            for name, part in self.parts.items()
            if part in values
        }

    def read(self, values: Mapping[Any, Any]) -> M:
        """The object on the page. Raises InvalidSpec, which lists every bad field."""
        return check(self.model, self.raw(values))

    def fill(self, value: M) -> dict[Any, Any]:
        """Put an object on the page: a preset, a PNG's settings, a picture sent from another tab are all this."""
        return {part: self._shown(name, getattr(value, name)) for name, part in self.parts.items()}

    def put(self, values: Mapping[str, Any]) -> dict[Any, Any]:
        """Put values of some fields on the page, which were judged where they come from; None only where a field may be empty."""
        return {
            part: self._shown(name, values[name])
            for name, part in self.parts.items()
            if name in values and (values[name] is not None or self._open(name))
        }

    def _open(self, name: str) -> bool:
        """Whether the field may be left empty."""
        return any(kind.get("type") == "null" for kind in self._schema[name].get("anyOf", ()))

    def _shown(self, name: str, value: Any) -> Any:
        if isinstance(self.parts[name], gr.Dropdown) and (
            isinstance(value, bool) or (value is None and self._open(name))
        ):
            return {None: "", True: "on", False: "off"}[value]
        return _shown(value)

    def fill_some(
        self, values: Mapping[str, Any], now: Mapping[str, Any]
    ) -> tuple[dict[Any, Any], list[str]]:
        """Put foreign `values` on the page over what stands there `now`, as far as they can be; and what could not be."""
        page, _ = self._most({}, now)
        taken, faults = self._most(page, values)
        made = check(self.model, {**page, **taken})
        return {
            self.parts[name]: self._shown(name, getattr(made, name))
            for name in taken
            if name in self.parts
        }, faults

    def _most(
        self, base: Mapping[str, Any], wanted: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[str]]:
        """As many of the wanted values as can stand over a good `base`, and a sentence for every other."""
        taken: dict[str, Any] = {}
        faults: list[str] = []
        for name, value in wanted.items():
            said: tuple[str, ...] = ()
            for partner in (
                {},
                *({other: wanted[other]} for other in wanted),
            ):  # some go only together: Euler a and Simple
                try:
                    check(self.model, {**base, **taken, name: value, **partner})
                except InvalidSpec as error:
                    said = said or error.faults
                else:
                    taken |= {name: value, **partner}
                    break
            else:
                faults += [fault for fault in said if fault not in faults]
        return taken, faults


def _shown(value: Any) -> Any:
    """As JSON: a list of values (LoRAs) as dicts, which the model reads back."""
    if isinstance(value, tuple):
        return [item.model_dump() for item in value]
    return value


def _component(field: dict[str, Any], settings: dict[str, Any]) -> Component:
    empty = any(kind.get("type") == "null" for kind in field.get("anyOf", ()))
    field = {
        **field,
        **next((kind for kind in field.get("anyOf", ()) if kind.get("type") != "null"), {}),
    }
    common = {
        "label": field["title"],
        "value": field.get("default"),
        "info": field.get("description"),
    } | settings
    if "choices" in common or "enum" in field:
        common.setdefault("choices", field.get("enum"))
        return gr.Dropdown(**common)
    if field["type"] == "boolean" and empty:  # a box that is ticked or not cannot be left open
        return gr.Dropdown(
            **common | {"choices": [("by itself", ""), ("on", "on"), ("off", "off")], "value": ""}
        )
    if field["type"] == "boolean":
        return gr.Checkbox(**common)
    if field["type"] == "array":  # of LoRAs: so far the only list that a spec has
        return lora_rows.rows(**{name: value for name, value in common.items() if name != "info"})
    if field["type"] == "string":
        return gr.Textbox(**common)
    whole = field["type"] == "integer"
    step = field.get("step") or field.get("multipleOf") or (1 if whole else 0.05)
    most = field.get(
        "maximum",
        field.get("exclusiveMaximum", math.inf) - (1 if whole else common.get("step", step)),
    )
    common = {"step": step} | common
    common |= {
        "minimum": field.get("minimum"),
        "maximum": most if most < math.inf else None,
        "precision": 0 if whole else None,
    }
    if common.pop("slider", most < 200):
        return gr.Slider(**common)
    return number(**common)


def number(**settings: Any) -> gr.Number:
    """A number that may begin empty. For events with `preprocess=False`, which get "" or None where nothing stands."""
    made = gr.Number(**settings)
    if made.value is None:
        made.value = ""  # of None gradio's page makes a 0 as soon as it is in view
    return made
