"""What the owner decides about a model: what it predicts, its noise, the parts it is used with.

Knows: how the decisions are shown, that only the owner makes them. Does not know: where they are
kept (storage/models/model_options.py), what they change (storage/models/model_choices.py).
"""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from studio.core.families.family import TEXT_ENCODERS
from studio.core.families.registry import FAMILIES
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.models.library import ModelInfo
from studio.storage.models.model_options import PREDICTION_TYPES, ModelOptions
from studio.ui.errors import report_errors
from studio.ui.events import EVENT_OPTIONS, Updates, visitor_from_request
from studio.ui.views.models import render_model_notes
from studio.ui.views.templates import render_outcome

AS_IT_IS = ("as in the file", "")
_ZERO_SNR_VALUES = {"": None, "yes": True, "no": False}
_ZERO_SNR_NAMES = {value: name for name, value in _ZERO_SNR_VALUES.items()}
TEXT_ENCODER_LABELS = {
    "text_encoder": "Text encoder",
    "text_encoder_2": "Second text encoder (SDXL)",
}


class ModelOptionsPanel:
    """An accordion that only the owner sees."""

    def __init__(self, services: Services) -> None:
        self.services = services
        with gr.Accordion(
            "Model settings", open=False, visible=False, elem_id="model-options"
        ) as self.accordion:
            gr.HTML(
                "<p>Saved in your home for this model, wherever its file is. The file itself never "
                "changes.</p>"
            )
            self.model = _build_dropdown("Model", [], "model", info="Choose one to see its notes.")
            self.notes = gr.HTML("", elem_id="model-options-notes")
            with gr.Row(elem_classes="option-row"):
                self.prediction = _build_dropdown(
                    "Prediction type",
                    [AS_IT_IS, *((name, name) for name in PREDICTION_TYPES)],
                    "prediction",
                    info="If images come out as pure noise, choose v_prediction.",
                )
                self.zero_snr = _build_dropdown(
                    "Zero terminal SNR",
                    [AS_IT_IS, ("yes", "yes"), ("no", "no")],
                    "zero-snr",
                    info="For some v-prediction models: sampling starts from pure noise.",
                )
            with gr.Row(elem_classes="option-row"):
                self.vae = _build_dropdown("VAE", [AS_IT_IS], "vae", info="From home/vae.")
                self.text_encoders = {
                    component: _build_dropdown(
                        label, [AS_IT_IS], component, info="From home/text_encoders."
                    )
                    for component, label in TEXT_ENCODER_LABELS.items()
                }
            with gr.Row():
                self.save = gr.Button("Save", size="sm", elem_id="model-options-save")
                self.reset = gr.Button(
                    "Reset to the file's values", size="sm", elem_id="model-options-reset"
                )
            self.outcome = gr.HTML(elem_id="model-options-outcome")
        self.saved = gr.State(0)
        self._wire()

    @property
    def outputs(self) -> list[Any]:
        """What `on_open` changes."""
        return [self.accordion]

    @property
    def _decisions(self) -> list[Any]:
        return [self.prediction, self.zero_snr, self.vae, *self.text_encoders.values()]

    def _wire(self) -> None:
        shown = [self.model, self.notes, self.saved, self.outcome, *self._decisions]
        self.accordion.expand(self.list_models, None, self.model, **EVENT_OPTIONS)
        self.model.input(self.show_model, self.model, shown, **EVENT_OPTIONS)
        self.save.click(
            self.save_options,
            {self.model, *self._decisions},
            shown,
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.reset.click(self.reset_options, {self.model}, shown, preprocess=False, **EVENT_OPTIONS)

    def on_open(self, visitor: Visitor) -> Updates:
        """Return what a page that opens shows."""
        return {self.accordion: gr.Accordion(visible=not visitor.is_guest)}

    def list_models(self, request: gr.Request) -> Any:
        """Offer the models that something can be decided about."""
        if visitor_from_request(request).is_guest:
            return gr.skip()
        models = self.services.home.library.list_models()
        names = [model.name for model in models if FAMILIES[model.family].noise_process != "flow"]
        return gr.Dropdown(names)

    def show_model(self, name: Any, request: gr.Request) -> Updates:
        """Show what was decided about a model, and what there is to choose from."""
        with report_errors():
            visitor_from_request(request).require_owner("Changing model settings")
            model = self.services.home.library.get_model(str(name))
            return {**self._show(model), self.outcome: ""}

    def save_options(self, values: Updates, request: gr.Request) -> Updates:
        """Keep what is chosen on the page."""
        with report_errors():
            chosen = {
                component: str(values[dropdown] or "")
                for component, dropdown in self.text_encoders.items()
            }
            options = ModelOptions(
                str(values[self.prediction] or ""),
                _ZERO_SNR_VALUES.get(str(values[self.zero_snr] or "")),
                str(values[self.vae] or ""),
                {component: name for component, name in chosen.items() if name},
            )
            return self._save(values[self.model], options, request)

    def reset_options(self, values: Updates, request: gr.Request) -> Updates:
        """Forget what was decided about the model on the page."""
        with report_errors():
            return self._save(values[self.model], ModelOptions(), request)

    def _save(self, name: Any, options: ModelOptions, request: gr.Request) -> Updates:
        visitor = visitor_from_request(request)
        model = self.services.save_model_options(str(name or ""), options, visitor)
        outcome = render_outcome(f"Saved for {model.name}.")
        return {**self._show(model), self.saved: time.time_ns(), self.outcome: outcome}

    def _show(self, model: ModelInfo) -> Updates:
        library = self.services.home.library
        options = library.get_options(model)
        vaes = [file.name for file in library.shelf.list_files("vae")]
        encoders = [file.name for file in library.shelf.list_files("text encoder")]
        components = FAMILIES[model.family].part_folders[TEXT_ENCODERS]
        return {
            self.model: model.name,
            self.notes: render_model_notes([*model.missing.values(), *model.notes]),
            self.prediction: options.prediction_type,
            self.zero_snr: _ZERO_SNR_NAMES[options.is_zero_snr],
            self.vae: gr.Dropdown(_build_choices(vaes), value=options.vae),
            **{
                dropdown: gr.Dropdown(
                    _build_choices(encoders),
                    value=options.text_encoders.get(component, ""),
                    visible=component in components,
                )
                for component, dropdown in self.text_encoders.items()
            },
        }


def _build_dropdown(label: str, choices: list[Any], name: str, info: str) -> gr.Dropdown:
    return gr.Dropdown(
        choices,
        value="" if choices else None,
        label=label,
        info=info,
        allow_custom_value=True,
        elem_id=f"model-options-{name.replace('_', '-')}",
    )


def _build_choices(names: list[str]) -> list[tuple[str, str]]:
    return [AS_IT_IS, *((name, name) for name in names)]
