"""The Sweep tab: say what varies, see what it will take, run it, come back to it.

Knows: the form and its buttons, presets, earlier sweeps.
Does not know: how a row becomes an axis (axes.py), what is shown of the open sweep (results.py),
how cells are rendered.
"""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from studio.core.base import validate
from studio.core.families.registry import FAMILIES
from studio.core.generation.family_rules import asks_for_recommended
from studio.core.generation.request import SEED_LIMIT, GenerationRequest
from studio.core.jobs import SWEEP
from studio.core.sweeps.spec import CostEstimate, SweepSpec, plan_sweep
from studio.errors import BadFile, Busy, InvalidSpec
from studio.services.browser_tabs import find_shown_subject
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.sweeps import Sweep
from studio.ui.components.carried_settings import CarriedSettings
from studio.ui.components.field_faults import TELL_JS, FaultPlaces
from studio.ui.components.lora_picker import LoraPicker
from studio.ui.components.name_dropdown import carry_names, load_names_on_focus
from studio.ui.components.prompt_reading import list_syntaxes
from studio.ui.errors import report_errors, show_info, show_warning
from studio.ui.events import (
    BUTTON_CLICK_JS,
    EVENT_OPTIONS,
    ROW_EVENT_OPTIONS,
    UNQUEUED_EVENT_OPTIONS,
    Updates,
    look_at_js,
    visitor_from_request,
)
from studio.ui.form import Form
from studio.ui.private_gradio import event_payload
from studio.ui.tab import Tab
from studio.ui.tabs.sweep.axes import MAX_AXES, AxisRows
from studio.ui.tabs.sweep.results import SweepView
from studio.ui.views import sweep as grid
from studio.ui.views.common import format_duration

ID = "sweep"
MAX_LISTED_SWEEPS = 20  # earlier sweeps that are listed
SIZE_FIELDS = ("width", "height")
SAMPLING_FIELDS = ("scheduler", "noise_schedule", "steps", "guidance")
# Of "What stays the same" and below; the prompt is what words are replaced in.
BASE_FIELDS = (
    "negative_prompt",
    "model",
    *SAMPLING_FIELDS,
    *SIZE_FIELDS,
    "seed",
    "vae",
    "prompt_syntax",
    "emphasis",
    "clip_skip",
    "guidance_rescale",
)
EXACT = "exact"
FAST = "fast"
EMPTY_PLAN_TEXT = "Pick values to compare to see how long it will take."
MODE_CHOICES = [
    ("Exact: identical to single images", EXACT),
    ("Fast: cells are batched; looks the same, but the last bits may differ", FAST),
]


class SweepTab:
    """The components of the tab, as attributes, so that handlers name what they change."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.form: Form[GenerationRequest] = Form(GenerationRequest, ID)
        self.build_layout()
        self.wire()

    # ---- layout -------------------------------------------------------------------------------

    def build_layout(self) -> None:
        """Place every component."""
        with gr.Row(elem_classes="workspace"):
            with gr.Column(elem_classes="controls"):
                self.form.add(
                    "prompt",
                    lines=2,
                    placeholder="a photo of a red house by a lake",
                    info="The prompt of every cell.",
                )
                self.axis_rows = AxisRows(self.services.home.library)
                self._add_buttons()
                self._add_base()
                self._add_extras()
            with gr.Column(elem_classes="sweep-stage"):
                self.view = SweepView(self.services, self.stop, self.extend, self.resume)

    def _add_buttons(self) -> None:
        self.fault_places = FaultPlaces(self.form)
        self.plan = gr.HTML(
            grid.render_note(EMPTY_PLAN_TEXT), js_on_load=TELL_JS, elem_id="sweep-plan"
        )
        with gr.Row(elem_classes="actions"):
            self.run = gr.Button(
                "Run sweep",
                variant="primary",
                scale=3,
                elem_classes="on-ctrl-enter",
                elem_id="sweep-run",
            )
            self.stop = gr.Button(
                "Stop", variant="stop", scale=1, interactive=False, elem_id="sweep-stop"
            )
        with gr.Row(elem_classes="second"):
            self.extend = gr.Button(
                "Add to this sweep",
                size="sm",
                visible=False,
                elem_id="sweep-extend",
            )
            self.resume = gr.Button("Continue", size="sm", visible=False, elem_id="sweep-again")

    def _add_base(self) -> None:
        native_sizes = {
            model.name: model.native_size for model in self.services.home.library.list_models()
        }
        model_name = GenerationRequest.model_fields["model"].default
        if native_sizes and model_name not in native_sizes:
            model_name = next(iter(native_sizes))
        with gr.Accordion("What stays the same", open=True, elem_id="sweep-base"):
            self.carried_settings = CarriedSettings(self.services, self.form)
            self.form.add(
                "negative_prompt", lines=1, placeholder="what to keep out of the images", info=None
            )
            self.form.add(
                "model",
                choices=carry_names(list(native_sizes), model_name),
                allow_custom_value=True,
                value=model_name,
                info="The checkpoint that makes the images.",
            )
            with gr.Row(elem_classes="pair"):
                self.form.add("scheduler", min_width=100, info="The method that removes the noise.")
                self.form.add(
                    "noise_schedule",
                    min_width=100,
                    info="Schedule type; Automatic works with every sampler.",
                )
            self.form.add("steps", info="More steps: slower, often better.")
            self.form.add("guidance", info="How closely to follow the prompt. 1 turns it off.")
            with gr.Row(elem_classes="pair"):
                for side in ("width", "height"):
                    self.form.add(
                        side,
                        value=native_sizes.get(model_name),
                        placeholder="Model default",
                        info="Empty uses the model's default size.",
                        min_width=60,
                    )
                self.form.add("seed", min_width=60, info="-1 picks one seed for all cells.")
            self.loras = LoraPicker(self.services, self.form)
        self.title = gr.Textbox(
            label="Title",
            placeholder="Title on the sheet (optional)",
            max_lines=1,
            elem_id="sweep-title",
        )
        self.mode = gr.Radio(
            MODE_CHOICES, value=EXACT, label="Mode", elem_id="sweep-mode", elem_classes="modes"
        )

    def _add_extras(self) -> None:
        with gr.Accordion("Presets", open=False, elem_id="sweep-presets"):
            self.preset = gr.Dropdown(
                self.services.home.sweep_presets.list_names(only_shipped=True),
                value=None,
                label="Load preset",
                elem_id="sweep-preset",
                info="Fills in the whole sweep without running it.",
            )
            with gr.Row():
                self.preset_name = gr.Textbox(
                    label="Save as preset",
                    placeholder="name",
                    max_lines=1,
                    scale=3,
                    elem_id="sweep-preset-name",
                )
                self.preset_save = gr.Button(
                    "Save", scale=1, min_width=80, elem_id="sweep-preset-save"
                )
        with gr.Accordion(
            "Past sweeps", open=False, elem_id="sweep-shelf"
        ) as self.history_accordion:
            self.sweep_list = gr.HTML(js_on_load=BUTTON_CLICK_JS, elem_id="sweep-list")
        with gr.Accordion("Advanced", open=False, elem_id="sweep-experts"):
            vaes = [file.name for file in self.services.home.library.shelf.list_files("vae")]
            self.form.add(
                "vae",
                choices=[("Model default", ""), *((name, name) for name in vaes)],
                allow_custom_value=True,
                info="The autoencoder that turns latents into pixels.",
            )
            with gr.Row():
                self.form.add("prompt_syntax", choices=list_syntaxes("auto"), min_width=140)
                self.form.add("emphasis", min_width=140)
            self.form.add("clip_skip")
            self.form.add("guidance_rescale")
            self.form.add(
                "styles",
                choices=[],
                multiselect=True,
                allow_custom_value=True,
                info="From the home's styles.csv; added around the prompts of all cells.",
            )

    # ---- events -------------------------------------------------------------------------------

    @property
    def inputs(self) -> set[Any]:
        """What says which sweep is wanted, and which one is open."""
        return {
            self.title,
            self.mode,
            self.view.sweep_id,
            self.carried_settings.carried_values,
            *self.form.inputs,
            *self.axis_rows.inputs,
        }

    @property
    def form_outputs(self) -> list[Any]:
        """What a loaded sweep fills in."""
        return [
            self.title,
            self.mode,
            self.plan,
            *self.form.outputs,
            *self.carried_settings.outputs,
            *self.axis_rows.outputs,
        ]

    @property
    def outputs(self) -> list[Any]:
        """What handlers may change."""
        view_outputs = [*self.view.outputs, self.sweep_list, self.preset]
        return list(dict.fromkeys([*self.form_outputs, *self.loras.outputs, *view_outputs]))

    def wire(self) -> None:
        """Connect events and handlers."""
        self.view.wire()
        self.loras.wire()
        self.carried_settings.wire()
        self._wire_run()
        self._wire_plan()
        self._wire_history()
        load_names_on_focus(self.form["model"], self._list_model_names)
        load_names_on_focus(self.form["styles"], self._list_styles)
        self.form["model"].input(
            self.apply_model,
            {self.form[name] for name in ("model", "scheduler", "noise_schedule")},
            [self.form[name] for name in (*SIZE_FIELDS, *SAMPLING_FIELDS)],
            **EVENT_OPTIONS,
        )
        self.view.pane.use_as_base.click(
            self.load_base_from_cell,
            self.view.pane.selected_path,
            [*self.form.outputs, *self.carried_settings.outputs],
            **EVENT_OPTIONS,
        )
        self.preset.input(self.load_preset, self.preset, self.form_outputs, **EVENT_OPTIONS)
        self.preset_save.click(
            self.save_preset,
            {self.preset_name, *self.inputs},
            [self.preset, self.preset_name],
            preprocess=False,
            **EVENT_OPTIONS,
        )

    def _wire_run(self) -> None:
        outputs = [*self.view.outputs, self.sweep_list]
        runs = (
            self.run.click(self.submit, self.inputs, outputs, preprocess=False, **EVENT_OPTIONS),
            self.extend.click(
                self.extend_sweep, self.inputs, outputs, preprocess=False, **EVENT_OPTIONS
            ),
            self.resume.click(self.resume_sweep, self.view.sweep_id, outputs, **EVENT_OPTIONS),
        )
        for run in runs:
            look = look_at_js("#sweep-head", "Sweep")
            run.success(None, None, None, js=look, **EVENT_OPTIONS)

    def _wire_plan(self) -> None:
        """Keep the plan up to date with all that it depends on."""
        plan_sources = [
            *self.form.outputs,
            self.mode,
            self.carried_settings.carried_values,
            self.axis_rows.fields,
            self.view.sweep_id,
            self.view.files,  # which change at the end
            *self.axis_rows.value_components,
        ]
        gr.on(
            [component.change for component in plan_sources],
            self.update_plan,
            self.inputs,
            [self.plan, *self.axis_rows.echoes],
            preprocess=False,
            trigger_mode="always_last",
            **UNQUEUED_EVENT_OPTIONS,
        )

        self.axis_rows.fields.change(
            self.hide_varied_fields,
            self.axis_rows.fields,
            [self.form[name] for name in BASE_FIELDS],
            **UNQUEUED_EVENT_OPTIONS,
        )

    def hide_varied_fields(self, varied_fields: list[str]) -> Updates:
        """Show under "What stays the same" only what does; the other values are kept."""
        varied = set(varied_fields or ())
        if "size" in varied:
            varied |= set(SIZE_FIELDS)
        return {self.form[name]: gr.update(visible=name not in varied) for name in BASE_FIELDS}

    def _wire_history(self) -> None:
        self.view.grid.click(
            self.handle_grid_action,
            self.view.selection_inputs,
            self.outputs,
            **ROW_EVENT_OPTIONS,
        )
        self.history_accordion.expand(
            self.refresh_sweep_list, self.view.sweep_id, self.sweep_list, **EVENT_OPTIONS
        )
        self.sweep_list.click(
            self.handle_sweep_action, self.view.sweep_id, self.outputs, **ROW_EVENT_OPTIONS
        )

    # ---- the sweep on the page ----------------------------------------------------------------

    def parse_sweep(self, values: Updates) -> SweepSpec:
        """Return the sweep on the page.

        Raises:
            InvalidSpec: With all that is wrong.
        """
        axes, row_faults = self.axis_rows.parse_axes(values)
        raw = {
            "base": {**self.carried_settings.read_raw(values), **self.form.read_raw(values)},
            "axes": axes,
            "title": values[self.title] or "",
            "fast": values[self.mode] == FAST,
        }
        try:
            spec = validate(SweepSpec, raw)
        except InvalidSpec as error:
            # Without a good row there are no axes, of which the rows' own faults say more.
            spec_faults = [
                fault for fault in error.faults if axes or not fault.startswith("Axes: ")
            ]
            raise InvalidSpec([*row_faults, *spec_faults]) from None
        if row_faults:
            raise InvalidSpec(row_faults)
        return spec

    def update_plan(self, values: Updates, request: gr.Request) -> Updates:
        """Render what the sweep on the page will be, or all that keeps it from being one."""
        visitor = visitor_from_request(request)
        faults: tuple[str, ...] = ()
        try:
            if self.axis_rows.is_blank(values):
                plan_html = grid.render_note(EMPTY_PLAN_TEXT)
            else:
                spec = self.parse_sweep(values)
                open_sweep = self.view.find_sweep(values[self.view.sweep_id], visitor)
                plan_html = self._render_plan(spec, open_sweep, visitor)
        except InvalidSpec as error:
            faults = error.faults
            plan_html = grid.render_faults(faults)
        marks = self.fault_places.render_marks(faults)
        return {self.plan: plan_html + marks, **self.axis_rows.render_echoes(values)}

    def _render_plan(self, spec: SweepSpec, open_sweep: Sweep | None, visitor: Visitor) -> str:
        """Render the plan of a sweep, and what of it would be new in the open one."""
        if visitor.is_guest:
            spec.validate_for_guest()
        if open_sweep is not None:
            spec = _keep_variation_seed(spec, open_sweep)
        plan = plan_sweep(
            spec,
            seed=_resolve_seed(spec, open_sweep),
            timings=self.services.load_current_timings(spec.models, spec.fast),
            files=self.services.get_prompt_files(visitor),
        )
        num_new_cells: int | None = None
        if open_sweep is not None:
            results = self.services.home.sweeps.load_cell_results(open_sweep.id)
            finished = {
                key for key, result in results.items() if result.has_image or result.is_binned
            }
            num_new_cells = sum(cell.key not in finished for cell in plan.cells)
        return grid.render_plan(
            plan,
            _duration_text(plan.cost_estimate),
            mode=FAST if spec.fast else EXACT,
            num_new_cells=num_new_cells,
        )

    def fill_form(
        self, spec: SweepSpec, visitor: Visitor, open_sweep: Sweep | None = None
    ) -> Updates:
        """Put a sweep on the page: a preset, or one that is opened again."""
        if len(spec.axes) > MAX_AXES:
            show_warning(
                f"This sweep has {len(spec.axes)} axes, but the form has room for {MAX_AXES}; the "
                "grid shows them all."
            )
        return {
            self.title: spec.title,
            self.mode: FAST if spec.fast else EXACT,
            **self._fill_base(spec.base),
            **self.carried_settings.fill(spec.base),
            **self.axis_rows.fill_rows(spec.axes),
            self.plan: self._render_plan(spec, open_sweep, visitor),
        }

    def load_preset(self, preset_name: str, request: gr.Request) -> Updates:
        """Put a preset on the page."""
        with report_errors():
            if not preset_name:
                return {self.plan: gr.skip()}
            visitor = visitor_from_request(request)
            return self.fill_form(self._load_preset(preset_name, visitor), visitor)

    def _load_preset(self, name: str, visitor: Visitor) -> SweepSpec:
        """Return a preset with what its model's authors recommend where it leaves that open."""
        presets = self.services.home.sweep_presets
        spec = presets.load(name, only_shipped=visitor.is_guest)
        return self.services.apply_recommended_settings(spec)

    def save_preset(self, values: Updates, request: gr.Request) -> Updates:
        """Save the sweep on the page as a preset."""
        with report_errors():
            visitor_from_request(request).require_owner("Saving presets")
            name = str(values.pop(self.preset_name) or "")
            path = self.services.home.sweep_presets.save(name, self.parse_sweep(values))
            show_info(f"Saved as “{path.stem}”.")
            return {
                self.preset: gr.Dropdown(
                    self.services.home.sweep_presets.list_names(), value=path.stem
                ),
                self.preset_name: "",
            }

    def _list_styles(self, visitor: Visitor) -> list[str]:
        """Return the styles that a visitor may use."""
        return list(self.services.get_prompt_files(visitor).list_styles())

    def _list_model_names(self, visitor: Visitor) -> list[str]:
        return [model.name for model in self.services.home.library.list_models()]

    def apply_model(self, values: Updates) -> Updates:
        """Fill in the size that a model was made for.

        Settings that its authors give are taken where the chosen scheduler does not suit it.
        """
        models = self.services.home.library.list_models()
        model = next((info for info in models if info.name == values[self.form["model"]]), None)
        if model is None:
            return {self.form[name]: None for name in SIZE_FIELDS}
        updates = {self.form[name]: model.native_size for name in SIZE_FIELDS}
        if not asks_for_recommended(
            str(values[self.form["scheduler"]]),
            str(values[self.form["noise_schedule"]]),
            FAMILIES[model.family],
            model.recommended_settings,
        ):
            return updates
        settings = GenerationRequest(**model.recommended_settings)
        return updates | {self.form[name]: getattr(settings, name) for name in SAMPLING_FIELDS}

    def load_base_from_cell(self, selected_path: str | None) -> Updates:
        """Put the settings of the selected cell's image on the page."""
        image = self.services.home.gallery.get(selected_path) if selected_path else None
        return self.load_base(image.request) if image else {self.form["seed"]: gr.skip()}

    def load_base(self, request: GenerationRequest) -> Updates:
        """Put a request on the page as the base; the axes stay as they are."""
        return {**self._fill_base(request), **self.carried_settings.fill(request)}

    def _fill_base(self, request: GenerationRequest) -> Updates:
        syntaxes = list_syntaxes(request.prompt_syntax)
        syntax = gr.Dropdown(syntaxes, value=request.prompt_syntax)
        return {**self.form.fill(request), self.form["prompt_syntax"]: syntax}

    # ---- running ------------------------------------------------------------------------------

    def submit(self, values: Updates, request: gr.Request) -> Updates:
        """Run the sweep on the page as a new one."""
        with report_errors():
            visitor = visitor_from_request(request)
            sweep_id, _ = self.services.submit_sweep(self.parse_sweep(values), visitor)
            return self._open_sweep(visitor, sweep_id)

    def extend_sweep(self, values: Updates, request: gr.Request) -> Updates:
        """Run the sweep on the page in place of the open one; cells that both have are kept."""
        with report_errors():
            visitor = visitor_from_request(request)
            sweep = self.view.require_sweep(values[self.view.sweep_id], visitor)
            spec = self.parse_sweep(values)
            spec = _keep_variation_seed(spec, sweep)
            spec = spec.resolve_seeds(_resolve_seed(spec, sweep))
            self.services.submit_sweep(spec, visitor, sweep.id)
            return self._open_sweep(visitor, sweep.id)

    def resume_sweep(self, sweep_id: str, request: gr.Request) -> Updates:
        """Run the cells that are missing and those that failed."""
        with report_errors():
            visitor = visitor_from_request(request)
            sweep = self.view.require_sweep(sweep_id, visitor)
            self.services.submit_sweep(sweep.spec, visitor, sweep.id)
            return self._open_sweep(visitor, sweep.id)

    def handle_grid_action(
        self, values: Updates, event: gr.EventData, request: gr.Request
    ) -> Updates:
        """Handle a button in the grid's place: a cell, or a preset to begin with."""
        with report_errors():
            if event_payload(event).get("action") != "preset":
                return self.view.handle_action(values, event, request)
            visitor = visitor_from_request(request)
            name = str(event_payload(event).get("target"))
            return self.fill_form(self._load_preset(name, visitor), visitor)

    # ---- earlier sweeps -----------------------------------------------------------------------

    def on_open(self, visitor: Visitor) -> Updates:
        """Return what a tab that opens shows: its running sweep, else its last one."""
        sweep_ids = [sweep.id for sweep in self.services.home.sweeps.list_sweeps(visitor.id)]
        shown_id = find_shown_subject(self.services.home.jobs, SWEEP, "sweep", sweep_ids, visitor)
        sweep = self.view.find_sweep(shown_id, visitor)
        preset_names = self.services.home.sweep_presets.list_names(only_shipped=visitor.is_guest)
        preset_choices = {self.preset: gr.Dropdown(preset_names)}
        if sweep is None:
            return {
                **preset_choices,
                **self.loras.refresh(self.form["model"].value, visitor),
                **self.view.close(),
                self.sweep_list: self._render_sweep_list(visitor, ""),
            }
        return {
            **preset_choices,
            **self._load_spec(sweep.spec, visitor, sweep),
            **self._open_sweep(visitor, sweep.id),
        }

    def load_request(self, handoff: Any, visitor: Visitor) -> Updates:
        """Show what another tab hands over: a sweep to begin with, or the id of one to open."""
        with report_errors():
            if not isinstance(handoff, str):
                return {**self._load_spec(handoff, visitor, None), **self.view.close()}
            sweep = self.view.require_sweep(handoff, visitor)
            return {
                **self._load_spec(sweep.spec, visitor, sweep),
                **self._open_sweep(visitor, sweep.id),
            }

    def _load_spec(self, spec: SweepSpec, visitor: Visitor, open_sweep: Sweep | None) -> Updates:
        """Put a sweep on the page, with what is known of its LoRAs."""
        updates = self.fill_form(spec, visitor, open_sweep)
        lora_rows = updates[self.form["loras"]]
        return updates | self.loras.refresh(spec.base.model, visitor, value=lora_rows)

    def _open_sweep(self, visitor: Visitor, sweep_id: str) -> Updates:
        return {
            **self.view.open(visitor, sweep_id),
            self.sweep_list: self._render_sweep_list(visitor, sweep_id),
        }

    def refresh_sweep_list(self, open_sweep_id: str, request: gr.Request) -> str:
        """Render the earlier sweeps anew."""
        return self._render_sweep_list(visitor_from_request(request), open_sweep_id)

    def handle_sweep_action(
        self, open_sweep_id: str, event: gr.EventData, request: gr.Request
    ) -> Updates:
        """Handle a button of an earlier sweep: open it, or delete it after a question."""
        with report_errors():
            visitor = visitor_from_request(request)
            data = event_payload(event)
            action = data.get("action")
            if action == "keep":
                return {self.sweep_list: self._render_sweep_list(visitor, open_sweep_id)}
            sweep = self.view.require_sweep(str(data.get("target")), visitor)
            match action:
                case "ask":
                    sweep_list_html = self._render_sweep_list(visitor, open_sweep_id, sweep.id)
                    return {self.sweep_list: sweep_list_html}
                case "open":
                    return {
                        **self.fill_form(sweep.spec, visitor, sweep),
                        **self._open_sweep(visitor, sweep.id),
                    }
                case "delete":
                    return self._delete_sweep(visitor, sweep, open_sweep_id)
            raise BadFile("The page asked for something the studio does not know; reload it.")

    def _delete_sweep(self, visitor: Visitor, sweep: Sweep, open_sweep_id: str) -> Updates:
        """Delete a sweep, and close it if it is the open one."""
        if self.view.open_jobs(visitor, sweep.id):
            raise Busy("That sweep is still running; stop it first.")
        self.services.home.sweeps.delete(sweep.id)
        updates: Updates = {}
        if sweep.id == open_sweep_id:
            updates |= self.view.close()
            open_sweep_id = ""
        updates[self.sweep_list] = self._render_sweep_list(visitor, open_sweep_id)
        return updates

    def _render_sweep_list(
        self, visitor: Visitor, open_sweep_id: str, confirm_sweep_id: str = ""
    ) -> str:
        """Render the earlier sweeps; that of `confirm_sweep_id` asks whether to delete it."""
        rows = []
        for sweep in self.services.home.sweeps.list_sweeps(visitor.owner_filter, MAX_LISTED_SWEEPS):
            spec = sweep.spec
            num_cells = math.prod(spec.value_counts[group[0]] for group in spec.groups)
            # Results of values that were taken out since are there, too: hence `min`.
            results = self.services.home.sweeps.load_cell_results(sweep.id).values()
            num_done = min(sum(result.has_image for result in results), num_cells)
            is_open = sweep.id == open_sweep_id
            rows.append((sweep.id, spec, sweep.changed, num_done, num_cells, is_open))
        return grid.render_sweep_list(rows, confirm_sweep_id)


def _resolve_seed(spec: SweepSpec, open_sweep: Sweep | None) -> int:
    """Return the seed to draw for -1.

    In an open sweep it is that sweep's, so that cells that are added continue its seeds.
    """
    if open_sweep is None:
        return 0
    open_seeds = _seed_values(open_sweep.spec)
    for index, (seed, open_seed) in enumerate(zip(_seed_values(spec), open_seeds)):
        if seed == -1:
            return (int(open_seed) - index) % SEED_LIMIT
    return open_sweep.spec.base.seed


def _keep_variation_seed(spec: SweepSpec, open_sweep: Sweep) -> SweepSpec:
    """Return a sweep with the variation seed that was drawn for the open one, where it has none."""
    drawn = open_sweep.spec.base.variation_seed
    if spec.base.variation_seed >= 0 or drawn < 0:
        return spec
    base = spec.base.model_copy(update={"variation_seed": drawn})
    return spec.model_copy(update={"base": base})


def _seed_values(spec: SweepSpec) -> tuple[Any, ...]:
    """Return the values of the axis of seeds, if there is one."""
    return next((axis.parsed_values for axis in spec.axes if axis.field == "seed"), ())


def _duration_text(estimate: CostEstimate) -> str:
    if estimate.seconds is not None:
        return f"about {format_duration(estimate.seconds)}"
    if estimate.painting is not None:
        return f"about {format_duration(estimate.painting)} once loaded"
    return "time not measured on this machine yet"


def build(services: Services) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = SweepTab(services)
    return Tab(
        form=tab.form,
        selected_path=tab.view.pane.selected_path,
        send_row=tab.view.pane.send_row,
        on_open=tab.on_open,
        load_request=tab.load_request,
        receive_image=lambda image, _visitor: tab.load_base(image.request),
        outputs=tab.outputs,
        form_outputs=[*tab.form.outputs, *tab.carried_settings.outputs],
    )
