"""What is to be known of the chosen model, under Generate: notes, and settings to try.

Knows: how both are shown, that nothing is set before somebody clicks. Does not know: what is noted
(storage/models), what a name suggests (core/families/model_advice.py).
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.core.families.model_advice import suggest_settings
from studio.services.submission import Services
from studio.storage.models.library import ModelInfo
from studio.ui.events import EVENT_OPTIONS, Updates
from studio.ui.form import Form
from studio.ui.views.models import render_model_notes

SUGGESTED_FIELDS = ("steps", "guidance", "scheduler", "noise_schedule")


class ModelNote:
    """A block that is empty while there is nothing to say, and a button that is mostly hidden."""

    def __init__(self, services: Services, form: Form[Any], elem_id: str) -> None:
        self.services = services
        self.form = form
        self.notes = gr.HTML("", elem_id=f"{elem_id}-notes")
        self.apply_button = gr.Button(visible=False, size="sm", elem_id=f"{elem_id}-suggestion")

    @property
    def outputs(self) -> list[Any]:
        """What `refresh` changes."""
        return [self.notes, self.apply_button]

    def wire(self) -> None:
        """Connect the button; the form has to have its fields by now."""
        self.apply_button.click(
            self.apply_suggestion,
            self.form["model"],
            [self.form[name] for name in SUGGESTED_FIELDS],
            **EVENT_OPTIONS,
        )

    def refresh(self, model: ModelInfo | None) -> Updates:
        """Return what the page shows for a model."""
        if model is None:
            return {self.notes: "", self.apply_button: gr.Button(visible=False)}
        suggested = suggest_settings(model.name, model.family)
        label = ""
        if suggested:
            label = (
                f"Looks like a few-step model. Set {suggested['steps']} steps, CFG scale "
                f"{suggested['guidance']:g}"
            )
        return {
            self.notes: render_model_notes([*model.missing.values(), *model.notes]),
            self.apply_button: gr.Button(label, visible=bool(suggested)),
        }

    def apply_suggestion(self, name: Any) -> Updates:
        """Fill in what the model's name asks for."""
        models = self.services.home.library.list_models()
        model = next((model for model in models if model.name == name), None)
        suggested = suggest_settings(model.name, model.family) if model else {}
        if not suggested:
            return {self.form["steps"]: gr.skip()}
        return {self.form[field]: value for field, value in suggested.items()}
