"""What is wrong with a form: in one line, and beside the fields that it is about.

Knows: how a sentence of an error names its field, the block that carries both to the page, where
static/field_faults.js puts them. Does not know: what is checked, or when.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

import gradio as gr

from studio.core.base import field_schemas
from studio.errors import InvalidSpec, StudioError
from studio.ui.form import Form
from studio.ui.views.templates import render_macro

MAX_PLACED_FAULTS = 40
# The page's script hears of every new content of the block.
TELL_JS = """const tell = () =>
  element.dispatchEvent(new CustomEvent('studio-faults', {bubbles: true}));
watch('value', tell);
tell();"""


def add_fault_line(elem_id: str) -> gr.HTML:
    """Place the line of a form that says how long it will take, or what is wrong."""
    return gr.HTML(elem_id=elem_id, js_on_load=TELL_JS)


def list_faults(error: StudioError) -> tuple[str, ...]:
    """Return the sentences of an error."""
    return error.faults if isinstance(error, InvalidSpec) else (str(error),)


class FaultPlaces:
    """The fields of a form, found by the sentences that are about them."""

    def __init__(self, form: Form[Any]) -> None:
        self._form = form
        self._schema = field_schemas(form.spec_class)  # type: ignore[arg-type]

    def find_element(self, fault: str) -> str:
        """Return the id of the field that a sentence begins with; empty if none is on the page."""
        title, colon, _ = fault.partition(": ")
        for name, component in self._form.components.items():
            if colon and self._schema[name]["title"] == title:
                return str(component.elem_id)
        return ""

    def shows_all(self, error: StudioError) -> bool:
        """Whether every sentence of an error stands beside a field."""
        faults = list_faults(error)
        return len(faults) <= MAX_PLACED_FAULTS and all(map(self.find_element, faults))

    def render(
        self,
        text: str,
        faults: Sequence[str] = (),
        *,
        tokens: Sequence[tuple[str, object]] = (),
        is_refused: bool = False,
    ) -> str:
        """Render the line, with what the page's script puts beside the fields.

        Args:
            text: What the line says where nothing is wrong.
            faults: What is wrong; the first stands in the line.
            tokens: Of prompts: the field's name, and how long it is.
            is_refused: Whether somebody asked for it: then the first field is gone to.
        """
        counts = [
            [str(self._form[name].elem_id), str(count)]
            for name, count in tokens
            if name in self._form.components
        ]
        return render_macro(
            "components.html",
            "fault_line",
            text=faults[0] if faults else text,
            num_more=max(0, len(faults) - 1),
            is_wrong=bool(faults),
            placed=self._place(faults),
            counts=json.dumps(counts) if counts else "",
            refusal=secrets.token_hex(4) if is_refused else "",
        )

    def render_marks(self, faults: Sequence[str] = (), *, is_refused: bool = False) -> str:
        """Render what the page's script puts beside the fields, for a block that lists all itself.

        Arguments as for `render`.
        """
        return render_macro(
            "components.html",
            "fault_marks",
            placed=self._place(faults),
            refusal=secrets.token_hex(4) if is_refused else "",
        )

    def _place(self, faults: Sequence[str]) -> str:
        """Return as JSON which sentence belongs to which field."""
        placed = []
        for fault in faults[:MAX_PLACED_FAULTS]:
            if element_id := self.find_element(fault):
                title, _, sentence = fault.partition(": ")
                placed.append([element_id, title, sentence[:1].upper() + sentence[1:]])
        return json.dumps({"form": self._form.name, "faults": placed})
