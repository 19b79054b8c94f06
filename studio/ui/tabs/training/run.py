"""The open training: its progress, curve, samples, checkpoints and files; stop, resume, restart.

Knows: everything on the right side of the Training tab. Does not know: the form and how a training
is submitted (tab.py), how it is done (engine/training).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from studio.core.base import validate
from studio.core.catalog import AUTOMATIC
from studio.core.generation.lora_use import LoraUse
from studio.core.generation.request import GenerationRequest
from studio.core.jobs import EXPORT_CHECKPOINT, TRAIN, TRAINING_EVALUATION
from studio.core.sweeps.spec import SweepSpec
from studio.core.training.config import TrainingConfig
from studio.core.training.samples import choose_trial_prompt
from studio.errors import BadFile, StudioError
from studio.services.submission import Services
from studio.services.urls import file_url
from studio.services.visitor import Visitor
from studio.services.waiting import describe_wait
from studio.storage.jobs import Job
from studio.storage.training.checkpoints import Checkpoint
from studio.storage.training.runs import Run
from studio.ui.errors import report_errors
from studio.ui.events import (
    BUTTON_CLICK_JS,
    EVENT_OPTIONS,
    ROW_EVENT_OPTIONS,
    UNQUEUED_EVENT_OPTIONS,
    Updates,
    look_at_js,
    visitor_from_request,
)
from studio.ui.private_gradio import event_payload
from studio.ui.views import evaluation
from studio.ui.views import training as training_view
from studio.ui.views.common import format_duration, format_eta

TRAINING_JOB_KINDS = (TRAIN.name, EXPORT_CHECKPOINT.name, TRAINING_EVALUATION.name)
SWEEP_AXES = (
    {"field": "lora_weight", "values": "0, 0.4, 0.7, 1"},
    {"field": "scheduler", "values": ["DPM++ 2M", "Euler a", "DDIM"]},
)
# Presets offered while no training is open: (name, label).
STARTER_PRESETS = (
    ("moon-pocket", "The Moon, in a few minutes"),
    ("plush-pocket", "One plush toy by its name"),
)


class RunView:
    """The view of one run.

    Args:
        services: what the tabs work with.
        stop: the form's button that stops the training.
    """

    def __init__(self, services: Services, stop: gr.Button) -> None:
        self.services = services
        self.stop = stop
        self.run_id: gr.State = gr.State("")
        self.shown_revision: gr.State = gr.State("")
        self.block_hashes: gr.State = gr.State({})
        self.timer = gr.Timer(0.7, active=False)  # polled, so that a slow connection skips frames
        self.head = gr.HTML(elem_id="run-head")
        with gr.Row(elem_classes="second run-do"):
            self.resume = gr.Button(
                "Resume", variant="primary", size="sm", visible=False, elem_id="run-resume"
            )
            self.load_settings = gr.Button(
                "Load these settings", size="sm", visible=False, elem_id="run-load"
            )
            self.restart = gr.Button("Restart", size="sm", visible=False, elem_id="run-anew")
            self.confirm_restart = gr.Button(
                "Yes, discard progress and restart",
                size="sm",
                variant="stop",
                visible=False,
                elem_id="run-sure",
            )
        self.curve = gr.HTML(elem_id="run-curve")
        self.samples = gr.HTML(elem_id="run-samples")
        self.files = gr.HTML(js_on_load=BUTTON_CLICK_JS, elem_id="run-files")
        self.empty = gr.HTML(
            self.render_invitation(), js_on_load=BUTTON_CLICK_JS, elem_id="run-empty"
        )

    def render_invitation(self) -> str:
        """Render what stands there while no run is open: presets to start with."""
        preset_names = self.services.home.training_presets.list_names(only_shipped=True)
        return training_view.render_placeholder(
            [(name, label) for name, label in STARTER_PRESETS if name in preset_names]
        )

    @property
    def blocks(self) -> list[gr.HTML]:
        """Blocks that are sent only where they have changed."""
        return [self.head, self.curve, self.samples, self.files]

    @property
    def live_outputs(self) -> list[Any]:
        """Components that change while a run is open."""
        return [
            self.shown_revision,
            self.block_hashes,
            self.timer,
            self.stop,
            self.resume,
            self.restart,
            self.confirm_restart,
            *self.blocks,
        ]

    @property
    def outputs(self) -> list[Any]:
        """Components that `open` and `close` update."""
        return [*self.live_outputs, self.run_id, self.empty, self.load_settings]

    def wire(self) -> None:
        """Connect the view's own events."""
        self.timer.tick(
            self.poll,
            {self.run_id, self.shown_revision, self.block_hashes},
            self.live_outputs,
            **UNQUEUED_EVENT_OPTIONS,
        )
        self.stop.click(self.cancel_jobs, self.run_id, None, **EVENT_OPTIONS)
        for button, handler in (
            (self.resume, self.resume_run),
            (self.confirm_restart, self.restart_run),
        ):
            button.click(handler, self.run_id, self.outputs, **EVENT_OPTIONS).success(
                None, None, None, js=look_at_js("#run-head", "Training"), **EVENT_OPTIONS
            )
        self.restart.click(
            lambda: {
                self.restart: gr.Button(visible=False),
                self.confirm_restart: gr.Button(visible=True),
            },
            None,
            [self.restart, self.confirm_restart],
            **EVENT_OPTIONS,
        )
        self.files.click(self.handle_action, self.run_id, self.live_outputs, **ROW_EVENT_OPTIONS)

    # ---- progress -----------------------------------------------------------------------------

    def poll(self, values: Updates, request: gr.Request) -> Updates:
        """Show what the open run is doing, if anything has changed."""
        visitor = visitor_from_request(request)
        run_id = values[self.run_id]
        run = self.find_run(run_id, visitor)
        if run is None:
            return {self.timer: gr.Timer(active=False)}
        if self._revision(visitor, run_id) == values[self.shown_revision]:
            return {self.shown_revision: gr.skip()}
        return self._render(visitor, run, values[self.block_hashes])

    def _revision(self, visitor: Visitor, run_id: str) -> str:
        """Return a text that changes with the run's open jobs, and with what they wait for."""
        jobs = self.open_jobs(visitor, run_id)
        is_waiting = any(job.state == "queued" for job in jobs)
        queue_revision = self.services.home.jobs.get_revision() if is_waiting else 0
        return repr([(job.id, job.state, job.revision) for job in jobs] + [queue_revision])

    def _render(self, visitor: Visitor, run: Run, block_hashes: Mapping[str, str]) -> Updates:
        """Show a run: its buttons, and those of its blocks that differ from `block_hashes`."""
        revision = self._revision(visitor, run.id)
        jobs = self.open_jobs(visitor, run.id)
        training_job = next((job for job in jobs if job.kind == TRAIN.name), None)
        last_job = self._last_training_job(visitor, run.id)
        state = training_job.state if training_job else run_state(run, last_job)
        log_rows = self.services.home.runs.read_log(run.id)
        checkpoints = self.services.home.runs.list_checkpoints(run.id)
        logged_steps = [row["step"] for row in log_rows]
        saved_steps = [checkpoint.step for checkpoint in checkpoints]
        last_step = max(logged_steps + saved_steps, default=0)
        total_steps = _count_total_steps(run, training_job)
        if training_job:
            message, fraction = self._describe_progress(training_job, visitor)
        else:
            message, fraction = _describe_outcome(state, last_job, last_step), None
        metrics = _latest_metrics(log_rows, training_job, last_step, total_steps)
        header = training_view.render_header(
            run, message, fraction=fraction, state=state, metrics=metrics
        )
        texts = [
            header + _render_start_notes(run),
            training_view.render_loss_curve(log_rows, total_steps),
            self._render_samples(run, training_job is not None),
            self._render_files(run, jobs, checkpoints, visitor),
        ]
        new_hashes = {str(index): str(hash(text)) for index, text in enumerate(texts)}
        changed_blocks = {
            block: text
            for index, (block, text) in enumerate(zip(self.blocks, texts))
            if block_hashes.get(str(index)) != new_hashes[str(index)]
        }
        is_resumable = training_job is None and state != "done"
        return {
            self.shown_revision: revision,
            self.block_hashes: new_hashes,
            self.timer: gr.Timer(active=bool(jobs)),
            self.stop: gr.Button(interactive=training_job is not None),
            self.confirm_restart: gr.Button(visible=False),
            self.resume: gr.Button(_resume_label(last_step), visible=is_resumable),
            self.restart: gr.Button(visible=training_job is None and last_step > 0),
            **changed_blocks,
        }

    def _describe_progress(self, job: Job, visitor: Visitor) -> tuple[str, float]:
        """Return a sentence about an open training and its progress from 0 to 1."""
        if job.state == "queued":
            return describe_wait(self.services.home.jobs, job, visitor), 0.0
        progress = job.progress
        fraction = progress.step / progress.total if progress.total else 0.0
        return (progress.message or "Getting ready") + _eta_text(job), fraction

    def _render_samples(self, run: Run, is_training: bool) -> str:
        placeholder = ""
        if run.config.sample_prompt_list and is_training:
            placeholder = "Samples are generated at the start and during training."
        samples = self.services.home.runs.list_samples(run.id)
        return training_view.render_samples(samples, file_url, placeholder)

    def open(self, visitor: Visitor, run_id: str) -> Updates:
        """Show a run from now on.

        Returns:
            Updates of `outputs`.

        Raises:
            BadFile: there is no such run that the visitor may see.
        """
        return {
            self.run_id: run_id,
            self.empty: gr.HTML(visible=False),
            self.load_settings: gr.Button(visible=True),
            **self._render(visitor, self.require_run(run_id, visitor), {}),
        }

    def close(self) -> Updates:
        """Show that no run is open.

        Returns:
            Updates of `outputs`.
        """
        hidden = gr.Button(visible=False)
        return {
            self.run_id: "",
            self.block_hashes: {},
            self.timer: gr.Timer(active=False),
            self.stop: gr.Button(interactive=False),
            self.empty: gr.HTML(self.render_invitation(), visible=True),
            self.resume: hidden,
            self.load_settings: hidden,
            self.restart: hidden,
            self.confirm_restart: hidden,
            **dict.fromkeys(self.blocks, ""),
        }

    def cancel_jobs(self, run_id: str, request: gr.Request) -> None:
        """Cancel all open jobs of the run."""
        for job in self.open_jobs(visitor_from_request(request), run_id):
            self.services.home.jobs.cancel(job.id)

    def resume_run(self, run_id: str, request: gr.Request) -> Updates:
        """Continue the run from its newest checkpoint."""
        return self._resubmit(run_id, visitor_from_request(request), restart=False)

    def restart_run(self, run_id: str, request: gr.Request) -> Updates:
        """Begin the run again from step 0, with the same settings and seed."""
        return self._resubmit(run_id, visitor_from_request(request), restart=True)

    def _resubmit(self, run_id: str, visitor: Visitor, restart: bool) -> Updates:
        with report_errors():
            run = self.require_run(run_id, visitor)
            self.services.submit_training(None, visitor, run.id, restart=restart)
            return self.open(visitor, run_id)

    # ---- files and the evaluation -------------------------------------------------------------

    def handle_action(self, run_id: str, event: gr.EventData, request: gr.Request) -> Updates:
        """Act on a button among the files.

        What the click says comes from the browser and is not trusted.
        """
        with report_errors():
            visitor = visitor_from_request(request)
            click = event_payload(event)
            run = self.require_run(run_id, visitor)
            match click.get("action"), str(click.get("target")):
                case "try" | "sweep" | "compare", _:  # opens another tab: `build_handoff`
                    return {self.shown_revision: gr.skip()}
                case "report", _:
                    self.services.submit_training_evaluation(run.id, visitor)
                    return self._render(visitor, run, {})
                case "export", step if step.isascii() and step.isdigit() and len(step) < 9:
                    self.services.submit_checkpoint_export(run.id, int(step), visitor)
                    return self._render(visitor, run, {})
            raise BadFile("The page asked for something that the studio does not know.")

    def build_handoff(self, event: gr.EventData, visitor: Visitor) -> tuple[str, Any] | None:
        """Build what a button among the files hands to another tab.

        Returns:
            A tab's id and what it loads: a request with the LoRA for txt2img, a sweep of the LoRA,
            or the id of the evaluation's sweep; None if the click is another button's.
        """
        click = event_payload(event)
        action = click.get("action")
        target = str(click.get("target"))
        if action == "compare":
            return "sweep", target
        if action not in ("try", "sweep"):
            return None
        with report_errors():
            request = self._build_request(target, visitor)
            if action == "try":
                return "txt2img", request
            base = request.model_dump() | {"noise_schedule": AUTOMATIC}  # it suits all schedulers
            # Without a title: it then follows what varies.
            return "sweep", validate(SweepSpec, {"base": base, "axes": list(SWEEP_AXES)})

    def _build_request(self, lora_name: str, visitor: Visitor) -> GenerationRequest:
        """Build a request with a LoRA at its best weight: its model, seed and trigger."""
        name = self.services.home.library.get_lora(lora_name).name
        runs = self.services.home.runs.list_runs(visitor.owner_filter)
        run = next((run for run in runs if name in _exported_loras(run)), None)
        if run is None:
            raise BadFile(
                "The training of that LoRA was deleted; choose the LoRA in txt2img instead."
            )
        config = run.config
        model = self.services.home.library.get_model(config.model)
        best = self.services.home.runs.read_report(run.id).get("best") or {}
        weight = float(best["weight"]) if best.get("lora") == name else 1.0
        return GenerationRequest(
            model=config.model,
            prompt=choose_trial_prompt(config, self._read_captions(config, visitor)),
            width=model.native_size,
            height=model.native_size,
            seed=config.seed,
            loras=(LoraUse(name=name, unet=weight, text_encoder=weight),),
        )

    def _read_captions(self, config: TrainingConfig, visitor: Visitor) -> list[str]:
        """Return the captions of a training's dataset; none where it cannot be read any more."""
        try:
            training_set = self.services.open_training_set(config.dataset, visitor)
        except StudioError:
            return []
        return [image.caption for image in training_set.images]

    def _render_files(
        self, run: Run, jobs: list[Job], checkpoints: list[Checkpoint], visitor: Visitor
    ) -> str:
        """Render the evaluation, LoRA files (last step first) and checkpoints."""
        pending_steps = [
            int(job.spec.get("step") or 0) for job in jobs if job.kind == EXPORT_CHECKPOINT.name
        ]
        steps_by_lora = sorted(_exported_loras(run).items(), key=lambda item: -item[1])
        lora_files = []
        for name, step in steps_by_lora:
            path = self.services.home.settings.loras / f"{name}.safetensors"
            if path.is_file():
                lora_files.append((name, file_url(path), path.stat().st_size, step))
        evaluation_html = self._render_evaluation(run, jobs, visitor) if checkpoints else ""
        return evaluation_html + training_view.render_files(lora_files, pending_steps, checkpoints)

    def _render_evaluation(self, run: Run, jobs: list[Job], visitor: Visitor) -> str:
        """Render the evaluation of a run, its progress, or the button that starts it."""
        evaluation_job = next((job for job in jobs if job.kind == TRAINING_EVALUATION.name), None)
        if evaluation_job:
            progress = evaluation_job.progress
            message = (progress.message or "Getting ready") + _eta_text(evaluation_job)
            if evaluation_job.state == "queued":
                message = describe_wait(self.services.home.jobs, evaluation_job, visitor)
            return evaluation.render_progress(message, progress.step, progress.total)
        if any(job.kind == TRAIN.name for job in jobs):
            return ""
        report = self.services.home.runs.read_report(run.id)
        if report:
            return self._render_report(run, report)
        last_error = ""
        for job in self.services.home.jobs.list_recent(50, run.owner):
            if job.kind == TRAINING_EVALUATION.name and job.spec.get("run") == run.id:
                last_error = job.error or ""
                break
        return evaluation.render_placeholder(run.id, last_error)

    def _render_report(self, run: Run, report: Mapping[str, Any]) -> str:
        """Render a finished evaluation with its image pairs and the LoRA's card."""
        image_urls = {}
        for pair in report["pairs"]:
            for image_path in (pair["before"], pair["after"]):
                image = self.services.home.gallery.get(image_path)
                if image:
                    urls = (file_url(image.thumbnail), file_url(image.path))
                    image_urls[image_path] = urls
        best = report["best"] or max(report["points"], key=lambda point: point["concept"])
        card_files = []
        for suffix in (".md", ".png"):
            card = self.services.home.settings.loras / f"{best['lora']}{suffix}"
            if card.is_file():
                card_files.append((card.name, file_url(card)))
        return evaluation.render_report(run.id, report, image_urls, card_files)

    # ---- access -------------------------------------------------------------------------------

    def find_run(self, run_id: str, visitor: Visitor) -> Run | None:
        """Return a run if it exists and the visitor may see it."""
        run = self.services.home.runs.get(run_id) if run_id else None
        if run is None or not visitor.may_see(run.owner):
            return None
        return run

    def require_run(self, run_id: str, visitor: Visitor) -> Run:
        """Return a run that the visitor may see.

        Raises:
            BadFile: there is none.
        """
        run = self.find_run(run_id, visitor)
        if run is None:
            raise BadFile("That training no longer exists; start a new one or open a past run.")
        return run

    def open_jobs(self, visitor: Visitor, run_id: str) -> list[Job]:
        """List the running and queued jobs of a run."""
        return [
            job
            for job in self.services.home.jobs.list_open(visitor.owner_filter)
            if job.kind in TRAINING_JOB_KINDS and job.spec.get("run") == run_id
        ]

    def _last_training_job(self, visitor: Visitor, run_id: str) -> Job | None:
        """Return the newest training job of a run that has ended."""
        for job in self.services.home.jobs.list_recent(200, visitor.owner_filter):
            if job.kind == TRAIN.name and job.spec.get("run") == run_id and not job.is_open:
                return job
        return None


def run_state(run: Run, last_job: Job | None) -> str:
    """Return the state in which a run without an open job ended, as a job's state."""
    if last_job:
        return last_job.state
    return "done" if "lora" in run.result else "cancelled"


def _count_total_steps(run: Run, training_job: Job | None) -> int:
    """Return the number of steps that a run will have; 0 if it is not known yet."""
    if run.start_info.get("steps"):
        return int(run.start_info["steps"])
    if training_job and training_job.progress.total:
        return training_job.progress.total
    return int(run.config.steps or 0)


def _render_start_notes(run: Run) -> str:
    """Render what the worker noted, and which images it left aside, when the run began."""
    notes = run.start_info.get("notes") or ()
    left_aside = run.start_info.get("left_aside") or ()
    return training_view.render_notes([str(note) for note in (*notes, *left_aside)])


def _eta_text(job: Job) -> str:
    eta = format_eta(job.progress.eta_seconds)
    return f" · {eta}" if eta else ""


def _describe_outcome(state: str, last_job: Job | None, step: int) -> str:
    """Return a sentence about a training that has ended after `step` steps."""
    error = (last_job.error or "") if last_job else ""
    match state:
        case "done":
            result = last_job.result if last_job else None
            seconds = result.get("seconds") if isinstance(result, dict) else None
            if seconds:
                return f"Finished in {format_duration(seconds)}. Try it below."
            return "Finished. Try it below."
        case "cancelled":
            if step:
                return f"Stopped after step {step:,}. All is kept: Resume goes on from there."
            return "Stopped before its first step."
        case "interrupted":
            return f"Interrupted ({error}). Resume continues from the latest checkpoint."
    return error or "The training failed."


def _latest_metrics(
    log_rows: list[dict[str, Any]], job: Job | None, last_step: int, total_steps: int
) -> list[tuple[str, str]]:
    """List the latest value of each metric, as (title, value)."""
    step = last_step
    if job and job.progress.total:
        step = job.progress.step
    step_text = f"{step:,} of {total_steps:,}" if total_steps else f"{step:,}"
    metrics = [("Step", step_text)]
    for title, name, number_format in (
        ("Loss, smoothed", "smoothed", ".4f"),
        ("Learning rate", "rate", ".3g"),
        ("Images per second", "speed", ".3g"),
        ("Validation loss", "validation", ".4f"),
    ):
        value = next((row[name] for row in reversed(log_rows) if name in row), None)
        if isinstance(value, int | float):
            metrics.append((title, format(value, number_format)))
    return metrics


def _resume_label(step: int) -> str:
    return f"Resume from step {step:,}" if step else "Start again"


def _exported_loras(run: Run) -> dict[str, int]:
    """Return the LoRA files of a run: name → step."""
    steps_by_name: dict[str, int] = {}
    for entry in run.result.values():
        try:
            steps_by_name.setdefault(str(entry["lora"]), int(entry["step"]))
        except (TypeError, KeyError, ValueError):
            continue
    return steps_by_name


def error_sentences(error: StudioError) -> list[str]:
    """Return all that is wrong, one sentence each."""
    return list(getattr(error, "faults", ())) or [str(error)]
