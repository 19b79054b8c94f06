"""The Training tab: a dataset, the basic settings, a plan before the run; earlier runs.

Knows: the form and its buttons, presets, import of kohya's files. Does not know: what the plan says
(plan.py), what the open run shows (run.py), how anything is trained.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.core.families.registry import FAMILIES
from studio.core.jobs import TRAIN, TRAINING_DRY_RUN
from studio.core.training.config import TrainingConfig
from studio.core.training.kohya import importer
from studio.errors import BadFile, Busy, StudioError
from studio.services.browser_tabs import find_shown_subject
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.services.waiting import describe_wait
from studio.storage.jobs import Job
from studio.storage.training.runs import Run
from studio.ui.components.field_faults import TELL_JS, FaultPlaces
from studio.ui.components.name_dropdown import carry_names, load_names_on_focus
from studio.ui.errors import report_errors, show_info
from studio.ui.events import (
    BUTTON_CLICK_JS,
    EVENT_OPTIONS,
    ROW_EVENT_OPTIONS,
    UNQUEUED_EVENT_OPTIONS,
    Updates,
    look_at_js,
    read_sent_text,
    visitor_from_request,
)
from studio.ui.form import Form
from studio.ui.private_gradio import event_payload
from studio.ui.tab import Handoff, Tab
from studio.ui.tabs.training import advanced, carried, plan
from studio.ui.tabs.training.run import RunView, error_sentences, run_state
from studio.ui.views import sweep, training
from studio.ui.views.jobs import STATE_LABELS

ID = "training"
MAX_LISTED_RUNS = 20  # under "Past runs"
MAX_CONFIG_BYTES = 1_000_000  # size of an imported file
EMPTY_PLAN_TEXT = "Choose a dataset to see how long it will take."


class TrainingTab:
    """One build of the tab; components are attributes, so that handlers name what they change."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.form: Form[TrainingConfig] = Form(TrainingConfig, ID)
        self.build_layout()
        self.wire()

    # ---- layout -------------------------------------------------------------------------------

    def build_layout(self) -> None:
        """Build the components: controls on the left, the open run on the right."""
        with gr.Row(elem_classes="workspace"):
            with gr.Column(elem_classes="controls"):
                self.preset = gr.Dropdown(
                    self.services.home.training_presets.list_names(only_shipped=True),
                    value=None,
                    label="Preset",
                    info="Fills in the whole form. Nothing starts yet.",
                    elem_id="train-preset",
                )
                self.preset_note = gr.HTML(elem_id="train-preset-note")
                self._add_basics()
                self._add_buttons()
                advanced.build_layout(self.form)
                self._add_extras()
            with gr.Column(elem_classes="sweep-stage training-stage"):
                self.view = RunView(self.services, self.stop)
        self.probe_job_id: gr.State = gr.State(0)
        self.imported_file: gr.State = gr.State(None)
        # What a preset or a dataset put into the form, by field name; what differs was typed.
        self.carried: gr.State = gr.State({})
        self.loaded_preset: gr.State = gr.State({})  # {name, values}
        self.probe_timer = gr.Timer(0.5, active=False)

    def _list_base_models(self, visitor: Visitor | None = None) -> list[str]:
        """Return the models that a LoRA can be trained on."""
        return [
            model.name
            for model in self.services.home.library.list_models()
            if not model.is_inpainting and FAMILIES[model.family].is_trainable
        ]

    def _add_basics(self) -> None:
        models = self._list_base_models()
        with gr.Group():
            self.form.add(
                "dataset",
                choices=[],
                value=None,
                allow_custom_value=True,
                info="A folder of images and captions in home/datasets.",
            )
            self.dataset_preview = gr.HTML(elem_id="train-pictures")
            with gr.Row(elem_classes="pair"):
                self.form.add(
                    "name",
                    max_lines=1,
                    min_width=100,
                    placeholder="moon",
                    info="What the LoRA will be called.",
                )
                self.form.add(
                    "trigger",
                    max_lines=1,
                    min_width=100,
                    placeholder="mysks",
                    info="A rare word that triggers it.",
                )
            with gr.Row(elem_classes="pair"):
                self.form.add(
                    "model",
                    choices=carry_names(models, TrainingConfig.model_fields["model"].default),
                    allow_custom_value=True,
                    min_width=100,
                    info="The base model to train on.",
                )
                self.form.add(
                    "resolution",
                    min_width=100,
                    placeholder="model default",
                    info="Empty: model default.",
                )
        with gr.Group():
            with gr.Row(elem_classes="pair"):
                self.form.add("steps", slider=False, min_width=100, info="Optimizer steps.")
                self.form.add(
                    "learning_rate",
                    slider=False,
                    step=0.0001,
                    min_width=100,
                    info="Size of each step.",
                )
                self.form.add(
                    "rank", slider=False, min_width=100, info="Capacity of the LoRA (network dim)."
                )
            with gr.Row(elem_classes="pair"):
                self.form.add("network_type", min_width=100, info="LoRA, LoHa or LoKr.")
                self.form.add("use_dora", min_width=100, info="Also learns magnitudes.")

    def _add_buttons(self) -> None:
        self.fault_places = FaultPlaces(self.form)
        self.plan = gr.HTML(
            sweep.render_note(EMPTY_PLAN_TEXT), js_on_load=TELL_JS, elem_id="train-plan"
        )
        with gr.Row(elem_classes="actions"):
            self.start = gr.Button(
                "Start",
                variant="primary",
                scale=3,
                elem_classes="on-ctrl-enter",
                elem_id="train-start",
            )
            self.stop = gr.Button(
                "Stop", variant="stop", scale=1, interactive=False, elem_id="train-stop"
            )
        self.start_probe = gr.Button("Estimate time", size="sm", elem_id="train-try")

    def _add_extras(self) -> None:
        with gr.Accordion("Import kohya settings", open=False, elem_id="train-kohya"):
            self.upload = gr.UploadButton(
                "Choose a TOML or JSON file",
                size="sm",
                file_types=[".toml", ".json"],
                elem_id="train-upload",
            )
            self.as_intended = gr.Checkbox(
                False,
                label="As intended",
                elem_id="train-meant",
                info="Off: just what kohya would have run, including keys that silently override "
                "others. On: epochs, learning rates and samples as written.",
            )
            self.notices = gr.HTML(elem_id="train-notices")
        with gr.Accordion("Past runs", open=False, elem_id="train-shelf") as self.history_accordion:
            self.run_list = gr.HTML(js_on_load=BUTTON_CLICK_JS, elem_id="train-list")
        with gr.Accordion("Save as preset", open=False, elem_id="train-presets"), gr.Row():
            self.preset_name = gr.Textbox(
                label="Preset name",
                placeholder="my preset",
                max_lines=1,
                scale=3,
                elem_id="train-preset-name",
            )
            self.preset_save = gr.Button("Save", scale=1, min_width=80, elem_id="train-preset-save")

    # ---- events -------------------------------------------------------------------------------

    @property
    def form_outputs(self) -> list[Any]:
        """Components that `fill_form` updates."""
        return [
            *self.form.outputs,
            self.dataset_preview,
            self.plan,
            self.preset,
            self.preset_note,
            self.carried,
            self.loaded_preset,
        ]

    @property
    def outputs(self) -> list[Any]:
        """Components that `on_open` and `load_request` update."""
        components = [
            *self.form_outputs,
            *self.view.outputs,
            self.run_list,
            self.probe_job_id,
            self.probe_timer,
        ]
        return list(dict.fromkeys(components))  # each once

    def wire(self) -> None:
        """Connect the events of the tab and of the open run."""
        self.view.wire()
        self._wire_form()
        self._wire_submit()
        self._wire_presets()
        self._wire_history()

    def _wire_form(self) -> None:
        load_names_on_focus(self.form["model"], self._list_base_models)
        form = self.form
        gr.on(
            [component.change for component in form.outputs],
            self.update_plan,
            {self.loaded_preset, *form.inputs},
            [self.plan, self.preset_note],
            preprocess=False,
            trigger_mode="always_last",
            **UNQUEUED_EVENT_OPTIONS,
        )
        form["dataset"].change(
            self.preview_dataset,
            form["dataset"],
            self.dataset_preview,
            preprocess=False,
            trigger_mode="always_last",
            **UNQUEUED_EVENT_OPTIONS,
        )
        form["dataset"].input(
            self.follow_dataset,
            {self.carried, *form.inputs},
            [*(form[name] for name in carried.SUBJECT_FIELDS), self.carried],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        form["dataset"].blur(self.refresh_datasets, None, form["dataset"], **UNQUEUED_EVENT_OPTIONS)

    def _wire_submit(self) -> None:
        probe_outputs = [self.plan, self.probe_job_id, self.probe_timer]
        starting = self.start.click(
            self.submit,
            self.form.inputs,
            [*self.view.outputs, self.run_list],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        starting.success(None, None, None, js=look_at_js("#run-head", "Training"), **EVENT_OPTIONS)
        starting.failure(
            self.explain_refusal, self.form.inputs, self.plan, preprocess=False, **EVENT_OPTIONS
        )
        self.start_probe.click(
            self.submit_probe, self.form.inputs, probe_outputs, preprocess=False, **EVENT_OPTIONS
        )
        self.probe_timer.tick(
            self.poll_probe,
            {self.probe_job_id, *self.form.inputs},
            probe_outputs,
            preprocess=False,
            **UNQUEUED_EVENT_OPTIONS,
        )

    def _wire_presets(self) -> None:
        """Connect presets and imported files."""
        self.preset.input(self.load_preset, self.preset, self.form_outputs, **EVENT_OPTIONS)
        self.preset_save.click(
            self.save_preset,
            {self.preset_name, *self.form.inputs},
            [self.preset, self.preset_name, self.preset_note, self.loaded_preset],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.view.empty.click(self.load_starter_preset, None, self.form_outputs, **EVENT_OPTIONS)
        self.upload.upload(
            self.import_file,
            {self.upload, self.as_intended, *self.form.inputs},
            [self.upload, self.imported_file, self.notices, *self.form_outputs],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.as_intended.input(
            self.reimport_file,
            {self.imported_file, self.as_intended, *self.form.inputs},
            [self.notices, *self.form_outputs],
            preprocess=False,
            **EVENT_OPTIONS,
        )

    def _wire_history(self) -> None:
        self.history_accordion.expand(
            self.refresh_run_list, self.view.run_id, self.run_list, **EVENT_OPTIONS
        )
        self.run_list.click(
            self.handle_run_action,
            self.view.run_id,
            [*self.form_outputs, *self.view.outputs, self.run_list],
            **ROW_EVENT_OPTIONS,
        )
        self.view.load_settings.click(
            self.load_run_settings, self.view.run_id, self.form_outputs, **EVENT_OPTIONS
        )

    def load_run_settings(self, run_id: str, request: gr.Request) -> Updates:
        """Put the settings of the run on the right into the form on the left."""
        with report_errors():
            visitor = visitor_from_request(request)
            run = self.view.require_run(run_id, visitor)
            show_info(f"The form now has the settings of “{run.config.name}”.")
            return self.fill_form(run.config, visitor)

    # ---- the form -----------------------------------------------------------------------------

    def update_plan(self, values: Updates, request: gr.Request) -> Updates:
        """Show the plan of the training on the page, or all that keeps it from starting.

        What has been changed since a preset was loaded stands under the preset's name.
        """
        preset = values.pop(self.loaded_preset) or {}
        changed_titles = carried.list_preset_changes(self.form, preset.get("values", {}), values)
        return {
            self.plan: self._render_plan(values, visitor_from_request(request)),
            self.preset_note: carried.render_preset_note(preset.get("name", ""), changed_titles),
        }

    def _render_plan(self, values: Updates, visitor: Visitor) -> str:
        if not values[self.form["dataset"]]:
            return sweep.render_note(EMPTY_PLAN_TEXT) + self.fault_places.render_marks()
        try:
            plan_html = plan.render_plan(self.services, self.form.read(values), visitor)
        except StudioError as error:
            faults = error_sentences(error)
            return sweep.render_faults(faults) + self.fault_places.render_marks(faults)
        return plan_html + self.fault_places.render_marks()

    def preview_dataset(self, dataset_name: Any, request: gr.Request) -> str:
        """Render what is in the chosen dataset."""
        return plan.render_dataset(self.services, dataset_name, visitor_from_request(request))

    def refresh_datasets(self, request: gr.Request) -> Any:
        """List the datasets anew."""
        return gr.Dropdown(self.services.list_datasets(visitor_from_request(request)))

    def follow_dataset(self, values: Updates, request: gr.Request) -> Updates:
        """Let name, trigger word and samples go with the dataset, unless somebody typed them."""
        visitor = visitor_from_request(request)
        try:
            training_set = self.services.open_training_set(
                str(values[self.form["dataset"]] or ""), visitor
            )
        except StudioError:  # the plan says what is wrong
            return {self.carried: gr.skip()}
        subject_fields = carried.build_subject_fields(training_set)
        followers = carried.select_followers(
            subject_fields, self.form.read_raw(values), values[self.carried] or {}
        )
        return {**self.form.fill_fields(followers), self.carried: subject_fields}

    def fill_form(self, config: TrainingConfig, visitor: Visitor, preset_name: str = "") -> Updates:
        """Put a preset, or the settings of a run, into the form.

        Args:
            config: The settings.
            visitor: Who asks.
            preset_name: The preset that they are; "" for those of a run.

        Returns:
            Updates of `form_outputs`.
        """
        updates = self.form.fill(config)
        return {
            **updates,
            self.preset: preset_name or None,
            self.preset_note: "",
            self.carried: config.model_dump(include=set(carried.SUBJECT_FIELDS)),
            self.loaded_preset: self._describe_preset(preset_name, config) if preset_name else {},
            self.dataset_preview: plan.render_dataset(self.services, config.dataset, visitor),
            self.plan: self._render_plan(updates, visitor),
        }

    def _describe_preset(self, name: str, config: TrainingConfig) -> dict[str, Any]:
        """Return a preset as the page sends its values back, for `update_plan`."""
        return {"name": name, "values": self.form.read_raw(self.form.fill(config))}

    def load_request(self, handoff: Any, visitor: Visitor) -> Updates:
        """Put a dataset from the Captions tab into the form, with samples made of its captions.

        The other settings stay; a preset that they came from is shown as changed.

        Args:
            handoff: {dataset, name, trigger}, as `CaptioningTab.build_handoff` returns it.
            visitor: who asks.

        Raises:
            gr.Error: the visitor cannot train on the dataset.
        """
        with report_errors():
            dataset_name = str(handoff.get("dataset") or "")
            training_set = self.services.open_training_set(dataset_name, visitor)
            trigger = str(handoff.get("trigger") or "")
            subject_fields = carried.build_subject_fields(training_set, trigger)
            subject_fields["name"] = str(handoff.get("name") or "") or dataset_name
            dataset_names = self.services.list_datasets(visitor)
            is_training = bool(
                self.services.home.jobs.list_open(visitor.id, TRAIN.name, visitor.tab, limit=1)
            )
            return {
                # The right side would go on speaking of a training that has ended.
                **({} if is_training else self.view.close()),
                **self.form.fill_fields(carried.add_sample_interval(subject_fields)),
                self.carried: subject_fields,
                self.form["dataset"]: gr.Dropdown(dataset_names, value=dataset_name),
                self.dataset_preview: plan.render_dataset(self.services, dataset_name, visitor),
            }

    # ---- presets and files --------------------------------------------------------------------

    def load_preset(self, preset_name: str, request: gr.Request) -> Updates:
        """Put the chosen preset into the form."""
        with report_errors():
            if not preset_name:
                return {self.preset_note: "", self.loaded_preset: {}}
            visitor = visitor_from_request(request)
            presets = self.services.home.training_presets
            config = presets.load(preset_name, only_shipped=visitor.is_guest)
            return self.fill_form(config, visitor, preset_name)

    def load_starter_preset(self, event: gr.EventData, request: gr.Request) -> Updates:
        """Put a preset into the form that was offered where no training is open yet."""
        with report_errors():
            name = str(event_payload(event).get("target"))
            visitor = visitor_from_request(request)
            presets = self.services.home.training_presets
            config = presets.load(name, only_shipped=visitor.is_guest)
            return self.fill_form(config, visitor, name)

    def save_preset(self, values: Updates, request: gr.Request) -> Updates:
        """Save the form as a preset and list it."""
        with report_errors():
            visitor_from_request(request).require_owner("Saving presets")
            presets = self.services.home.training_presets
            name = str(values.pop(self.preset_name) or "")
            config = self.form.read(values)
            path = presets.save(name, config)
            show_info(f"Saved as “{path.stem}”.")
            return {
                self.preset: gr.Dropdown(presets.list_names(), value=path.stem),
                self.preset_name: "",
                self.preset_note: "",
                self.loaded_preset: self._describe_preset(path.stem, config),
            }

    def import_file(self, values: Updates, request: gr.Request) -> Updates:
        """Put the settings of an uploaded file (kohya's or the studio's own) into the form."""
        with report_errors():
            file = values[self.upload]
            if isinstance(file, list) and file:
                file = file[0]
            imported_file = read_sent_text(file, MAX_CONFIG_BYTES)
            return {
                self.upload: None,
                self.imported_file: imported_file,
                **self._apply_import(imported_file, values, visitor_from_request(request)),
            }

    def reimport_file(self, values: Updates, request: gr.Request) -> Updates:
        """Import the same file again, after "As it was meant" was switched."""
        with report_errors():
            imported_file = values[self.imported_file]
            if not imported_file:
                return {self.notices: gr.skip()}
            return self._apply_import(imported_file, values, visitor_from_request(request))

    def _apply_import(
        self, imported_file: tuple[str, str], values: Updates, visitor: Visitor
    ) -> Updates:
        """Put the settings of a file (text, name) into the form; faults are named, not raised."""
        text, name = imported_file
        result = importer.import_config(text, name, as_meant=bool(values[self.as_intended]))
        fields = dict(result.values)
        faults = list(result.faults)
        choices = {
            "model": [model.name for model in self.services.home.library.list_models()],
            "dataset": self.services.list_datasets(visitor),
        }
        for field, available_names in choices.items():
            if fields.get(field) and fields[field] not in available_names:
                title = TrainingConfig.model_fields[field].title
                faults.append(
                    f"{title}: the file names {fields.pop(field)!s:.80}, which is not installed; "
                    "the current choice stays."
                )
        updates = self.form.fill_fields(fields)
        return {
            **updates,
            self.notices: training.render_import_notices(name, result.notices, faults),
            self.plan: self._render_plan({**values, **updates}, visitor),
        }

    # ---- running ------------------------------------------------------------------------------

    def submit(self, values: Updates, request: gr.Request) -> Updates:
        """Queue the training on the page and open its run."""
        with report_errors(is_shown=self.fault_places.shows_all):
            visitor = visitor_from_request(request)
            run_id, _ = self.services.submit_training(self.form.read(values), visitor)
            return self._open_run(visitor, run_id)

    def explain_refusal(self, values: Updates, request: gr.Request) -> Any:
        """Say what is wrong with a training that was refused, beside its fields too."""
        try:
            self.services.check_training(self.form.read(values), visitor_from_request(request))
        except StudioError as error:
            faults = error_sentences(error)
            marks = self.fault_places.render_marks(faults, is_refused=True)
            return sweep.render_faults(faults) + marks
        return gr.skip()  # it was refused for something else, which a toast says

    def submit_probe(self, values: Updates, request: gr.Request) -> Updates:
        """Queue a dry run of a few steps, which measures time and memory."""
        with report_errors():
            visitor = visitor_from_request(request)
            job_id = self.services.submit_training_dry_run(self.form.read(values), visitor)
            return {
                self.plan: sweep.render_note("Estimating time …"),
                self.probe_job_id: job_id,
                self.probe_timer: gr.Timer(active=True),
            }

    def poll_probe(self, values: Updates, request: gr.Request) -> Updates:
        """Show the dry run's progress, then the plan with its measurements, or its error."""
        visitor = visitor_from_request(request)
        job = self.services.home.jobs.get(int(values[self.probe_job_id] or 0))
        if job is None or not visitor.may_see(job.owner):
            plan_html = self._render_plan(values, visitor)
        elif job.is_open:
            text = job.progress.message or "Getting ready"
            if job.state == "queued":
                text = describe_wait(self.services.home.jobs, job, visitor)
            return {self.plan: sweep.render_note(f"Estimating time · {text} …")}
        elif job.state == "done":
            plan_html = self._render_plan(values, visitor)
        else:
            plan_html = sweep.render_faults([job.error or "The estimate was stopped."])
        return {
            self.plan: plan_html,
            self.probe_job_id: 0,
            self.probe_timer: gr.Timer(active=False),
        }

    # ---- earlier runs -------------------------------------------------------------------------

    def on_open(self, visitor: Visitor) -> Updates:
        """Fill a tab that opens: with its running training, else with its last one."""
        jobs = self.services.home.jobs
        probes = jobs.list_open(visitor.id, TRAINING_DRY_RUN.name, visitor.tab, limit=1)
        probe_job_id = probes[0].id if probes else 0
        run_ids = [run.id for run in self.services.home.runs.list_runs(visitor.id)]
        shown_id = find_shown_subject(jobs, TRAIN, "run", run_ids, visitor)
        run = self.view.find_run(shown_id, visitor)
        dataset_names = self.services.list_datasets(visitor)
        preset_names = self.services.home.training_presets.list_names(only_shipped=visitor.is_guest)
        updates: Updates = {
            self.preset: gr.Dropdown(preset_names, value=None),
            self.probe_job_id: probe_job_id,
            self.probe_timer: gr.Timer(active=bool(probe_job_id)),
        }
        if run is None:
            return {
                **updates,
                self.form["dataset"]: gr.Dropdown(dataset_names),
                self.run_list: self._render_run_list(visitor, ""),
                **self.view.close(),
            }
        return {
            **self.fill_form(run.config, visitor),
            **updates,
            self.form["dataset"]: gr.Dropdown(dataset_names, value=run.config.dataset),
            **self._open_run(visitor, run.id),
        }

    def _open_run(self, visitor: Visitor, run_id: str) -> Updates:
        return {
            **self.view.open(visitor, run_id),
            self.run_list: self._render_run_list(visitor, run_id),
        }

    def refresh_run_list(self, open_run_id: str, request: gr.Request) -> str:
        """Render the list of earlier runs."""
        return self._render_run_list(visitor_from_request(request), open_run_id)

    def handle_run_action(
        self, open_run_id: str, event: gr.EventData, request: gr.Request
    ) -> Updates:
        """Open a run of the list, or delete it after a question."""
        with report_errors():
            visitor = visitor_from_request(request)
            click = event_payload(event)
            action = click.get("action")
            if action == "keep":
                return {self.run_list: self._render_run_list(visitor, open_run_id)}
            run = self.view.require_run(str(click.get("target")), visitor)
            match action:
                case "ask":
                    return {self.run_list: self._render_run_list(visitor, open_run_id, run.id)}
                case "open":
                    return self._open_run(visitor, run.id)
                case "delete":
                    return self._delete_run(visitor, run, open_run_id)
            raise BadFile("The page asked for something that the studio does not know.")

    def _delete_run(self, visitor: Visitor, run: Run, open_run_id: str) -> Updates:
        if self.view.open_jobs(visitor, run.id):
            raise Busy("That training is still running; stop it first.")
        self.services.home.runs.delete(run.id)
        if run.id != open_run_id:
            return {self.run_list: self._render_run_list(visitor, open_run_id)}
        return {**self.view.close(), self.run_list: self._render_run_list(visitor, "")}

    def _render_run_list(self, visitor: Visitor, open_run_id: str, confirm_run_id: str = "") -> str:
        """Render earlier runs; the one with `confirm_run_id` asks whether to delete it."""
        last_jobs: dict[str, Job] = {}
        for job in self.services.home.jobs.list_recent(200, visitor.owner_filter):  # newest first
            if job.kind == TRAIN.name:
                last_jobs.setdefault(str(job.spec.get("run")), job)
        rows = []
        for run in self.services.home.runs.list_runs(visitor.owner_filter)[:MAX_LISTED_RUNS]:
            state = run_state(run, last_jobs.get(run.id))
            checkpoints = self.services.home.runs.list_checkpoints(run.id)
            last_step = checkpoints[-1].step if checkpoints else 0
            rows.append((run, STATE_LABELS[state], last_step, run.id == open_run_id))
        return training.render_run_list(rows, confirm_run_id)


def build(services: Services) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = TrainingTab(services)
    return Tab(
        on_open=tab.on_open,
        outputs=tab.outputs,
        has_text_input=True,
        load_request=tab.load_request,
        handoff=Handoff(tab.view.files, tab.view.build_handoff, ("txt2img", "sweep")),
    )
