"""What the tabs have in common that make images from a form: its parts, buttons and events.

Knows: GenerationRequest's form and the result panel beside it.
Does not know: in which order a tab lays the parts out; what else it needs than a form (an image,
a mask).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, get_args

import gradio as gr

from studio.core.base import validate
from studio.core.catalog import AUTOMATIC, SCHEDULERS, NoiseSchedule, Scheduler
from studio.core.families.family import Family
from studio.core.families.registry import FAMILIES
from studio.core.generation.embeddings import asks_for_embeddings
from studio.core.generation.family_rules import (
    asks_for_recommended,
    list_schedule_choices,
    resolve_noise_schedule,
)
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.cost import count_unet_rows
from studio.errors import BadPicture, InvalidSpec, StudioError
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage import gallery
from studio.storage.models.library import ModelInfo
from studio.ui.components.lora_picker import LoraPicker
from studio.ui.components.model_note import ModelNote
from studio.ui.components.name_dropdown import carry_names, load_names_on_focus
from studio.ui.components.noise_and_solver import NoiseAndSolver
from studio.ui.components.result_panel import ResultPanel
from studio.ui.errors import report_errors, show_info, show_warning
from studio.ui.events import (
    EVENT_OPTIONS,
    UNQUEUED_EVENT_OPTIONS,
    Updates,
    resolve_upload,
    visitor_from_request,
)
from studio.ui.form import Form, single_file
from studio.ui.tab import Tab
from studio.ui.views.images import render_estimate, render_note

MODEL_SIZE_LABEL = "the model's own"
OWN_VAE_LABEL = "the model's own"
_CHOSEN_STAYS = "the chosen one stays"
FALLBACK_SIZE_PX = 512  # of a model that is not in the library
# Settings that choosing a model changes.
MODEL_FIELDS = ("width", "height", "steps", "guidance", "scheduler", "noise_schedule")
# Settings that change how long an image will take.
ESTIMATE_FIELDS = (
    "model",
    "width",
    "height",
    "loras",
    "steps",
    "guidance",
    "scheduler",
    "num_images",
    "strength",
    "inpaint_area",
    "hires_scale",
    "hires_steps",
    "hires_strength",
    "guidance_start",
    "guidance_end",
)


class GenerationTab:
    """The components of such a tab, as attributes, so that handlers name what they change."""

    ID: ClassVar[str]
    TASKS: ClassVar[tuple[str, ...]]
    NATIVE_SIZE_LABEL: ClassVar[str] = MODEL_SIZE_LABEL  # what an empty size means
    loras: LoraPicker  # a tab places it where it is to stand
    hires_accordion: gr.Accordion | None = None  # where the second pass is, in a tab that has one

    def __init__(self, services: Services) -> None:
        self.services = services
        self.form: Form[GenerationRequest] = Form(GenerationRequest, self.ID)
        self.models = {model.name: model for model in services.home.library.list_models()}
        self.received = gr.State("")  # what another tab set in the form
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
        self.form.add("prompt", lines=3, placeholder=placeholder, **prompt_options)
        self.form.add("negative_prompt", lines=1, placeholder="what it should not show")
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
        self.estimate = gr.HTML(elem_id=self.element_id("estimate"))
        self.model_note = ModelNote(self.services, self.form, self.element_id("model-note"))

    def add_size(self, info: str = "Usual ones.") -> None:
        """Place the model and the size of the image."""
        default_name = GenerationRequest.model_fields["model"].default
        model = self.models.get(default_name) or next(iter(self.models.values()), None)
        with gr.Row():
            self.form.add(
                "model",
                choices=carry_names(list(self.models), model.name if model else default_name),
                allow_custom_value=True,
                value=model.name if model else default_name,
                info="Checkpoint.",
            )
            self.size_choice = gr.Dropdown(
                self.size_choices(model),
                value=self.NATIVE_SIZE_LABEL,
                label="Size",
                info=info,
                elem_id=f"{self.ID}-size",
            )
        with gr.Row():
            for side in ("width", "height"):
                self.form.add(
                    side,
                    value=model.native_size if model else None,
                    placeholder=self.NATIVE_SIZE_LABEL,
                    info=None,
                    min_width=120,
                )

    def add_sampling(self) -> None:
        """Place steps, guidance, scheduler and seed."""
        with gr.Group():
            with gr.Row():
                self.form.add("steps", min_width=200, info="More is slower and finer.")
                self.form.add("guidance", min_width=200, info="CFG scale: obedience.")
            with gr.Row():
                self.form.add("scheduler", min_width=200, info="Sampler.")
                self.form.add(
                    "noise_schedule",
                    min_width=200,
                    info="Noise levels.",
                    choices=list_schedule_options("DPM++ 2M", FAMILIES["sd1"]),
                )
        with gr.Group():
            with gr.Row():
                self.form.add("seed", min_width=140, info="-1 draws a new one.")
                self.form.add("num_images", min_width=100, slider=False, info="Batch count.")
                self.form.add(
                    "batch_size", min_width=100, slider=False, info="Batch size; 1 is exact."
                )
            self.random_seed = gr.Button(
                "New seed each time", size="sm", elem_id=self.element_id("random-seed")
            )

    def add_hires(self) -> None:
        """Place the settings of the second pass at a larger size."""
        with gr.Accordion(
            "Larger in a second pass (hires)", open=False, elem_id=f"{self.ID}-hires"
        ) as self.hires_accordion:
            with gr.Row():
                self.form.add("hires_scale", min_width=160, info="Upscale by; 1 is off.")
                self.form.add("hires_strength", min_width=160, info="Denoising strength of it.")
            with gr.Row():
                self.form.add(
                    "hires_steps", min_width=120, slider=True, info="0: as many as the first."
                )
                self.form.add("hires_resize", min_width=120, info="What is enlarged.")
            self.form.add(
                "hires_upscaler",
                choices=self.upscaler_choices(),
                allow_custom_value=True,
                info="Enlarges the pixels between the passes.",
            )
            with gr.Row():
                self.form.add("hires_tile", min_width=120, info="Pixels a side; 0: one piece.")
                self.form.add("hires_overlap", min_width=120, info="How far tiles share.")

    def upscaler_choices(self) -> list[tuple[str, str]]:
        """Return the upscalers that there are, as a dropdown takes them."""
        names = self.services.home.library.upscalers.list_names()
        return [("Lanczos", ""), *((name, name) for name in names if name != "Lanczos")]

    def add_extras(self) -> None:
        """Place presets, the import of an image's settings, and what only experts need."""
        with gr.Accordion(
            "Presets", open=False, elem_id=self.element_id("presets")
        ) as self.presets_accordion:
            self.preset = gr.Dropdown(
                self.services.home.presets.list_names(only_shipped=True),
                value=None,
                label="Take a preset",
                elem_id=self.element_id("preset"),
                info="Fills in its settings, and leaves the rest at their defaults.",
            )
            with gr.Row():
                self.preset_name = gr.Textbox(
                    label="Keep these settings as",
                    placeholder="a name",
                    max_lines=1,
                    scale=3,
                    elem_id=self.element_id("preset-name"),
                )
                self.preset_save = gr.Button(
                    "Save", scale=1, min_width=80, elem_id=self.element_id("preset-save")
                )
        with gr.Accordion(
            "Settings from a picture", open=False, elem_id=self.element_id("from-picture")
        ):
            self.settings_file = gr.File(
                label="A picture made here, in A1111 or Forge",
                height=110,
                elem_id=self.element_id("drop"),
                type="filepath",
            )
        self.noise_and_solver = NoiseAndSolver(self.form, self.element_id("noise-and-solver"))
        with gr.Accordion("For experts", open=False):
            self.form.add(
                "vae",
                choices=self.list_vae_choices(),
                allow_custom_value=True,
                info="Turns what is painted into pixels.",
            )
            self.form.add("clip_skip")
            self.form.add("guidance_rescale")

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
        outputs = [*self.form.outputs, *self.loras.outputs, self.estimate]
        outputs += self.model_note.outputs
        if self.hires_accordion:
            outputs.append(self.hires_accordion)
        return list(dict.fromkeys(outputs))

    @property
    def estimate_outputs(self) -> list[Any]:
        """What `update_estimate` changes."""
        return [self.estimate]

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
        self._wire_generation()
        self._wire_model_and_size()
        self._wire_presets()
        fields = [name for name in ESTIMATE_FIELDS if name in self.form.components]
        gr.on(
            [
                *(self.form[name].change for name in fields),
                *(self.form[name].blur for name in ("prompt", "negative_prompt")),
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
        self.generate.click(
            self.submit,
            self.inputs,
            [*self.result_panel.refresh_outputs, self.stop],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        seed = self.form["seed"]
        self.result_panel.reuse_seed_button.click(
            self.reuse_seed, self.result_panel.selected_path, seed, **EVENT_OPTIONS
        )
        self.random_seed.click(lambda: -1, None, seed, **EVENT_OPTIONS)

    def _wire_model_and_size(self) -> None:
        form = self.form
        load_names_on_focus(form["model"], self.list_model_names)
        form["scheduler"].input(
            self.update_schedule,
            {form["model"], form["scheduler"], form["noise_schedule"]},
            form["noise_schedule"],
            **EVENT_OPTIONS,
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
        self.preset.input(
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
        self.settings_file.upload(
            self.import_settings,
            {self.settings_file, *self.form.inputs},
            [self.settings_file, *self.form.outputs],
            preprocess=False,
            **EVENT_OPTIONS,
        )

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
        with report_errors():
            visitor = visitor_from_request(request)
            self.services.submit_generation(self.parse_request(values), visitor)
            return self.result_panel.render(visitor)

    def update_estimate(self, values: Updates) -> Updates:
        """Say how long the request on the page will take, or what keeps it from being one."""
        fields = {**self.form.read_raw(values), **self.cheap_fields(values)}
        try:
            request = validate(GenerationRequest, fields)
            self.check_embeddings(request)
            estimate_html = self.estimate_text(request)
        except InvalidSpec as error:
            estimate_html = render_note(error.faults[0])
        return {self.estimate: estimate_html}

    def check_embeddings(self, request: GenerationRequest) -> None:
        """Raise InvalidSpec if a prompt asks for an embedding that is not there or does not fit."""
        model = self.models.get(request.model)
        if model and any(map(asks_for_embeddings, request.prompts)):
            faults = (
                self.services.home.library.index_embeddings(model, [request])
                .resolve([request])
                .faults
            )
            if faults:
                raise InvalidSpec(faults)

    def estimate_text(self, request: GenerationRequest) -> str:
        """Render in a line how long a request will take.

        Raises:
            InvalidSpec: If the request does not go with its model or image.
        """
        native_size = native_size_of(self.models.get(request.model))
        resolved = request.resolve(native_size, 0, self.find_input_size(request.image))
        return render_estimate(
            resolved,
            self.services.home.gallery.get_seconds_per_megapixel(request.model),
            gallery.estimate_unet_work(resolved),
            count_unet_rows(resolved, resolved.size),
        )

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
            **self.load_request(GenerationRequest.model_validate(job.spec), visitor),
            **self.result_panel.render(visitor),
        }

    def load_request(self, request: GenerationRequest, visitor: Visitor) -> Updates:
        """Put a request on the page, with what is known of its LoRAs now."""
        updates = self.form.fill(request)
        family = self.find_family(request.model)
        updates |= self.sampling_choices(family, request.scheduler, request.noise_schedule)
        updates[self.estimate] = self.estimate_text(request)
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

    def update_schedule(self, values: Updates) -> Any:
        """Offer the noise schedules that the scheduler runs on; keep the chosen one if it can."""
        # Not `in`: a browser may send what has no hash.
        scheduler = next(
            (name for name in SCHEDULERS if name == values[self.form["scheduler"]]), None
        )
        options: list[tuple[str, str]] = []
        if scheduler:
            options = list_schedule_options(scheduler, self.find_family(values[self.form["model"]]))
        if not options:
            return gr.skip()
        noise_schedule = values[self.form["noise_schedule"]]
        if noise_schedule not in [value for _, value in options]:
            noise_schedule = AUTOMATIC
        return gr.Dropdown(options, value=noise_schedule)

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

    def size_choices(self, model: ModelInfo | None) -> list[str]:
        """Return the sizes to choose from, the native one first."""
        choices = [self.NATIVE_SIZE_LABEL]
        if model:
            sizes = FAMILIES[model.family].list_common_sizes(model.native_size)
            choices += [f"{width} × {height}" for width, height in sizes]
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

    def _find_in_library(self, settings: dict[str, Any]) -> list[str]:
        """Give what an image names its name in this library; note what is not here."""
        library = self.services.home.library
        lookups: tuple[tuple[str, str, Callable[[str], str], str], ...] = (
            ("model", "model", lambda name: library.get_model(name).name, _CHOSEN_STAYS),
            ("vae", "VAE", lambda name: library.shelf.get_file("vae", name).name, _CHOSEN_STAYS),
            (
                "hires_upscaler",
                "upscaler",
                lambda name: library.upscalers.get(name).name,
                "Lanczos is taken",
            ),
        )
        notes = []
        settings.setdefault("model", "of that picture")
        for field_name, noun, find_name, consequence in lookups:
            name = settings.pop(field_name, "")
            if not name:
                continue
            try:
                settings[field_name] = find_name(name)
            except StudioError:
                notes.append(f"The {noun} {name} is not here; {consequence}.")
                if consequence != _CHOSEN_STAYS:
                    settings[field_name] = ""
        return notes

    def list_vae_choices(self) -> list[tuple[str, str]]:
        """Return the autoencoders to choose from, as (label, value)."""
        files = self.services.home.library.shelf.list_files("vae")
        return [(OWN_VAE_LABEL, ""), *((file.name, file.name) for file in files)]

    def apply_size_choice(self, values: Updates) -> Updates:
        """Fill in the chosen size; the default one where the choice is not a known size."""
        choice = values[self.size_choice]
        common_sizes = self.size_choices(self.selected_model(values))[1:]
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
            return self.load_request(preset, visitor)

    def save_preset(self, values: Updates, request: gr.Request) -> Updates:
        """Save the settings on the page as a preset."""
        with report_errors():
            visitor_from_request(request).require_owner("Saving presets")
            name = str(values.pop(self.preset_name) or "")
            path = self.services.home.presets.save(name, self.form.read(values))
            show_info(f"Kept as {path.stem}.")
            return {
                self.preset: gr.Dropdown(self.services.home.presets.list_names(), value=path.stem),
                self.preset_name: "",
            }

    def import_settings(self, values: Updates, request: gr.Request) -> Updates:
        """Fill in the settings of a dropped file, and warn of those that cannot be.

        Settings that the file does not have stay as they are.
        """
        with report_errors():
            path, file_name = resolve_upload(single_file(values.pop(self.settings_file)))
            guest_id = visitor_from_request(request).owner_filter
            max_pixels = self.services.home.inputs.max_pixels(guest_id)
            imported = gallery.read_image_settings(path, file_name, max_pixels)
            settings = {
                name: value
                for name, value in imported.values.items()
                if name in self.form.components
            }
            embeddings = self.services.home.library.embeddings
            notes = [*imported.notes, *embeddings.compare_hashes(imported.embedding_hashes)]
            notes += self._find_in_library(settings)
            updates, faults = self.form.fill_valid(settings, self.form.read_raw(values))
            for note in (*notes, *faults):
                show_warning(note, seconds=12)
            if noise_schedule := settings.get("noise_schedule"):
                model_name = settings.get("model", values[self.form["model"]])
                updates |= self.sampling_choices(
                    self.find_family(model_name), settings["scheduler"], noise_schedule
                )
            return {**updates, self.settings_file: None}

    def build_tab(self) -> Tab:
        """Return what the tab is to the other tabs."""
        return Tab(
            form=self.form,
            selected_path=self.result_panel.selected_path,
            send_row=self.result_panel.send_row,
            on_open=self.on_open,
            load_request=self.load_request,
            receive_fields=self.receive_fields,
            receive_image=self.receive_image,
            outputs=list(dict.fromkeys(self.outputs)),
            form_outputs=list(dict.fromkeys(self.form_outputs)),
        )


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
