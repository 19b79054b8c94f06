"""The Captions tab: a dataset chosen or sent, captioned, edited, checked, handed to training.

Knows: how its parts stand together, how pictures come in. Does not know: the pictures beside their captions
(captioning_view.py), the captioner (captioning_run.py), edits of many (captioning_tools.py), searches (captioning_find.py).
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import gradio as gr

from studio.core.captions.edits import edit_of
from studio.core.captions.spec import CaptionSpec
from studio.errors import BadFile, Busy, InvalidSpec
from studio.storage.atomic import safe_name
from studio.ui import show
from studio.ui.form import Form
from studio.ui.guard import Visitor, uploaded, who
from studio.ui.tabs.captioning.browser import View, called
from studio.ui.tabs.captioning.captioner import Captioner
from studio.ui.tabs.captioning.search import Finder
from studio.ui.tabs.captioning.state import Place
from studio.ui.tabs.captioning.tools import Tools
from studio.ui.views import dataset as words
from studio.ui.views import sweep
from studio.ui.widgets import BUTTONS, SHORT, Desk, Tab, Updates

ID = "captioning"


class CaptioningTab:
    """One build of the tab. Components are attributes, so that handlers name what they change."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.form: Form[CaptionSpec] = Form(CaptionSpec, "caption")
        with gr.Row(elem_classes="workspace"):
            with gr.Column(scale=5, min_width=320, elem_classes="controls"):
                self._choose()
                self._bring()
                self.captioner = Captioner(desk, self.form)
                self.finder = Finder(desk)
                self.tools = Tools(desk)
            with gr.Column(scale=7, min_width=320, elem_classes="sweep-stage album-stage"):
                self.view = View(
                    desk, self.form["dataset"], self.form["trigger"], self.found, self.offers
                )
        self.wire()

    def _choose(self) -> None:
        self.form.add(
            "dataset",
            choices=[],
            value=None,
            allow_custom_value=True,
            info="A folder in home/datasets, or one that came with the studio.",
        )
        self.found = gr.HTML(js_on_load=words.TYPED, elem_id="album-found")
        self.offers = gr.HTML(js_on_load=BUTTONS, elem_id="album-offers")

    def _bring(self) -> None:
        with gr.Accordion("Bring pictures", open=True, elem_id="album-bring") as self.bring:
            self.into = gr.Textbox(
                label="Into the dataset",
                max_lines=1,
                placeholder="a new name, or one of yours",
                elem_id="album-into",
            )
            self.files = gr.File(
                label="Pictures, captions, zip",
                file_count="multiple",
                height=110,
                elem_id="album-files",
            )
        self.taken = gr.HTML(elem_id="album-taken")

    def wire(self) -> None:
        view, captioner = self.view, self.captioner
        view.wire()
        captioner.wire(view)
        self.finder.wire(view)
        self.tools.wire(view)
        dataset = self.form["dataset"]
        dataset.input(self.choose, view.inputs, self.opened_outputs, **SHORT)
        self.files.upload(
            self.add,
            {self.files, self.into, *view.inputs},
            [self.files, *self.opened_outputs],
            preprocess=False,
            **SHORT,
        )
        self.offers.click(self.act, view.inputs, self.opened_outputs, **SHORT)
        self.found.click(self.repeat, view.inputs, view.outputs, **SHORT)
        view.cards.click(
            self.touched,
            {self.finder.clip, *view.inputs},
            [*view.outputs, *self.finder.started],
            **SHORT,
        )

    @property
    def opened_outputs(self) -> list[Any]:
        """What changes when another dataset is opened."""
        return [
            self.form["dataset"],
            self.form["trigger"],
            self.into,
            self.bring,
            self.taken,
            self.view.filter,
            *self.view.outputs,
            *self.captioner.outputs,
        ]

    @property
    def outputs(self) -> list[Any]:
        return [*self.opened_outputs, self.form["captioner"]]

    # ---- opening ------------------------------------------------------------------------------------------------

    def open(self, name: str, visitor: Visitor) -> Updates:
        """A dataset is shown from its first page."""
        names = self.desk.shelf.names(visitor)
        updates = self.view.shown(Place(name), visitor, ticked=[])
        album = self.desk.shelf.open(name, visitor) if name in names else None
        own = album is not None and not album.shipped
        return {
            **updates,
            self.form["dataset"]: gr.Dropdown(names, value=name if name in names else None),
            self.view.filter: "",
            self.form["trigger"]: called(album) if album else "",
            self.into: name if own else "",
            self.bring: gr.Accordion(open=album is None, visible=not visitor.guest),
            self.taken: "",
            **self.captioner.open(self.captioner.last(name, visitor), visitor),
        }

    def opened(self, visitor: Visitor) -> Updates:
        """A page that opens: the dataset that is being captioned, else the one that this browser captioned or searched last."""
        jobs = [
            *self.desk.jobs.waiting(visitor.sees, "caption"),
            *self.desk.jobs.history(50, visitor.id),
        ]
        last = next(
            (str(job.spec.get("dataset")) for job in jobs if job.kind in ("caption", "see")), ""
        )
        return {
            **self.open(last if last in self.desk.shelf.names(visitor) else "", visitor),
            self.form["captioner"]: gr.Dropdown(self.captioner.choices()),
        }

    def choose(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            return self.open(str(values[self.form["dataset"]] or ""), who(request))

    # ---- pictures come in ---------------------------------------------------------------------------------------

    def add(self, values: Updates, request: gr.Request) -> Updates:
        """Pictures, captions and archives that were sent, into a dataset of the home."""
        with show.said():
            visitor = who(request)
            visitor.must_own("Adding pictures to datasets")
            sent = values[self.files]
            brought = [uploaded(one) for one in (sent if isinstance(sent, list) else [sent])]
            name = safe_name(
                str(values[self.into] or "").strip() or _called(brought)
            )  # what the folder will be called
            taken = self.desk.shelf.albums.add(name, brought)
            said = f"{words.many(taken.pictures, 'picture')} and {words.many(taken.captions, 'caption')} were added to {name}."
            name = name if name in self.desk.shelf.names(visitor) else ""
            opened = self.open(name, visitor) if name else {}
            return {
                **opened,
                self.files: None,
                self.taken: sweep.note(said) + words.left(taken.left, "left out"),
            }

    # ---- buttons ------------------------------------------------------------------------------------------------

    def act(self, values: Updates, event: gr.EventData, request: gr.Request) -> Updates:
        """A button under what was found; what it says comes from the browser, so it is only words."""
        with show.said():
            visitor, data = who(request), event._data or {}
            match data.get("what"), str(data.get("subject")):
                case "train", _:
                    return {self.view.seen: gr.skip()}  # goes to the Training tab: `wanted`
                case "copy", name:
                    visitor.must_own("Copying datasets")
                    self.desk.shelf.open(name, visitor)
                    names = self.desk.shelf.names(visitor)
                    new = next(
                        one
                        for k in itertools.count(1)
                        if (one := f"my {name}" + (f" {k}" if k > 1 else "")) not in names
                    )
                    return self.open(self.desk.shelf.albums.copy(name, new).name, visitor)
            raise BadFile("The page asked for something that the studio does not know.")

    def touched(self, values: Updates, event: gr.EventData, request: gr.Request) -> Updates:
        """A caption that was typed, or a button of a picture."""
        with show.said():
            visitor, data = who(request), event._data or {}
            match data.get("what"):
                case "put":
                    return self.view.put(values, data, visitor)
                case "aside" | "others":
                    return self.view.aside(values, data, visitor)
                case "all":
                    return self.view.all_ticked(values, data, visitor)
                case "like":
                    return self.finder.liked(values, data, visitor)
            raise BadFile("The page asked for something that the studio does not know.")

    def repeat(self, values: Updates, event: gr.EventData, request: gr.Request) -> Updates:
        """Other repeats for one of kohya's folders: it gets another name, which nobody may be reading meanwhile."""
        with show.said():
            visitor, data = who(request), event._data or {}
            visitor.must_own("Editing datasets")
            if data.get("what") != "repeats":
                raise BadFile("The page asked for something that the studio does not know.")
            album = self.desk.shelf.open(str(values[self.form["dataset"]] or ""), visitor)
            edit = edit_of(
                {
                    "kind": "set_repeats",
                    "folder": str(data.get("subject")),
                    "repeats": data.get("count"),
                }
            )
            if self._used(album.name):
                raise Busy(
                    f"{album.name} is being captioned or trained on, or waits for it; change repeats when that has ended."
                )
            step = album.apply(edit)
            return self.view.again(
                values,
                visitor,
                words.left_alone(step) or sweep.note(f"{step.title}. Undo brings the old back."),
            )

    def _used(self, name: str) -> bool:
        """Whether a job that is open reads or writes a dataset by the names of its files."""
        for job in self.desk.jobs.waiting():
            run = self.desk.runs.get(str(job.spec.get("run"))) if job.kind == "train" else None
            spec = (
                run.config.model_dump()
                if run
                else job.spec.get("config")
                if job.kind == "probe"
                else job.spec
            )
            if (
                job.kind in ("caption", "see", "train", "probe")
                and isinstance(spec, dict)
                and spec.get("dataset") == name
            ):
                return True
        return False

    def wanted(self, event: gr.EventData, visitor: Visitor) -> tuple[str, Any] | None:
        """What Train on this hands to the Training tab: dataset, name and trigger word."""
        data = event._data or {}
        if data.get("what") != "train":
            return None
        try:
            asked = json.loads(str(data.get("subject")))
        except (ValueError, RecursionError):
            return None
        return ("training", asked) if isinstance(asked, dict) else None


def _called(brought: list[tuple[Path, str]]) -> str:
    """The name of a dataset that nobody gave one: that of the only archive. Raises InvalidSpec."""
    zips = [name for _, name in brought if name.lower().endswith(".zip")]
    if len(brought) == 1 and zips:
        return Path(zips[0]).stem
    raise InvalidSpec(["Into the dataset: write a name first; the pictures go there."])


def build(desk: Desk) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = CaptioningTab(desk)
    return Tab(
        ID,
        "Captions",
        opened=tab.opened,
        outputs=tab.outputs,
        typed=True,
        asks=(tab.offers, tab.wanted),
    )
