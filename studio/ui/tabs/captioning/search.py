"""CLIP searches on the Captions tab: by words or image, near-duplicates, caption fit, classes.

Knows: the questions and how an answer becomes a list of images. Does not know: how CLIP embeds and
compares images (engine/clip_search).
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.core.base import validate
from studio.core.captions.clip_query import ClipQuerySpec
from studio.core.captions.edits import AddTags
from studio.core.catalog import DEFAULT_CLIP
from studio.core.jobs import CLIP_SEARCH
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.services.waiting import describe_wait
from studio.storage.jobs import Job
from studio.storage.models.library import Unusable
from studio.ui.errors import report_errors
from studio.ui.events import (
    EVENT_OPTIONS,
    UNQUEUED_EVENT_OPTIONS,
    Updates,
    resolve_upload,
    visitor_from_request,
)
from studio.ui.tabs.captioning.browser import DatasetBrowser
from studio.ui.tabs.captioning.state import SearchHit
from studio.ui.views import dataset as dataset_view
from studio.ui.views import sweep
from studio.ui.views.common import pluralize

ORDER_LABELS = {
    "search": "most similar first",
    "duplicates": "near-duplicates in groups, best first",
    "fit": "worst match first",
    "classes": "sorted by label",
}


class ClipSearch:
    """The search controls of one build of the tab."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.models = services.home.transformers_models
        with gr.Accordion("Search images", open=False, elem_id="find"):
            with gr.Row(elem_classes="turn"):
                self.query = gr.Textbox(
                    label="Words",
                    max_lines=1,
                    min_width=160,
                    placeholder="a red boat",
                    elem_id="find-words",
                )
                self.search = gr.Button(
                    "Search", size="sm", variant="primary", elem_id="find-search"
                )
            self.query_image = gr.File(
                label="Or drop an image to find similar ones",
                file_types=["image"],
                height=110,
                elem_id="find-sent",
            )
            with gr.Row(elem_classes="turn"):
                self.classes = gr.Textbox(
                    label="Labels",
                    max_lines=1,
                    min_width=160,
                    placeholder="moon / sun / other",
                    elem_id="find-classes",
                )
                self.classify = gr.Button("Classify", size="sm", elem_id="find-sort")
            with gr.Row():
                self.near_duplicates = gr.Button("Near-duplicates", size="sm", elem_id="find-twins")
                self.caption_fit = gr.Button(
                    "Worst-matching captions", size="sm", elem_id="find-fit"
                )
            self.clip = gr.Dropdown(
                self.clip_choices(only_shipped=True),
                value=DEFAULT_CLIP,
                label="CLIP model",
                allow_custom_value=True,
                elem_id="find-clip",
            )
            self.write_tags = gr.Button(
                "Add labels to captions as tags",
                size="sm",
                visible=False,
                elem_id="find-tag",
            )
            self.dedupe = gr.Button(
                "Exclude all but the best of each group",
                size="sm",
                visible=False,
                elem_id="find-thin",
            )
        self.progress = gr.HTML(elem_id="find-doing")
        self.job_id: gr.State = gr.State(0)
        self.timer = gr.Timer(0.4, active=False)

    def clip_choices(self, *, only_shipped: bool) -> list[str]:
        """List the names of CLIP models on this machine."""
        return [
            model.name
            for model in self.models.list_clip_models()
            if not isinstance(model, Unusable) and (model.bundled or not only_shipped)
        ]

    @property
    def job_outputs(self) -> list[Any]:
        """Components that change when a search is submitted."""
        return [self.job_id, self.timer, self.progress]

    def wire(self, browser: DatasetBrowser) -> None:
        """Connect the events, with `browser` as the page of images."""
        self.browser = browser
        inputs = {self.query, self.classes, self.clip, *browser.inputs}
        gr.on(
            [self.search.click, self.query.submit],
            self.search_by_text,
            inputs,
            self.job_outputs,
            **EVENT_OPTIONS,
        )
        gr.on(
            [self.classify.click, self.classes.submit],
            self.classify_images,
            inputs,
            self.job_outputs,
            **EVENT_OPTIONS,
        )
        self.query_image.upload(
            self.search_like_upload,
            {self.query_image, *inputs},
            [self.query_image, *self.job_outputs],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.near_duplicates.click(
            self.find_near_duplicates, inputs, self.job_outputs, **EVENT_OPTIONS
        )
        self.caption_fit.click(self.rank_caption_fit, inputs, self.job_outputs, **EVENT_OPTIONS)
        self.timer.tick(
            self.poll,
            {self.job_id, *browser.inputs},
            [*self.job_outputs, self.write_tags, self.dedupe, *browser.outputs],
            **UNQUEUED_EVENT_OPTIONS,
        )
        self.write_tags.click(
            self.write_class_tags,
            {self.job_id, *browser.inputs},
            [self.write_tags, *browser.outputs],
            **EVENT_OPTIONS,
        )
        self.dedupe.click(
            self.set_aside_duplicates,
            browser.edit_inputs,
            [self.dedupe, *browser.outputs],
            **EVENT_OPTIONS,
        )

    # ---- submitting ---------------------------------------------------------------------------

    def _submit_query(
        self, values: Updates, visitor: Visitor, question: str, **spec_fields: Any
    ) -> Updates:
        spec = validate(
            ClipQuerySpec,
            {
                "dataset": self.browser.read_state(values).name,
                "question": question,
                "clip": values[self.clip] or DEFAULT_CLIP,
                **spec_fields,
            },
        )
        return {
            self.job_id: self.services.submit_clip_search(spec, visitor),
            self.timer: gr.Timer(active=True),
            self.progress: dataset_view.render_progress("Starting", 0, 0),
        }

    def search_by_text(self, values: Updates, request: gr.Request) -> Updates:
        """Search for images that look like what the words say."""
        with report_errors():
            visitor = visitor_from_request(request)
            return self._submit_query(values, visitor, "search", words=values[self.query] or "")

    def classify_images(self, values: Updates, request: gr.Request) -> Updates:
        """Sort the images into the classes that were typed."""
        with report_errors():
            visitor = visitor_from_request(request)
            classes = values[self.classes] or ""
            return self._submit_query(values, visitor, "classes", classes=classes)

    def find_near_duplicates(self, values: Updates, request: gr.Request) -> Updates:
        """Search for groups of images that are nearly the same."""
        with report_errors():
            return self._submit_query(values, visitor_from_request(request), "duplicates")

    def rank_caption_fit(self, values: Updates, request: gr.Request) -> Updates:
        """Rank the images by how badly their captions fit."""
        with report_errors():
            return self._submit_query(values, visitor_from_request(request), "fit")

    def search_like_card(
        self, values: Updates, event_data: dict[str, Any], visitor: Visitor
    ) -> Updates:
        """Search for images like the one whose card was clicked.

        Raises:
            StudioError: what `Services.submit_clip_search` raises.
        """
        return self._submit_query(values, visitor, "search", like=str(event_data.get("target")))

    def search_like_upload(self, values: Updates, request: gr.Request) -> Updates:
        """Search for images like an uploaded one, which is stored in home/inputs."""
        with report_errors():
            visitor = visitor_from_request(request)
            visitor.require_owner("Searching a dataset")
            # Refuses a dataset that is gone before anything is stored.
            self.services.dataset_registry.open(self.browser.read_state(values).name, visitor)
            path, name = resolve_upload(values[self.query_image])
            image = self.services.home.library.inputs.add(path, name)
            updates = self._submit_query(values, visitor, "search", like=image.sha256)
            return {**updates, self.query_image: None}

    # ---- results ------------------------------------------------------------------------------

    def _find_job(self, job_id: Any, visitor: Visitor) -> Job | None:
        """Return a search that the visitor may see."""
        job = self.services.home.jobs.get(int(job_id or 0))
        if job is None or job.kind != CLIP_SEARCH.name or not visitor.may_see(job.owner):
            return None
        return job

    def poll(self, values: Updates, request: gr.Request) -> Updates:
        """Show a search's progress, then its hits."""
        visitor = visitor_from_request(request)
        job = self._find_job(values[self.job_id], visitor)
        if job is None:
            return {self.timer: gr.Timer(active=False), self.progress: ""}
        if job.is_open:
            progress = job.progress
            text = progress.message or "Searching"
            if job.state == "queued":
                text = describe_wait(self.services.home.jobs, job, visitor)
            return {
                self.progress: dataset_view.render_progress(text, progress.step, progress.total)
            }
        if job.state != "done" or not isinstance(job.result, dict):
            error = job.error or "The search was stopped."
            return {
                self.timer: gr.Timer(active=False),
                self.progress: dataset_view.render_outcome(job.state, error),
            }
        return self._render_hits(values, job, job.result, visitor)

    def _render_hits(
        self, values: Updates, job: Job, result: dict[str, Any], visitor: Visitor
    ) -> Updates:
        """Show what a search has found, unless another dataset has been opened since."""
        question = result.get("question")
        has_duplicates = question == "duplicates" and bool(result.get("groups"))
        updates: Updates = {
            self.timer: gr.Timer(active=False),
            self.write_tags: gr.Button(visible=question == "classes"),
            self.dedupe: gr.Button(visible=has_duplicates),
        }
        if job.spec.get("dataset") != self.browser.read_state(values).name:
            return {**updates, self.progress: ""}
        hits = parse_hits(result)
        text = "No images found."
        if hits:
            order = ORDER_LABELS[str(result["question"])]
            text = f"{pluralize(len(hits), 'image')}, {order}."
        page = self.browser.rerender(
            values, visitor, message=sweep.render_note(text), hits=hits, page=0
        )
        return {**page, **updates, self.progress: dataset_view.render_outcome("done", text)}

    def write_class_tags(self, values: Updates, request: gr.Request) -> Updates:
        """Write each image's class into its caption as a tag, one step for each class."""
        with report_errors():
            visitor = visitor_from_request(request)
            dataset = self.browser.require_dataset(values, visitor, "Editing captions")
            job = self._find_job(values[self.job_id], visitor)
            rows: list[dict[str, Any]] = []
            if job and isinstance(job.result, dict) and job.spec.get("dataset") == dataset.name:
                rows = [row for row in job.result.get("found", ()) if "class" in row]
            existing_keys = {image.key for image in dataset.images}
            keys_by_class: dict[str, list[str]] = {}
            for row in rows:
                keys = keys_by_class.setdefault(row["class"], [])
                if row["file"] in existing_keys:
                    keys.append(row["file"])
            num_changes = 0
            for name, keys in keys_by_class.items():
                if keys:
                    num_changes += dataset.apply(AddTags(tags=(name,)), keys=keys).num_changes
            text = f"Labels were added to {pluralize(num_changes, 'caption')}."
            return {
                **self.browser.rerender(values, visitor, message=sweep.render_note(text)),
                self.write_tags: gr.Button(visible=False),
            }

    def set_aside_duplicates(self, values: Updates, request: gr.Request) -> Updates:
        """Set aside all but the best of each group of near-duplicates, as one step."""
        with report_errors():
            visitor = visitor_from_request(request)
            state = self.browser.read_state(values)
            updates = self.browser.set_aside_images(values, state.name, state.duplicates, visitor)
            return {**updates, self.dedupe: gr.Button(visible=False)}


def parse_hits(result: dict[str, Any]) -> tuple[SearchHit, ...]:
    """Turn the result of a search into hits, in the order in which they are shown.

    Args:
        result: the result of a "see" job: `question` and either `groups` (near-duplicates, the
            best of each group first) or `found` (rows with `file` and a score or class).
    """
    question = result.get("question")
    if question == "duplicates":
        hits = []
        for number, group in enumerate(result.get("groups", ()), 1):
            hits += _parse_duplicates(number, group)
        return tuple(hits)
    rows = list(result.get("found", ()))
    if question == "classes":
        rows.sort(key=lambda row: (row["class"], -row["share"]))
        return tuple(SearchHit(row["file"], f"{row['class']} {row['share']:.0%}") for row in rows)
    return tuple(SearchHit(row["file"], f"{row.get('score', row.get('fit')):.3f}") for row in rows)


def _parse_duplicates(number: int, group: list[dict[str, Any]]) -> list[SearchHit]:
    """Turn a group of near-duplicates into hits; the first, which is the best, names the rest."""
    hits = []
    for rank, row in enumerate(group):
        duplicates: tuple[str, ...] = ()
        if rank == 0:
            note = f"best of {len(group)}"
            duplicates = tuple(duplicate["file"] for duplicate in group[1:])
        elif row["same_file"]:
            note = "identical file"
        else:
            note = f"{row['like']:.2f} similar"
        hits.append(SearchHit(row["file"], f"group {number}, {note}", duplicates))
    return hits
