"""The library's LoRAs beside a form's rows, to choose from.

Knows: how a LoRA is described, which go with a model. Does not know: how rows are drawn
(lora_rows.py); what a LoRA file is (storage/models/lora_file.py); where on the page this stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import gradio as gr

from studio.core.families.registry import FAMILIES
from studio.core.generation.lora_use import LoraUse
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.models.library import LoraInfo, ModelInfo
from studio.ui.errors import report_errors, show_info
from studio.ui.events import EVENT_OPTIONS, Updates, visitor_from_request
from studio.ui.form import Form
from studio.ui.private_gradio import event_payload
from studio.ui.views.templates import render_macro

MAX_TRIGGER_WORDS = 12  # trigger words that a row shows


class LoraPicker:
    """A form's LoRA rows with the library beside them; made where it is to stand, then wired."""

    def __init__(self, services: Services, form: Form[Any]) -> None:
        self.services = services
        self.form = form
        with gr.Column(elem_classes="loras"):
            with gr.Row(elem_classes="lora-choose"):
                self.dropdown = gr.Dropdown(
                    [],
                    value=None,
                    label="LoRAs",
                    scale=4,
                    min_width=160,
                    elem_id=f"{form.name}-lora-choose",
                    info="Small additions that paint along.",
                )
                self.add_button = gr.Button(
                    "Add", scale=0, min_width=72, elem_id=f"{form.name}-lora-add"
                )
            self.empty_note = gr.HTML(visible=False)
            self.rows = form.add("loras")
        self.snapshot = gr.State("")

    @property
    def outputs(self) -> list[Any]:
        """The components that `refresh` may update."""
        return [self.dropdown, self.empty_note, self.rows, self.snapshot]

    def wire(self) -> None:
        """Connect the events."""
        model = self.form["model"]
        self.dropdown.focus(self._on_focus, [model, self.snapshot], self.outputs, **EVENT_OPTIONS)
        for event in (model.change, self.dropdown.blur):
            event(self._on_change, [model, self.snapshot], self.outputs, **EVENT_OPTIONS)
        self.add_button.click(
            self.add_lora,
            {self.dropdown, self.rows},
            [self.dropdown, self.rows],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.rows.click(
            self.append_trigger_word, self.form["prompt"], self.form["prompt"], **EVENT_OPTIONS
        )

    def refresh(
        self,
        model: Any,
        visitor: Visitor,
        snapshot: str = "",
        is_open: bool = False,
        **rows_kwargs: Any,
    ) -> Updates:
        """Update what there is to choose, those for the model first, and what rows say of each.

        Args:
            model: Name of the form's model.
            visitor: Who is looking; a guest is not told where files lie.
            snapshot: What the page shows already; if that is still right, nothing is updated.
            is_open: Whether the dropdown is open. Such a list is not shortened (gradio stumbles
                over that) before it closes.
            rows_kwargs: What else the rows are to be updated with, such as `value`: a handler can
                give each component only one update.
        """
        library = self.services.home.library
        chosen_model = next((info for info in library.list_models() if info.name == model), None)
        loras = [lora for lora in library.list_loras() if isinstance(lora, LoraInfo)]
        loras.sort(
            key=lambda lora: (
                _is_incompatible(lora, chosen_model),
                _format_label(lora, chosen_model),
                lora.name,
            )
        )
        choices = [(_format_label(lora, chosen_model), lora.name) for lora in loras]
        descriptions = {lora.name: describe_lora(lora, chosen_model) for lora in loras}
        new_snapshot = json.dumps([choices, descriptions])
        if new_snapshot == snapshot:
            return {self.snapshot: gr.skip()}
        updates: Updates = {self.rows: gr.HTML(options={"known": descriptions}, **rows_kwargs)}
        if is_open and len(choices) < len(json.loads(snapshot)[0]):
            return updates
        own_folder = self.services.home.settings.loras
        has_own_loras = any(lora.path.is_relative_to(own_folder) for lora in loras)
        folder = "" if visitor.is_guest else str(own_folder)
        note = render_macro("components.html", "no_loras", folder=folder)
        return updates | {
            self.dropdown: gr.Dropdown(choices),
            self.snapshot: new_snapshot,
            self.empty_note: gr.HTML(note, visible=not has_own_loras),
        }

    def _on_change(self, model: Any, snapshot: str, request: gr.Request) -> Updates:
        return self.refresh(model, visitor_from_request(request), snapshot)

    def _on_focus(self, model: Any, snapshot: str, request: gr.Request) -> Updates:
        return self.refresh(model, visitor_from_request(request), snapshot, is_open=bool(snapshot))

    def add_lora(self, values: Updates) -> Updates:
        """Append a row for the LoRA that is chosen in the dropdown."""
        with report_errors():
            name = values[self.dropdown]
            rows = values[self.rows]
            if not isinstance(rows, list):
                rows = []
            if not name:
                show_info("Choose a LoRA first.")
                return {self.dropdown: gr.skip()}
            if any(isinstance(row, Mapping) and row.get("name") == name for row in rows):
                show_info(f"{str(name)[:80]} is there already.")
                return {self.dropdown: gr.skip()}
            use = LoraUse(name=self.services.home.library.get_lora(str(name)).name)
            return {self.dropdown: None, self.rows: [*rows, use.model_dump()]}

    def append_trigger_word(self, prompt: str | None, event: gr.EventData) -> Any:
        """Append the trigger word that was clicked to the prompt."""
        data = event_payload(event)
        if data.get("action") != "word":
            return gr.skip()
        # A bracket in it is no emphasis.
        word = re.sub(r"([()\[\]])", r"\\\1", str(data.get("target"))[:300])
        start = (prompt or "").rstrip().rstrip(",")
        return f"{start}, {word}" if start else word


def describe_lora(lora: LoraInfo, model: ModelInfo | None = None) -> dict[str, Any]:
    """Return what a row says of its LoRA beside `model`, as lora_rows.py draws it."""
    about = [lora.kind, *([f"rank {lora.rank}"] if lora.rank else [])]
    problem = ""
    if lora.family:
        family = FAMILIES[lora.family].title
        about.insert(0, family)
        if model and _is_incompatible(lora, model):
            problem = f"It is made for {family}, and {model.name} is not."
    return {
        "about": " · ".join(about),
        "words": list(lora.trigger_words[:MAX_TRIGGER_WORDS]),
        "reads": any(network != "unet" for network in lora.networks),
        "problem": problem,
    }


def _is_incompatible(lora: LoraInfo, model: ModelInfo | None) -> bool:
    return bool(model and lora.family not in (None, model.family))


def _format_label(lora: LoraInfo, model: ModelInfo | None) -> str:
    if lora.family and _is_incompatible(lora, model):
        return f"{lora.name} — for {FAMILIES[lora.family].title}"
    return lora.name
