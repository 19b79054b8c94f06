"""What the tabs have in common that make pictures from a form: its parts, its buttons, how it is filled and sent.

Knows: GenerationRequest's form and the stage beside it. Does not know: in which order a tab lays the parts out; what else it needs
than a form (a picture, a mask).
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any, ClassVar

import gradio as gr

from studio.core.base import check
from studio.core.catalog import SCHEDULERS, usual_sizes
from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.cost import rows
from studio.errors import BadPicture, InvalidSpec, StudioError
from studio.storage import gallery as pictures
from studio.storage.models.library import ModelInfo
from studio.ui import show
from studio.ui.components.lora_picker import Chooser
from studio.ui.components.result_panel import Stage
from studio.ui.form import Form
from studio.ui.guard import Visitor, uploaded, who
from studio.ui.widgets import SHORT, SILENT, Desk, Tab, Updates

OWN_SIZE = "the model's own"
TELLING = (
    "model",
    "width",
    "height",
    "loras",
    "steps",
    "guidance",
    "scheduler",
    "count",
    "strength",
    "inpaint_area",
    "hires_scale",
    "hires_steps",
    "hires_strength",
)  # settings that change what a picture will take


class Maker:
    """One build of such a tab. Components are attributes, so that handlers name what they change."""

    ID: ClassVar[str]
    TITLE: ClassVar[str]
    TASKS: ClassVar[tuple[str, ...]]
    OWN: ClassVar[str] = OWN_SIZE  # what an empty size means
    loras: Chooser  # a tab places it where it is to stand
    second: gr.Accordion | None = None  # where the second pass is, in a tab that has one

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.form: Form[GenerationRequest] = Form(GenerationRequest, self.ID)
        self.models = {model.name: model for model in desk.library.models()}
        self.lay_out()
        self.wire()

    def id(self, part: str) -> str:
        """An element's id; those of the first tab go without its name."""
        return part if self.ID == "txt2img" else f"{self.ID}-{part}"

    # ---- what it looks like -------------------------------------------------------------------------------------

    def lay_out(self) -> None:
        """Place every part; a tab says in which order."""
        raise NotImplementedError

    def words(self, placeholder: str, **more: Any) -> None:
        """The prompts, Generate, Stop, and what it will take."""
        self.form.add("prompt", lines=3, placeholder=placeholder, **more)
        self.form.add("negative_prompt", lines=1, placeholder="what it should not show")
        self.buttons()

    def buttons(self) -> None:
        """Generate, Stop, and what it will take."""
        with gr.Row(elem_classes="actions"):
            self.generate = gr.Button(
                "Generate",
                variant="primary",
                scale=3,
                elem_classes="on-ctrl-enter",
                elem_id=self.id("generate"),
            )
            self.stop = gr.Button(
                "Stop", variant="stop", scale=1, interactive=False, elem_id=self.id("stop")
            )
        self.estimate = gr.HTML(elem_id=self.id("estimate"))

    def size(self, info: str = "Usual ones.") -> None:
        """The model and how large a picture it paints."""
        default = GenerationRequest.model_fields["model"].default
        model = self.models.get(default) or next(iter(self.models.values()), None)
        with gr.Row():
            self.form.add(
                "model",
                choices=list(self.models),
                allow_custom_value=True,
                value=model.name if model else default,
                info="Checkpoint.",
            )
            self.usual = gr.Dropdown(
                self.sizes(model),
                value=self.OWN,
                label="Size",
                info=info,
                elem_id=f"{self.ID}-size",
            )
        with gr.Row():
            for side in ("width", "height"):
                self.form.add(
                    side,
                    value=model.side if model else None,
                    placeholder=self.OWN,
                    info=None,
                    min_width=120,
                )

    def numbers(self) -> None:
        """Steps, guidance, scheduler, seed."""
        with gr.Group():
            with gr.Row():
                self.form.add("steps", min_width=200, info="More is slower and finer.")
                self.form.add("guidance", min_width=200, info="CFG scale: obedience.")
            with gr.Row():
                self.form.add("scheduler", min_width=200, info="Sampler.")
                self.form.add(
                    "schedule",
                    min_width=200,
                    info="Noise levels.",
                    choices=list(SCHEDULERS["DPM++ 2M"].schedules),
                )
        with gr.Group():
            with gr.Row():
                self.form.add("seed", min_width=140, info="-1 draws a new one.")
                self.form.add("count", min_width=100, slider=False, info="Batch count.")
                self.form.add("batch", min_width=100, slider=False, info="Batch size; 1 is exact.")
            self.random = gr.Button("New seed each time", size="sm", elem_id=self.id("random-seed"))

    def hires(self) -> None:
        """The second pass at a larger size."""
        with gr.Accordion(
            "Larger in a second pass (hires)", open=False, elem_id=f"{self.ID}-hires"
        ) as self.second:
            with gr.Row():
                self.form.add("hires_scale", min_width=160, info="Upscale by; 1 is off.")
                self.form.add("hires_strength", min_width=160, info="Denoising strength of it.")
            with gr.Row():
                self.form.add(
                    "hires_steps", min_width=120, slider=True, info="0: as many as the first."
                )
                self.form.add("hires_resize", min_width=120, info="What is enlarged.")
            with gr.Row():
                self.form.add("hires_tile", min_width=120, info="Pixels a side; 0: one piece.")
                self.form.add("hires_overlap", min_width=120, info="How far tiles share.")

    def more(self) -> None:
        """Presets, a picture's settings, what only experts need."""
        with gr.Accordion("Presets", open=False, elem_id=self.id("presets")) as self.presets:
            self.preset = gr.Dropdown(
                self.desk.presets.names(),
                value=None,
                label="Take a preset",
                elem_id=self.id("preset"),
                info="Fills in its settings, and leaves the rest at their defaults.",
            )
            with gr.Row():
                self.preset_name = gr.Textbox(
                    label="Keep these settings as",
                    placeholder="a name",
                    max_lines=1,
                    scale=3,
                    elem_id=self.id("preset-name"),
                )
                self.preset_save = gr.Button(
                    "Save", scale=1, min_width=80, elem_id=self.id("preset-save")
                )
        with gr.Accordion("Settings from a picture", open=False, elem_id=self.id("from-picture")):
            self.drop = gr.File(
                label="A picture made here, in A1111 or Forge",
                height=110,
                elem_id=self.id("drop"),
                type="filepath",
            )
        with gr.Accordion("For experts", open=False):
            self.form.add("clip_skip")

    def staged(self, empty: str) -> None:
        """The side on which the pictures come."""
        self.stage = Stage(self.desk, self.ID, self.TASKS, empty)

    # ---- which event does what ----------------------------------------------------------------------------------

    @property
    def asked(self) -> set[Any]:
        """All that says what is wanted."""
        return self.form.inputs

    @property
    def telling(self) -> set[Any]:
        """What has to be known to say what it will take: `asked` without what is heavy."""
        return self.form.inputs

    @property
    def filled(self) -> list[Any]:
        """All that a request puts on the page."""
        more = [self.second] if self.second else []
        return list(dict.fromkeys([*self.form.outputs, *self.loras.outputs, self.estimate, *more]))

    @property
    def outputs(self) -> list[Any]:
        return [*self.filled, self.stop, *self.stage.watched]

    def wire(self) -> None:
        form = self.form
        self.stage.wire(self.stop)
        self.loras.wire()
        self.generate.click(
            self.submit, self.asked, [*self.stage.watched, self.stop], preprocess=False, **SHORT
        )
        self.stage.reuse.click(self.reuse_seed, self.stage.picked, form["seed"], **SHORT)
        self.random.click(lambda: -1, None, form["seed"], **SHORT)
        form["scheduler"].input(
            self.fit_schedule, [form["scheduler"], form["schedule"]], form["schedule"], **SHORT
        )
        form["model"].input(
            self.fit_model,
            self.telling,
            [self.usual, form["width"], form["height"]],
            preprocess=False,
            **SHORT,
        )
        self.usual.input(
            self.take_size,
            {self.usual, *self.telling},
            [form["width"], form["height"]],
            preprocess=False,
            **SHORT,
        )
        self.presets.expand(
            lambda: gr.Dropdown(self.desk.presets.names()), None, self.preset, **SHORT
        )
        self.preset.input(
            self.take_preset, {self.preset, *self.telling}, self.filled, preprocess=False, **SHORT
        )
        self.preset_save.click(
            self.save_preset,
            {self.preset_name, *form.inputs},
            [self.preset, self.preset_name],
            preprocess=False,
            **SHORT,
        )
        self.drop.upload(
            self.take_picture,
            {self.drop, *form.inputs},
            [self.drop, *form.outputs],
            preprocess=False,
            **SHORT,
        )
        told = [form[name].change for name in TELLING if name in form.parts]
        gr.on(
            [*told, self.stage.about.change],
            self.tell,
            self.telling,
            self.says,
            preprocess=False,
            trigger_mode="always_last",
            **SILENT,
        )

    def size_of(self, picture: str) -> tuple[int, int] | None:
        """Of the picture that is worked on, if there is one and it is still here."""
        try:
            return self.desk.library.inputs.size(picture) if picture else None
        except BadPicture:
            return None

    @property
    def says(self) -> list[Any]:
        """What `tell` changes."""
        return [self.estimate]

    # ---- what is wanted -----------------------------------------------------------------------------------------

    def more_of(self, values: Updates) -> dict[str, Any]:
        """Fields of the request that are not in the form. Raises StudioError."""
        return {}

    def known_of(self, values: Updates) -> dict[str, Any]:
        """Of those, what is known without work."""
        return {}

    def read(self, values: Updates) -> GenerationRequest:
        """The request on the page. Raises InvalidSpec with all that is wrong."""
        more, faults = {}, []
        try:
            more = self.more_of(values)
        except StudioError as error:
            faults = list(error.faults) if isinstance(error, InvalidSpec) else [str(error)]
        try:
            request = check(GenerationRequest, {**self.form.raw(values), **more})
        except InvalidSpec as error:
            raise InvalidSpec([*faults, *error.faults]) from None
        if faults:
            raise InvalidSpec(faults)
        return request

    def submit(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            visitor = who(request)
            self.desk.submit(self.read(values), visitor)
            return self.stage.shown(visitor)

    def tell(self, values: Updates) -> Updates:
        """What the request on the page will take, or the first thing that keeps it from being one."""
        try:
            return {
                self.estimate: self.told(
                    check(GenerationRequest, {**self.form.raw(values), **self.known_of(values)})
                )
            }
        except InvalidSpec as error:
            return {self.estimate: f'<p class="estimate">{html.escape(error.faults[0])}</p>'}

    def told(self, request: GenerationRequest) -> str:
        """In a line. Raises InvalidSpec."""
        model = self.models.get(request.model)
        full = request.resolved(model.side if model else 512, 0, self.size_of(request.image))
        return show.estimate(
            full, self.desk.gallery.rate(request.model), pictures.work(full), rows(full)
        )

    # ---- what fills the form ------------------------------------------------------------------------------------

    def opened(self, visitor: Visitor) -> Updates:
        """A page that opens takes up what its browser left: the running job, its settings, the last picture."""
        job = next(iter(self.stage.waiting(visitor)), None) or self.stage.last(visitor)
        if job is None:
            model = self.form["model"].value
            return {
                self.estimate: self.told(GenerationRequest(model=model)),
                **self.loras.look(model, visitor),
            }
        return {
            **self.take(GenerationRequest.model_validate(job.spec), visitor),
            **self.stage.shown(visitor),
        }

    def take(self, request: GenerationRequest, visitor: Visitor) -> Updates:
        """A request from elsewhere, with what is known of its LoRAs now."""
        schedules = list(SCHEDULERS[request.scheduler].schedules)
        filled = {
            **self.form.fill(request),
            self.form["schedule"]: gr.Dropdown(schedules, value=request.schedule),
            self.estimate: self.told(request),
        }
        filled |= {self.second: gr.Accordion(open=request.hires)} if self.second else {}
        return {
            **filled,
            **self.loras.look(request.model, visitor, value=filled[self.form["loras"]]),
        }

    def sent(self, picture: pictures.Picture, visitor: Visitor) -> Updates:
        """A picture from another tab: here, its settings."""
        return self.take(picture.request, visitor)

    def reuse_seed(self, picked: str | None) -> Any:
        picture = self.desk.gallery.get(picked) if picked else None
        return picture.request.seed if picture else gr.skip()

    def fit_schedule(self, scheduler: str, schedule: str) -> Any:
        """Only ladders that the chosen scheduler runs on; the chosen one is kept where it can be."""
        known = next((info for name, info in SCHEDULERS.items() if name == scheduler), None)
        if known is None:
            return gr.skip()
        return gr.Dropdown(
            list(known.schedules),
            value=schedule if schedule in known.schedules else known.schedules[0],
        )

    def model(self, values: Mapping[Any, Any]) -> ModelInfo | None:
        """The chosen one, if it is in the library."""
        name = values[self.form["model"]]
        return next((model for model in self.desk.library.models() if model.name == name), None)

    def sizes(self, model: ModelInfo | None) -> list[str]:
        """Sizes to choose from."""
        return [self.OWN] + (
            [f"{w} × {h}" for w, h in usual_sizes(model.family, model.side)] if model else []
        )

    def own_size(self, values: Updates) -> tuple[int, int] | None:
        """The size that is taken where nothing is said."""
        model = self.model(values)
        return (model.side, model.side) if model else None

    def fit_model(self, values: Updates) -> Updates:
        model, own = self.model(values), self.own_size(values)
        if model is None or own is None:
            return {self.usual: gr.skip()}
        return {
            self.usual: gr.Dropdown(self.sizes(model), value=self.OWN),
            self.form["width"]: own[0],
            self.form["height"]: own[1],
        }

    def take_size(self, values: Updates) -> Updates:
        size = values[self.usual]
        known = (
            isinstance(size, str) and size in self.sizes(self.model(values)) and size != self.OWN
        )
        own = tuple(int(part) for part in size.split(" × ")) if known else self.own_size(values)
        return (
            {self.form["width"]: own[0], self.form["height"]: own[1]}
            if own
            else {self.form["width"]: gr.skip()}
        )

    def take_preset(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            name = values[self.preset]
            return (
                self.take(self.desk.presets.load(str(name)), who(request))
                if name
                else {self.estimate: gr.skip()}
            )

    def save_preset(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            who(request).must_own("Saving presets")
            path = self.desk.presets.save(
                str(values.pop(self.preset_name) or ""),
                check(GenerationRequest, self.form.raw(values)),
            )
            gr.Info(f"Kept as {html.escape(path.stem)}.")
            return {
                self.preset: gr.Dropdown(self.desk.presets.names(), value=path.stem),
                self.preset_name: "",
            }

    def take_picture(self, values: Updates) -> Updates:
        """Settings from a dropped file. What cannot be taken is said; what is there and right is not touched."""
        with show.said():
            file = values.pop(self.drop)
            found = pictures.recipe(*uploaded(file[0] if isinstance(file, list) and file else file))
            taken = {name: value for name, value in found.values.items() if name in self.form.parts}
            notes = list(found.notes)
            if taken.get("model") not in {model.name for model in self.desk.library.models()}:
                notes.append(
                    f"The model {taken.pop('model', 'of that picture')} is not here; the chosen one stays."
                )
            updates, faults = self.form.fill_some(taken, self.form.raw(values))
            for note in (*notes, *faults):
                gr.Warning(html.escape(note), duration=12)
            if schedule := taken.get("schedule"):
                updates[self.form["schedule"]] = gr.Dropdown(
                    list(SCHEDULERS[taken["scheduler"]].schedules), value=schedule
                )
            return {**updates, self.drop: None}

    def tab(self) -> Tab:
        """What it is to the other tabs."""
        return Tab(
            self.ID,
            self.TITLE,
            form=self.form,
            picked=self.stage.picked,
            send=self.stage.send,
            opened=self.opened,
            take=self.take,
            sent=self.sent,
            outputs=list(dict.fromkeys(self.outputs)),
            filled=list(dict.fromkeys(self.filled)),
        )
