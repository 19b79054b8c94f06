"""What was typed into a tab's form: kept by the browser, put back after a reload, reset, undone.

Knows: the hidden block through which the browser keeps and gives back a form's values. Does not
know: how the browser keeps them (static/form_memory.js), what the fields mean, what else follows
from them (tabs/generation.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from studio.ui.events import EVENT_OPTIONS
from studio.ui.form import Form

MAX_KEPT_CHARS = 300_000  # of a form; the browser keeps no more than two thirds of it
# The page's script asks the block to collect the values; the palette asks for presets.
BLOCK_JS = """const block = document.getElementById(`${FORM}-memory`);
if (block) block.dataset.fields = FIELDS;
addEventListener('studio-collect', ({detail}) => detail.form === FORM && trigger('submit'));
addEventListener('studio-ask', ({detail}) => detail.form === FORM && trigger('click', detail));
watch('options', () => {
  const names = (props.options || {}).presets;
  if (Array.isArray(names)) window.studioForms.offerPresets(FORM, names);
});"""


class FormMemory:
    """The hidden block, the button that resets the form, and the one that undoes a load."""

    def __init__(self, form: Form[Any]) -> None:
        self.form = form
        self.block = gr.HTML(
            "",
            elem_id=f"{form.name}-memory",
            elem_classes="form-memory",
            js_on_load="",  # in `wire`, when the form has its fields
            options={},
        )
        self.previous = gr.State(None)  # raw values, before settings were loaded
        self.undo = gr.Button(
            "Undo load",
            size="sm",
            visible=False,
            elem_id=f"{form.name}-undo-load",
            elem_classes="undo-load",
        )

    def add_reset(self) -> None:
        """Place the button that empties the form."""
        self.reset = gr.Button(
            "Reset form",
            size="sm",
            elem_id=f"{self.form.name}-reset",
            elem_classes="reset-form",
        )

    @property
    def outputs(self) -> list[Any]:
        """What a load changes."""
        return [self.previous, self.undo]

    @property
    def read_js(self) -> str:
        """JavaScript, as an expression, of what the browser keeps of this form, as text."""
        return f"window.studioForms.read({json.dumps(self.form.name)})"

    @property
    def begin_js(self) -> str:
        """JavaScript, as an expression, that has the browser keep what is typed from now on."""
        return f"window.studioForms.begin({json.dumps(self.form.name)})"

    def wire(
        self,
        restore: Callable[..., Any],
        reset: Callable[..., Any],
        outputs: list[Any],
    ) -> None:
        """Connect the events.

        Args:
            restore: Takes the values before a load and the request; returns updates.
            reset: Takes the request; returns updates.
            outputs: What both change.
        """
        names, components = self._list_fields()
        name = json.dumps(self.form.name)
        fields = json.dumps(" ".join(self.form.components))
        self.block.js_on_load = BLOCK_JS.replace("FORM", name).replace("FIELDS", fields)
        keep = f"(...values) => {{ window.studioForms.keep({name}, {names}, values); return [] }}"
        self.block.submit(None, components, None, js=keep, **EVENT_OPTIONS)
        self.undo.click(restore, self.previous, outputs, **EVENT_OPTIONS)
        unname = f"() => {{ window.studioForms.unname({name}); return [] }}"
        self.undo.click(None, None, None, js=unname, **EVENT_OPTIONS)
        self.reset.click(
            reset,
            None,
            outputs,
            js=f"() => {{ window.studioForms.forget({name}); return [] }}",
            **EVENT_OPTIONS,
        )

    def note_preset(self, event: Any, preset: gr.Dropdown, *, only_asked: bool = False) -> None:
        """Have the browser compare the form with what a preset has put there.

        Args:
            event: Loads the preset.
            preset: Says which.
            only_asked: Whether the event also does other things: the browser knows what it asked.
        """
        act = "nameAsked" if only_asked else "name"
        names, components = self._list_fields()
        name = json.dumps(self.form.name)
        js = (
            f"(preset, ...values) => {{ window.studioForms.{act}({name}, preset, {names}, values); "
            "return [] }"
        )
        event.success(None, [preset, *components], None, js=js, **EVENT_OPTIONS)

    def _list_fields(self) -> tuple[str, list[Any]]:
        """Return the fields' names as JSON, and their components in the same order."""
        return json.dumps(list(self.form.components)), list(self.form.components.values())

    def note_load(self, raw_values: dict[str, Any]) -> dict[Any, Any]:
        """Return updates that make a load undoable; `raw_values` are those before it."""
        return {self.previous: raw_values, self.undo: gr.Button(visible=True)}

    def note_undone(self) -> dict[Any, Any]:
        """Return updates after a load was undone."""
        return {self.previous: None, self.undo: gr.Button(visible=False)}


def parse_kept(text: Any) -> dict[str, Any]:
    """Return the values that a browser kept; none for anything else than it would have kept."""
    if not isinstance(text, str) or not text or len(text) > MAX_KEPT_CHARS:
        return {}
    try:
        kept = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    values = kept.get("values") if isinstance(kept, dict) else None
    return values if isinstance(values, dict) else {}
