"""The images of the open dataset beside their captions: paged, filtered, edited, undone.

Knows: everything on the right side of the Captions tab, and the dataset's summary on the left.
Does not know: captioners (captioner.py), edits of many captions (tools.py), searches (search.py);
those call `rerender` after they have changed something.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import gradio as gr

from studio.core.captions import text as caption_text
from studio.core.captions.edits import SetAside, SetCaptions
from studio.core.captions.text import collapse_whitespace
from studio.errors import BadFile, DatasetError, StudioError
from studio.services.datasets import get_thumbnail_urls
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.datasets.dataset import Dataset
from studio.storage.datasets.history import Step
from studio.storage.datasets.items import DatasetImage
from studio.ui.components.caption_grid import (
    build_caption_grid,
    parse_selected_keys,
    update_caption_grid,
)
from studio.ui.errors import report_errors
from studio.ui.events import EVENT_OPTIONS, UNQUEUED_EVENT_OPTIONS, Updates, visitor_from_request
from studio.ui.tabs.captioning.state import BrowserState, SearchHit
from studio.ui.tabs.training.run import error_sentences
from studio.ui.views import dataset as dataset_view
from studio.ui.views import sweep
from studio.ui.views.common import pluralize
from studio.ui.views.templates import render_nothing

PAGE_SIZE = 24  # images
MAX_HISTORY_STEPS = 30  # steps listed under History
MAX_CREDITED_IMAGES = 2000  # images in a dataset, up to which cards name who wrote a caption
# The hash of a captioner's weights: kept in the dataset's card, left out on the page.
WEIGHTS_HASH_RE = re.compile(r" \([0-9a-f]{12}\)")
NO_HIT = SearchHit("", "")


class DatasetBrowser:
    """The browser of one build of the tab.

    Args:
        services: what the tabs work with.
        dataset: the chooser of the dataset.
        trigger: the box with the trigger word.
        summary: the block with the dataset's figures and faults.
        actions: the block with the buttons for the whole dataset.
    """

    def __init__(
        self,
        services: Services,
        *,
        dataset: gr.Dropdown,
        trigger: gr.Textbox,
        summary: gr.HTML,
        actions: gr.HTML,
    ) -> None:
        self.services = services
        self.dataset = dataset
        self.trigger = trigger
        self.summary = summary
        self.actions = actions
        with gr.Row(elem_classes="album-head"):
            self.filter = gr.Textbox(
                placeholder="Filter: boat, tag:red, is:missing, tokens:>77, -moon",
                show_label=False,
                scale=5,
                max_lines=1,
                elem_id="album-filter",
                container=False,
            )
            self.undo = gr.Button(
                "↶ Undo", size="sm", min_width=80, interactive=False, elem_id="album-undo"
            )
            self.redo = gr.Button(
                "↷ Redo", size="sm", min_width=80, interactive=False, elem_id="album-redo"
            )
        self.message = gr.HTML(elem_id="album-note")
        self.clear_search = gr.Button(
            "Show all images", size="sm", visible=False, elem_id="album-everything"
        )
        self.cards = build_caption_grid(elem_id="album-cards")
        with gr.Row(elem_classes="album-pager") as self.pager:
            self.previous_page = gr.Button("← Back", size="sm", min_width=80, elem_id="album-back")
            self.count = gr.HTML(elem_id="album-count")
            self.next_page = gr.Button("Next →", size="sm", min_width=80, elem_id="album-next")
        with gr.Accordion("History", open=False, elem_id="album-history"):
            self.history = gr.HTML(elem_id="album-steps")
        self.page: gr.State = gr.State(0)
        self.hits: gr.State = gr.State(())
        self.shown_revision: gr.State = gr.State("")
        self.timer = gr.Timer(1.0, active=False)

    @property
    def inputs(self) -> set[Any]:
        """Components that `read_state` and `render` read, except the ticks."""
        return {self.dataset, self.filter, self.page, self.hits, self.trigger}

    @property
    def edit_inputs(self) -> set[Any]:
        """`inputs` and the ticks: what an edit of many captions needs besides its own boxes."""
        return {self.cards, *self.inputs}

    @property
    def outputs(self) -> list[Any]:
        """Components that `render` updates."""
        return [
            self.cards,
            self.message,
            self.count,
            self.undo,
            self.redo,
            self.summary,
            self.actions,
            self.page,
            self.hits,
            self.shown_revision,
            self.clear_search,
            self.previous_page,
            self.next_page,
            self.history,
            self.timer,
        ]

    def wire(self) -> None:
        """Connect the browser's own events."""
        self.filter.change(
            self.apply_filter,
            self.inputs,
            self.outputs,
            trigger_mode="always_last",
            **UNQUEUED_EVENT_OPTIONS,
        )
        self.previous_page.click(
            self.show_previous_page, self.inputs, self.outputs, **EVENT_OPTIONS
        )
        self.next_page.click(self.show_next_page, self.inputs, self.outputs, **EVENT_OPTIONS)
        self.undo.click(self.undo_step, self.inputs, self.outputs, **EVENT_OPTIONS)
        self.redo.click(self.redo_step, self.inputs, self.outputs, **EVENT_OPTIONS)
        self.clear_search.click(self.clear_hits, self.inputs, self.outputs, **EVENT_OPTIONS)
        self.trigger.change(
            self.render_actions,
            self.inputs,
            self.actions,
            trigger_mode="always_last",
            **UNQUEUED_EVENT_OPTIONS,
        )
        self.timer.tick(
            self.poll, {self.shown_revision, *self.inputs}, self.outputs, **UNQUEUED_EVENT_OPTIONS
        )

    def read_state(self, values: Updates) -> BrowserState:
        """Read what the page shows from the `values` that the browser sends."""
        return BrowserState(
            name=str(values[self.dataset] or ""),
            filter=str(values[self.filter] or ""),
            page=int(values[self.page] or 0),
            hits=tuple(SearchHit(*hit) for hit in values[self.hits] or ()),
            ticked=parse_selected_keys(values.get(self.cards)),
        )

    def resolve_targets(self, values: Updates, visitor: Visitor) -> tuple[list[str] | None, str]:
        """Choose the images that an edit is for: the ticked ones, else all that the page lists.

        Args:
            values: what the browser sent for `edit_inputs`.
            visitor: who edits.

        Returns:
            The images' keys (None for all) and a filter query to apply to them.

        Raises:
            DatasetError: the dataset is gone, or none of the ticked images exists any more.
        """
        state = self.read_state(values)
        dataset = self.services.dataset_registry.open(state.name, visitor)
        existing_keys = {image.key for image in dataset.images}
        if state.ticked:
            keys = [key for key in state.ticked if key in existing_keys]
            if not keys:
                raise DatasetError("The selected images no longer exist; select others.")
            return keys, ""
        if state.hits:
            return [hit.key for hit in state.hits if hit.key in existing_keys], state.filter
        return None, state.filter

    # ---- the page -----------------------------------------------------------------------------

    def render(
        self,
        state: BrowserState,
        visitor: Visitor,
        *,
        message: str = "",
        trigger: str | None = None,
        ticked_keys: list[str] | None = None,
    ) -> Updates:
        """Show a page of a dataset.

        Args:
            state: what to show. A filter that cannot be parsed shows its fault and all images.
            visitor: who looks.
            message: HTML above the page.
            trigger: trigger word for the buttons of the dataset; None guesses it from captions.
            ticked_keys: keys of the images to tick; None leaves ticks alone.

        Returns:
            Updates of `outputs`.
        """
        if not state.name:
            return self.render_empty()
        try:
            dataset = self.services.dataset_registry.open(state.name, visitor)
        except DatasetError as error:
            return self.render_empty(sweep.render_faults([str(error)]))
        try:
            images, total, state = self._list_page(dataset, state)
        except StudioError as error:
            message = sweep.render_faults(error_sentences(error))
            images, total, state = self._list_page(dataset, replace(state, filter=""))
        is_locked = dataset.is_shipped or visitor.is_guest
        if trigger is None:
            trigger = guess_trigger(dataset)
        return {
            self.cards: update_caption_grid(
                dataset.name,
                self._build_cards(dataset, images, state, visitor),
                num_matching=total,
                is_complete=total == len(dataset.images),
                locked=is_locked,
                selected_keys=ticked_keys,
            ),
            self.message: message,
            self.hits: state.hits,
            self.summary: dataset_view.render_summary(
                dataset.count_images(),
                dataset.broken,
                dataset.notes,
                self.services.dataset_registry.get_scan_progress(state.name),
                is_locked,
            ),
            self.actions: self._render_actions(dataset, trigger, visitor),
            self.clear_search: gr.Button(visible=bool(state.hits)),
            self.shown_revision: self._revision(dataset),
            self.timer: gr.Timer(active=True),
            **self._update_pager(state, len(images), total),
            **self._update_history(dataset, is_locked),
        }

    def render_empty(self, message: str = "") -> Updates:
        """Show that no dataset is open, with `message` (HTML) or an invitation.

        Returns:
            Updates of `outputs`.
        """
        disabled = gr.Button(interactive=False)
        return {
            self.cards: update_caption_grid(
                "", (), num_matching=0, is_complete=True, locked=True, selected_keys=()
            ),
            self.message: message or dataset_view.DATASET_PLACEHOLDER,
            self.count: "",
            self.undo: disabled,
            self.redo: disabled,
            self.summary: "",
            self.actions: "",
            self.clear_search: gr.Button(visible=False),
            self.previous_page: disabled,
            self.next_page: disabled,
            self.history: "",
            self.timer: gr.Timer(active=False),
            self.page: 0,
            self.hits: (),
        }

    def _list_page(
        self, dataset: Dataset, state: BrowserState
    ) -> tuple[list[DatasetImage], int, BrowserState]:
        """Return a page's images, their number on all pages, and `state` with a valid page."""
        if state.hits:
            matching_keys = set(dataset.keys(state.filter))
            keys = [hit.key for hit in state.hits if hit.key in matching_keys]
            state = replace(state, page=_clamp_page(state.page, len(keys)))
            start = state.page * PAGE_SIZE
            images = [dataset.get_image(key) for key in keys[start : start + PAGE_SIZE]]
            return images, len(keys), state
        page = dataset.get_page(state.page * PAGE_SIZE, PAGE_SIZE, state.filter)
        page_number = _clamp_page(state.page, page.total)
        if page_number != state.page:
            page = dataset.get_page(page_number * PAGE_SIZE, PAGE_SIZE, state.filter)
        return list(page.images), page.total, replace(state, page=page_number)

    def _build_cards(
        self,
        dataset: Dataset,
        images: list[DatasetImage],
        state: BrowserState,
        visitor: Visitor,
    ) -> list[dict[str, Any]]:
        """Describe images for the caption grid (its fields: caption_grid.js)."""
        is_locked = dataset.is_shipped or visitor.is_guest
        existing_keys = {image.key for image in dataset.images}
        hits_by_key = {hit.key: hit for hit in state.hits}
        credits_by_key = (
            dataset.read_credits() if len(dataset.images) <= MAX_CREDITED_IMAGES else {}
        )
        urls = get_thumbnail_urls(dataset, [image.key for image in images], visitor)
        cards = []
        for image, url in zip(images, urls):
            hit = hits_by_key.get(image.key, NO_HIT)
            width, height = image.size
            writer = ""
            if image.caption and credits_by_key.get(image.key):
                writer = WEIGHTS_HASH_RE.sub("", str(credits_by_key[image.key][-1].writer))
            cards.append(
                {
                    "dataset": dataset.name,
                    "key": image.key,
                    "src": url,
                    "caption": image.caption,
                    "note": hit.note,
                    "others": len(existing_keys.intersection(hit.duplicates)),
                    "about": f"{width} × {height}" if width else "",
                    "fault": image.image_error or image.caption_error,
                    "by": writer,
                    "locked": is_locked or bool(image.caption_error),
                }
            )
        return cards

    def _update_pager(self, state: BrowserState, num_images: int, total: int) -> Updates:
        """Update the page number and the buttons around it."""
        start = state.page * PAGE_SIZE
        if total:
            text = f"{start + 1:,}–{start + num_images:,} of {total:,}"
        elif state.filter or state.hits:
            text = "No images match that filter."
        else:
            text = "This dataset has no images yet."
        return {
            self.page: state.page,
            self.count: render_nothing(text, total),
            self.previous_page: gr.Button(interactive=state.page > 0),
            self.next_page: gr.Button(interactive=start + PAGE_SIZE < total),
        }

    def _update_history(self, dataset: Dataset, is_locked: bool) -> Updates:
        """Update the list of steps and the buttons that go back and forth in it."""
        steps = dataset.history(MAX_HISTORY_STEPS)
        states = {step.state for step in steps}
        return {
            self.history: dataset_view.render_history(steps),
            self.undo: gr.Button(interactive="done" in states and not is_locked),
            self.redo: gr.Button(interactive="undone" in states and not is_locked),
        }

    def _render_actions(self, dataset: Dataset, trigger: str, visitor: Visitor) -> str:
        """Render the buttons for the whole dataset."""
        is_trainable = any(not image.image_error for image in dataset.images)
        return dataset_view.render_actions(
            dataset.name, trigger, dataset.is_shipped, visitor.is_guest, is_trainable
        )

    def _revision(self, dataset: Dataset) -> str:
        """Return a text that changes with whatever a page shows of the dataset."""
        content = tuple((image.key, image.caption, image.image_error) for image in dataset.images)
        scan_progress = self.services.dataset_registry.get_scan_progress(dataset.name)
        return f"{dataset.name} {hash(content)} {scan_progress}"

    # ---- looking ------------------------------------------------------------------------------

    def poll(self, values: Updates, request: gr.Request) -> Updates:
        """Show what a job, another page or another program has changed, if anything."""
        visitor = visitor_from_request(request)
        state = self.read_state(values)
        try:
            dataset = self.services.dataset_registry.open(state.name, visitor)
        except DatasetError as error:
            return self.render_empty(sweep.render_faults([str(error)]))
        if self._revision(dataset) == values[self.shown_revision]:
            return {self.shown_revision: gr.skip()}
        updates = self.render(state, visitor, trigger=self._read_trigger(values))
        del updates[self.message]
        return updates

    def _read_trigger(self, values: Updates) -> str | None:
        return str(values[self.trigger] or "") or None

    def rerender(
        self,
        values: Updates,
        visitor: Visitor,
        *,
        message: str = "",
        ticked_keys: list[str] | None = None,
        **state_changes: Any,
    ) -> Updates:
        """Show the page again, after a change or with another state.

        Args:
            values: what the browser sent for `inputs`.
            visitor: who looks.
            message: HTML above the page.
            ticked_keys: keys of the images to tick; None leaves ticks alone.
            state_changes: fields of BrowserState to replace.

        Returns:
            Updates of `outputs`.
        """
        return self.render(
            replace(self.read_state(values), **state_changes),
            visitor,
            message=message,
            trigger=self._read_trigger(values),
            ticked_keys=ticked_keys,
        )

    def apply_filter(self, values: Updates, request: gr.Request) -> Updates:
        """Show the first page of what the filter lets through."""
        return self.rerender(values, visitor_from_request(request), page=0)

    def show_previous_page(self, values: Updates, request: gr.Request) -> Updates:
        """Turn one page back."""
        page = max(0, self.read_state(values).page - 1)
        return self.rerender(values, visitor_from_request(request), page=page)

    def show_next_page(self, values: Updates, request: gr.Request) -> Updates:
        """Turn one page on."""
        page = self.read_state(values).page + 1
        return self.rerender(values, visitor_from_request(request), page=page)

    def clear_hits(self, values: Updates, request: gr.Request) -> Updates:
        """Show all images again after a search."""
        return self.rerender(values, visitor_from_request(request), hits=(), page=0)

    def render_actions(self, values: Updates, request: gr.Request) -> str:
        """Render the dataset's buttons; "Train on this" takes the trigger word along."""
        visitor = visitor_from_request(request)
        try:
            dataset = self.services.dataset_registry.open(self.read_state(values).name, visitor)
        except DatasetError:
            return ""
        trigger = self._read_trigger(values) or guess_trigger(dataset)
        return self._render_actions(dataset, trigger, visitor)

    # ---- changing -----------------------------------------------------------------------------

    def require_dataset(self, values: Updates, visitor: Visitor, action: str) -> Dataset:
        """Open the page's dataset for a change.

        Args:
            values: what the browser sent for `inputs`.
            visitor: who changes it.
            action: what is going to be done, as the first words of the refusal.

        Raises:
            NotAllowed: the visitor is a guest.
            DatasetError: there is no such dataset.
        """
        visitor.require_owner(action)
        return self.services.dataset_registry.open(self.read_state(values).name, visitor)

    def save_caption(
        self, values: Updates, event_data: dict[str, Any], visitor: Visitor
    ) -> Updates:
        """Save a caption that was typed.

        Raises:
            NotAllowed: the visitor is a guest.
            DatasetError: the dataset or the image is gone.
            BadFile: the caption was changed meanwhile (neither text is lost), or the click is
                malformed.
        """
        visitor.require_owner("Editing captions")
        key = event_data.get("target")
        text = event_data.get("text")
        previous = event_data.get("was")
        if not (isinstance(key, str) and isinstance(text, str) and isinstance(previous, str)):
            raise BadFile("The page asked for something that the studio does not know.")
        dataset = self.services.dataset_registry.open(str(event_data.get("dataset")), visitor)
        current = dataset.get_image(key).caption
        if current not in (previous, collapse_whitespace(text)):
            raise BadFile(
                f"The caption of {key} was changed elsewhere to {current!r}. Your text is still in "
                f"its box: {text!r}."
            )
        step = dataset.apply(SetCaptions(texts={key: text}), keys=[key])
        return self.rerender(values, visitor, message=dataset_view.render_skipped_files(step))

    def tick_all(self, values: Updates, event_data: dict[str, Any], visitor: Visitor) -> Updates:
        """Tick all images that the page lists, besides those ticked before."""
        ticked_keys = parse_selected_keys(event_data.get("ticked"))
        keys, filter_query = self.resolve_targets({**values, self.cards: ()}, visitor)
        dataset = self.services.dataset_registry.open(self.read_state(values).name, visitor)
        listed_keys = set(dataset.keys(filter_query))
        if keys is not None:
            listed_keys &= set(keys)
        return {self.cards: gr.HTML(list(dict.fromkeys((*ticked_keys, *sorted(listed_keys)))))}

    def handle_set_aside(
        self, values: Updates, event_data: dict[str, Any], visitor: Visitor
    ) -> Updates:
        """Set aside an image, the near-duplicates of an image, or all that are ticked."""
        values = {**values, self.cards: parse_selected_keys(event_data.get("ticked"))}
        state = self.read_state(values)
        match event_data.get("action"), event_data.get("target"):
            case "others", key:
                groups = [hit.duplicates for hit in state.hits if hit.key == key]
                keys = [duplicate for group in groups for duplicate in group]
            case _, None:
                keys = list(state.ticked)
            case _, key:
                keys = [str(key)]
        return self.set_aside_images(values, str(event_data.get("dataset")), keys, visitor)

    def set_aside_images(
        self, values: Updates, dataset_name: str, keys: list[str], visitor: Visitor
    ) -> Updates:
        """Take images out of a dataset as one step, which Undo reverts.

        Args:
            values: what the browser sent for `edit_inputs`.
            dataset_name: the dataset that the images are in.
            keys: the images' keys; those that no longer exist are ignored.
            visitor: who edits.

        Raises:
            NotAllowed: the visitor is a guest.
            DatasetError: there is no such dataset, or none of the images exists.
        """
        visitor.require_owner("Editing datasets")
        dataset = self.services.dataset_registry.open(dataset_name, visitor)
        existing_keys = {image.key for image in dataset.images}
        target_keys = tuple(key for key in keys if key in existing_keys)
        if not target_keys:
            raise DatasetError("Nothing to exclude: select at least one image first.")
        step = dataset.apply(SetAside(keys=target_keys))
        message = dataset_view.render_skipped_files(step)
        if not message:
            message = sweep.render_note(_set_aside_text(target_keys))
        remaining_keys = {image.key for image in dataset.images}
        ticked_keys = [key for key in self.read_state(values).ticked if key in remaining_keys]
        return self.rerender(values, visitor, message=message, ticked_keys=ticked_keys)

    def undo_step(self, values: Updates, request: gr.Request) -> Updates:
        """Undo the latest step of the dataset."""
        with report_errors():
            visitor = visitor_from_request(request)
            step = self.require_dataset(values, visitor, "Editing captions").undo()
            return self.rerender(values, visitor, message=_step_message(step, "Undone"))

    def redo_step(self, values: Updates, request: gr.Request) -> Updates:
        """Redo the step that was undone last."""
        with report_errors():
            visitor = visitor_from_request(request)
            step = self.require_dataset(values, visitor, "Editing captions").redo()
            return self.rerender(values, visitor, message=_step_message(step, "Redone"))


def guess_trigger(dataset: Dataset) -> str:
    """Guess a dataset's trigger word: a first tag of one word that all captions share, else ""."""
    return caption_text.guess_trigger(image.caption for image in dataset.images)


def _clamp_page(page: int, total: int) -> int:
    """Return the nearest page number (from 0) that exists for `total` images."""
    return max(0, min(page, (total - 1) // PAGE_SIZE))


def _set_aside_text(keys: tuple[str, ...]) -> str:
    if len(keys) == 1:
        return f"{keys[0]} is excluded. Undo brings it back."
    return f"{pluralize(len(keys), 'image')} excluded. Undo brings them back."


def _step_message(step: Step | None, verb: str) -> str:
    if step is None:
        return sweep.render_note("Nothing left to undo or redo.")
    return dataset_view.render_skipped_files(step) or sweep.render_note(f"{verb}: {step.title}.")
