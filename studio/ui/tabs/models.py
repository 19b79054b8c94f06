"""The Models tab: models and LoRAs on disk, what is in memory, a way to take it out, a way to add a LoRA.

Knows: how library and workers are shown side by side. Does not know: how a model is loaded.
"""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from studio.core.catalog import FAMILIES
from studio.storage.models.library import ModelInfo
from studio.ui import show
from studio.ui.components import lora_picker
from studio.ui.guard import Visitor, uploaded, who
from studio.ui.widgets import BUTTONS, SHORT, SILENT, Desk, Tab, Updates, while_seen

ID = "models"


class ModelsTab:
    """One build of the tab."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        gr.HTML(
            '<p class="nothing">Models are folders in diffusers layout with .safetensors weights, in <code>models</code> of '
            "the home folder. LoRAs are .safetensors files in <code>loras</code> there.</p>"
        )
        self.cards = gr.HTML(js_on_load=BUTTONS + while_seen(1.0), elem_id="models-list")
        self.shelf = gr.HTML(js_on_load=lora_picker.USE, elem_id="loras-list")
        with gr.Row(elem_classes="shelf-do"):
            self.refresh = gr.Button("Look again", size="sm", elem_id="models-refresh")
            self.upload = gr.UploadButton(
                "Add a LoRA file",
                size="sm",
                file_types=[".safetensors"],
                visible=False,
                elem_id="lora-upload",
            )
        self.seen = gr.State(None)
        self.refresh.click(self.again, None, [self.cards, self.shelf], **SHORT)
        self.upload.upload(
            self.take, {self.upload}, [self.shelf, self.upload], preprocess=False, **SHORT
        )
        self.cards.submit(self.tick, self.seen, [self.cards, self.seen], **SILENT)
        self.cards.click(self.act, None, [self.cards], **SHORT)

    def render(self, visitor: Visitor) -> str:
        workers = self.desk.jobs.workers()
        loaded = {
            item["name"]: item["bytes"]
            for said in workers.values()
            for item in said.get("loaded", ())
        }
        cards: list[dict[str, Any]] = []
        for model in self.desk.library.scan():
            if isinstance(model, ModelInfo):
                cards.append(
                    {
                        "name": model.name,
                        "family": FAMILIES[model.family].title,
                        "side": model.side,
                        "bytes": model.bytes,
                        "dtype": model.dtype,
                        "prediction": model.prediction,
                        "loaded": loaded.get(model.name),
                    }
                )
            else:
                cards.append({"name": model.name, "problem": model.problem})
        return show.models(cards, workers, may_unload=not visitor.guest)

    def render_loras(self) -> str:
        return show.loras([lora_picker.card(item) for item in self.desk.library.loras()])

    def opened(self, visitor: Visitor) -> Updates:
        return {
            self.cards: self.render(visitor),
            self.shelf: self.render_loras(),
            self.upload: gr.UploadButton(visible=not visitor.guest),
        }

    def again(self, request: gr.Request) -> Updates:
        return {self.cards: self.render(who(request)), self.shelf: self.render_loras()}

    def take(self, values: Updates, request: gr.Request) -> Updates:
        """A LoRA that the owner sent: onto the shelf, if its header is that of one."""
        with show.said():
            who(request).must_own("Adding LoRAs")
            file = values[self.upload]
            made = self.desk.library.add_lora(
                *uploaded(file[0] if isinstance(file, list) and file else file)
            )
            gr.Info(f"{html.escape(made.name)} is on the shelf.")
            return {self.shelf: self.render_loras(), self.upload: None}

    def tick(self, seen: Any, request: gr.Request) -> Updates:
        """Only what workers say changes by itself; the disk is looked at when somebody asks."""
        now = repr(self.desk.jobs.workers())
        return (
            {self.seen: gr.skip()}
            if now == seen
            else {self.cards: self.render(who(request)), self.seen: now}
        )

    def act(self, event: gr.EventData, request: gr.Request) -> Updates:
        with show.said():
            visitor = who(request)
            visitor.must_own("Taking a model out of memory")
            if event._data.get("what") == "unload":
                model = self.desk.library.model(str(event._data.get("subject")))
                self.desk.jobs.submit("unload", {"models": [model.name]}, owner=visitor.id)
                gr.Info("It is taken out as soon as the running job is done.")
            return {self.cards: self.render(visitor)}


def build(desk: Desk) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = ModelsTab(desk)
    return Tab(ID, "Models", opened=tab.opened, outputs=[tab.cards, tab.shelf, tab.upload])
