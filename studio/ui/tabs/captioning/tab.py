"""The Captions tab: choose or upload a dataset, caption, edit and check it, hand it to training.

Knows: how the tab's parts stand together, how images are uploaded. Does not know: the images beside
their captions (browser.py), the captioner (captioner.py), edits of many captions (tools.py),
searches (search.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from studio.core.captions.edits import parse_edit
from studio.core.captions.spec import CaptionSpec
from studio.core.jobs import CAPTION, CLIP_SEARCH, TRAIN, TRAINING_DRY_RUN
from studio.errors import BadFile, Busy, InvalidSpec
from studio.services.datasets import RunningImport
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.atomic import safe_name
from studio.storage.jobs import Job
from studio.ui.errors import report_errors
from studio.ui.events import (
    BUTTON_CLICK_JS,
    EVENT_OPTIONS,
    Updates,
    resolve_upload,
    visitor_from_request,
)
from studio.ui.form import Form
from studio.ui.private_gradio import event_payload
from studio.ui.tab import Handoff, Tab
from studio.ui.tabs.captioning.browser import DatasetBrowser, guess_trigger
from studio.ui.tabs.captioning.captioner import CaptionerPanel
from studio.ui.tabs.captioning.dataset_names import (
    choose_copy_name,
    get_archive_name,
    propose_name,
)
from studio.ui.tabs.captioning.search import ClipSearch
from studio.ui.tabs.captioning.state import BrowserState
from studio.ui.tabs.captioning.tools import EditTools
from studio.ui.views import dataset as dataset_view
from studio.ui.views import sweep
from studio.ui.views.common import pluralize

IMPORT_POLL_SECONDS = 0.3  # between two looks at how far an import is


class CaptioningTab:
    """One build of the tab; components are attributes, so that handlers name what they change."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.form: Form[CaptionSpec] = Form(CaptionSpec, "caption")
        with gr.Row(elem_classes="workspace"):
            with gr.Column(elem_classes="controls"):
                self._add_dataset_choice()
                self._add_import()
                self.captioner = CaptionerPanel(services, self.form)
                self.clip_search = ClipSearch(services)
                self.edit_tools = EditTools(services)
            with gr.Column(elem_classes="sweep-stage album-stage"):
                self.browser = DatasetBrowser(
                    services,
                    dataset=self.form["dataset"],
                    trigger=self.form["trigger"],
                    summary=self.summary,
                    actions=self.actions,
                )
        self.wire()

    def _add_dataset_choice(self) -> None:
        self.form.add(
            "dataset",
            choices=[],
            value=None,
            allow_custom_value=True,
            info="A folder in home/datasets or a built-in dataset.",
        )
        self.summary = gr.HTML(js_on_load=dataset_view.REPEATS_SCRIPT, elem_id="album-found")
        self.actions = gr.HTML(js_on_load=BUTTON_CLICK_JS, elem_id="album-offers")

    def _add_import(self) -> None:
        with gr.Accordion("Add images", open=True, elem_id="album-bring") as self.import_accordion:
            self.target_dataset = gr.Textbox(
                label="Dataset name",
                max_lines=1,
                placeholder="a new name or an existing dataset",
                elem_id="album-into",
            )
            self.files = gr.File(
                label="Images, captions or a zip",
                file_count="multiple",
                height=110,
                elem_id="album-files",
            )
            self.add_files = gr.Button(
                "Add images", variant="primary", size="sm", visible=False, elem_id="album-add"
            )
        self.import_report = gr.HTML(elem_id="album-taken")

    def wire(self) -> None:
        """Connect the events of the tab and of its parts."""
        browser = self.browser
        browser.wire()
        self.captioner.wire(browser)
        self.clip_search.wire(browser)
        self.edit_tools.wire(browser)
        self.form["dataset"].input(
            self.select_dataset, browser.inputs, self.dataset_outputs, **EVENT_OPTIONS
        )
        import_inputs = {self.files, self.target_dataset, *browser.inputs}
        self.files.upload(
            self.receive_files,
            import_inputs,
            [self.files, *self.dataset_outputs],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        gr.on(
            [self.add_files.click, self.target_dataset.submit],
            self.import_waiting_files,
            import_inputs,
            [self.files, *self.dataset_outputs],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.actions.click(
            self.handle_action, browser.inputs, self.dataset_outputs, **EVENT_OPTIONS
        )
        self.summary.click(self.set_repeats, browser.inputs, browser.outputs, **EVENT_OPTIONS)
        browser.cards.click(
            self.handle_card_action,
            {self.clip_search.clip, *browser.inputs},
            [*browser.outputs, *self.clip_search.job_outputs],
            **EVENT_OPTIONS,
        )

    @property
    def dataset_outputs(self) -> list[Any]:
        """Components that `open_dataset` and an upload update."""
        return [
            self.form["dataset"],
            self.form["trigger"],
            self.target_dataset,
            self.import_accordion,
            self.import_report,
            self.add_files,
            self.browser.filter,
            *self.browser.outputs,
            *self.captioner.outputs,
        ]

    @property
    def outputs(self) -> list[Any]:
        """Components that `on_open` updates."""
        return [*self.dataset_outputs, self.form["captioner"], self.clip_search.clip]

    # ---- opening ------------------------------------------------------------------------------

    def open_dataset(self, dataset_name: str, visitor: Visitor) -> Updates:
        """Show a dataset from its first page; for a name that the visitor may not see, show none.

        Returns:
            Updates of `dataset_outputs`.
        """
        registry = self.services.dataset_registry
        names = registry.list_names(visitor)
        updates = self.browser.render(BrowserState(dataset_name), visitor, ticked_keys=[])
        dataset = None
        if dataset_name in names:
            dataset = registry.open(dataset_name, visitor)
        is_editable = dataset is not None and not dataset.is_shipped
        job_id = self.captioner.find_open_job(dataset_name, visitor)
        return {
            **updates,
            self.form["dataset"]: gr.Dropdown(names, value=dataset_name if dataset else None),
            self.browser.filter: "",
            self.form["trigger"]: guess_trigger(dataset) if dataset else "",
            self.target_dataset: dataset_name if is_editable else "",
            self.import_accordion: gr.Accordion(open=dataset is None, visible=not visitor.is_guest),
            self.import_report: "",
            self.add_files: gr.Button(visible=False),
            **self.captioner.open_job(job_id, visitor),
        }

    def on_open(self, visitor: Visitor) -> Updates:
        """Fill a page that opens.

        It shows the dataset that this tab captions, else the one that it captioned or searched
        last.
        """
        jobs = [
            *self.services.home.jobs.list_open(visitor.id, CAPTION.name, visitor.tab),
            *self.services.home.jobs.list_recent(50, visitor.id, visitor.tab),
        ]
        names = (
            str(job.spec.get("dataset"))
            for job in jobs
            if job.kind in (CAPTION.name, CLIP_SEARCH.name)
        )
        name = next(names, "")
        if name not in self.services.dataset_registry.list_names(visitor):
            name = ""
        return {
            **self.open_dataset(name, visitor),
            self.form["captioner"]: gr.Dropdown(
                self.captioner.captioner_choices(only_shipped=visitor.is_guest)
            ),
            self.clip_search.clip: gr.Dropdown(
                self.clip_search.clip_choices(only_shipped=visitor.is_guest)
            ),
        }

    def select_dataset(self, values: Updates, request: gr.Request) -> Updates:
        """Show the dataset that was chosen."""
        with report_errors():
            name = str(values[self.form["dataset"]] or "")
            return self.open_dataset(name, visitor_from_request(request))

    # ---- uploads ------------------------------------------------------------------------------

    def receive_files(self, values: Updates, request: gr.Request) -> Iterator[Updates]:
        """Add uploaded files; without a name for their dataset they wait, and one is proposed."""
        with report_errors():
            visitor = visitor_from_request(request)
            visitor.require_owner("Adding images to datasets")
            uploads = self._resolve_uploads(values)
            is_named = bool(str(values[self.target_dataset] or "").strip())
        if is_named or get_archive_name(uploads):
            yield from self.import_files(values, request)
            return
        proposed_name = propose_name(self.services.dataset_registry.list_names(visitor))
        files_wait = "1 file is" if len(uploads) == 1 else f"{len(uploads):,} files are"
        yield {
            self.target_dataset: proposed_name,
            self.add_files: gr.Button(visible=True),
            self.import_report: sweep.render_note(
                f"{files_wait} ready. Check the dataset name, then select Add images."
            ),
        }

    def import_waiting_files(self, values: Updates, request: gr.Request) -> Iterator[Updates]:
        """Add the files that waited for a name, if there are any."""
        if not values[self.files]:
            yield {self.import_report: gr.skip()}
            return
        with report_errors():
            if not str(values[self.target_dataset] or "").strip():
                raise InvalidSpec(["Dataset name: required; enter an existing or a new one."])
        yield from self.import_files(values, request)

    def _resolve_uploads(self, values: Updates) -> list[tuple[Path, str]]:
        """Return the uploaded files as (path, the user's name of it)."""
        files = values[self.files]
        return [resolve_upload(file) for file in (files if isinstance(files, list) else [files])]

    def import_files(self, values: Updates, request: gr.Request) -> Iterator[Updates]:
        """Add uploaded images, captions and archives to a dataset in the home, with a bar."""
        with report_errors():
            visitor = visitor_from_request(request)
            visitor.require_owner("Adding images to datasets")
            uploads = self._resolve_uploads(values)
            typed_name = str(values[self.target_dataset] or "").strip()
            # As the folder will be called.
            registry = self.services.dataset_registry
            name = safe_name(
                typed_name
                or get_archive_name(uploads)
                or propose_name(registry.list_names(visitor))
            )
            running_import = RunningImport(registry.dataset_store, name, uploads)
            while not running_import.wait(IMPORT_POLL_SECONDS):
                yield {self.import_report: dataset_view.render_progress(*running_import.progress)}
            imported = running_import.get_result()
            num_images = pluralize(imported.num_images, "image")
            num_captions = pluralize(imported.num_captions, "caption")
            report = sweep.render_note(f"{num_images} and {num_captions} added to {name}.")
            report += dataset_view.render_file_problems(imported.skipped, "skipped")
            updates: Updates = {}
            if name and name in registry.list_names(visitor):
                updates = self.open_dataset(name, visitor)
            yield {
                **updates,
                self.files: None,
                self.add_files: gr.Button(visible=False),
                self.import_report: report,
            }

    # ---- buttons ------------------------------------------------------------------------------

    def handle_action(self, values: Updates, event: gr.EventData, request: gr.Request) -> Updates:
        """Act on a button of the whole dataset.

        What the click says comes from the browser and is not trusted.
        """
        with report_errors():
            visitor = visitor_from_request(request)
            click = event_payload(event)
            match click.get("action"), str(click.get("target")):
                case "train", _:  # opens the Training tab: `build_handoff`
                    return {self.browser.shown_revision: gr.skip()}
                case "copy", name:
                    visitor.require_owner("Copying datasets")
                    registry = self.services.dataset_registry
                    registry.open(name, visitor)
                    new_name = choose_copy_name(name, registry.list_names(visitor))
                    copied_dataset = registry.dataset_store.copy(name, new_name)
                    return self.open_dataset(copied_dataset.name, visitor)
            raise BadFile("The page asked for something that the studio does not know.")

    def handle_card_action(
        self, values: Updates, event: gr.EventData, request: gr.Request
    ) -> Updates:
        """Save a caption that was typed, or act on a button of an image."""
        with report_errors():
            visitor = visitor_from_request(request)
            click = event_payload(event)
            match click.get("action"):
                case "put":
                    return self.browser.save_caption(values, click, visitor)
                case "aside" | "others":
                    return self.browser.handle_set_aside(values, click, visitor)
                case "all":
                    return self.browser.tick_all(values, click, visitor)
                case "like":
                    return self.clip_search.search_like_card(values, click, visitor)
            raise BadFile("The page asked for something that the studio does not know.")

    def set_repeats(self, values: Updates, event: gr.EventData, request: gr.Request) -> Updates:
        """Change the repeats of one of kohya's folders.

        This renames the folder, so no job may be reading the dataset meanwhile.
        """
        with report_errors():
            visitor = visitor_from_request(request)
            click = event_payload(event)
            visitor.require_owner("Editing datasets")
            if click.get("action") != "repeats":
                raise BadFile("The page asked for something that the studio does not know.")
            name = str(values[self.form["dataset"]] or "")
            dataset = self.services.dataset_registry.open(name, visitor)
            edit = parse_edit(
                {
                    "kind": "set_repeats",
                    "folder": str(click.get("target")),
                    "repeats": click.get("count"),
                }
            )
            if self._is_in_use(dataset.name):
                raise Busy(
                    f"{dataset.name} is being captioned or trained on, or is queued for it; change "
                    "repeats when that is done."
                )
            step = dataset.apply(edit)
            message = dataset_view.render_skipped_files(step)
            if not message:
                message = sweep.render_note(f"{step.title}. Undo restores the previous value.")
            return self.browser.rerender(values, visitor, message=message)

    def _is_in_use(self, dataset_name: str) -> bool:
        """Return whether an open job reads or writes a dataset by the names of its files."""
        return any(
            self._get_job_dataset(job) == dataset_name
            for job in self.services.home.jobs.list_open()
        )

    def _get_job_dataset(self, job: Job) -> str | None:
        """Return the name of the dataset that a job works on."""
        spec: Any = None
        if job.kind in (CAPTION.name, CLIP_SEARCH.name):
            spec = job.spec
        elif job.kind == TRAINING_DRY_RUN.name:
            spec = job.spec.get("config")
        elif job.kind == TRAIN.name:
            run = self.services.home.runs.get(str(job.spec.get("run")))
            spec = run.config.model_dump() if run else job.spec
        return spec.get("dataset") if isinstance(spec, dict) else None

    def build_handoff(self, event: gr.EventData, visitor: Visitor) -> tuple[str, Any] | None:
        """Build what "Train on this" hands to the Training tab.

        Returns:
            The tab's id and {dataset, name, trigger}; None if the click is another button's.
        """
        click = event_payload(event)
        if click.get("action") != "train":
            return None
        try:
            handoff = json.loads(str(click.get("target")))
        except (ValueError, RecursionError):
            return None
        return ("training", handoff) if isinstance(handoff, dict) else None


def build(services: Services) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = CaptioningTab(services)
    return Tab(
        on_open=tab.on_open,
        outputs=tab.outputs,
        has_text_input=True,
        handoff=Handoff(tab.actions, tab.build_handoff, ("training",)),
    )
