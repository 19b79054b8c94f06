"""What the tabs have in common that make images from a form: its parts, buttons and events.

Knows: GenerationRequest's form and the result panel beside it.
Does not know: in which order a tab lays the parts out; what else it needs than a form (an image,
a mask).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

import gradio as gr

from studio.core.base import validate, validate_stored
from studio.core.catalog import AUTOMATIC, SCHEDULERS, NoiseSchedule, Scheduler
from studio.core.families.family import Family
from studio.core.families.registry import FAMILIES
from studio.core.generation.family_rules import (
    asks_for_recommended,
    list_schedule_choices,
    resolve_noise_schedule,
)
from studio.core.generation.request import GenerationRequest
from studio.errors import BadFile, BadPicture, InvalidSpec, StudioError
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage import gallery
from studio.storage.models.library import ModelInfo
from studio.ui.components.field_faults import FaultPlaces, add_fault_line, list_faults
from studio.ui.components.form_memory import FormMemory, parse_kept
from studio.ui.components.image_menu import find_menu_image, move_to_bin, toggle_favourite
from studio.ui.components.lora_picker import LoraPicker
from studio.ui.components.model_note import ModelNote
from studio.ui.components.name_dropdown import carry_names, load_names_on_focus
from studio.ui.components.noise_and_solver import NoiseAndSolver
from studio.ui.components.prompt_reading import list_syntaxes, render_reading
from studio.ui.components.recipe_import import RecipeImport
from studio.ui.components.result_panel import ResultPanel
from studio.ui.components.size_presets import add_swap_button, list_size_presets, wire_swap
from studio.ui.components.style_picker import StylePicker
from studio.ui.errors import report_errors, show_info
from studio.ui.events import (
    EVENT_OPTIONS,
    UNQUEUED_EVENT_OPTIONS,
    Updates,
    look_at_js,
    visitor_from_request,
)
from studio.ui.form import Form
from studio.ui.private_gradio import event_payload
from studio.ui.tab import Handoff, Tab
from studio.ui.views.images import describe_estimate

MODEL_SIZE_LABEL = "Model default"
OWN_VAE_LABEL = "Model default"
FALLBACK_SIZE_PX = 512  # of a model that is not in the library
# What a part of an image's settings is.
REUSED_FIELDS = {
    "prompt": ("prompt", "negative_prompt"),
    "seed": ("seed",),
    "size": ("width", "height"),
}
# Settings that choosing a model changes.
MODEL_FIELDS = ("width", "height", "steps", "guidance", "scheduler", "noise_schedule")
# Of a template, whose wordings are checked while somebody types: all are when it is asked for.
MAX_CHECKED_WORDINGS = 4
# Who looks where no request says who: nothing of the owner's is told.
NOBODY = Visitor("", is_guest=False)


class GenerationTab:
    """The components of such a tab, as attributes, so that handlers name what they change."""

    ID: ClassVar[str]
    TASKS: ClassVar[tuple[str, ...]]
    NATIVE_SIZE_LABEL: ClassVar[str] = MODEL_SIZE_LABEL  # what an empty size means
    HANDS_RECIPES_OVER: ClassVar[bool] = False  # to the sweeps; each tab that does costs events
    loras: LoraPicker  # a tab places it where it is to stand
    hires_accordion: gr.Accordion | None = None  # where the second pass is, in a tab that has one

    def __init__(self, services: Services) -> None:
        self.services = services
        self.form: Form[GenerationRequest] = Form(GenerationRequest, self.ID)
        self.models = {model.name: model for model in services.home.library.list_models()}
        self.received = gr.State("")  # what another tab set in the form
        self.fault_places = FaultPlaces(self.form)
        # The schedule chosen for each scheduler; under "" the one that a scheduler could not run.
        self.schedules: gr.State = gr.State({})
        self.build_layout()
        self.wire()

    def element_id(self, part: str) -> str:
        """Return an element's id; those of the first tab go without its name."""
        return part if self.ID == "txt2img" else f"{self.ID}-{part}"

    # ---- layout -------------------------------------------------------------------------------

    def build_layout(self) -> None:
        """Place every component; a tab says in which order."""
        raise NotImplementedError

    def add_prompts(self, placeholder: str, **prompt_options: Any) -> None:
        """Place the prompts, Generate, Stop, and the estimate."""
        options = {"lines": 3, "max_lines": 8, "placeholder": placeholder} | prompt_options
        self.form.add("prompt", **options)
        self.form.add(
            "negative_prompt", lines=1, max_lines=4, placeholder="what to keep out of the image"
        )
        self.add_buttons()

    def add_buttons(self) -> None:
        """Place Generate, Stop, and the estimate of how long it will take."""
        with gr.Row(elem_classes="actions"):
            self.generate = gr.Button(
                "Generate",
                variant="primary",
                scale=3,
                elem_classes="on-ctrl-enter",
                elem_id=self.element_id("generate"),
            )
            self.stop = gr.Button(
                "Stop", variant="stop", scale=1, interactive=False, elem_id=self.element_id("stop")
            )
            gr.Button(
                "Generate forever",
                size="sm",
                scale=0,
                elem_id=self.element_id("forever"),
                elem_classes="icon forever",
            )
        self.memory = FormMemory(self.form)
        self.estimate = add_fault_line(self.element_id("estimate"))
        self.prompt_reading = gr.HTML(elem_id=self.element_id("prompt-reading"))
        self.model_note = ModelNote(self.services, self.form, self.element_id("model-note"))

    def add_main_settings(self, size_info: str = "Presets that suit the model.") -> None:
        """Place what is in view without scrolling: model, LoRAs, sampling, size, seed."""
        default_name = GenerationRequest.model_fields["model"].default
        model = self.models.get(default_name) or next(iter(self.models.values()), None)
        self.form.add(
            "model",
            choices=carry_names(list(self.models), model.name if model else default_name),
            allow_custom_value=True,
            value=model.name if model else default_name,
            info="The checkpoint that makes the image.",
        )
        self.loras = LoraPicker(self.services, self.form)
        self._add_sampling()
        self._add_size(model, size_info)
        self._add_seed()

    def _add_size(self, model: ModelInfo | None, info: str) -> None:
        with gr.Row(elem_classes="size-row"):
            self.size_choice = gr.Dropdown(
                self.size_choices(model),
                value=self.NATIVE_SIZE_LABEL,
                label="Size preset",
                info=info,
                min_width=100,
                elem_id=f"{self.ID}-size",
            )
            for side in ("width", "height"):
                if side == "height":
                    self.swap_sides = add_swap_button(self.element_id("swap"))
                self.form.add(
                    side,
                    value=model.native_size if model else None,
                    placeholder=self.NATIVE_SIZE_LABEL,
                    info=None,
                    min_width=60,
                )

    def _add_sampling(self) -> None:
        with gr.Row(elem_classes="pair"):
            self.form.add("scheduler", min_width=100, info="The method that removes the noise.")
            self.form.add(
                "noise_schedule",
                min_width=100,
                info="Schedule type: how the noise levels are spread.",
                choices=list_schedule_options("DPM++ 2M", FAMILIES["sd1"]),
            )
        self.form.add("steps", info="More steps: slower, often better.")
        self.form.add("guidance", info="How closely to follow the prompt. 1 turns it off.")

    def _add_seed(self) -> None:
        with gr.Row(elem_classes="seed-row"):
            self.form.add("seed", min_width=100, info="-1 picks a new seed each time.")
            self.random_seed = gr.Button(
                "New seed each time",
                size="sm",
                scale=0,
                elem_id=self.element_id("random-seed"),
                elem_classes="icon dice",
            )
            self.form.add(
                "num_images",
                min_width=60,
                slider=False,
                info=("How many images to make (batch count)."),
            )
            self.form.add(
                "batch_size",
                min_width=60,
                slider=False,
                info=("How many are made in parallel; 1 is repeatable bit for bit."),
            )

    def add_hires(self) -> None:
        """Place the settings of the second pass at a larger size."""
        with gr.Accordion(
            "Upscale (Hires fix)", open=False, elem_id=f"{self.ID}-hires"
        ) as self.hires_accordion:
            self.form.add("hires_scale", info="Upscale by this factor; 1 turns it off.")
            self.form.add("hires_strength", info="Denoising strength of the second pass.")
            self.form.add(
                "hires_steps",
                slider=True,
                info=("Steps of the second pass; 0 uses as many as the first."),
            )
            with gr.Row():
                self.form.add("hires_resize", min_width=120, info="Pixels or latents.")
                self.form.add(
                    "hires_upscaler",
                    choices=self.upscaler_choices(),
                    allow_custom_value=True,
                    min_width=120,
                    info="Enlarges the pixels between the two passes.",
                )
            with gr.Row():
                self.form.add(
                    "hires_tile", min_width=120, info=("Pixels a side; 0 works in one piece.")
                )
                self.form.add(
                    "hires_overlap",
                    min_width=120,
                    info=("How many pixels neighbouring tiles share."),
                )

    def upscaler_choices(self) -> list[tuple[str, str]]:
        """Return the upscalers that there are, as a dropdown takes them."""
        names = self.services.home.library.upscalers.list_names()
        return [("Lanczos", ""), *((name, name) for name in names if name != "Lanczos")]

    def add_extras(self) -> None:
        """Place styles, presets, an image's settings, and what only experts need, all folded."""
        self.styles = StylePicker(self.services, self.form)
        with gr.Accordion(
            "Presets", open=False, elem_id=self.element_id("presets")
        ) as self.presets_accordion:
            self.preset = gr.Dropdown(
                self.services.home.presets.list_names(only_shipped=True),
                value=None,
                label="Load preset",
                elem_id=self.element_id("preset"),
                info="Fills in its settings and resets the rest to their defaults.",
            )
            with gr.Row():
                self.preset_name = gr.Textbox(
                    label="Save as preset",
                    placeholder="name",
                    max_lines=1,
                    scale=3,
                    elem_id=self.element_id("preset-name"),
                )
                self.preset_save = gr.Button(
                    "Save", scale=1, min_width=80, elem_id=self.element_id("preset-save")
                )
        with gr.Accordion(
            "Load settings from an image", open=False, elem_id=self.element_id("from-picture")
        ):
            self.recipe_import = RecipeImport(
                self.services,
                self.form,
                self.element_id,
                self._complete_settings,
                can_vary=self.HANDS_RECIPES_OVER,
            )
        self.noise_and_solver = NoiseAndSolver(self.form, self.element_id("noise-and-solver"))
        with gr.Accordion("Advanced", open=False):
            self.form.add(
                "vae",
                choices=self.list_vae_choices(),
                allow_custom_value=True,
                info="The autoencoder that turns latents into pixels.",
            )
            with gr.Row():
                self.form.add(
                    "prompt_syntax",
                    choices=list_syntaxes("auto"),
                    min_width=140,
                    info="How the prompts are read.",
                )
                self.form.add("emphasis", min_width=140, info="How A1111's weights act on a word.")
            self.form.add("clip_skip")
            self.form.add("guidance_rescale")
        self.memory.add_reset()

    def add_result_panel(self, empty_html: str) -> None:
        """Place the side that shows the images."""
        self.result_panel = ResultPanel(self.services, self.ID, self.TASKS, empty_html)

    # ---- events -------------------------------------------------------------------------------

    @property
    def inputs(self) -> set[Any]:
        """What a request is read from."""
        return self.form.inputs

    @property
    def estimate_inputs(self) -> set[Any]:
        """What an estimate is read from: `inputs` without those that send much."""
        return self.form.inputs

    @property
    def form_outputs(self) -> list[Any]:
        """What a request is shown in."""
        outputs = [*self.form.outputs, *self.loras.outputs, self.estimate, self.prompt_reading]
        outputs += [*self.model_note.outputs, *self.memory.outputs]
        if self.hires_accordion:
            outputs.append(self.hires_accordion)
        return list(dict.fromkeys(outputs))

    @property
    def estimate_outputs(self) -> list[Any]:
        """What `update_estimate` changes."""
        return [self.estimate, self.prompt_reading]

    @property
    def outputs(self) -> list[Any]:
        """What handlers may change."""
        refreshed = self.result_panel.refresh_outputs
        return [*self.form_outputs, self.received, self.stop, *refreshed]

    def wire(self) -> None:
        """Connect events and handlers."""
        self.result_panel.wire(self.stop)
        self.loras.wire()
        self.model_note.wire()
        self.noise_and_solver.wire()
        self.styles.wire()
        self._wire_generation()
        self._wire_model_and_size()
        self._wire_presets()
        gr.on(
            [
                # static/shortcuts.js holds typed text back until there is a pause
                *(self.form[name].change for name in self.form.components),
                self.result_panel.image_settings.change,
            ],
            self.update_estimate,
            self.estimate_inputs,
            self.estimate_outputs,
            preprocess=False,
            trigger_mode="always_last",
            **UNQUEUED_EVENT_OPTIONS,
        )

    def _wire_generation(self) -> None:
        making = self.generate.click(
            self.submit,
            self.inputs,
            [*self.result_panel.refresh_outputs, self.stop],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        making.failure(
            self.explain_refusal,
            self.inputs,
            self.estimate,
            preprocess=False,
            **EVENT_OPTIONS,
        )
        result = f"#tab-{self.ID} .stage > .view"
        making.success(None, None, None, js=look_at_js(result, "Result"), **EVENT_OPTIONS)
        seed = self.form["seed"]
        self.result_panel.reuse_seed_button.click(
            self.reuse_seed, self.result_panel.selected_path, seed, **EVENT_OPTIONS
        )
        self.random_seed.click(None, None, seed, js="() => -1", **EVENT_OPTIONS)

    def _wire_model_and_size(self) -> None:
        form = self.form
        wire_swap(self.swap_sides, form["width"], form["height"])
        load_names_on_focus(form["model"], self.list_model_names)
        sampling = {form["model"], form["scheduler"], form["noise_schedule"], self.schedules}
        form["scheduler"].input(
            self.update_schedule,
            sampling,
            [form["noise_schedule"], self.schedules],
            **EVENT_OPTIONS,
        )
        form["noise_schedule"].input(
            self.remember_schedule, sampling, self.schedules, **EVENT_OPTIONS
        )
        for choose_model in (form["model"].input, self.received.change):
            choose_model(
                self.apply_model,
                self.estimate_inputs,
                [
                    self.size_choice,
                    form["vae"],
                    *(form[name] for name in MODEL_FIELDS),
                    *self.model_note.outputs,
                ],
                preprocess=False,
                **EVENT_OPTIONS,
            )
        self.size_choice.input(
            self.apply_size_choice,
            {self.size_choice, *self.estimate_inputs},
            [form["width"], form["height"]],
            preprocess=False,
            **EVENT_OPTIONS,
        )

    def _wire_presets(self) -> None:
        if self.hires_accordion:
            self.hires_accordion.expand(
                lambda: gr.Dropdown(self.upscaler_choices()),
                None,
                self.form["hires_upscaler"],
                **EVENT_OPTIONS,
            )
        self.presets_accordion.expand(self.list_presets, None, self.preset, **EVENT_OPTIONS)
        loading = self.preset.input(
            self.load_preset,
            {self.preset, *self.estimate_inputs},
            self.form_outputs,
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.preset_save.click(
            self.save_preset,
            {self.preset_name, *self.form.inputs},
            [self.preset, self.preset_name],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.recipe_import.wire(self.memory.outputs)
        self.memory.wire(self.undo_load, self.reset_form, self.form_outputs)
        self.memory.note_preset(loading, self.preset)
        outputs = [self.memory.block, self.preset, *self.form_outputs, self.stop]
        asking = self.memory.block.click(
            self.handle_page_event,
            {*self.estimate_inputs, self.result_panel.selected_path},
            [*outputs, *self.result_panel.refresh_outputs],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        self.memory.note_preset(asking, self.preset, only_asked=True)

    # ---- the request on the page --------------------------------------------------------------

    def extra_fields(self, values: Updates) -> dict[str, Any]:
        """Return the fields of the request that are not in the form.

        Raises:
            StudioError: If one of them is missing or not valid.
        """
        return {}

    def cheap_fields(self, values: Updates) -> dict[str, Any]:
        """Return those of the `extra_fields` that need no work, for an estimate."""
        return {}

    def parse_request(self, values: Updates) -> GenerationRequest:
        """Return the request on the page.

        Raises:
            InvalidSpec: With all that is wrong.
        """
        fields = self.form.read_raw(values)
        faults: list[str] = []
        try:
            fields |= self.extra_fields(values)
        except InvalidSpec as error:
            faults += error.faults
        except StudioError as error:
            faults.append(str(error))
        try:
            request = validate(GenerationRequest, fields)
        except InvalidSpec as error:
            raise InvalidSpec([*faults, *error.faults]) from None
        if faults:
            raise InvalidSpec(faults)
        return request

    def submit(self, values: Updates, request: gr.Request) -> Updates:
        """Queue the request on the page."""
        with report_errors(is_shown=self.fault_places.shows_all):
            visitor = visitor_from_request(request)
            self.services.submit_generation(self.parse_request(values), visitor)
            return self.result_panel.render(visitor)

    def explain_refusal(self, values: Updates, request: gr.Request) -> Any:
        """Say what is wrong with a request that was refused, beside its fields too."""
        try:
            spec = self.parse_request(values)
            self.services.check_generation(spec, visitor_from_request(request))
        except StudioError as error:
            return self.fault_places.render("", list_faults(error), is_refused=True)
        return gr.skip()  # it was refused for something else, which a toast says

    def update_estimate(self, values: Updates, request: gr.Request | None = None) -> Updates:
        """Say how long the request on the page will take, or what keeps it from being one."""
        visitor = visitor_from_request(request) if request else NOBODY
        fields = {**self.form.read_raw(values), **self.cheap_fields(values)}
        reading_html = ""
        tokens: Sequence[tuple[str, object]] = ()
        try:
            spec = validate(GenerationRequest, fields)
            reading_html = render_reading(spec)
            tokens = self.count_tokens(spec)
            self.check_as_submitted(spec, visitor)
            estimate_html = self.estimate_text(spec, tokens)
        except StudioError as error:
            estimate_html = self.fault_places.render("", list_faults(error), tokens=tokens)
        return {self.estimate: estimate_html, self.prompt_reading: reading_html}

    def check_as_submitted(self, request: GenerationRequest, visitor: Visitor) -> None:
        """Raise what Generate would; of a template only the first wordings are looked at.

        Raises what `Services.prepare_generation` raises.
        """
        changes: dict[str, Any] = {"num_images": min(request.num_images, MAX_CHECKED_WORDINGS)}
        if visitor is NOBODY:
            changes["styles"] = ()  # guests are told of none
        if request.is_open:
            request = request.model_copy(update=changes)
        self.services.check_generation(request, visitor)

    def count_tokens(self, request: GenerationRequest) -> Sequence[tuple[str, object]]:
        """Count what the model reads of both prompts; nothing for templates, which come to more."""
        counts = None if request.is_open else self.services.prompt_tokens.count(request)
        return tuple(zip(("prompt", "negative_prompt"), counts or ()))

    def estimate_text(
        self, request: GenerationRequest, tokens: Sequence[tuple[str, object]] | None = None
    ) -> str:
        """Render in a line how long a request will take.

        Args:
            request: What is asked for.
            tokens: What `count_tokens` returns; counted here if it is not given.

        Raises:
            InvalidSpec: If the request does not go with its model or image.
        """
        native_size = native_size_of(self.models.get(request.model))
        resolved = request.resolve(native_size, 0, self.find_input_size(request.image))
        text = describe_estimate(
            resolved,
            self.services.home.gallery.get_seconds_per_megapixel(request.model),
            gallery.estimate_unet_work(resolved),
        )
        counts = self.count_tokens(request) if tokens is None else tokens
        return self.fault_places.render(text, tokens=counts)

    def find_input_size(self, image_sha256: str) -> tuple[int, int] | None:
        """Return the size of an input image, if there is one and it is still here."""
        if not image_sha256:
            return None
        try:
            return self.services.home.library.inputs.read_size(image_sha256)
        except BadPicture:
            return None

    # ---- filling the form ---------------------------------------------------------------------

    def on_open(self, visitor: Visitor) -> Updates:
        """Return what a page that opens shows: the visitor's running job, else the last one."""
        open_jobs = self.result_panel.list_open_jobs(visitor)
        job = open_jobs[0] if open_jobs else self.result_panel.find_last_job(visitor)
        if job is None:
            model_name = self.form["model"].value
            return {
                self.estimate: self.estimate_text(GenerationRequest(model=model_name)),
                self.form["vae"]: gr.Dropdown(self.list_vae_choices()),
                **self.loras.refresh(model_name, visitor),
                **self.model_note.refresh(self.models.get(model_name)),
            }
        return {
            **self.load_request(validate_stored(GenerationRequest, job.spec), visitor),
            **self.result_panel.render(visitor),
        }

    def load_request(self, request: GenerationRequest, visitor: Visitor) -> Updates:
        """Put a request on the page, with what is known of its LoRAs now."""
        updates = self.form.fill(request)
        family = self.find_family(request.model)
        updates |= self.sampling_choices(family, request.scheduler, request.noise_schedule)
        updates[self.estimate] = self.estimate_text(request)
        updates[self.prompt_reading] = render_reading(request)
        updates[self.form["prompt_syntax"]] = gr.Dropdown(
            list_syntaxes(request.prompt_syntax), value=request.prompt_syntax
        )
        updates[self.form["vae"]] = gr.Dropdown(self.list_vae_choices(), value=request.vae)
        updates |= self.model_note.refresh(self.find_model(request.model))
        if self.hires_accordion:
            updates[self.hires_accordion] = gr.Accordion(open=request.has_hires_pass)
        lora_rows = updates[self.form["loras"]]
        return updates | self.loras.refresh(request.model, visitor, value=lora_rows)

    def receive_fields(self, values: dict[str, Any], visitor: Visitor) -> Updates:
        """Set single fields of the form; what goes with another model follows.

        Raises ModelNotFound and UnknownFamily for a model that is not there.
        """
        updates = self.form.fill_fields(values)
        if "model" in values:
            self.services.home.library.get_model(values["model"])
            # A text that was never there before: the same model again is a change too.
            updates[self.received] = secrets.token_hex(8)
        return updates

    def receive_image(self, image: gallery.GeneratedImage, visitor: Visitor) -> Updates:
        """Put the settings of an image from another tab on the page."""
        return self.load_request(image.request, visitor)

    def reuse_seed(self, selected_path: str | None) -> Any:
        """Return the seed of the image in view."""
        image = self.services.home.gallery.get(selected_path) if selected_path else None
        return image.request.seed if image else gr.skip()

    def update_schedule(self, values: Updates) -> Updates:
        """Offer the noise schedules that the scheduler runs on, and choose one.

        That is the one chosen for it before, else the one on the page, else the last one that
        another scheduler could not run.
        """
        scheduler = find_scheduler(values[self.form["scheduler"]])
        options: list[tuple[str, str]] = []
        if scheduler:
            options = list_schedule_options(scheduler, self.find_family(values[self.form["model"]]))
        if not options:
            return {self.schedules: gr.skip()}
        remembered = dict(values.get(self.schedules) or {})
        current = values[self.form["noise_schedule"]]
        offered = [value for _, value in options]
        wanted = [remembered.get(scheduler), current, AUTOMATIC]
        if current == AUTOMATIC:
            wanted.insert(1, remembered.get(""))
        noise_schedule = next(name for name in wanted if name in offered)
        if isinstance(current, str) and current not in offered:
            remembered[""] = current
        elif noise_schedule == remembered.get(""):
            remembered.pop("", None)
        return {
            self.form["noise_schedule"]: gr.Dropdown(options, value=noise_schedule),
            self.schedules: remembered,
        }

    def remember_schedule(self, values: Updates) -> Any:
        """Note which schedule was chosen for the scheduler on the page."""
        scheduler = find_scheduler(values[self.form["scheduler"]])
        noise_schedule = values[self.form["noise_schedule"]]
        if scheduler is None or noise_schedule not in get_args(NoiseSchedule):
            return gr.skip()
        remembered = dict(values.get(self.schedules) or {}) | {scheduler: noise_schedule}
        remembered.pop("", None)  # what was chosen since counts
        return remembered

    def list_model_names(self, visitor: Visitor) -> list[str]:
        """Return the names of the models that there are now."""
        return [model.name for model in self.services.home.library.list_models()]

    def find_family(self, model_name: Any) -> Family:
        """Return the family of a model; SD 1.x for one that is not in the library."""
        models = self.services.home.library.list_models()
        names = {model.name: model.family for model in models}
        return FAMILIES[names.get(model_name, "sd1") if isinstance(model_name, str) else "sd1"]

    def sampling_choices(
        self, family: Family, scheduler: Scheduler, noise_schedule: str
    ) -> Updates:
        """Offer what suits a family; the chosen ones stay, suited or not."""
        schedulers = family.list_schedulers()
        options = list_schedule_options(scheduler, family)
        if noise_schedule not in [value for _, value in options]:
            schedulers = tuple(SCHEDULERS)
            options = [(name, name) for name in get_args(NoiseSchedule)]
        return {
            self.form["scheduler"]: gr.Dropdown(list(schedulers), value=scheduler),
            self.form["noise_schedule"]: gr.Dropdown(options, value=noise_schedule),
        }

    def selected_model(self, values: Mapping[Any, Any]) -> ModelInfo | None:
        """Return the chosen model, if it is in the library."""
        return self.find_model(values[self.form["model"]])

    def find_model(self, name: Any) -> ModelInfo | None:
        """Return the model of a name, if it is in the library."""
        models = self.services.home.library.list_models()
        return next((model for model in models if model.name == name), None)

    def size_choices(self, model: ModelInfo | None) -> list[tuple[str, str]]:
        """Return the sizes to choose from as (label, value), the native one first."""
        choices = [(self.NATIVE_SIZE_LABEL, self.NATIVE_SIZE_LABEL)]
        if model:
            sizes = FAMILIES[model.family].list_common_sizes(model.native_size)
            choices += list_size_presets(sizes)
        return choices

    def default_size(self, values: Updates) -> tuple[int, int] | None:
        """Return the size of an image for which none is chosen; None without a known model."""
        model = self.selected_model(values)
        if model is None:
            return None
        return model.native_size, model.native_size

    def apply_model_size(self, values: Updates) -> Updates:
        """Offer the sizes that suit the chosen model, and fill in its default size."""
        model = self.selected_model(values)
        size = self.default_size(values)
        if model is None or size is None:
            return {self.size_choice: gr.skip()}
        return {
            self.size_choice: gr.Dropdown(self.size_choices(model), value=self.NATIVE_SIZE_LABEL),
            self.form["width"]: size[0],
            self.form["height"]: size[1],
        }

    def apply_model(self, values: Updates) -> Updates:
        """Offer what suits the chosen model, and fill in its default size.

        Settings that its authors give are taken where the chosen scheduler does not suit it, or
        none was chosen.
        """
        model = self.selected_model(values)
        if model is None:
            return {self.size_choice: gr.skip()}
        family = FAMILIES[model.family]
        chosen = {name: values[self.form[name]] for name in ("scheduler", "noise_schedule")}
        updates = self.apply_model_size(values)
        recommended = model.recommended_settings
        scheduler, noise_schedule = (str(name) for name in chosen.values())
        if asks_for_recommended(scheduler, noise_schedule, family, recommended):
            settings = GenerationRequest(**recommended)
            chosen = {"scheduler": settings.scheduler, "noise_schedule": settings.noise_schedule}
            updates |= {self.form[name]: getattr(settings, name) for name in ("steps", "guidance")}
        updates[self.form["vae"]] = gr.Dropdown(self.list_vae_choices())
        updates |= self.model_note.refresh(model)
        return updates | self.sampling_choices(family, **chosen)

    def list_vae_choices(self) -> list[tuple[str, str]]:
        """Return the autoencoders to choose from, as (label, value)."""
        files = self.services.home.library.shelf.list_files("vae")
        return [(OWN_VAE_LABEL, ""), *((file.name, file.name) for file in files)]

    def apply_size_choice(self, values: Updates) -> Updates:
        """Fill in the chosen size; the default one where the choice is not a known size."""
        choice = values[self.size_choice]
        common_sizes = [size for _, size in self.size_choices(self.selected_model(values))[1:]]
        if isinstance(choice, str) and choice in common_sizes:
            width, height = choice.split(" × ")
            return {self.form["width"]: int(width), self.form["height"]: int(height)}
        size = self.default_size(values)
        if size is None:
            return {self.form["width"]: gr.skip()}
        return {self.form["width"]: size[0], self.form["height"]: size[1]}

    def list_presets(self, request: gr.Request) -> gr.Dropdown:
        """Offer the presets that this visitor may see."""
        is_guest = visitor_from_request(request).is_guest
        return gr.Dropdown(self.services.home.presets.list_names(only_shipped=is_guest))

    def load_preset(self, values: Updates, request: gr.Request) -> Updates:
        """Put a preset on the page."""
        with report_errors():
            name = values[self.preset]
            if not name:
                return {self.estimate: gr.skip()}
            visitor = visitor_from_request(request)
            preset = self.services.home.presets.load(str(name), only_shipped=visitor.is_guest)
            before = self.memory.note_load(self.form.read_raw(values))
            return self.load_request(preset, visitor) | before

    def save_preset(self, values: Updates, request: gr.Request) -> Updates:
        """Save the settings on the page as a preset."""
        with report_errors():
            visitor_from_request(request).require_owner("Saving presets")
            name = str(values.pop(self.preset_name) or "")
            path = self.services.home.presets.save(name, self.form.read(values))
            show_info(f"Saved as “{path.stem}”.")
            return {
                self.preset: gr.Dropdown(self.services.home.presets.list_names(), value=path.stem),
                self.preset_name: "",
            }

    def _complete_settings(self, settings: Mapping[str, Any], values: Updates) -> Updates:
        """Return what follows from settings that are filled in: which schedules there are."""
        updates = self.memory.note_load(self.form.read_raw(values))
        if "noise_schedule" not in settings or "scheduler" not in settings:
            return updates
        family = self.find_family(settings.get("model", values[self.form["model"]]))
        return updates | self.sampling_choices(
            family, settings["scheduler"], settings["noise_schedule"]
        )

    # ---- what was typed -----------------------------------------------------------------------

    def restore(self, kept: Any, visitor: Visitor) -> Updates:
        """Put back what a browser kept of the form."""
        values = parse_kept(kept)
        return self.restore_values(values, visitor) if values else {}

    def restore_values(self, values: Mapping[str, Any], visitor: Visitor) -> Updates:
        """Put values back into the form as they were, with what there is to choose beside them."""
        request, updates = self.form.fill_kept(values)
        family = self.find_family(request.model)
        updates |= self.sampling_choices(family, request.scheduler, request.noise_schedule)
        updates[self.form["prompt_syntax"]] = gr.Dropdown(
            list_syntaxes(request.prompt_syntax), value=request.prompt_syntax
        )
        updates[self.form["vae"]] = gr.Dropdown(self.list_vae_choices(), value=request.vae)
        updates |= self.model_note.refresh(self.find_model(request.model))
        lora_rows = [use.model_dump() for use in request.loras]
        return updates | self.loras.refresh(request.model, visitor, value=lora_rows)

    def undo_load(self, previous: Any, request: gr.Request) -> Updates:
        """Put the form back as it was before a preset or an image's settings were loaded."""
        updates = self.memory.note_undone()
        if isinstance(previous, dict):
            updates |= self.restore_values(previous, visitor_from_request(request))
        return updates

    def reset_form(self, request: gr.Request) -> Updates:
        """Put every field at its default."""
        default = GenerationRequest(model=self.form["model"].value)
        loaded = self.load_request(default, visitor_from_request(request))
        return loaded | self.memory.note_undone()

    def handle_page_event(
        self, values: Updates, event: gr.EventData, request: gr.Request
    ) -> Updates:
        """Do what the page's palette or the menu of an image asks for.

        All of it comes from the browser, so it is checked.
        """
        data = event_payload(event)
        with report_errors():
            visitor = visitor_from_request(request)
            names = self.services.home.presets.list_names(only_shipped=visitor.is_guest)
            match data.get("action"):
                case "presets":
                    # The number makes two equal lists two answers.
                    options = {"presets": names, "number": secrets.token_hex(4)}
                    return {self.memory.block: gr.HTML(options=options)}
                case "preset":
                    name = str(data.get("name"))
                    loaded = self.load_preset({**values, self.preset: name}, request)
                    return loaded | {self.preset: gr.Dropdown(names, value=name)}
            image = find_menu_image(
                self.services, data.get("id"), values[self.result_panel.selected_path], visitor
            )
            match data.get("action"):
                case "reuse":
                    return self.reuse_part(data.get("part"), image, values, visitor)
                case "favourite":
                    toggle_favourite(self.services, image)
                    return {self.preset: gr.skip()}
                case "bin":
                    move_to_bin(self.services, image, visitor)
                    return self.result_panel.render(visitor)
            raise BadFile("The page asked for something that the studio does not know.")

    def reuse_part(
        self, part: Any, image: gallery.GeneratedImage, values: Updates, visitor: Visitor
    ) -> Updates:
        """Take a part of an image's settings into the form: "prompt", "seed", "size" or all."""
        if image.settings is None:
            raise BadFile("Nothing is known of how that image was made.")
        request = image.request
        before = self.memory.note_load(self.form.read_raw(values))
        fields = REUSED_FIELDS.get(str(part))
        if fields is None:
            updates = self.load_request(request, visitor)
        else:
            updates = self.form.fill_fields({name: getattr(request, name) for name in fields})
        return updates | before

    def build_tab(self) -> Tab:
        """Return what the tab is to the other tabs."""
        return Tab(
            form=self.form,
            selected_path=self.result_panel.selected_path,
            send_row=self.result_panel.send_row,
            on_open=self.on_open,
            handoff=(
                Handoff(self.recipe_import.panel, self.recipe_import.build_handoff, ("sweep",))
                if self.HANDS_RECIPES_OVER
                else None
            ),
            load_request=self.load_request,
            receive_fields=self.receive_fields,
            receive_image=self.receive_image,
            memory=self.memory,
            restore=self.restore,
            outputs=list(dict.fromkeys(self.outputs)),
            form_outputs=list(dict.fromkeys(self.form_outputs)),
        )


def find_scheduler(name: Any) -> Scheduler | None:
    """Return the scheduler that a browser names, if there is one: it may send what has no hash."""
    return next((scheduler for scheduler in SCHEDULERS if scheduler == name), None)


def native_size_of(model: ModelInfo | None) -> int:
    """Return the side in pixels that a model was trained at, or a usual one without a model."""
    return model.native_size if model else FALLBACK_SIZE_PX


def list_schedule_options(scheduler: Scheduler, family: Family) -> list[tuple[str, str]]:
    """Return the schedules to choose from, as (label, value); Automatic says what it means."""
    options: list[tuple[str, str]] = []
    for name in list_schedule_choices(scheduler, family):
        meant = resolve_noise_schedule(name, scheduler, family)
        options.append((name if name == meant else f"{name} ({meant})", name))
    return options
