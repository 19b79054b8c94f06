"""The Models tab: what is on disk, what is in memory, and a way to take it out.

Knows: how library and workers are shown side by side. Does not know: how a model is loaded.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.spec.tables import FAMILIES
from studio.store.library import ModelInfo
from studio.ui import show
from studio.ui.guard import Visitor, who
from studio.ui.widgets import BUTTONS, SHORT, SILENT, Desk, Tab, Updates

ID = "models"


class ModelsTab:
    """One build of the tab."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        gr.HTML('<p class="nothing">Models are folders in diffusers layout with .safetensors weights; put them into '
                '<code>models</code> in the home folder.</p>')
        self.cards = gr.HTML(js_on_load=BUTTONS, elem_id="models-list")
        self.refresh = gr.Button("Look again", size="sm", elem_id="models-refresh")
        self.seen = gr.State(None)
        self.clock = gr.Timer(1.0)
        self.refresh.click(self.again, None, [self.cards], **SHORT)
        self.clock.tick(self.tick, self.seen, [self.cards, self.seen], **SILENT)
        self.cards.click(self.act, None, [self.cards], **SHORT)

    def render(self, visitor: Visitor) -> str:
        workers = self.desk.jobs.workers()
        loaded = {item["name"]: item["bytes"] for said in workers.values() for item in said.get("loaded", ())}
        cards: list[dict[str, Any]] = []
        for model in self.desk.library.scan():
            if isinstance(model, ModelInfo):
                cards.append({"name": model.name, "family": FAMILIES[model.family].title, "side": model.side, "bytes": model.bytes,
                              "dtype": model.dtype, "prediction": model.prediction, "loaded": loaded.get(model.name)})
            else:
                cards.append({"name": model.name, "problem": model.problem})
        return show.models(cards, workers, may_unload=not visitor.guest)

    def again(self, request: gr.Request) -> Updates:
        return {self.cards: self.render(who(request))}

    def tick(self, seen: Any, request: gr.Request) -> Updates:
        """Only what workers say changes by itself; the disk is looked at when somebody asks."""
        now = repr(self.desk.jobs.workers())
        return {self.seen: gr.skip()} if now == seen else {self.cards: self.render(who(request)), self.seen: now}

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
    return Tab(ID, "Models", opened=lambda visitor: {tab.cards: tab.render(visitor)}, outputs=[tab.cards])
