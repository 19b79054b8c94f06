"""The library's LoRAs on a page: beside a form's rows to choose from, and as cards.

Knows: how a LoRA is told in a line, which go with a model. Does not know: how rows are drawn (lora_rows.py); what a LoRA file
is (storage/models/lora_file.py); where on the page this stands.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any

import gradio as gr

from studio.core.catalog import FAMILIES
from studio.core.generation.lora_use import LoraUse
from studio.storage.models.library import LoraInfo, ModelInfo, Unusable
from studio.ui import show
from studio.ui.form import Form
from studio.ui.guard import Visitor, who
from studio.ui.widgets import SHORT, Desk, Updates

WORDS = 12  # trigger words that a row shows
# A card's button puts its LoRA into the rows of the txt2img tab and goes there; the tab may have to be drawn first.
USE = """element.addEventListener('click', event => {
  const button = event.target.closest('button[data-do=use]');
  if (!button) return;
  const tabs = [...document.querySelectorAll('#tabs [role=tab], #tabs .overflow-dropdown button')];
  tabs.find(tab => tab.textContent.trim() === 'txt2img').click();
  const put = tries => {
    const rows = document.querySelector('#txt2img-loras .lora-rows');
    if (rows) rows.dispatchEvent(new CustomEvent('put', {detail: button.dataset.subject}));
    else if (tries) setTimeout(put, 50, tries - 1);
  };
  put(60);
});"""


class Chooser:
    """A form's LoRA rows with the library beside them. Make it where it is to stand, then `wire` it."""

    def __init__(self, desk: Desk, form: Form[Any]) -> None:
        self.desk, self.form = desk, form
        with gr.Column(elem_classes="loras"):
            with gr.Row(elem_classes="lora-choose"):
                self.choose = gr.Dropdown(
                    [],
                    value=None,
                    label="LoRAs",
                    scale=4,
                    min_width=160,
                    elem_id=f"{form.name}-lora-choose",
                    info="Small additions that paint along.",
                )
                self.add = gr.Button("Add", scale=0, min_width=72, elem_id=f"{form.name}-lora-add")
            self.empty = gr.HTML(visible=False)
            self.rows = form.add("loras")
        self.seen = gr.State("")

    @property
    def outputs(self) -> list[Any]:
        """What `look` may change."""
        return [self.choose, self.empty, self.rows, self.seen]

    def wire(self) -> None:
        model = self.form["model"]
        self.choose.focus(self._open, [model, self.seen], self.outputs, **SHORT)
        for moment in (model.change, self.choose.blur):
            moment(self._again, [model, self.seen], self.outputs, **SHORT)
        self.add.click(
            self.put, {self.choose, self.rows}, [self.choose, self.rows], preprocess=False, **SHORT
        )
        self.rows.click(self.word, self.form["prompt"], self.form["prompt"], **SHORT)

    def look(
        self, model: Any, visitor: Visitor, seen: str = "", open: bool = False, **rows: Any
    ) -> Updates:
        """What there is to choose, those for the model first, and what is known of each; nothing if that is as `seen`.

        A `value` of the rows goes along: a handler can give each component only one update. An `open` list is not shortened
        (gradio stumbles over that); it is when it closes.
        """
        chosen = next((one for one in self.desk.library.models() if one.name == model), None)
        shelf = [item for item in self.desk.library.loras() if isinstance(item, LoraInfo)]
        choices = [
            (label, name)
            for _, label, name in sorted(
                (_foreign(item, chosen), _label(item, chosen), item.name) for item in shelf
            )
        ]
        known = {item.name: told(item, chosen) for item in shelf}
        now = json.dumps([choices, known])
        if now == seen:
            return {self.seen: gr.skip()}
        place = f"Put LoRA files into <code>{html.escape(str(self.desk.settings.loras))}</code>; they appear here."
        nothing = "There are no LoRAs in this studio yet." if visitor.guest else place
        updates: Updates = {self.rows: gr.HTML(told={"known": known}, **rows)}
        if not (open and len(choices) < len(json.loads(seen)[0])):
            updates |= {
                self.choose: gr.Dropdown(choices),
                self.seen: now,
                self.empty: gr.HTML(f'<p class="nothing">{nothing}</p>', visible=not shelf),
            }
        return updates

    def _again(self, model: Any, seen: str, request: gr.Request) -> Updates:
        return self.look(model, who(request), seen)

    def _open(self, model: Any, seen: str, request: gr.Request) -> Updates:
        return self.look(model, who(request), seen, open=bool(seen))

    def put(self, values: Updates) -> Updates:
        """One more row, for the chosen LoRA."""
        with show.said():
            name, there = values[self.choose], values[self.rows]
            there = there if isinstance(there, list) else []
            if not name:
                gr.Info("Choose a LoRA first.")
            elif any(isinstance(row, Mapping) and row.get("name") == name for row in there):
                gr.Info(f"{html.escape(str(name)[:80])} is there already.")
            else:
                use = LoraUse(name=self.desk.library.lora(str(name)).name)
                return {self.choose: None, self.rows: [*there, use.model_dump()]}
            return {self.choose: gr.skip()}

    def word(self, prompt: str | None, event: gr.EventData) -> Any:
        """A trigger word at the prompt's end."""
        data = event._data if isinstance(event._data, dict) else {}
        if data.get("what") != "word":
            return gr.skip()
        word = re.sub(
            r"([()\[\]])", r"\\\1", str(data.get("subject"))[:300]
        )  # a bracket in it is no stress
        start = (prompt or "").rstrip().rstrip(",")
        return f"{start}, {word}" if start else word


def told(item: LoraInfo, model: ModelInfo | None = None) -> dict[str, Any]:
    """What a row says of its LoRA."""
    family = FAMILIES[item.family].title if item.family else ""
    problem = (
        f"It is made for {family}, and {model.name} is not."
        if model and _foreign(item, model)
        else ""
    )
    return {
        "about": " · ".join(part for part in (family, f"rank {item.rank}") if part),
        "words": list(item.trigger_words[:WORDS]),
        "reads": any(network != "unet" for network in item.networks),
        "problem": problem,
    }


def card(item: LoraInfo | Unusable) -> dict[str, Any]:
    """What the Models tab shows of it."""
    if isinstance(item, Unusable):
        return {"name": item.name, "problem": item.problem}
    family = FAMILIES[item.family].title if item.family else "family not said"
    trains = {"unet": "picture", "text_encoder": "text", "text_encoder_2": "text"}
    parts = dict.fromkeys(trains[network] for network in sorted(item.networks, reverse=True))
    return {
        "name": item.name,
        "words": item.trigger_words,
        "tags": item.tags,
        "base": item.base_model,
        "title": item.title if item.title != item.name else "",
        "about": f"{family} · rank {item.rank} · alpha {item.alpha:g} · {' and '.join(parts)} · {show.size(item.bytes)}",
    }


def _foreign(item: LoraInfo, model: ModelInfo | None) -> bool:
    return bool(model and item.family not in (None, model.family))


def _label(item: LoraInfo, model: ModelInfo | None) -> str:
    return (
        f"{item.name} — for {FAMILIES[item.family].title}"
        if item.family and _foreign(item, model)
        else item.name
    )
