"""The library's LoRAs beside a form's rows, to choose from.

Knows: how a LoRA is described, which go with a model. Does not know: how rows are drawn
(lora_rows.py); what a prompt is completed with (prompt_words.py); what a LoRA file is
(storage/models/lora_file.py); where on the page this stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from studio.core.families.registry import FAMILIES
from studio.core.generation.lora_use import MAX_LORAS, LoraUse
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.settings import shipped
from studio.storage.models.library import LoraInfo, ModelInfo
from studio.ui.components import prompt_words
from studio.ui.components.name_dropdown import MAX_CARRIED, digest_names
from studio.ui.errors import report_errors, show_info
from studio.ui.events import EVENT_OPTIONS, Updates, visitor_from_request
from studio.ui.form import Form
from studio.ui.private_gradio import event_payload
from studio.ui.views.templates import render_macro

MAX_COMPLETED = 10_000  # embeddings and LoRAs that typing can find, of each
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
                    info="Small add-on files that change style or subject.",
                )
                self.add_button = gr.Button(
                    "Add", scale=0, min_width=72, elem_id=f"{form.name}-lora-add"
                )
            self.empty_note = gr.HTML(visible=False)
            self.rows = form.add("loras")
            self.words = gr.HTML(elem_id=f"{form.name}-words")
        self.snapshot = gr.State("")

    @property
    def outputs(self) -> list[Any]:
        """The components that `refresh` may update."""
        return [self.dropdown, self.empty_note, self.rows, self.words, self.snapshot]

    def wire(self) -> None:
        """Connect the events."""
        model = self.form["model"]
        inputs = {model, self.rows, self.snapshot}
        for event in (self.dropdown.focus, self.form["prompt"].focus):
            event(self._on_focus, inputs, self.outputs, **EVENT_OPTIONS)
        for event in (model.change, self.dropdown.blur):
            event(self._on_change, inputs, self.outputs, **EVENT_OPTIONS)
        self.add_button.click(
            self.add_lora,
            {model, self.dropdown, self.rows},
            [self.dropdown, self.rows],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.rows.click(
            self.append_trigger_word, self.form["prompt"], self.form["prompt"], **EVENT_OPTIONS
        )
        self.rows.click(self.describe_rows, {model, self.rows}, self.rows, **EVENT_OPTIONS)

    def refresh(
        self,
        model: Any,
        visitor: Visitor,
        snapshot: str = "",
        is_open: bool = False,
        rows: Any = None,
        **rows_kwargs: Any,
    ) -> Updates:
        """Update what there is to choose, those for the model first, and what rows say of theirs.

        Args:
            model: Name of the form's model.
            visitor: Who is looking; a guest is not told where files lie.
            snapshot: What the page shows already; if that is still right, nothing is updated.
            is_open: Whether the dropdown is open. It has all names then, and is not shortened
                (gradio stumbles over that) before it closes.
            rows: What the rows hold, where they stay as they are.
            rows_kwargs: What else the rows are to be updated with, such as `value`: a handler can
                give each component only one update.
        """
        chosen_model, loras = self._list_loras(model)
        choices = [(_format_label(lora, chosen_model), lora.name) for lora in loras]
        old_count, _, old_digest = snapshot.partition(" ")
        num_shown = int(old_count) if old_count.isdecimal() else 0
        if not is_open and num_shown <= MAX_CARRIED:
            choices = choices[:MAX_CARRIED]
        descriptions = _describe_all(rows_kwargs.get("value", rows), loras, chosen_model)
        fitting = [lora for lora in loras if not _is_incompatible(lora, chosen_model)]
        max_words = MAX_COMPLETED if is_open else MAX_CARRIED
        words = prompt_words.list_words(
            self.services.home.library, chosen_model, fitting, max_words
        )
        new_digest = digest_names([choices, descriptions, words])
        if new_digest == old_digest:
            return {self.snapshot: gr.skip()}
        updates: Updates = {
            self.rows: gr.HTML(options={"known": descriptions}, **rows_kwargs),
            self.words: prompt_words.render_words(words),
        }
        if is_open and len(choices) < num_shown:
            return updates
        own_folder = self.services.home.settings.loras
        has_own_loras = any(not self._is_shipped(lora) for lora in loras)
        folder = "" if visitor.is_guest else str(own_folder)
        note = render_macro("components.html", "no_loras", folder=folder)
        return updates | {
            self.dropdown: gr.Dropdown(choices),
            self.snapshot: f"{len(choices)} {new_digest}",
            self.empty_note: gr.HTML(note, visible=not has_own_loras),
        }

    def _list_loras(self, model: Any) -> tuple[ModelInfo | None, list[LoraInfo]]:
        """Return the form's model, and the usable LoRAs, those for it first."""
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
        return chosen_model, loras

    def _is_shipped(self, lora: LoraInfo) -> bool:
        return lora.path.parent == shipped("assets") / "loras"

    def _on_change(self, values: Updates, request: gr.Request) -> Updates:
        return self._update(values, request)

    def _on_focus(self, values: Updates, request: gr.Request) -> Updates:
        return self._update(values, request, is_open=True)

    def _update(self, values: Updates, request: gr.Request, is_open: bool = False) -> Updates:
        return self.refresh(
            values[self.form["model"]],
            visitor_from_request(request),
            values[self.snapshot],
            is_open=is_open,
            rows=values[self.rows],
        )

    def describe_rows(self, values: Updates, event: gr.EventData) -> Any:
        """Say what is known of the LoRAs in the rows, when one came of which nobody has said it."""
        if event_payload(event).get("action") != "describe":
            return gr.skip()
        chosen_model, loras = self._list_loras(values[self.form["model"]])
        return gr.HTML(options={"known": _describe_all(values[self.rows], loras, chosen_model)})

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
                show_info(f"{str(name)[:80]} is already there.")
                return {self.dropdown: gr.skip()}
            lora = self.services.home.library.get_lora(str(name))
            weight = lora.usual_weight
            use = LoraUse(name=lora.name, unet=weight, text_encoder=weight)
            new_rows = [*rows, use.model_dump()]
            chosen_model, loras = self._list_loras(values[self.form["model"]])
            known = _describe_all(new_rows, loras, chosen_model)
            return {
                self.dropdown: None,
                self.rows: gr.HTML(value=new_rows, options={"known": known}),
            }

    def append_trigger_word(self, prompt: str | None, event: gr.EventData) -> Any:
        """Append the trigger word that was clicked to the prompt."""
        data = event_payload(event)
        if data.get("action") != "word":
            return gr.skip()
        # A bracket in it is no emphasis.
        word = re.sub(r"([()\[\]])", r"\\\1", str(data.get("target"))[:300])
        start = (prompt or "").rstrip().rstrip(",")
        return f"{start}, {word}" if start else word


def _describe_all(
    rows: Any, loras: Sequence[LoraInfo], model: ModelInfo | None
) -> dict[str, dict[str, Any] | None]:
    """Return what rows say of their LoRAs, by name; None for one that is not in the library."""
    if not isinstance(rows, list):
        return {}
    by_name = {lora.name: lora for lora in loras}
    by_stem: dict[str, list[LoraInfo]] = {}  # as A1111 writes them, where only one has it
    for lora in loras:
        by_stem.setdefault(lora.path.stem, []).append(lora)
    descriptions: dict[str, dict[str, Any] | None] = {}
    for row in rows[:MAX_LORAS]:
        name = str(row.get("name")) if isinstance(row, Mapping) else ""
        same_stem = by_stem.get(name, [])
        meant = by_name.get(name) or (same_stem[0] if len(same_stem) == 1 else None)
        descriptions[name] = describe_lora(meant, model) if meant else None
    return descriptions


def describe_lora(lora: LoraInfo, model: ModelInfo | None = None) -> dict[str, Any]:
    """Return what a row says of its LoRA beside `model`, as lora_rows.py draws it."""
    about = [lora.kind, *([f"rank {lora.rank}"] if lora.rank else [])]
    problem = ""
    if lora.family:
        family = FAMILIES[lora.family].title
        about.insert(0, family)
        if model and _is_incompatible(lora, model):
            problem = f"It is made for {family}, but {model.name} is not."
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
