"""The Training tab: pictures, eight settings, a plan before the run; earlier runs.

Knows: the form and its buttons, presets, import of kohya's files. Does not know: what is said before a run (training_plan.py), what
is shown of the open one (training_open.py), how anything is trained.
"""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from studio.core.training.config import TrainingConfig
from studio.core.training.kohya import importer
from studio.errors import BadFile, Busy, StudioError
from studio.storage.training.runs import Run
from studio.ui import show
from studio.ui.form import Form
from studio.ui.guard import Visitor, uploaded, who
from studio.ui.tabs.training import advanced, plan
from studio.ui.tabs.training.run import OpenRun, sentences, state_of
from studio.ui.views import sweep, training
from studio.ui.widgets import BUTTONS, SHORT, SILENT, Desk, Tab, Updates

ID = "training"
SHELF = 20  # earlier trainings that are listed
MOST_BYTES = 1_000_000  # of a file with settings
BLANK = "Choose pictures; how long it will take is said here."


class TrainingTab:
    """One build of the tab. Components are attributes, so that handlers name what they change."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.form: Form[TrainingConfig] = Form(TrainingConfig, ID)
        self.lay_out()
        self.wire()

    # ---- what it looks like -------------------------------------------------------------------------------------

    def lay_out(self) -> None:
        with gr.Row(elem_classes="workspace"):
            with gr.Column(scale=5, min_width=320, elem_classes="controls"):
                self.preset = gr.Dropdown(
                    self.desk.training_presets.names(),
                    value=None,
                    label="Begin with a preset",
                    info="Fills in everything; nothing runs yet.",
                    elem_id="train-preset",
                )
                self._basics()
                self._buttons()
                advanced.lay_out(self.form)
                self._more()
            with gr.Column(scale=7, min_width=320, elem_classes="sweep-stage training-stage"):
                self.view = OpenRun(self.desk, self.stop)
        self.probe: gr.State = gr.State(0)
        self.taken: gr.State = gr.State(None)
        self.trying = gr.Timer(0.5, active=False)

    def _basics(self) -> None:
        models = [model.name for model in self.desk.library.models() if not model.inpainting]
        with gr.Group():
            self.form.add(
                "dataset",
                choices=self.desk.datasets.names(),
                value=None,
                allow_custom_value=True,
                info="A folder of pictures and captions in home/datasets.",
            )
            self.pictures = gr.HTML(elem_id="train-pictures")
            with gr.Row():
                self.form.add(
                    "name",
                    max_lines=1,
                    min_width=150,
                    placeholder="moon",
                    info="What the LoRA will be called.",
                )
                self.form.add(
                    "trigger",
                    max_lines=1,
                    min_width=150,
                    placeholder="mysks",
                    info="A rare word that calls it.",
                )
            with gr.Row():
                self.form.add(
                    "model",
                    choices=models,
                    allow_custom_value=True,
                    min_width=150,
                    info="To start from (base model).",
                )
                self.form.add(
                    "resolution",
                    min_width=150,
                    placeholder="model's own",
                    info="Empty: the model's own.",
                )
        with gr.Group(), gr.Row():
            self.form.add("steps", slider=False, min_width=110, info="Optimizer steps.")
            self.form.add(
                "learning_rate", slider=False, step=0.0001, min_width=110, info="How far each goes."
            )
            self.form.add("rank", slider=False, min_width=110, info="Network dim.")

    def _buttons(self) -> None:
        self.plan = gr.HTML(sweep.note(BLANK), elem_id="train-plan")
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
        self.attempt = gr.Button("Try it for a few seconds", size="sm", elem_id="train-try")

    def _more(self) -> None:
        with gr.Accordion("Take settings from a kohya file", open=False, elem_id="train-kohya"):
            self.upload = gr.UploadButton(
                "Choose a TOML or JSON file",
                size="sm",
                file_types=[".toml", ".json"],
                elem_id="train-upload",
            )
            self.meant = gr.Checkbox(
                False,
                label="As it was meant",
                elem_id="train-meant",
                info="Off: the run that kohya would have done, with keys that override each other in silence. "
                "On: epochs, rates and samples as written.",
            )
            self.notices = gr.HTML(elem_id="train-notices")
        with gr.Accordion("Earlier trainings", open=False, elem_id="train-shelf") as self.earlier:
            self.shelf = gr.HTML(js_on_load=BUTTONS, elem_id="train-list")
        with gr.Accordion("Keep these settings", open=False, elem_id="train-presets"), gr.Row():
            self.preset_name = gr.Textbox(
                label="As a preset",
                placeholder="a name",
                max_lines=1,
                scale=3,
                elem_id="train-preset-name",
            )
            self.preset_save = gr.Button("Save", scale=1, min_width=80, elem_id="train-preset-save")

    # ---- which event does what ----------------------------------------------------------------------------------

    @property
    def filled(self) -> list[Any]:
        return [*self.form.outputs, self.pictures, self.plan]

    @property
    def outputs(self) -> list[Any]:
        return list(
            dict.fromkeys(
                [*self.filled, *self.view.outputs, self.shelf, self.preset, self.probe, self.trying]
            )
        )

    def wire(self) -> None:
        self.view.wire()
        form, view = self.form, self.view
        self.start.click(
            self.submit, form.inputs, [*view.outputs, self.shelf], preprocess=False, **SHORT
        )
        self.attempt.click(
            self.submit_probe,
            form.inputs,
            [self.plan, self.probe, self.trying],
            preprocess=False,
            **SHORT,
        )
        self.trying.tick(
            self.tried,
            {self.probe, *form.inputs},
            [self.plan, self.probe, self.trying],
            preprocess=False,
            **SILENT,
        )
        gr.on(
            [part.change for part in form.outputs],
            self.tell,
            form.inputs,
            self.plan,
            preprocess=False,
            trigger_mode="always_last",
            **SILENT,
        )
        form["dataset"].change(
            self.look,
            form["dataset"],
            self.pictures,
            preprocess=False,
            trigger_mode="always_last",
            **SILENT,
        )
        form["dataset"].input(
            self.call_it, [form["dataset"], form["name"]], form["name"], preprocess=False, **SHORT
        )
        form["dataset"].blur(self.again_shelved, None, form["dataset"], **SILENT)
        self.preset.input(self.take_preset, self.preset, self.filled, **SHORT)
        self.preset_save.click(
            self.save_preset,
            {self.preset_name, *form.inputs},
            [self.preset, self.preset_name],
            preprocess=False,
            **SHORT,
        )
        view.empty.click(self.begin_with, None, [*self.filled, self.preset], **SHORT)
        self.upload.upload(
            self.take_file,
            {self.upload, self.meant, *form.inputs},
            [self.upload, self.taken, self.notices, *self.filled],
            preprocess=False,
            **SHORT,
        )
        self.meant.input(
            self.take_again,
            {self.taken, self.meant, *form.inputs},
            [self.notices, *self.filled],
            preprocess=False,
            **SHORT,
        )
        self.earlier.expand(self.again_listed, view.current, self.shelf, **SHORT)
        self.shelf.click(
            self.from_shelf, view.current, [*self.filled, *view.outputs, self.shelf], **SHORT
        )

    # ---- what is wanted -----------------------------------------------------------------------------------------

    def tell(self, values: Updates, request: gr.Request) -> str:
        """What the training on the page will be, or all that keeps it from beginning."""
        return self._plan(values, who(request))

    def _plan(self, values: Updates, visitor: Visitor) -> str:
        if not values[self.form["dataset"]]:
            return sweep.note(BLANK)
        try:
            return plan.told(self.desk, self.form.read(values), visitor)
        except StudioError as error:
            return sweep.faults(sentences(error))

    def look(self, name: Any, request: gr.Request) -> str:
        return plan.look(self.desk, name, who(request))

    def again_shelved(self, request: gr.Request) -> Any:
        return gr.Dropdown(self.desk.datasets_of(who(request)))

    def call_it(self, dataset: Any, name: Any) -> Any:
        """A LoRA without a name is called as its pictures are."""
        return gr.skip() if name else dataset

    def fill(self, config: TrainingConfig, visitor: Visitor) -> Updates:
        """Put a training on the page: a preset, or one that is opened again."""
        updates = self.form.fill(config)
        return {
            **updates,
            self.pictures: plan.look(self.desk, config.dataset, visitor),
            self.plan: self._plan(updates, visitor),
        }

    def take(self, wanted: Any, visitor: Visitor) -> Updates:
        """Pictures from the Captions tab, with what they will be called; the rest of the form stays."""
        with show.said():
            asked = {key: str(wanted.get(key) or "") for key in ("dataset", "name", "trigger")}
            self.desk.dataset(asked["dataset"], visitor)  # says what keeps it from being trained on
            updates = self.form.put(asked)
            updates[self.form["dataset"]] = gr.Dropdown(
                self.desk.datasets_of(visitor), value=asked["dataset"]
            )
            return {
                **updates,
                self.pictures: plan.look(self.desk, asked["dataset"], visitor),
            }

    def take_preset(self, name: str, request: gr.Request) -> Updates:
        with show.said():
            return (
                self.fill(self.desk.training_presets.load(name), who(request))
                if name
                else {self.plan: gr.skip()}
            )

    def begin_with(self, event: gr.EventData, request: gr.Request) -> Updates:
        """A preset from where nothing is open yet."""
        with show.said():
            name = str((event._data or {}).get("subject"))
            return {
                **self.fill(self.desk.training_presets.load(name), who(request)),
                self.preset: name,
            }

    def save_preset(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            who(request).must_own("Saving presets")
            path = self.desk.training_presets.save(
                str(values.pop(self.preset_name) or ""), self.form.read(values)
            )
            gr.Info(f"Kept as {html.escape(path.stem)}.")
            return {
                self.preset: gr.Dropdown(self.desk.training_presets.names(), value=path.stem),
                self.preset_name: "",
            }

    def take_file(self, values: Updates, request: gr.Request) -> Updates:
        """Settings from a file of kohya's, or one of our own."""
        with show.said():
            file = values[self.upload]
            path, name = uploaded(file[0] if isinstance(file, list) and file else file)
            if path.stat().st_size > MOST_BYTES:
                raise BadFile(
                    f"{name:.80} is larger than {MOST_BYTES:,} bytes: it holds no settings."
                )
            kept = (path.read_text("utf-8-sig", "replace"), name)
            return {self.upload: None, self.taken: kept, **self._taken(kept, values, who(request))}

    def take_again(self, values: Updates, request: gr.Request) -> Updates:
        """The same file in the other reading."""
        with show.said():
            kept = values[self.taken]
            return self._taken(kept, values, who(request)) if kept else {self.notices: gr.skip()}

    def _taken(self, kept: tuple[str, str], values: Updates, visitor: Visitor) -> Updates:
        text, name = kept
        found = importer.read(text, name, as_meant=bool(values[self.meant]))
        wanted, faults = dict(found.values), list(found.faults)
        shelves = {
            "model": [model.name for model in self.desk.library.models()],
            "dataset": self.desk.datasets_of(visitor),
        }
        for field, there in shelves.items():
            if wanted.get(field) and wanted[field] not in there:
                title = TrainingConfig.model_fields[field].title
                faults.append(
                    f"{title}: the file wants {wanted.pop(field)!s:.80}, which is not here; the chosen one stays."
                )
        updates = self.form.put(wanted)
        page = {**values, **updates}
        return {
            **updates,
            self.notices: training.imported(name, found.notices, faults),
            self.plan: self._plan(page, visitor),
        }

    # ---- running ------------------------------------------------------------------------------------------------

    def submit(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            visitor = who(request)
            id, _ = self.desk.submit_training(self.form.read(values), visitor)
            return self._opened(visitor, id)

    def submit_probe(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            id = self.desk.submit_probe(self.form.read(values), who(request))
            return {
                self.plan: sweep.note("A few steps are tried …"),
                self.probe: id,
                self.trying: gr.Timer(active=True),
            }

    def tried(self, values: Updates, request: gr.Request) -> Updates:
        """How the try goes, and what came of it."""
        visitor = who(request)
        job = self.desk.jobs.get(int(values[self.probe] or 0))
        if job and job.open and visitor.sees in (None, job.owner):
            words = (
                "waiting for its turn"
                if job.state == "queued"
                else job.progress.note or "getting ready"
            )
            return {
                self.plan: sweep.note(f"A few steps are tried: {words[:1].lower()}{words[1:]} …")
            }
        failed = job is not None and job.state != "done" and visitor.sees in (None, job.owner)
        told = (
            sweep.faults([(job.error if job else "") or "The try was stopped."])
            if failed
            else self._plan(values, visitor)
        )
        return {self.plan: told, self.probe: 0, self.trying: gr.Timer(active=False)}

    # ---- earlier trainings --------------------------------------------------------------------------------------

    def opened(self, visitor: Visitor) -> Updates:
        """A page that opens takes up what its browser left: the training that runs, else the last one."""
        shelves: Updates = {self.preset: gr.Dropdown(self.desk.training_presets.names())}
        names = self.desk.datasets_of(visitor)
        running = next(
            (str(job.spec.get("run")) for job in self.desk.jobs.waiting(visitor.id, "train")), ""
        )
        last = next((run.id for run in self.desk.runs.listing(visitor.id)), "")
        trying = next((job.id for job in self.desk.jobs.waiting(visitor.id, "probe")), 0)
        more = {self.probe: trying, self.trying: gr.Timer(active=bool(trying))}
        run = self.view.mine(running or last, visitor)
        if run is None:
            shelves |= {
                self.form["dataset"]: gr.Dropdown(names),
                self.shelf: self._shelf(visitor, ""),
            }
            return {**shelves, **more, **self.view.close()}
        filled = self.fill(run.config, visitor)
        filled[self.form["dataset"]] = gr.Dropdown(names, value=run.config.dataset)
        return {**filled, **shelves, **more, **self._opened(visitor, run.id)}

    def _opened(self, visitor: Visitor, id: str) -> Updates:
        return {**self.view.open(visitor, id), self.shelf: self._shelf(visitor, id)}

    def again_listed(self, current: str, request: gr.Request) -> str:
        return self._shelf(who(request), current)

    def from_shelf(self, current: str, event: gr.EventData, request: gr.Request) -> Updates:
        with show.said():
            visitor, data = who(request), event._data or {}
            verb, subject = data.get("what"), str(data.get("subject"))
            if verb == "keep":
                return {self.shelf: self._shelf(visitor, current)}
            run = self.view.must(subject, visitor)
            match verb:
                case "ask":
                    return {self.shelf: self._shelf(visitor, current, run.id)}
                case "open":
                    return {**self.fill(run.config, visitor), **self._opened(visitor, run.id)}
                case "delete":
                    return self._delete(visitor, run, current)
            raise BadFile("The page asked for something that the studio does not know.")

    def _delete(self, visitor: Visitor, run: Run, current: str) -> Updates:
        if self.view.jobs(visitor, run.id):
            raise Busy("That training still runs; stop it first.")
        self.desk.runs.delete(run.id)
        closed = self.view.close() if run.id == current else {}
        return {**closed, self.shelf: self._shelf(visitor, "" if closed else current)}

    def _shelf(self, visitor: Visitor, current: str, asked: str = "") -> str:
        history = self.desk.jobs.history(200, visitor.sees)
        rows = []
        for run in self.desk.runs.listing(visitor.sees)[:SHELF]:
            job = next(
                (job for job in history if job.kind == "train" and job.spec.get("run") == run.id),
                None,
            )
            kept = self.desk.runs.checkpoints(run.id)
            rows.append(
                (
                    run,
                    show.STATES[state_of(run, job)],
                    kept[-1].step if kept else 0,
                    run.id == current,
                )
            )
        return training.shelf(rows, asked)


def build(desk: Desk) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = TrainingTab(desk)
    return Tab(
        ID,
        "Training",
        opened=tab.opened,
        outputs=tab.outputs,
        typed=True,
        take=tab.take,
        asks=(tab.view.files, tab.view.wanted),
    )
