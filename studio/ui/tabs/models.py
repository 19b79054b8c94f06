"""The Models tab: models and LoRAs on disk, which are in memory, unloading, adding, moving files.

Knows: how library and workers are shown side by side.
Does not know: how a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from studio.core.families.registry import FAMILIES
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.models.library import ModelInfo, Unusable
from studio.ui.components import lora_picker
from studio.ui.components.model_options import ModelOptionsPanel
from studio.ui.errors import report_errors, show_info
from studio.ui.events import (
    BUTTON_CLICK_JS,
    EVENT_OPTIONS,
    UNQUEUED_EVENT_OPTIONS,
    Updates,
    button_click_js,
    poll_while_visible_js,
    resolve_upload,
    visitor_from_request,
)
from studio.ui.form import single_file
from studio.ui.private_gradio import event_payload
from studio.ui.tab import Tab
from studio.ui.views.models import render_loras, render_models


class ModelsTab:
    """The components of the tab."""

    def __init__(self, services: Services) -> None:
        self.services = services
        gr.HTML(
            '<p class="nothing">Models are .safetensors checkpoints of Stable Diffusion, or '
            "folders in diffusers layout, in <code>models</code> of the home folder. LoRAs are "
            ".safetensors files in <code>loras</code> there.</p>"
        )
        self.model_cards = gr.HTML(
            js_on_load=BUTTON_CLICK_JS + poll_while_visible_js(1.0), elem_id="models-list"
        )
        self.lora_cards = gr.HTML(
            js_on_load=lora_picker.USE_LORA_SCRIPT + button_click_js("button[data-action=move]"),
            elem_id="loras-list",
        )
        with gr.Row(elem_classes="shelf-do"):
            self.refresh = gr.Button("Look again", size="sm", elem_id="models-refresh")
            self.upload = gr.UploadButton(
                "Add a LoRA file",
                size="sm",
                file_types=[".safetensors"],
                visible=False,
                elem_id="lora-upload",
            )
        self.options = ModelOptionsPanel(services)
        self.shown_revision = gr.State(None)
        self.refresh.click(self.rescan, None, [self.model_cards, self.lora_cards], **EVENT_OPTIONS)
        self.upload.upload(
            self.import_lora,
            {self.upload},
            [self.lora_cards, self.upload],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.model_cards.submit(
            self.poll,
            self.shown_revision,
            [self.model_cards, self.shown_revision],
            **UNQUEUED_EVENT_OPTIONS,
        )
        for cards in (self.model_cards, self.lora_cards):
            cards.click(
                self.handle_action, None, [self.model_cards, self.lora_cards], **EVENT_OPTIONS
            )

    def render_models(self, visitor: Visitor) -> str:
        """Render the models of the library, and which of them the workers have in memory."""
        workers = self.services.home.jobs.get_worker_status()
        loaded_bytes: dict[str, int] = {}
        for worker_status in workers.values():
            for loaded_model in worker_status.get("loaded", ()):
                loaded_bytes[loaded_model["name"]] = loaded_model["bytes"]
        cards = [
            _build_model_card(model, loaded_bytes)
            for model in self.services.home.library.scan_models()
        ]
        return render_models(cards, workers, is_owner=not visitor.is_guest)

    def render_loras(self, visitor: Visitor) -> str:
        """Render the LoRAs of the library."""
        loras = self.services.home.library.list_loras()
        cards = [lora_picker.build_lora_card(lora, visitor) for lora in loras]
        return render_loras(cards, is_owner=not visitor.is_guest)

    def on_open(self, visitor: Visitor) -> Updates:
        """Return what a page that opens shows."""
        return {
            self.model_cards: self.render_models(visitor),
            self.lora_cards: self.render_loras(visitor),
            self.upload: gr.UploadButton(visible=not visitor.is_guest),
            **self.options.on_open(visitor),
        }

    def rescan(self, request: gr.Request) -> Updates:
        """Look for models and LoRAs on disk again."""
        return self._render_lists(visitor_from_request(request))

    def import_lora(self, values: Updates, request: gr.Request) -> Updates:
        """Add a LoRA that the owner sent to the library, if its header is that of one."""
        with report_errors():
            visitor = visitor_from_request(request)
            visitor.require_owner("Adding LoRAs")
            path, name = resolve_upload(single_file(values[self.upload]))
            lora = self.services.home.library.add_lora(path, name)
            show_info(f"{lora.name} is on the shelf.")
            return {self.lora_cards: self.render_loras(visitor), self.upload: None}

    def poll(self, shown_revision: Any, request: gr.Request) -> Updates:
        """Render the models, if the workers' status has changed since the page last asked.

        Nothing else changes by itself; the disk is read when somebody asks.
        """
        revision = repr(self.services.home.jobs.get_worker_status())
        if revision == shown_revision:
            return {self.shown_revision: gr.skip()}
        return {
            self.model_cards: self.render_models(visitor_from_request(request)),
            self.shown_revision: revision,
        }

    def handle_action(self, event: gr.EventData, request: gr.Request) -> Updates:
        """Handle a card's button: take a model out of memory, move a file to its folder."""
        with report_errors():
            visitor = visitor_from_request(request)
            data = event_payload(event)
            match data.get("action"):
                case "unload":
                    visitor.require_owner("Taking a model out of memory")
                    self.services.submit_unload(str(data.get("target")), visitor)
                    show_info("It is taken out as soon as the running job is done.")
                case "move":
                    path = self.services.move_file(str(data.get("target")), visitor)
                    show_info(f"{path.name} lies in {path.parent.name}/ now.")
            return self._render_lists(visitor)

    def _render_lists(self, visitor: Visitor) -> Updates:
        return {
            self.model_cards: self.render_models(visitor),
            self.lora_cards: self.render_loras(visitor),
        }


def _build_model_card(
    model: ModelInfo | Unusable, loaded_bytes: Mapping[str, int]
) -> dict[str, Any]:
    """Return what the tab shows of a model: its facts, or why it cannot be used."""
    if not isinstance(model, ModelInfo):
        return {
            "name": model.name,
            "problem": model.problem,
            "file": model.file,
            "move_to": model.move_to,
        }
    return {
        "name": model.name,
        "family": FAMILIES[model.family].title,
        "side": model.native_size,
        "bytes": model.size_bytes,
        "dtype": model.dtype,
        "prediction": model.prediction_type,
        "loaded": loaded_bytes.get(model.name),
        "notes": [*model.missing.values(), *model.notes],
    }


def build(services: Services) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = ModelsTab(services)
    outputs = [tab.model_cards, tab.lora_cards, tab.upload, *tab.options.outputs]
    return Tab(on_open=tab.on_open, outputs=outputs)
