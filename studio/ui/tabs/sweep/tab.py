"""The Sweep tab: say what varies, see what it will take, run it, come back to it.

Knows: the form and its buttons, presets, earlier sweeps. Does not know: how a row becomes an axis (sweep_axes.py), what is shown of
the open sweep (sweep_open.py), how cells are painted.
"""

from __future__ import annotations

import html
import math
from typing import Any

import gradio as gr

from studio.core.base import check
from studio.core.generation.request import MOST_SEEDS, GenerationRequest
from studio.core.sweeps.spec import Prediction, SweepSpec, plan
from studio.errors import BadFile, Busy, InvalidSpec
from studio.storage.sweeps import Sweep
from studio.ui import show
from studio.ui.components.carried_settings import Basis
from studio.ui.components.lora_picker import Chooser
from studio.ui.form import Form
from studio.ui.guard import Visitor, who
from studio.ui.tabs.sweep.axes import MOST, AxisRows
from studio.ui.tabs.sweep.results import OpenSweep
from studio.ui.views import sweep as grid
from studio.ui.widgets import BUTTONS, SHORT, SILENT, Desk, Tab, Updates, rates

ID = "sweep"
SHELF = 20  # earlier sweeps that are listed
EXACT, FAST = "exact", "fast"
BLANK = "Tick or type what to compare; what it will take is said here."
MODES = [
    ("Exact: one cell at a time, each bit for bit the picture that txt2img makes", EXACT),
    ("Fast: several cells at once (batched); the same to the eye, the last bits may differ", FAST),
]


class SweepTab:
    """One build of the tab. Components are attributes, so that handlers name what they change."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.form: Form[GenerationRequest] = Form(GenerationRequest, ID)
        self.lay_out()
        self.wire()

    # ---- what it looks like -------------------------------------------------------------------------------------

    def lay_out(self) -> None:
        with gr.Row(elem_classes="workspace"):
            with gr.Column(scale=5, min_width=320, elem_classes="controls"):
                self.form.add(
                    "prompt",
                    lines=2,
                    placeholder="a photo of a red house by a lake",
                    info="What every cell shows.",
                )
                self.rows = AxisRows(self.desk.library)
                self._buttons()
                self._base()
                self._more()
            with gr.Column(scale=7, min_width=320, elem_classes="sweep-stage"):
                self.view = OpenSweep(self.desk, self.stop, self.extend, self.again)

    def _buttons(self) -> None:
        self.plan = gr.HTML(grid.note(BLANK), elem_id="sweep-plan")
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
                "Run as extension of the open sweep",
                size="sm",
                visible=False,
                elem_id="sweep-extend",
            )
            self.again = gr.Button("Continue", size="sm", visible=False, elem_id="sweep-again")

    def _base(self) -> None:
        models = {model.name: model.side for model in self.desk.library.models()}
        default = GenerationRequest.model_fields["model"].default
        first = default if default in models or not models else next(iter(models))
        with gr.Accordion("What stays the same", open=True, elem_id="sweep-base"):
            self.basis = Basis(self.desk, self.form)
            self.form.add(
                "negative_prompt", lines=1, placeholder="what no cell should show", info=None
            )
            with gr.Row():
                self.form.add(
                    "model",
                    choices=list(models),
                    allow_custom_value=True,
                    value=first,
                    info="Checkpoint.",
                    min_width=99,
                )
                for side in ("width", "height"):
                    self.form.add(
                        side,
                        value=models.get(first),
                        placeholder="model's own",
                        info="Empty: its own.",
                        min_width=90,
                    )
            with gr.Row():
                self.form.add("steps", min_width=200, info="More is slower and finer.")
                self.form.add("guidance", min_width=200, info="CFG scale: obedience.")
            with gr.Row():
                self.form.add("scheduler", min_width=200, info="Sampler.")
                self.form.add(
                    "schedule",
                    min_width=200,
                    info="Noise levels; As shipped suits all.",
                    value="As shipped",
                )
                self.form.add("seed", min_width=120, info="-1 draws one for all.")
            self.loras = Chooser(self.desk, self.form)
        self.title = gr.Textbox(
            label="Title",
            placeholder="what stands over the sheet; by itself, what varies",
            max_lines=1,
            elem_id="sweep-title",
        )
        self.mode = gr.Radio(
            MODES, value=EXACT, label="Mode", elem_id="sweep-mode", elem_classes="modes"
        )

    def _more(self) -> None:
        with gr.Accordion("Presets", open=False, elem_id="sweep-presets"):
            self.preset = gr.Dropdown(
                self.desk.sweep_presets.names(),
                value=None,
                label="Take a preset",
                elem_id="sweep-preset",
                info="Fills in the whole sweep; nothing runs yet.",
            )
            with gr.Row():
                self.preset_name = gr.Textbox(
                    label="Keep this sweep as",
                    placeholder="a name",
                    max_lines=1,
                    scale=3,
                    elem_id="sweep-preset-name",
                )
                self.preset_save = gr.Button(
                    "Save", scale=1, min_width=80, elem_id="sweep-preset-save"
                )
        with gr.Accordion("Earlier sweeps", open=False, elem_id="sweep-shelf") as self.earlier:
            self.shelf = gr.HTML(js_on_load=BUTTONS, elem_id="sweep-list")
        with gr.Accordion("For experts", open=False, elem_id="sweep-experts"):
            self.form.add("clip_skip")

    # ---- which event does what ----------------------------------------------------------------------------------

    @property
    def asked(self) -> set[Any]:
        """All that says what is wanted, and which sweep is open."""
        return {
            self.title,
            self.mode,
            self.view.current,
            self.basis.kept,
            *self.form.inputs,
            *self.rows.inputs,
        }

    @property
    def filled(self) -> list[Any]:
        return [
            self.title,
            self.mode,
            self.plan,
            *self.form.outputs,
            *self.basis.outputs,
            *self.rows.outputs,
        ]

    @property
    def outputs(self) -> list[Any]:
        return list(
            dict.fromkeys([*self.filled, *self.loras.outputs, *self.view.outputs, self.shelf])
        )

    def wire(self) -> None:
        self.view.wire()
        self.loras.wire()
        self.basis.wire()
        shown = [*self.view.outputs, self.shelf]
        self.run.click(self.submit, self.asked, shown, preprocess=False, **SHORT)
        self.extend.click(self.submit_more, self.asked, shown, preprocess=False, **SHORT)
        self.again.click(self.go_on, self.view.current, shown, **SHORT)
        self.form["model"].input(
            self.fit_model, self.form["model"], [self.form["width"], self.form["height"]], **SHORT
        )
        told = [
            *self.form.outputs,
            self.mode,
            self.basis.kept,
            self.rows.fields,
            self.view.current,
            self.view.files,  # which change at the end
            *(part for row in self.rows.rows for part in row.inputs.values()),
        ]
        gr.on(
            [part.change for part in told],
            self.tell,
            self.asked,
            [self.plan, *self.rows.echoes],
            preprocess=False,
            trigger_mode="always_last",
            **SILENT,
        )
        self.view.grid.click(
            self.press, self.view.acting, self.outputs, trigger_mode="multiple", **SHORT
        )
        self.view.pane.base.click(
            self.as_base, self.view.pane.picked, [*self.form.outputs, *self.basis.outputs], **SHORT
        )
        self.earlier.expand(self.again_listed, self.view.current, self.shelf, **SHORT)
        self.shelf.click(self.from_shelf, self.view.current, self.outputs, **SHORT)
        self.preset.input(self.take_preset, self.preset, self.filled, **SHORT)
        self.preset_save.click(
            self.save_preset,
            {self.preset_name, *self.asked},
            [self.preset, self.preset_name],
            preprocess=False,
            **SHORT,
        )

    # ---- what is wanted -----------------------------------------------------------------------------------------

    def read(self, values: Updates) -> SweepSpec:
        """The sweep on the page. Raises InvalidSpec with all that is wrong."""
        axes, wrong = self.rows.read(values)
        said = {
            "base": {**self.basis.raw(values), **self.form.raw(values)},
            "axes": axes,
            "title": values[self.title] or "",
            "fast": values[self.mode] == FAST,
        }
        try:
            spec = check(SweepSpec, said)
        except InvalidSpec as error:
            raise InvalidSpec(
                [
                    *wrong,
                    *(fault for fault in error.faults if axes or not fault.startswith("Axes: ")),
                ]
            ) from None
        if wrong:
            raise InvalidSpec(wrong)
        return spec

    def tell(self, values: Updates, request: gr.Request) -> Updates:
        """What the sweep on the page will be, or all that keeps it from being one."""
        visitor = who(request)
        try:
            told = (
                grid.note(BLANK)
                if self.rows.blank(values)
                else self._told(
                    self.read(values), self.view.mine(values[self.view.current], visitor), visitor
                )
            )
        except InvalidSpec as error:
            told = grid.faults(error.faults)
        return {self.plan: told, **self.rows.echo(values)}

    def _told(self, spec: SweepSpec, open_: Sweep | None, visitor: Visitor) -> str:
        if visitor.guest:
            spec.check_guest()
        found = plan(
            spec,
            seed=_seed_of(spec, open_),
            rates=rates(self.desk, {str(spec.base.model), *_models(spec)}, spec.fast),
        )
        new = None
        if open_ is not None:
            kept = self.desk.sweeps.cells(open_.id)
            new = sum(cell.key not in kept or not kept[cell.key].done for cell in found.cells)
        return grid.planned(found, _took(found.predicted), FAST if spec.fast else EXACT, new)

    def fill(self, spec: SweepSpec, visitor: Visitor, open_: Sweep | None = None) -> Updates:
        """Put a sweep on the page: a preset, or one that is opened again."""
        if len(spec.axes) > MOST:
            gr.Warning(
                f"This sweep has {len(spec.axes)} axes, and the form has room for {MOST}; the grid shows them all."
            )
        return {
            self.title: spec.title,
            self.mode: FAST if spec.fast else EXACT,
            **self.form.fill(spec.base),
            **self.basis.show(spec.base),
            **self.rows.fill(spec.axes),
            self.plan: self._told(spec, open_, visitor),
        }

    def take_preset(self, name: str, request: gr.Request) -> Updates:
        with show.said():
            return (
                self.fill(self.desk.sweep_presets.load(name), who(request))
                if name
                else {self.plan: gr.skip()}
            )

    def save_preset(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            who(request).must_own("Saving presets")
            path = self.desk.sweep_presets.save(
                str(values.pop(self.preset_name) or ""), self.read(values)
            )
            gr.Info(f"Kept as {html.escape(path.stem)}.")
            return {
                self.preset: gr.Dropdown(self.desk.sweep_presets.names(), value=path.stem),
                self.preset_name: "",
            }

    def fit_model(self, name: str) -> Any:
        side = next(
            (model.side for model in self.desk.library.models() if model.name == name), None
        )
        return side, side

    def as_base(self, picked: str | None) -> Updates:
        picture = self.desk.gallery.get(picked) if picked else None
        return self.based(picture.request) if picture else {self.form["seed"]: gr.skip()}

    def based(self, request: GenerationRequest) -> Updates:
        """A request as the base: what varies stays as it is."""
        return {**self.form.fill(request), **self.basis.show(request)}

    # ---- running ------------------------------------------------------------------------------------------------

    def submit(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            visitor, spec = who(request), self.read(values)
            id, _ = self.desk.submit_sweep(spec, visitor)
            return self._opened(visitor, id)

    def submit_more(self, values: Updates, request: gr.Request) -> Updates:
        """Other values for the open sweep: what is made and still wanted is kept."""
        with show.said():
            visitor = who(request)
            sweep, spec = self.view.must(values[self.view.current], visitor), self.read(values)
            self.desk.submit_sweep(spec.settled(_seed_of(spec, sweep)), visitor, sweep.id)
            return self._opened(visitor, sweep.id)

    def go_on(self, id: str, request: gr.Request) -> Updates:
        """The cells that are missing and those that failed."""
        with show.said():
            visitor = who(request)
            sweep = self.view.must(id, visitor)
            self.desk.submit_sweep(sweep.spec, visitor, sweep.id)
            return self._opened(visitor, sweep.id)

    def press(
        self,
        id: str,
        view: Any,
        key: str,
        pinned: str,
        how: str,
        event: gr.EventData,
        request: gr.Request,
    ) -> Updates:
        """A button where the grid is: a cell, or a preset to begin with."""
        with show.said():
            if event._data.get("what") == "preset":
                return self.fill(
                    self.desk.sweep_presets.load(str(event._data.get("subject"))), who(request)
                )
            return self.view.act(id, view, key, pinned, how, event, request)

    # ---- earlier sweeps -----------------------------------------------------------------------------------------

    def opened(self, visitor: Visitor) -> Updates:
        """A page that opens takes up what its browser left: the sweep that runs, else the last one."""
        running = next(
            (str(job.spec.get("sweep")) for job in self.desk.jobs.waiting(visitor.id, "sweep")), ""
        )
        last = next((sweep.id for sweep in self.desk.sweeps.listing(visitor.id, 1)), "")
        sweep = self.view.mine(running or last, visitor)
        if sweep is None:
            return {
                **self.loras.look(self.form["model"].value, visitor),
                **self.view.close(),
                self.shelf: self._shelf(visitor, ""),
            }
        filled = self.fill(sweep.spec, visitor, sweep)
        rows = self.loras.look(sweep.spec.base.model, visitor, value=filled[self.form["loras"]])
        return {**filled, **rows, **self._opened(visitor, sweep.id)}

    def take(self, wanted: Any, visitor: Visitor) -> Updates:
        """What another tab hands over: a sweep to begin with, or the id of one to open."""
        with show.said():
            sweep = self.view.must(wanted, visitor) if isinstance(wanted, str) else None
            filled = self.fill(sweep.spec if sweep else wanted, visitor, sweep)
            model = (sweep.spec if sweep else wanted).base.model
            rows = self.loras.look(model, visitor, value=filled[self.form["loras"]])
            return {
                **filled,
                **rows,
                **(self._opened(visitor, sweep.id) if sweep else self.view.close()),
            }

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
            sweep = self.view.must(subject, visitor)
            match verb:
                case "ask":
                    return {self.shelf: self._shelf(visitor, current, sweep.id)}
                case "open":
                    return {
                        **self.fill(sweep.spec, visitor, sweep),
                        **self._opened(visitor, sweep.id),
                    }
                case "delete":
                    return self._delete(visitor, sweep, current)
            raise BadFile("The page asked for something that the studio does not know.")

    def _delete(self, visitor: Visitor, sweep: Sweep, current: str) -> Updates:
        if self.view.jobs(visitor, sweep.id):
            raise Busy("That sweep still runs; stop it first.")
        self.desk.sweeps.delete(sweep.id)
        closed = self.view.close() if sweep.id == current else {}
        return {**closed, self.shelf: self._shelf(visitor, "" if closed else current)}

    def _shelf(self, visitor: Visitor, current: str, asked: str = "") -> str:
        rows = []
        for sweep in self.desk.sweeps.listing(visitor.sees, SHELF):
            total = math.prod(sweep.spec.counts[group[0]] for group in sweep.spec.groups)
            done = sum(
                one.done for one in self.desk.sweeps.cells(sweep.id).values()
            )  # of values taken out since, too
            rows.append(
                (sweep.id, sweep.spec, sweep.changed, min(done, total), total, sweep.id == current)
            )
        return grid.shelf(rows, asked)


def _seed_of(spec: SweepSpec, open_: Sweep | None) -> int:
    """The seed to draw for -1, so that more cells of an open sweep are more of the same."""
    if open_ is None:
        return 0
    for axis in spec.axes:
        kept = next(
            (other.parsed for other in open_.spec.axes if other.field == axis.field == "seed"), ()
        )
        for place, (now, before) in enumerate(zip(axis.parsed, kept)):
            if now == -1:
                return (int(before) - place) % MOST_SEEDS
    return open_.spec.base.seed


def _models(spec: SweepSpec) -> list[str]:
    return [str(value) for axis in spec.axes if axis.field == "model" for value in axis.parsed]


def _took(told: Prediction) -> str:
    if told.seconds is not None:
        return f"about {show.duration(told.seconds)}"
    if told.painting is not None:
        return f"about {show.duration(told.painting)} once loaded"
    return "not measured on this machine yet"


def build(desk: Desk) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = SweepTab(desk)
    return Tab(
        ID,
        "Sweep",
        form=tab.form,
        picked=tab.view.pane.picked,
        send=tab.view.pane.send,
        opened=tab.opened,
        take=tab.take,
        sent=lambda picture, visitor: tab.based(picture.request),
        outputs=tab.outputs,
        filled=[*tab.form.outputs, *tab.basis.outputs],
    )
