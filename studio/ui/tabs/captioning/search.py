"""Searches with a CLIP model on the Captions tab: by words, by a picture, near-duplicates, how well captions fit, classes as tags.

Knows: the questions and how an answer becomes a list of pictures. Does not know: how a model sees.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.core.base import check
from studio.core.captions.clip_query import SeeSpec
from studio.core.captions.edits import AddTags
from studio.core.catalog import DEFAULT_CLIP
from studio.storage.jobs import Job
from studio.storage.models.library import Unusable
from studio.storage.models.transformers_models import Networks
from studio.ui import show
from studio.ui.guard import Visitor, uploaded, who
from studio.ui.tabs.captioning.browser import View
from studio.ui.tabs.captioning.state import Find
from studio.ui.views import dataset as words
from studio.ui.views import sweep
from studio.ui.widgets import SHORT, SILENT, Desk, Updates

FOUND = {
    "search": "the likest first",
    "duplicates": "nearly the same, group by group, the best first",
    "fit": "the worst first",
    "classes": "class by class",
}


class Finder:
    """One build of it."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.networks = desk, Networks(desk.settings)
        with gr.Accordion("Search by what is seen", open=False, elem_id="find"):
            with gr.Row(elem_classes="turn"):
                self.words = gr.Textbox(
                    label="Words",
                    max_lines=1,
                    min_width=160,
                    placeholder="a red boat",
                    elem_id="find-words",
                )
                self.search = gr.Button(
                    "Search", size="sm", variant="primary", elem_id="find-search"
                )
            self.sent = gr.File(
                label="Or like a picture: drop it here",
                file_types=["image"],
                height=110,
                elem_id="find-sent",
            )
            with gr.Row(elem_classes="turn"):
                self.classes = gr.Textbox(
                    label="Classes",
                    max_lines=1,
                    min_width=160,
                    placeholder="moon / sun / other",
                    elem_id="find-classes",
                )
                self.sort = gr.Button("Tell apart", size="sm", elem_id="find-sort")
            with gr.Row():
                self.twins = gr.Button("Near-duplicates", size="sm", elem_id="find-twins")
                self.fit = gr.Button("Captions that fit worst", size="sm", elem_id="find-fit")
            self.clip = gr.Dropdown(
                self.choices(),
                value=DEFAULT_CLIP,
                label="CLIP model",
                allow_custom_value=True,
                elem_id="find-clip",
            )
            self.tag = gr.Button(
                "Put the classes into the captions as tags",
                size="sm",
                visible=False,
                elem_id="find-tag",
            )
            self.thin = gr.Button(
                "Set aside all but the best of each group",
                size="sm",
                visible=False,
                elem_id="find-thin",
            )
        self.doing = gr.HTML(elem_id="find-doing")
        self.job: gr.State = gr.State(0)
        self.clock = gr.Timer(0.4, active=False)

    def choices(self) -> list[str]:
        return [one.name for one in self.networks.clips() if not isinstance(one, Unusable)]

    @property
    def started(self) -> list[Any]:
        """What changes when something is asked."""
        return [self.job, self.clock, self.doing]

    def wire(self, view: View) -> None:
        self.view = view
        inputs, started = {self.words, self.classes, self.clip, *view.inputs}, self.started
        gr.on([self.search.click, self.words.submit], self.searched, inputs, started, **SHORT)
        gr.on([self.sort.click, self.classes.submit], self.sorted, inputs, started, **SHORT)
        self.sent.upload(
            self.likened, {self.sent, *inputs}, [self.sent, *started], preprocess=False, **SHORT
        )
        self.twins.click(self.twinned, inputs, started, **SHORT)
        self.fit.click(self.fitted, inputs, started, **SHORT)
        self.clock.tick(
            self.look,
            {self.job, *view.inputs},
            [*started, self.tag, self.thin, *view.outputs],
            **SILENT,
        )
        self.tag.click(self.tagged, {self.job, *view.inputs}, [self.tag, *view.outputs], **SHORT)
        self.thin.click(self.thinned, view.meaning, [self.thin, *view.outputs], **SHORT)

    # ---- asked --------------------------------------------------------------------------------------------------

    def _ask(self, values: Updates, visitor: Visitor, question: str, **more: Any) -> Updates:
        spec = check(
            SeeSpec,
            {
                "dataset": self.view.place(values).name,
                "question": question,
                "clip": values[self.clip] or DEFAULT_CLIP,
                **more,
            },
        )
        id = self.desk.submit_see(spec, visitor)
        return {
            self.job: id,
            self.clock: gr.Timer(active=True),
            self.doing: words.running("Waiting for its turn", 0, 0),
        }

    def searched(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            return self._ask(values, who(request), "search", words=values[self.words] or "")

    def sorted(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            return self._ask(values, who(request), "classes", classes=values[self.classes] or "")

    def twinned(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            return self._ask(values, who(request), "duplicates")

    def fitted(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            return self._ask(values, who(request), "fit")

    def liked(self, values: Updates, data: dict[str, Any], visitor: Visitor) -> Updates:
        """Pictures like the one of a card. Raises what `Desk.submit_see` raises."""
        return self._ask(values, visitor, "search", like=str(data.get("subject")))

    def likened(self, values: Updates, request: gr.Request) -> Updates:
        """Pictures like one from outside, which is kept in home/inputs."""
        with show.said():
            visitor = who(request)
            visitor.must_own("Searching a dataset")
            self.desk.shelf.open(self.view.place(values).name, visitor)  # before anything is kept
            like = self.desk.library.inputs.add(*uploaded(values[self.sent])).sha256
            return {**self._ask(values, visitor, "search", like=like), self.sent: None}

    # ---- answered -----------------------------------------------------------------------------------------------

    def _mine(self, id: Any, visitor: Visitor) -> Job | None:
        job = self.desk.jobs.get(int(id or 0))
        return job if job and job.kind == "see" and visitor.sees in (None, job.owner) else None

    def look(self, values: Updates, request: gr.Request) -> Updates:
        """How a search goes, and what it has found."""
        visitor, off = who(request), gr.Timer(active=False)
        job = self._mine(values[self.job], visitor)
        if job is None:
            return {self.clock: off, self.doing: ""}
        if job.open:
            at = job.progress
            return {
                self.doing: words.running(
                    "Waiting for its turn" if job.state == "queued" else at.note or "Looking",
                    at.step,
                    at.total,
                )
            }
        if job.state != "done" or not isinstance(job.result, dict):
            return {
                self.clock: off,
                self.doing: words.ended(job.state, job.error or "The search was stopped."),
            }
        asked = job.result.get("question")
        told = {
            self.clock: off,
            self.tag: gr.Button(visible=asked == "classes"),
            self.thin: gr.Button(visible=asked == "duplicates" and bool(job.result.get("groups"))),
        }
        if job.spec.get("dataset") != self.view.place(values).name:
            return {**told, self.doing: ""}
        found = listed(job.result)
        said = (
            f"{words.many(len(found), 'picture')}, {FOUND[str(job.result['question'])]}."
            if found
            else "Nothing was found."
        )
        updates = self.view.again(values, visitor, sweep.note(said), found=found, page=0)
        return {**updates, **told, self.doing: words.ended("done", said)}

    def tagged(self, values: Updates, request: gr.Request) -> Updates:
        """Each picture's class as a tag in its caption: a step for each class."""
        with show.said():
            visitor = who(request)
            album = self.view.mine(values, visitor, "Editing captions")
            job, count = self._mine(values[self.job], visitor), 0
            theirs = (
                job is not None
                and isinstance(job.result, dict)
                and job.spec.get("dataset") == album.name
            )
            found = job.result.get("found", ()) if job and theirs else ()
            there = {one.key for one in album.pictures}
            for name in dict.fromkeys(one["class"] for one in found if "class" in one):
                keys = [
                    one["file"] for one in found if one["class"] == name and one["file"] in there
                ]
                count += album.apply(AddTags(tags=(name,)), keys=keys).changed if keys else 0
            said = sweep.note(f"{words.many(count, 'caption')} got a class as a tag.")
            return {**self.view.again(values, visitor, said), self.tag: gr.Button(visible=False)}

    def thinned(self, values: Updates, request: gr.Request) -> Updates:
        """Of each group of near-duplicates the best stays, as one step."""
        with show.said():
            place = self.view.place(values)
            return {
                **self.view.set_aside(values, place.name, place.others, who(request)),
                self.thin: gr.Button(visible=False),
            }


def listed(result: dict[str, Any]) -> tuple[Find, ...]:
    """Pictures of an answer, each with what is said of it."""
    if result.get("question") == "duplicates":
        return tuple(
            Find(
                one["file"],
                f"group {number}, "
                + (
                    f"the best of {len(group)}"
                    if not at
                    else "the same file"
                    if one["same_file"]
                    else f"{one['like']:.2f} alike"
                ),
                () if at else tuple(other["file"] for other in group[1:]),
            )
            for number, group in enumerate(result.get("groups", ()), 1)
            for at, one in enumerate(group)
        )
    rows = list(result.get("found", ()))
    if result.get("question") == "classes":
        rows.sort(key=lambda one: (one["class"], -one["share"]))
        return tuple(Find(one["file"], f"{one['class']} {one['share']:.0%}") for one in rows)
    return tuple(Find(one["file"], f"{one.get('score', one.get('fit')):.3f}") for one in rows)
