"""The Models tab: the library as cards, searched and filtered, and ways to add to it.

Knows: how library and workers are shown side by side, a page of cards at a time.
Does not know: how a model is loaded; what is in the library (services/model_catalog.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gradio as gr

from studio.core.catalog import DEFAULT_MODEL
from studio.core.families.registry import FAMILIES
from studio.services.model_catalog import KIND_NAMES, CatalogEntry, CatalogFilter
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.ui.components.download_bar import DownloadBar
from studio.ui.components.first_steps import FirstSteps
from studio.ui.components.model_options import ModelOptionsPanel
from studio.ui.components.model_previews import ModelPreviews
from studio.ui.components.use_buttons import (
    FIELD_BY_KIND,
    SET_PLACES,
    USE_SCRIPT,
    list_usable_kinds,
)
from studio.ui.errors import report_errors, show_info
from studio.ui.events import (
    EVENT_OPTIONS,
    ROW_EVENT_OPTIONS,
    UNQUEUED_EVENT_OPTIONS,
    Updates,
    button_click_js,
    poll_while_visible_js,
    resolve_upload,
    visitor_from_request,
)
from studio.ui.form import single_file
from studio.ui.private_gradio import event_payload
from studio.ui.tab import Handoff, Tab
from studio.ui.views.models import LibraryPage, render_library
from studio.ui.views.templates import render_outcome

CARDS_PER_PAGE = 60
USED_SECONDS = 3.0  # that a toast stays: somebody who puts many LoRAs to use reads each once
MAX_UNUSABLE = 12  # shown below the cards; all of them by the filter
MAX_PAGE_DIGITS = 6
MAX_SEARCH_CHARS = 200
UNUSABLE = "unusable"  # the filter for what cannot be used


class ModelsTab:
    """The components of the tab."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.previews = ModelPreviews(services.home.settings)
        self._build_filters()
        with gr.Column(elem_id="models-sections"):
            self.first_steps = FirstSteps(services)
            self._build_additions()
            self.options = ModelOptionsPanel(services)
        self.download_bar.place_list()
        self.outcome = gr.HTML(elem_id="models-outcome")
        self.cards = gr.HTML(
            js_on_load=(
                button_click_js("button[data-action]:not([data-action=use])")
                + USE_SCRIPT
                + poll_while_visible_js(1.0)
            ),
            elem_id="models-list",
        )
        self.page: gr.State = gr.State(0)
        self.shown_revision = gr.State(None)
        self._wire()

    def _build_filters(self) -> None:
        with gr.Row(elem_classes="shelf-filters"):
            self.search = gr.Textbox(
                label="Search",
                placeholder="name, trigger word, base model",
                max_lines=1,
                scale=3,
                min_width=180,
                elem_id="models-search",
            )
            self.kind = gr.Dropdown(
                [
                    ("All kinds", ""),
                    *((title, kind) for kind, title in KIND_NAMES.items()),
                    ("Cannot be used", UNUSABLE),
                ],
                value="",
                label="Kind",
                min_width=130,
                elem_id="models-kind",
            )
            self.family = gr.Dropdown(
                [
                    ("All families", ""),
                    *((family.title, family.name) for family in FAMILIES.values()),
                ],
                value="",
                label="Family",
                min_width=130,
                elem_id="models-family",
            )
            with gr.Column(scale=0, min_width=170, elem_classes="shelf-do"):
                self.favourites = gr.Checkbox(label="Favourites only", elem_id="models-favourites")
                self.refresh = gr.Button("Refresh", size="sm", elem_id="models-refresh")

    def _build_additions(self) -> None:
        """Place the ways to add something; only the owner sees them."""
        with gr.Accordion(
            "Add models, LoRAs and other files",
            open=False,
            visible=False,
            elem_id="models-add",
        ) as self.additions:
            self.download_bar = DownloadBar(self.services)
            self._build_local_additions()

    def _build_local_additions(self) -> None:
        with gr.Row(elem_classes="option-row"):
            self.upload = gr.File(
                label="Drop a file here, or anywhere on the page",
                height=110,
                elem_id="models-drop",
            )
            with gr.Column():
                self.path = gr.Textbox(
                    label="Path of a file or folder on this machine",
                    placeholder="/data/stable-diffusion-webui",
                    info="Used in place; nothing is copied. Folders of A1111, Forge, ComfyUI, "
                    "InvokeAI, SwarmUI and the Hugging Face cache are recognised.",
                    max_lines=1,
                    elem_id="models-path",
                )
                with gr.Row():
                    self.folder_name = gr.Textbox(
                        label="Name for a folder (optional)",
                        placeholder="a1111",
                        max_lines=1,
                        elem_id="models-path-name",
                    )
                    self.add_button = gr.Button(
                        "Add", scale=0, min_width=90, elem_id="models-path-add"
                    )

    @property
    def _library_changes(self) -> tuple[gr.State, ...]:
        """Numbers that change with the library; each has one writer, so no change is lost."""
        return self.download_bar.last_done, self.options.saved

    def _wire(self) -> None:
        filters = (self.search, self.kind, self.family, self.favourites)
        inputs: set[Any] = {*filters, self.page}
        gr.on(
            [
                self.search.input,
                *(component.input for component in (self.kind, self.family, self.favourites)),
                self.refresh.click,
            ],
            self.show_first_page,
            inputs,
            [self.cards, self.page],
            preprocess=False,
            trigger_mode="always_last",
            **EVENT_OPTIONS,
        )
        self.cards.submit(
            self.poll,
            {*inputs, self.shown_revision, *self._library_changes},
            [self.cards, self.shown_revision],
            **UNQUEUED_EVENT_OPTIONS,
        )
        self.cards.click(
            self.handle_action,
            inputs,
            [self.cards, self.page, self.outcome],
            **ROW_EVENT_OPTIONS,
        )
        adding = self.upload.upload(
            self.add_file,
            {*inputs, self.upload},
            [self.cards, self.outcome],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        for ending in (adding.success, adding.failure):  # ready for the next one
            ending(lambda: gr.File(value=None), None, self.upload, **EVENT_OPTIONS)
        gr.on(
            [self.add_button.click, self.path.submit],
            self.add_path,
            {*inputs, self.path, self.folder_name},
            [self.cards, self.outcome, self.path, self.folder_name],
            **EVENT_OPTIONS,
        )
        self.download_bar.wire()

    def render(self, visitor: Visitor, values: Updates | None = None, page: int = 0) -> Updates:
        """Render a page of the library.

        Args:
            visitor: Who is looking.
            values: What the filters are set to; none set nothing.
            page: Counts from 0; the nearest page there is is shown.
        """
        values = values or {}
        kind = values.get(self.kind)
        wanted = CatalogFilter(
            words=str(values.get(self.search) or "")[:MAX_SEARCH_CHARS],
            kind=kind if isinstance(kind, str) and kind != UNUSABLE else "",
            family=str(values.get(self.family) or ""),
            favourites_only=values.get(self.favourites) is True,
        )
        entries = wanted.select(self.services.model_catalog.list_entries(visitor))
        unusable = [entry for entry in entries if entry.problem]
        usable = [] if kind == UNUSABLE else [entry for entry in entries if not entry.problem]
        listed = unusable if kind == UNUSABLE else usable
        num_pages = max(1, math.ceil(len(listed) / CARDS_PER_PAGE))
        page = max(0, min(page, num_pages - 1))
        cards = listed[page * CARDS_PER_PAGE : (page + 1) * CARDS_PER_PAGE]
        below = [] if kind == UNUSABLE else unusable[:MAX_UNUSABLE]
        html = self._render_cards(
            visitor,
            cards,
            unusable=below,
            num_found=len(listed),
            num_unusable=len(unusable),
            page=page,
            num_pages=num_pages,
            is_filtered=wanted != CatalogFilter() or kind == UNUSABLE,
        )
        return {self.cards: html, self.page: page}

    def _render_cards(
        self, visitor: Visitor, cards: Sequence[CatalogEntry], **page_facts: Any
    ) -> str:
        workers = self.services.home.jobs.get_worker_status()
        library = self.services.home.library
        shown = LibraryPage(
            cards=cards,
            num_waiting=library.shelf.index.num_waiting,
            folders=[] if visitor.is_guest else self.services.model_catalog.list_folders(),
            workers=workers,
            previews=self.previews.list_urls([entry.path for entry in cards]),
            loaded_bytes={
                loaded["name"]: loaded["bytes"]
                for status in workers.values()
                for loaded in status.get("loaded", ())
            },
            usable_kinds=list_usable_kinds(),
            problem="" if visitor.is_guest else library.folders.problem,
            **page_facts,
        )
        return render_library(shown, is_owner=not visitor.is_guest)

    def on_open(self, visitor: Visitor) -> Updates:
        """Return what a page that opens shows."""
        self.services.submit_pickle_reading(visitor)
        return {
            **self.render(visitor),
            self.outcome: "",
            self.search: "",
            self.kind: "",
            self.family: "",
            self.favourites: False,
            self.additions: gr.Accordion(visible=not visitor.is_guest),
            **self.download_bar.on_open(visitor),
            **self.first_steps.on_open(visitor, is_home_empty=self._is_home_empty(visitor)),
            **self.options.on_open(visitor),
        }

    def _is_home_empty(self, visitor: Visitor) -> bool:
        """Return whether there is no model but the one that is shipped."""
        entries = self.services.model_catalog.list_entries(visitor)
        models = {entry.name for entry in entries if entry.kind == "model" and not entry.problem}
        return models <= {DEFAULT_MODEL}

    def show_first_page(self, values: Updates, request: gr.Request) -> Updates:
        """Show what fits the filters, from the start; the disk is looked at again.

        Files that have to be read first are queued.
        """
        visitor = visitor_from_request(request)
        self.services.submit_pickle_reading(visitor)
        return self.render(visitor, values)

    def poll(self, values: Updates, request: gr.Request) -> Updates:
        """Render the library, if something has changed that changes by itself.

        That is what workers do, what is read in the background, previews that were made, downloads
        and decisions on models; else the disk is read when somebody asks.
        """
        index = self.services.home.library.shelf.index
        status = self.services.home.jobs.get_worker_status()
        changes = [values[state] for state in self._library_changes]
        revision = repr((status, index.num_waiting, self.previews.revision, changes))
        if revision == values[self.shown_revision]:
            return {self.shown_revision: gr.skip()}
        updates = self.render(visitor_from_request(request), values, values[self.page])
        return {self.cards: updates[self.cards], self.shown_revision: revision}

    def add_file(self, values: Updates, request: gr.Request) -> Updates:
        """Add a file that the owner sent, to the folder for what its header says it is."""
        with report_errors():
            visitor = visitor_from_request(request)
            visitor.require_owner("Adding files")
            path, name = resolve_upload(single_file(values[self.upload]))
            try:
                added = self.services.model_catalog.add_file(path, name, visitor)
            finally:
                path.unlink(missing_ok=True)  # it was copied, or is of no use
            return {
                self.cards: self.render(visitor, values)[self.cards],
                self.outcome: render_outcome(f"{added.stem} is now in {added.parent.name}/."),
            }

    def add_path(self, values: Updates, request: gr.Request) -> Updates:
        """Use a folder or a file of this machine where it lies."""
        with report_errors():
            visitor = visitor_from_request(request)
            path_text, name = str(values[self.path] or ""), str(values[self.folder_name] or "")
            outcome = self.services.model_catalog.add_path(path_text, visitor, name)
            return {
                self.cards: self.render(visitor, values)[self.cards],
                self.outcome: render_outcome(outcome),
                self.path: "",
                self.folder_name: "",
            }

    def handle_action(self, values: Updates, event: gr.EventData, request: gr.Request) -> Updates:
        """Handle a button of a card or of a folder, or turn the page."""
        with report_errors():
            visitor = visitor_from_request(request)
            data = event_payload(event)
            target = str(data.get("target"))
            page = values[self.page]
            outcome = ""
            match data.get("action"):
                case "page":
                    is_number = target.isdecimal() and len(target) <= MAX_PAGE_DIGITS
                    page = int(target) if is_number else 0
                case "unload":
                    visitor.require_owner("Unloading a model")
                    self.services.submit_unload(target, visitor)
                    outcome = "It will be unloaded when the running job ends."
                case "move":
                    path = self.services.move_file(target, visitor)
                    outcome = f"{path.name} is now in {path.parent.name}/."
                case "favourite":
                    self.services.model_catalog.toggle_favourite(target, visitor)
                case "remove-folder":
                    folder = self.services.model_catalog.remove_folder(target, visitor)
                    outcome = f"{folder.path} is no longer used; nothing was deleted."
                case "use":  # of what opens another tab: `hand_over`
                    place = SET_PLACES.get(str(data.get("kind")))
                    if place:
                        text = f"{target} is set in txt2img, under {place}."
                        show_info(text, seconds=USED_SECONDS)  # seen in the other tab
                    return {self.page: gr.skip()}
            outcome_html = render_outcome(outcome) if outcome else ""
            return {**self.render(visitor, values, page), self.outcome: outcome_html}

    def hand_over(self, event: gr.EventData, visitor: Visitor) -> tuple[str, Any] | None:
        """Return the tab and the field of its form that a card's button sets, and its value."""
        data = event_payload(event)
        place = FIELD_BY_KIND.get(str(data.get("kind")))
        if data.get("action") != "use" or place is None:
            return None
        tab, field = place
        return tab, {field: str(data.get("target"))}


def build(services: Services) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = ModelsTab(services)
    places = dict.fromkeys(place for place, _field in FIELD_BY_KIND.values())
    return Tab(
        on_open=tab.on_open,
        outputs=[
            tab.cards,
            tab.outcome,
            tab.page,
            tab.search,
            tab.kind,
            tab.family,
            tab.favourites,
            tab.additions,
            *tab.options.outputs,
            *tab.download_bar.outputs,
            *tab.first_steps.outputs,
        ],
        handoff=Handoff(tab.cards, tab.hand_over, tuple(places)),
    )
