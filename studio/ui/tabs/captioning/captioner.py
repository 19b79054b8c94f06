"""The captioner's part of the Captions tab: its settings, start, dry run and stop, progress.

Knows: the form of a captioning and its job. Does not know: how anything is captioned
(engine/captioning), the images beside their captions (browser.py).
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.core.base import validate
from studio.core.captions.edits import AddAffixes
from studio.core.captions.spec import CaptionSpec
from studio.core.catalog import CAPTIONERS, DEFAULT_CAPTIONER, ENDPOINT
from studio.core.jobs import CAPTION
from studio.errors import InvalidSpec
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.services.waiting import describe_wait
from studio.storage.jobs import Job
from studio.storage.models.library import Unusable
from studio.ui.errors import report_errors
from studio.ui.events import EVENT_OPTIONS, UNQUEUED_EVENT_OPTIONS, Updates, visitor_from_request
from studio.ui.form import Form
from studio.ui.tabs.captioning.browser import DatasetBrowser
from studio.ui.views import dataset as dataset_view
from studio.ui.views import sweep
from studio.ui.views.common import format_duration, format_eta, pluralize

MAX_PREVIEW_ROWS = 50  # rows of captions before and after a dry run
MODES = [("Keep", "fill"), ("Replace", "replace"), ("Append", "append")]


class CaptionerPanel:
    """The captioner's controls.

    Args:
        services: what the tabs work with.
        form: the form of a captioning, which has the dataset's chooser already.
    """

    def __init__(self, services: Services, form: Form[CaptionSpec]) -> None:
        self.services = services
        self.form = form
        self.models = services.home.transformers_models
        self._add_main_settings()
        self._add_buttons()
        self.progress = gr.HTML(elem_id="caption-doing")
        self._add_more_settings()
        self.result = gr.HTML(elem_id="caption-result")
        self.job_id: gr.State = gr.State(0)
        self.shown_revision: gr.State = gr.State("")
        self.timer = gr.Timer(0.5, active=False)

    def _add_main_settings(self) -> None:
        with gr.Group(elem_id="caption-form"):
            with gr.Row(elem_classes="pair"):
                self.form.add(
                    "captioner",
                    choices=self.captioner_choices(only_shipped=True),
                    allow_custom_value=True,
                    min_width=100,
                    info="Writes the captions.",
                )
                self.form.add("mode", choices=MODES, min_width=100, info="Keep, replace or append.")
            self.form.add(
                "trigger",
                max_lines=1,
                placeholder="mysks",
                info="A rare word that triggers what is learned; put in front.",
            )

    def _add_buttons(self) -> None:
        with gr.Row(elem_classes="actions"):
            self.start = gr.Button(
                "Caption",
                variant="primary",
                scale=3,
                elem_classes="on-ctrl-enter",
                elem_id="caption-start",
            )
            self.dry_run = gr.Button("Preview", scale=2, elem_id="caption-dry")
            self.stop = gr.Button(
                "Stop",
                variant="stop",
                scale=1,
                min_width=70,
                interactive=False,
                elem_id="caption-stop",
            )
        self.add_trigger = gr.Button(
            "Add trigger word to all captions", size="sm", elem_id="caption-dress"
        )

    def _add_more_settings(self) -> None:
        form = self.form
        with gr.Accordion("Advanced captioning settings", open=False, elem_id="caption-more"):
            with gr.Row(elem_classes="pair"):
                form.add(
                    "prefix",
                    max_lines=1,
                    min_width=100,
                    placeholder="a photo of ",
                    info="Added in front, as written.",
                )
                form.add(
                    "suffix",
                    max_lines=1,
                    min_width=100,
                    placeholder=", film grain",
                    info="Added at the end, as written.",
                )
            form.add("instruction", lines=2)
            with gr.Row(elem_classes="pair"):
                form.add(
                    "tokens",
                    slider=False,
                    min_width=100,
                    placeholder="default",
                    info="Empty: the model's default.",
                )
                form.add(
                    "batch",
                    slider=False,
                    min_width=100,
                    placeholder="automatic",
                    info="Images per call.",
                )
            with gr.Row(elem_classes="pair"):
                form.add(
                    "address", max_lines=1, min_width=100, placeholder="http://127.0.0.1:1234/v1"
                )
                form.add("model", max_lines=1, min_width=100)
            form.add("anew")

    def captioner_choices(self, *, only_shipped: bool) -> list[tuple[str, str]]:
        """List captioners on this machine, and an endpoint, as (label, value)."""
        choices = [
            (f"{model.name} ({CAPTIONERS[model.model_type].title})", model.name)
            for model in self.models.list_captioners()
            if not isinstance(model, Unusable) and (model.bundled or not only_shipped)
        ]
        return [*choices, ("Endpoint", ENDPOINT)]

    @property
    def outputs(self) -> list[Any]:
        """Components that show a job."""
        return [
            self.progress,
            self.result,
            self.start,
            self.dry_run,
            self.stop,
            self.job_id,
            self.shown_revision,
            self.timer,
        ]

    def wire(self, browser: DatasetBrowser) -> None:
        """Connect the events, with `browser` as the page of images."""
        self.browser = browser
        inputs = {*browser.edit_inputs, *self.form.inputs}
        self.start.click(self.submit, inputs, self.outputs, preprocess=False, **EVENT_OPTIONS)
        self.dry_run.click(
            self.submit_dry_run, inputs, self.outputs, preprocess=False, **EVENT_OPTIONS
        )
        self.stop.click(self.cancel_job, self.job_id, None, **EVENT_OPTIONS)
        self.add_trigger.click(
            self.add_trigger_to_captions, inputs, browser.outputs, preprocess=False, **EVENT_OPTIONS
        )
        self.timer.tick(
            self.poll, {self.job_id, self.shown_revision}, self.outputs, **UNQUEUED_EVENT_OPTIONS
        )

    # ---- submitting ---------------------------------------------------------------------------

    def parse_spec(self, values: Updates, visitor: Visitor, dry_run: bool = False) -> CaptionSpec:
        """Build the captioning that the page describes, for the images that an edit is for.

        Args:
            values: what the browser sent for the form and `browser.edit_inputs`.
            visitor: who asks.
            dry_run: whether captions are only shown.

        Raises:
            InvalidSpec: settings are wrong; lists all of them.
            DatasetError: the dataset or all ticked images are gone.
        """
        raw = self.form.read_raw(values) | {"dry_run": dry_run}
        if not raw.get("dataset"):
            raise InvalidSpec(["Dataset: choose one, or add images."])
        keys, filter_query = self.browser.resolve_targets(values, visitor)
        return validate(CaptionSpec, raw | {"filter": filter_query, "pictures": keys or ()})

    def submit(self, values: Updates, request: gr.Request) -> Updates:
        """Queue a captioning that writes captions."""
        return self._submit(values, visitor_from_request(request), dry_run=False)

    def submit_dry_run(self, values: Updates, request: gr.Request) -> Updates:
        """Queue a captioning that only shows captions."""
        return self._submit(values, visitor_from_request(request), dry_run=True)

    def _submit(self, values: Updates, visitor: Visitor, dry_run: bool) -> Updates:
        with report_errors():
            spec = self.parse_spec(values, visitor, dry_run)
            if not dry_run:
                self.services.dataset_registry.open_writable(spec.dataset, visitor)
            return self.open_job(self.services.submit_captioning(spec, visitor), visitor)

    def add_trigger_to_captions(self, values: Updates, request: gr.Request) -> Updates:
        """Put the trigger word in front of captions that lack it, as one step."""
        with report_errors():
            visitor = visitor_from_request(request)
            # No captioner runs here, so its settings must not make the spec invalid.
            defaults = {
                self.form["captioner"]: DEFAULT_CAPTIONER,
                self.form["address"]: "",
                self.form["model"]: "",
            }
            spec = self.parse_spec({**values, **defaults}, visitor)
            if not spec.trigger.strip():
                raise InvalidSpec(["Trigger word: enter a word first, such as mysks."])
            dataset = self.browser.require_dataset(values, visitor, "Editing captions")
            captioned_keys = [image.key for image in dataset.images if image.caption]
            keys = captioned_keys
            if spec.pictures:
                keys = [key for key in spec.pictures if key in set(captioned_keys)]
            step = dataset.apply(
                AddAffixes(trigger=spec.trigger), keys=keys, filter_query=spec.filter
            )
            message = dataset_view.render_skipped_files(step)
            if not message:
                text = _trigger_text(spec.trigger.strip(), step.num_changes, bool(captioned_keys))
                message = sweep.render_note(text)
            return self.browser.rerender(values, visitor, message=message)

    # ---- watching -----------------------------------------------------------------------------

    def cancel_job(self, job_id: int, request: gr.Request) -> None:
        """Cancel the captioning that the page shows."""
        with report_errors():
            job = self.services.home.jobs.get(int(job_id or 0))
            if job:
                visitor_from_request(request).require_job_access(job)
                self.services.home.jobs.cancel(job.id)

    def find_open_job(self, dataset_name: str, visitor: Visitor) -> int:
        """Return the id of the running or queued captioning of a dataset; 0 if there is none."""
        for job in self.services.home.jobs.list_open(visitor.owner_filter, CAPTION.name):
            if job.spec.get("dataset") == dataset_name:
                return job.id
        return 0

    def open_job(self, job_id: int, visitor: Visitor) -> Updates:
        """Show a job from now on; id 0 shows none.

        Returns:
            Updates of `outputs`.
        """
        return self._render(job_id, "", visitor)

    def poll(self, values: Updates, request: gr.Request) -> Updates:
        """Show the job's progress if it has changed."""
        visitor = visitor_from_request(request)
        return self._render(values[self.job_id], values[self.shown_revision], visitor)

    def _render(self, job_id: int, shown_revision: str, visitor: Visitor) -> Updates:
        job = self.services.home.jobs.get(int(job_id or 0))
        if job is None or job.kind != CAPTION.name or not visitor.may_see(job.owner):
            return {
                self.progress: "",
                self.result: "",
                self.timer: gr.Timer(active=False),
                **self._button_states(False),
                self.job_id: 0,
            }
        # What a waiting job waits for changes without the job.
        queue_revision = self.services.home.jobs.get_revision() if job.state == "queued" else 0
        revision = f"{job.id} {job.state} {job.revision} {queue_revision}"
        if revision == shown_revision:
            return {self.shown_revision: gr.skip()}
        if job.is_open:
            progress = dataset_view.render_progress(
                self._progress_text(job, visitor), job.progress.step, job.progress.total
            )
            result_html = ""
        else:
            result = job.result if isinstance(job.result, dict) else {}
            progress = dataset_view.render_outcome(
                job.state, _outcome_text(job, result), result.get("failed") or ()
            )
            result_html = _render_changes(result)
        return {
            self.job_id: job.id,
            self.shown_revision: revision,
            self.timer: gr.Timer(active=job.is_open),
            **self._button_states(job.is_open),
            self.progress: progress,
            self.result: result_html,
        }

    def _progress_text(self, job: Job, visitor: Visitor) -> str:
        if job.state == "queued":
            return describe_wait(self.services.home.jobs, job, visitor)
        progress = job.progress
        text = progress.message or "Getting ready"
        if progress.total:
            text += f" · {progress.step:,} of {progress.total:,}"
        return " · ".join(filter(None, (text, format_eta(progress.eta_seconds))))

    def _button_states(self, is_busy: bool) -> Updates:
        return {
            self.start: gr.Button(interactive=not is_busy),
            self.dry_run: gr.Button(interactive=not is_busy),
            self.stop: gr.Button(interactive=is_busy),
        }


def _trigger_text(trigger: str, num_changes: int, has_captions: bool) -> str:
    if num_changes:
        return f"{trigger} was added to {pluralize(num_changes, 'caption')}."
    if has_captions:
        return f"All captions already contain {trigger}."
    return "There are no captions yet. Caption adds the trigger word automatically."


def _outcome_text(job: Job, result: dict[str, Any]) -> str:
    if job.state == "cancelled":
        return "Stopped. Finished captions are kept; select Caption to continue."
    if job.state != "done":
        return job.error or "Captioning failed."
    num_captioned = int(result.get("made", 0)) + int(result.get("taken", 0))
    num_failed = len(result.get("failed") or ())
    duration = format_duration(float(result.get("seconds", 0)))
    text = f"{pluralize(num_captioned, 'image')} captioned in {duration}"
    if result.get("kept"):
        text += f"; {result['kept']:,} already had a caption and kept it"
    if num_failed:
        text += f"; {num_failed:,} failed"
    if result.get("dry_run"):
        return text + ". Nothing was written yet; select Caption to write them."
    return text + "."


def _render_changes(result: dict[str, Any]) -> str:
    """Render the captions before and after a dry run."""
    rows = [
        (str(row["file"]), str(row["before"]), str(row["after"]))
        for row in result.get("rows") or ()
    ]
    if not rows or not result.get("dry_run"):
        return ""
    num_rows = len(rows) + int(result.get("more_rows") or 0)
    title = f"Preview of captions by {result.get('captioner')}"
    if num_rows > MAX_PREVIEW_ROWS:
        title += f", the first {MAX_PREVIEW_ROWS} of {num_rows:,}"
    return dataset_view.render_caption_diff(rows[:MAX_PREVIEW_ROWS], num_rows, title)
