"""The txt2img tab: say what you want, watch it come, keep it.

Knows: its own layout and what its buttons do. Does not know: how a picture is made; who carries the job there.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import InvalidSpec
from studio.spec.request import GenerationRequest
from studio.spec.sweep_cost import rows
from studio.spec.tables import SCHEDULERS, usual_sizes
from studio.store import gallery as pictures
from studio.store.library import ModelInfo
from studio.ui import show
from studio.ui.form import Form
from studio.ui.guard import Visitor, uploaded, who
from studio.ui.loras import Chooser
from studio.ui.widgets import SHORT, SILENT, Desk, Tab, Updates

ID = "txt2img"
OWN_SIZE = "the model's own"


class Txt2Img:
    """One build of the tab. Components are attributes, so that handlers name what they change."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.form: Form[GenerationRequest] = Form(GenerationRequest, ID)
        self.models = {model.name: model for model in desk.library.models()}
        self.lay_out()
        self.wire()

    # ---- what it looks like -------------------------------------------------------------------------------------

    def lay_out(self) -> None:
        with gr.Row(elem_classes="workspace"):
            with gr.Column(scale=5, min_width=320, elem_classes="controls"):
                self._words()
                self._numbers()
                self._more()
            with gr.Column(scale=7, min_width=320, elem_classes="stage"):
                self.live = gr.HTML(show.EMPTY, elem_id="live")
                self.result = gr.Gallery(visible=False, preview=True, object_fit="contain", height=560, show_label=False,
                                         buttons=["download", "fullscreen"], elem_id="result", interactive=False)
                self.about = gr.HTML(elem_id="about")
                with gr.Row(visible=False, elem_classes="send") as self.send:
                    self.reuse = gr.Button("Reuse this seed", size="sm", elem_id="reuse-seed")
        self.picked = gr.State(None)
        self.paths: gr.State = gr.State([])
        self.seen: gr.State = gr.State(())
        self.clock = gr.Timer(0.1, active=False)  # the page asks, so a slow line skips frames; pushed ones would pile up

    def _words(self) -> None:
        self.form.add("prompt", lines=3, placeholder="a photo of a red ball on a beach", autofocus=True)
        self.form.add("negative_prompt", lines=1, placeholder="what it should not show")
        with gr.Row(elem_classes="actions"):
            self.generate = gr.Button("Generate", variant="primary", scale=3, elem_classes="on-ctrl-enter", elem_id="generate")
            self.stop = gr.Button("Stop", variant="stop", scale=1, interactive=False, elem_id="stop")
        self.estimate = gr.HTML(elem_id="estimate")

    def _numbers(self) -> None:
        default = GenerationRequest.model_fields["model"].default
        model = self.models.get(default) or next(iter(self.models.values()), None)
        with gr.Group():
            with gr.Row():
                self.form.add("model", choices=list(self.models), allow_custom_value=True, value=model.name if model else default,
                              info="Checkpoint.")
                self.size = gr.Dropdown(_sizes(model), value=OWN_SIZE, label="Size", info="Usual ones.",
                                        elem_id="txt2img-size")
            with gr.Row():
                self.form.add("width", value=model.side if model else None, placeholder=OWN_SIZE, info=None, min_width=120)
                self.form.add("height", value=model.side if model else None, placeholder=OWN_SIZE, info=None, min_width=120)
        self.loras = Chooser(self.desk, self.form)
        with gr.Group():
            with gr.Row():
                self.form.add("steps", min_width=200, info="More is slower and finer.")
                self.form.add("guidance", min_width=200, info="CFG scale: obedience.")
            with gr.Row():
                self.form.add("scheduler", min_width=200, info="Sampler.")
                self.form.add("schedule", min_width=200, info="Noise levels.", choices=list(SCHEDULERS["DPM++ 2M"].schedules))
        with gr.Group():
            with gr.Row():
                self.form.add("seed", min_width=140, info="-1 draws a new one.")
                self.form.add("count", min_width=100, slider=False, info="Batch count.")
                self.form.add("batch", min_width=100, slider=False, info="Batch size; 1 is exact.")
            self.random = gr.Button("New seed each time", size="sm", elem_id="random-seed")

    def _more(self) -> None:
        with gr.Accordion("Presets", open=False, elem_id="presets"):
            self.preset = gr.Dropdown(self.desk.presets.names(), value=None, label="Take a preset",
                                      info="Fills in its settings, and leaves the rest at their defaults.", elem_id="preset")
            with gr.Row():
                self.preset_name = gr.Textbox(label="Keep these settings as", placeholder="a name", max_lines=1, scale=3)
                self.preset_save = gr.Button("Save", scale=1, min_width=80)
        with gr.Accordion("Settings from a picture", open=False, elem_id="from-picture"):
            self.drop = gr.File(label="Drop a PNG, JPEG or WebP that was made here, in A1111 or Forge", height=110,
                                elem_id="drop", type="filepath")
        with gr.Accordion("For experts", open=False):
            self.form.add("clip_skip")

    # ---- what it does -------------------------------------------------------------------------------------------

    @property
    def watched(self) -> list[Any]:
        return [self.seen, self.clock, self.live, self.result, self.about, self.picked, self.paths, self.send, self.stop]

    def wire(self) -> None:
        form = self.form
        self.clock.tick(self.look, [self.seen, self.picked], self.watched, **SILENT)
        self.generate.click(self.submit, form.inputs, self.watched, preprocess=False, **SHORT)
        self.stop.click(self.cancel, None, None, **SHORT)
        self.result.select(self.pick, self.paths, [self.picked, self.about], **SHORT)
        self.reuse.click(self.reuse_seed, self.picked, form["seed"], **SHORT)
        self.random.click(lambda: -1, None, form["seed"], **SHORT)
        form["scheduler"].input(self.fit_schedule, [form["scheduler"], form["schedule"]], form["schedule"], **SHORT)
        form["model"].input(self.fit_model, form["model"], [self.size, form["width"], form["height"]], **SHORT)
        self.size.input(self.take_size, [self.size, form["model"]], [form["width"], form["height"]], **SHORT)
        self.preset.input(self.take_preset, self.preset, [*form.outputs, self.estimate], **SHORT)
        self.preset_save.click(self.save_preset, {self.preset_name, *form.inputs}, [self.preset, self.preset_name],
                               preprocess=False, **SHORT)
        self.drop.upload(self.take_picture, {self.drop, *form.inputs}, [self.drop, *form.outputs], preprocess=False, **SHORT)
        self.loras.wire()
        told = [form[name] for name in ("steps", "guidance", "scheduler", "width", "height", "count", "model", "loras")]
        gr.on([*(part.change for part in told), self.about.change], self.tell, form.inputs, self.estimate, preprocess=False,
              trigger_mode="always_last", **SILENT)

    def look(self, seen: tuple[int, ...], picked: str | None, request: gr.Request) -> Updates:
        """What this browser's jobs are doing, as updates of the page; nothing if nothing has changed."""
        return self._look(who(request), seen, picked)

    def _look(self, visitor: Visitor, seen: tuple[int, ...], picked: str | None) -> Updates:
        waiting = self.desk.jobs.waiting(visitor.id, "generate")
        last = self.desk.jobs.last(visitor.id, "generate")
        now = (len(waiting), waiting[0].id if waiting else 0, waiting[0].beat if waiting else 0, last.id if last else 0)
        if list(now) == list(seen):
            return {self.seen: gr.skip()}
        running = waiting[0] if waiting else None
        shown = running if running and running.progress.pictures else last if not running else None
        updates: Updates = {self.seen: now, self.clock: gr.Timer(active=bool(waiting)),
                            self.stop: gr.Button(interactive=bool(waiting)),
                            self.live: show.running(waiting) if waiting else show.ended(last)}
        paths = [made["path"] for made in show.pictures_of(shown)] if shown else []
        paths = [path for path in paths if Path(path).is_file()]
        before = list(seen) or [0, 0, 0, 0]
        if running and not paths and before[1] != running.id:
            updates |= {self.result: gr.Gallery(visible=False), self.about: "", self.send: gr.Row(visible=False)}
        elif paths and (not running or picked not in paths or before[1] != running.id):
            first = paths[-1] if running else paths[0]
            updates |= {self.result: gr.Gallery(paths, visible=not running, selected_index=paths.index(first)), self.paths: paths,
                        self.picked: first, self.about: show.settings(self.desk.gallery.get(first)) if not running else "",
                        self.send: gr.Row(visible=not running)}
        return updates

    def submit(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            visitor = who(request)
            self.desk.submit(self.form.read(values), visitor)
            return self._look(visitor, (), None)

    def cancel(self, request: gr.Request) -> None:
        for job in self.desk.jobs.waiting(who(request).id, "generate")[:1]:
            self.desk.jobs.cancel(job.id)

    def opened(self, visitor: Visitor) -> Updates:
        """A page that opens takes up what its browser left: the running job, its settings, the last picture."""
        kept = {self.preset: gr.Dropdown(self.desk.presets.names())}
        job = next(iter(self.desk.jobs.waiting(visitor.id, "generate")), None) or self.desk.jobs.last(visitor.id, "generate")
        if job is None:
            return {self.estimate: self._told(GenerationRequest()), **self.loras.look(self.form["model"].value, visitor), **kept}
        request = GenerationRequest.model_validate(job.spec)
        filled = self._filled(request)
        return {**filled, **self.loras.look(request.model, visitor, value=filled[self.form["loras"]]),
                **self._look(visitor, (), None), **kept}

    def _filled(self, request: GenerationRequest) -> Updates:
        schedules = list(SCHEDULERS[request.scheduler].schedules)
        return {**self.form.fill(request), self.form["schedule"]: gr.Dropdown(schedules, value=request.schedule),
                self.estimate: self._told(request)}

    def take(self, request: GenerationRequest, visitor: Visitor) -> Updates:
        """A request from another tab, with what is known of its LoRAs now."""
        filled = self._filled(request)
        return {**filled, **self.loras.look(request.model, visitor, value=filled[self.form["loras"]])}

    def pick(self, paths: list[str], event: gr.SelectData) -> Updates:
        path = paths[event.index] if isinstance(event.index, int) and event.index < len(paths) else None
        return {self.picked: path, self.about: show.settings(self.desk.gallery.get(path) if path else None)}

    def reuse_seed(self, picked: str | None) -> Any:
        picture = self.desk.gallery.get(picked) if picked else None
        return picture.request.seed if picture else gr.skip()

    def fit_schedule(self, scheduler: str, schedule: str) -> Any:
        """Only ladders that the chosen scheduler runs on; the chosen one is kept where it can be."""
        known = next((info for name, info in SCHEDULERS.items() if name == scheduler), None)
        if known is None:
            return gr.skip()
        return gr.Dropdown(list(known.schedules), value=schedule if schedule in known.schedules else known.schedules[0])

    def fit_model(self, name: str) -> Updates:
        model = next((model for model in self.desk.library.models() if model.name == name), None)
        if model is None:
            return {self.size: gr.skip()}
        return {self.size: gr.Dropdown(_sizes(model), value=OWN_SIZE), self.form["width"]: model.side,
                self.form["height"]: model.side}

    def take_size(self, size: str | None, name: str) -> tuple[int | None, int | None]:
        if size and size != OWN_SIZE:
            width, height = (int(part) for part in size.split(" × "))
            return width, height
        model = next((model for model in self.desk.library.models() if model.name == name), None)
        return (model.side, model.side) if model else (None, None)

    def take_preset(self, name: str) -> Updates:
        with show.said():
            return self._filled(self.desk.presets.load(name)) if name else {self.estimate: gr.skip()}

    def save_preset(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            who(request).must_own("Saving presets")
            path = self.desk.presets.save(str(values.pop(self.preset_name) or ""), self.form.read(values))
            gr.Info(f"Kept as {html.escape(path.stem)}.")
            return {self.preset: gr.Dropdown(self.desk.presets.names(), value=path.stem), self.preset_name: ""}

    def take_picture(self, values: Updates) -> Updates:
        """Settings from a dropped file. What cannot be taken is said; what is there and right is not touched."""
        with show.said():
            file = values.pop(self.drop)
            found = pictures.recipe(*uploaded(file[0] if isinstance(file, list) and file else file))
            taken = dict(found.values)
            notes = list(found.notes)
            if taken.get("model") not in {model.name for model in self.desk.library.models()}:
                notes.append(f"The model {taken.pop('model', 'of that picture')} is not here; the chosen one stays.")
            updates, faults = self.form.fill_some(taken, self.form.raw(values))
            for note in (*notes, *faults):
                gr.Warning(html.escape(note), duration=12)
            if schedule := taken.get("schedule"):
                updates[self.form["schedule"]] = gr.Dropdown(list(SCHEDULERS[taken["scheduler"]].schedules), value=schedule)
            return {**updates, self.drop: None}

    def tell(self, values: Updates) -> Any:
        try:
            return self._told(self.form.read(values))
        except InvalidSpec as error:
            return f'<p class="estimate">{html.escape(error.faults[0])}</p>'

    def _told(self, request: GenerationRequest) -> str:
        model = self.models.get(request.model)
        side = model.side if model else 512
        full = request.resolved(side, 0)
        return show.estimate(full, self.desk.gallery.rate(request.model), pictures.work(full), rows(request))


def _sizes(model: ModelInfo | None) -> list[str]:
    return [OWN_SIZE] + ([f"{w} × {h}" for w, h in usual_sizes(model.family, model.side)] if model else [])


def build(desk: Desk) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = Txt2Img(desk)
    return Tab(ID, "txt2img", form=tab.form, picked=tab.picked, send=tab.send, opened=tab.opened, take=tab.take,
               outputs=list(dict.fromkeys([*tab.form.outputs, *tab.loras.outputs, tab.estimate, tab.preset, *tab.watched])))
