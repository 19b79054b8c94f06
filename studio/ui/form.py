"""Form: a pydantic model ⇄ gradio components.

Knows: which component shows which kind of field, and how a value goes in and out.
Does not know: what the fields mean; what happens with the object it reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import gradio as gr
from gradio.components import Component
from pydantic import BaseModel

from studio.core.base import field_schemas, validate
from studio.core.valid_values import merge_valid
from studio.ui.components import lora_rows

M = TypeVar("M", bound=BaseModel)
MAX_SLIDER_VALUE = 200  # numbers that reach further get a box to type into


class Form(Generic[M]):
    """Inputs by identity, never by position.

    `event(handler, form.inputs)` hands the handler a dict for `read`. Give those events
    `preprocess=False`: values then arrive as the browser sent them, and the model alone judges
    them. (gradio's own checks let NaN through, break on text, and name one bad field at a time.)
    """

    def __init__(self, spec_class: type[M], name: str) -> None:
        self.spec_class = spec_class
        # A field's element id is `name-field`: what style sheets and browser tests hold on to.
        self.name = name
        self._schema = field_schemas(spec_class)
        self.components: dict[str, Component] = {}

    def add(self, name: str, **component_kwargs: Any) -> Any:
        """Place a field here.

        Args:
            name: The field; its title, range, step, help and default choose the component.
            **component_kwargs: What the component is to have instead.

        Returns:
            The new component.
        """
        elem_id = f"{self.name}-{name.replace('_', '-')}"
        component = _build_component(self._schema[name], {"elem_id": elem_id} | component_kwargs)
        self.components[name] = component
        return component

    def __getitem__(self, name: str) -> Any:  # a Component; its events are made at run time
        return self.components[name]

    @property
    def inputs(self) -> set[Any]:
        """All components, for a handler that reads them by component."""
        return set(self.components.values())

    @property
    def outputs(self) -> list[Any]:
        """All components, in the order in which they were added."""
        return list(self.components.values())

    def read_raw(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """Return what the browser sent, by field name, without validation."""
        raw: dict[str, Any] = {}
        for name, component in self.components.items():
            if component in values:
                is_empty = values[component] == "" and self._is_nullable(name)
                raw[name] = None if is_empty else values[component]
        return raw

    def read(self, values: Mapping[Any, Any]) -> M:
        """Return the object on the page.

        Raises:
            InvalidSpec: Lists every bad field.
        """
        return validate(self.spec_class, self.read_raw(values))

    def fill(self, value: M) -> dict[Any, Any]:
        """Put an object on the page: a preset, a PNG's settings, what another tab sent."""
        return {
            component: self._to_component_value(name, getattr(value, name))
            for name, component in self.components.items()
        }

    def fill_fields(self, values: Mapping[str, Any]) -> dict[Any, Any]:
        """Put some fields on the page.

        Args:
            values: By field name, valid already; None counts only where a field may be empty.
        """
        updates: dict[Any, Any] = {}
        for name, component in self.components.items():
            if name not in values or (values[name] is None and not self._is_nullable(name)):
                continue
            updates[component] = self._to_component_value(name, values[name])
        return updates

    def _is_nullable(self, name: str) -> bool:
        """Return whether the field may be empty."""
        return any(kind.get("type") == "null" for kind in self._schema[name].get("anyOf", ()))

    def _to_component_value(self, name: str, value: Any) -> Any:
        if isinstance(self.components[name], gr.Dropdown):
            if isinstance(value, bool):
                return "on" if value else "off"
            if value is None and self._is_nullable(name):
                return ""
        return _to_json(value)

    def fill_valid(
        self, values: Mapping[str, Any], current: Mapping[str, Any]
    ) -> tuple[dict[Any, Any], list[str]]:
        """Put foreign values on the page, as far as they are valid.

        Args:
            values: What is to be filled in, by field name.
            current: What is on the page now (see `read_raw`).

        Returns:
            Updates of the components, and a sentence for each value that could not be filled in.
        """
        base, _ = merge_valid(self.spec_class, {}, current)
        accepted, faults = merge_valid(self.spec_class, base, values)
        spec = validate(self.spec_class, {**base, **accepted})
        updates = {
            self.components[name]: self._to_component_value(name, getattr(spec, name))
            for name in accepted
            if name in self.components
        }
        return updates, faults

    def fill_kept(self, values: Mapping[str, Any]) -> tuple[M, dict[Any, Any]]:
        """Put back what was typed, as it was typed: also what is not valid.

        Args:
            values: By field name, as a browser kept them; they may be anything.

        Returns:
            The object of the valid ones, and updates of the components.
        """
        known = {name: values[name] for name in self.components if name in values}
        for name, value in known.items():
            if value == "" and self._is_nullable(name):
                known[name] = None
        accepted, _ = merge_valid(self.spec_class, {}, known)
        spec = validate(self.spec_class, accepted)
        updates = {
            self.components[name]: self._to_component_value(name, getattr(spec, name))
            for name in accepted
            if name in self.components
        }
        for name in known.keys() - accepted.keys():
            component, value = self.components[name], known[name]
            is_text = isinstance(component, gr.Textbox) and isinstance(value, str)
            is_number = (
                isinstance(component, gr.Number | gr.Slider)
                and isinstance(value, int | float)
                and not isinstance(value, bool)
                and math.isfinite(value)
            )
            if is_text or is_number:
                updates[component] = value
        return spec, updates


def _to_json(value: Any) -> Any:
    """Return a list of specs (LoRAs) as dicts, which the model reads back; one of words stays."""
    if isinstance(value, tuple):
        return [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
    return value


def _build_component(field: dict[str, Any], component_kwargs: dict[str, Any]) -> Component:
    """Build the component for a field of a JSON schema."""
    variants = field.get("anyOf", ())
    is_nullable = any(kind.get("type") == "null" for kind in variants)
    field = {**field, **next((kind for kind in variants if kind.get("type") != "null"), {})}
    options = {
        "label": field["title"],
        "value": field.get("default"),
        "info": field.get("description"),
    } | component_kwargs
    if "choices" in options or "enum" in field:
        options.setdefault("choices", field.get("enum"))
        return gr.Dropdown(**options)
    match field["type"]:
        case "boolean" if is_nullable:  # a box that is ticked or not cannot be left open
            choices = [("automatic", ""), ("on", "on"), ("off", "off")]
            return gr.Dropdown(**options | {"choices": choices, "value": ""})
        case "boolean":
            return gr.Checkbox(**options)
        case "array":  # of LoRAs: so far the only list that a spec has
            options.pop("info", None)
            return lora_rows.build_lora_rows(**options)
        case "string":
            return gr.Textbox(**options)
    if is_nullable:  # a slider cannot be left open either
        options.setdefault("slider", False)
    return _build_number_component(field, options)


def _build_number_component(field: dict[str, Any], options: dict[str, Any]) -> Component:
    """Build a slider for a short range, else a number."""
    is_integer = field["type"] == "integer"
    default_step = 1 if is_integer else 0.05
    step = field.get("step") or field.get("multipleOf") or default_step
    options = {"step": step} | options
    maximum = field.get("maximum")
    if maximum is None:
        maximum = field.get("exclusiveMaximum", math.inf)
        maximum -= 1 if is_integer else options["step"]
    options |= {
        "minimum": field.get("minimum"),
        "maximum": maximum if maximum < math.inf else None,
        "precision": 0 if is_integer else None,
    }
    if options.pop("slider", maximum < MAX_SLIDER_VALUE):
        return gr.Slider(**options)
    return build_number(**options)


def build_number(**component_kwargs: Any) -> gr.Number:
    """Build a number that may begin empty.

    It is for events with `preprocess=False`, which get "" or None where nothing was typed.
    """
    number = gr.Number(**component_kwargs)
    if number.value is None:
        number.value = ""  # of None gradio's page makes a 0 as soon as it is in view
    return number


def single_file(value: Any) -> Any:
    """Return the file that a component for one file sent, which may come as a list."""
    if isinstance(value, list) and value:
        return value[0]
    return value
