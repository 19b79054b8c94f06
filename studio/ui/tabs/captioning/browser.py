"""The pictures of the open dataset beside their captions: paged, filtered, edited, undone.

Knows: everything on the right side of the Captions tab, and what is said of the dataset on the left. Does not know: captioners,
edits of many captions, searches: their panes call `shown` when they have changed something.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import gradio as gr

from studio.core.captions.edits import Put, SetAside
from studio.core.captions.text import has_words, one_line, tags
from studio.errors import BadFile, DatasetError, StudioError
from studio.storage.datasets.dataset import Album
from studio.storage.datasets.history import Step
from studio.storage.datasets.items import Picture
from studio.ui import show
from studio.ui.components import caption_grid as table
from studio.ui.guard import Visitor, who
from studio.ui.shelf import addresses
from studio.ui.tabs.captioning.state import Find, Place
from studio.ui.tabs.training.run import sentences
from studio.ui.views import dataset as words
from studio.ui.views import sweep
from studio.ui.widgets import SHORT, SILENT, Desk, Updates

PAGE = 24  # pictures
STEPS = 30  # of the history that are listed
HASH = re.compile(
    r" \([0-9a-f]{12}\)"
)  # of a captioner's weights, which the card of the dataset keeps
MANY = 2000  # pictures up to which cards say who wrote their captions


class View:
    """One build of it. `dataset` is the chooser, `trigger` the box with the trigger word."""

    def __init__(
        self, desk: Desk, dataset: gr.Dropdown, trigger: gr.Textbox, found: gr.HTML, offers: gr.HTML
    ) -> None:
        self.desk, self.dataset, self.trigger, self.about, self.offers = (
            desk,
            dataset,
            trigger,
            found,
            offers,
        )
        with gr.Row(elem_classes="album-head"):
            self.filter = gr.Textbox(
                placeholder="Filter: boat, tag:red, is:missing, tokens:>77, -moon",
                show_label=False,
                scale=5,
                max_lines=1,
                elem_id="album-filter",
                container=False,
            )
            self.undo = gr.Button(
                "↶ Undo", size="sm", min_width=80, interactive=False, elem_id="album-undo"
            )
            self.redo = gr.Button(
                "↷ Redo", size="sm", min_width=80, interactive=False, elem_id="album-redo"
            )
        self.note = gr.HTML(elem_id="album-note")
        self.everything = gr.Button(
            "Show all pictures again", size="sm", visible=False, elem_id="album-everything"
        )
        self.cards = table.cards(elem_id="album-cards")
        with gr.Row(elem_classes="album-pager") as self.pager:
            self.back = gr.Button("← Back", size="sm", min_width=80, elem_id="album-back")
            self.count = gr.HTML(elem_id="album-count")
            self.next = gr.Button("Next →", size="sm", min_width=80, elem_id="album-next")
        with gr.Accordion("History", open=False, elem_id="album-history"):
            self.steps = gr.HTML(elem_id="album-steps")
        self.page: gr.State = gr.State(0)
        self.found: gr.State = gr.State(())
        self.seen: gr.State = gr.State("")
        self.clock = gr.Timer(1.0, active=False)

    @property
    def inputs(self) -> set[Any]:
        return {self.dataset, self.filter, self.page, self.found, self.trigger}

    @property
    def meaning(self) -> set[Any]:
        """What an edit of many needs besides its own boxes: also which pictures are ticked."""
        return {self.cards, *self.inputs}

    @property
    def outputs(self) -> list[Any]:
        return [
            self.cards,
            self.note,
            self.count,
            self.undo,
            self.redo,
            self.about,
            self.offers,
            self.page,
            self.found,
            self.seen,
            self.everything,
            self.back,
            self.next,
            self.steps,
            self.clock,
        ]

    def wire(self) -> None:
        self.filter.change(
            self.filtered, self.inputs, self.outputs, trigger_mode="always_last", **SILENT
        )
        self.back.click(self.turn_back, self.inputs, self.outputs, **SHORT)
        self.next.click(self.turn_on, self.inputs, self.outputs, **SHORT)
        self.undo.click(self.undone, self.inputs, self.outputs, **SHORT)
        self.redo.click(self.redone, self.inputs, self.outputs, **SHORT)
        self.everything.click(self.unfound, self.inputs, self.outputs, **SHORT)
        self.trigger.change(
            self.offered, self.inputs, self.offers, trigger_mode="always_last", **SILENT
        )
        self.clock.tick(self.look, {self.seen, *self.inputs}, self.outputs, **SILENT)

    def place(self, values: Updates) -> Place:
        """Where the page is, from what the browser sends."""
        return Place(
            str(values[self.dataset] or ""),
            str(values[self.filter] or ""),
            int(values[self.page] or 0),
            tuple(Find(*one) for one in values[self.found] or ()),
            table.keys(values.get(self.cards)),
        )

    def meant(self, values: Updates, visitor: Visitor) -> tuple[list[str] | None, str]:
        """The pictures that an edit is for, as keys (None: all) and a filter: those ticked; if none is, those shown.

        Raises DatasetError where none of the ticked ones is there any more.
        """
        place = self.place(values)
        there = {one.key for one in self.desk.shelf.open(place.name, visitor).pictures}
        if place.ticked:
            if not (keys := [key for key in place.ticked if key in there]):
                raise DatasetError("The ticked pictures are no longer there; tick others.")
            return keys, ""
        return [
            one.key for one in place.found if one.key in there
        ] if place.found else None, place.filter

    # ---- what is shown ------------------------------------------------------------------------------------------

    def shown(
        self,
        place: Place,
        visitor: Visitor,
        said: str = "",
        trigger: str | None = None,
        ticked: list[str] | None = None,
    ) -> Updates:
        """The page of a dataset, with a sentence above it; a filter that is none shows its fault. Ticks stay, if none are given."""
        if not place.name:
            return self.nothing()
        try:
            album = self.desk.shelf.open(place.name, visitor)
        except DatasetError as error:
            return self.nothing(sweep.faults([str(error)]))
        fault = ""
        try:
            pictures, total, place = self._listed(album, place)
        except StudioError as error:
            fault = sweep.faults(sentences(error))
            pictures, total, place = self._listed(album, replace(place, filter=""))
        steps, locked = album.history(STEPS), album.shipped or visitor.guest
        first = place.page * PAGE + 1
        paged = (
            f"{first:,}–{first + len(pictures) - 1:,} of {total:,}" if total else self._none(place)
        )
        states = {step.state for step in steps}
        guessed = called(album) if trigger is None else trigger
        return {
            self.cards: table.page(
                album.name,
                self._cards(album, pictures, visitor, locked, place),
                total,
                total == len(album.pictures),
                locked,
                ticked,
            ),
            self.note: fault or said,
            self.count: f'<p class="nothing" data-total="{total}">{paged}</p>',
            self.page: place.page,
            self.found: place.found,
            self.undo: gr.Button(interactive="done" in states and not locked),
            self.redo: gr.Button(interactive="undone" in states and not locked),
            self.about: words.found(
                album.counts(),
                album.broken,
                album.notes,
                self.desk.shelf.looking(place.name),
                locked,
            ),
            self.offers: words.doing(
                place.name,
                guessed,
                album.shipped,
                visitor.guest,
                any(not one.reason for one in album.pictures),
            ),
            self.everything: gr.Button(visible=bool(place.found)),
            self.back: gr.Button(interactive=place.page > 0),
            self.next: gr.Button(interactive=first - 1 + PAGE < total),
            self.steps: words.history(steps),
            self.seen: self._state(album),
            self.clock: gr.Timer(active=True),
        }

    def nothing(self, said: str = "") -> Updates:
        """No dataset is open."""
        off = gr.Button(interactive=False)
        return {
            self.cards: table.page("", (), 0, True, True, ()),
            self.note: said or words.INVITATION,
            self.count: "",
            self.undo: off,
            self.redo: off,
            self.about: "",
            self.offers: "",
            self.everything: gr.Button(visible=False),
            self.back: off,
            self.next: off,
            self.steps: "",
            self.clock: gr.Timer(active=False),
            self.page: 0,
            self.found: (),
        }

    def _listed(self, album: Album, place: Place) -> tuple[list[Picture], int, Place]:
        """The pictures of the page, how many there are in all, and the place with a page that exists."""
        if place.found:
            passing = {key: album.picture(key) for key in album.keys(place.filter)}
            every = [passing[one.key] for one in place.found if one.key in passing]
            page = max(0, min(place.page, (len(every) - 1) // PAGE))
            return every[page * PAGE : (page + 1) * PAGE], len(every), replace(place, page=page)
        found = album.page(place.page * PAGE, PAGE, place.filter)
        page = max(0, min(place.page, (found.total - 1) // PAGE))
        if page != place.page:
            found = album.page(page * PAGE, PAGE, place.filter)
        return list(found.pictures), found.total, replace(place, page=page)

    def _cards(
        self, album: Album, pictures: list[Picture], visitor: Visitor, locked: bool, place: Place
    ) -> list[dict[str, Any]]:
        there, found = {one.key for one in album.pictures}, {one.key: one for one in place.found}
        none = Find("", "")
        credits = album.credits() if len(album.pictures) <= MANY else {}
        shown = addresses(album, [one.key for one in pictures], visitor)
        return [
            {
                "dataset": album.name,
                "key": one.key,
                "src": address,
                "caption": one.caption,
                "note": found.get(one.key, none).note,
                "others": len(there.intersection(found.get(one.key, none).others)),
                "about": f"{one.size[0]} × {one.size[1]}" if one.size[0] else "",
                "fault": one.reason or one.fault,
                "by": HASH.sub("", str(credits[one.key][-1].writer))
                if credits.get(one.key) and one.caption
                else "",
                "locked": locked or bool(one.fault),
            }
            for one, address in zip(pictures, shown)
        ]

    def _none(self, place: Place) -> str:
        if place.filter or place.found:
            return "No picture is let through by that filter."
        return "There is no picture in it yet."

    def _state(self, album: Album) -> str:
        """What a page shows; it is drawn anew where this has changed."""
        return (
            f"{album.name} {hash(tuple((one.key, one.caption, one.reason) for one in album.pictures))} "
            f"{self.desk.shelf.looking(album.name)}"
        )

    # ---- looking ------------------------------------------------------------------------------------------------

    def look(self, values: Updates, request: gr.Request) -> Updates:
        """What a job, another page or another program has changed; nothing if nothing has."""
        visitor, place = who(request), self.place(values)
        try:
            album = self.desk.shelf.open(place.name, visitor)
        except DatasetError as error:
            return self.nothing(sweep.faults([str(error)]))
        if self._state(album) == values[self.seen]:
            return {self.seen: gr.skip()}
        updates = self.shown(place, visitor, trigger=str(values[self.trigger] or "") or None)
        del updates[self.note]
        return updates

    def again(
        self,
        values: Updates,
        visitor: Visitor,
        said: str = "",
        ticked: list[str] | None = None,
        **changed: Any,
    ) -> Updates:
        """The page after something was done, or in another place."""
        return self.shown(
            replace(self.place(values), **changed),
            visitor,
            said,
            str(values[self.trigger] or "") or None,
            ticked,
        )

    def filtered(self, values: Updates, request: gr.Request) -> Updates:
        return self.again(values, who(request), page=0)

    def turn_back(self, values: Updates, request: gr.Request) -> Updates:
        return self.again(values, who(request), page=max(0, self.place(values).page - 1))

    def turn_on(self, values: Updates, request: gr.Request) -> Updates:
        return self.again(values, who(request), page=self.place(values).page + 1)

    def unfound(self, values: Updates, request: gr.Request) -> Updates:
        return self.again(values, who(request), found=(), page=0)

    def offered(self, values: Updates, request: gr.Request) -> str:
        """The buttons, with the trigger word that Train on this takes along."""
        try:
            album = self.desk.shelf.open(self.place(values).name, visitor := who(request))
        except DatasetError:
            return ""
        return words.doing(
            album.name,
            str(values[self.trigger] or "") or called(album),
            album.shipped,
            visitor.guest,
            any(not one.reason for one in album.pictures),
        )

    # ---- changing -----------------------------------------------------------------------------------------------

    def mine(self, values: Updates, visitor: Visitor, what: str) -> Album:
        """The open album, to be changed. Raises NotAllowed for guests, DatasetError."""
        visitor.must_own(what)
        return self.desk.shelf.open(self.place(values).name, visitor)

    def put(self, values: Updates, data: dict[str, Any], visitor: Visitor) -> Updates:
        """A caption that was typed. Raises BadFile where it was changed meanwhile: then neither is lost."""
        visitor.must_own("Editing captions")
        key, text, was = (data.get(name) for name in ("subject", "text", "was"))
        if not all(isinstance(one, str) for one in (key, text, was)):
            raise BadFile("The page asked for something that the studio does not know.")
        album = self.desk.shelf.open(str(data.get("dataset")), visitor)
        now = album.picture(str(key)).caption
        if now != was and now != one_line(str(text)):
            raise BadFile(
                f"The caption of {key} was changed meanwhile to {now!r}; what you typed stays in its box: {text!r}."
            )
        step = album.apply(Put(texts={str(key): str(text)}), keys=[str(key)])
        return self.again(values, visitor, words.left_alone(step))

    def all_ticked(self, values: Updates, data: dict[str, Any], visitor: Visitor) -> Updates:
        """All that are shown, besides those that were ticked before."""
        ticked = table.keys(data.get("ticked"))
        keys, filter = self.meant({**values, self.cards: ()}, visitor)
        passing = self.desk.shelf.open(self.place(values).name, visitor).keys(filter)
        chosen = passing if keys is None else set(passing).intersection(keys)
        return {self.cards: gr.HTML(list(dict.fromkeys((*ticked, *sorted(chosen)))))}

    def aside(self, values: Updates, data: dict[str, Any], visitor: Visitor) -> Updates:
        """A picture taken out of the dataset, or the others of its group, or all that are ticked; Undo brings them back."""
        values = {**values, self.cards: table.keys(data.get("ticked"))}
        match data.get("what"), data.get("subject"):
            case "others", key:
                keys = [
                    other
                    for one in self.place(values).found
                    if one.key == key
                    for other in one.others
                ]
            case _, None:
                keys = list(self.place(values).ticked)
            case _, key:
                keys = [str(key)]
        return self.set_aside(values, str(data.get("dataset")), keys, visitor)

    def set_aside(self, values: Updates, name: str, keys: list[str], visitor: Visitor) -> Updates:
        """Those pictures taken out of a dataset, as one step. Raises DatasetError where none of them is there."""
        visitor.must_own("Editing datasets")
        album = self.desk.shelf.open(name, visitor)
        there = {one.key for one in album.pictures}
        meant = tuple(key for key in keys if key in there)
        if not meant:
            raise DatasetError("There is nothing to set aside: tick pictures that are there.")
        step = album.apply(SetAside(keys=meant))
        said = sweep.note(
            f"{meant[0] if len(meant) == 1 else words.many(len(meant), 'picture')} "
            f"{'is' if len(meant) == 1 else 'are'} set aside; Undo brings {'it' if len(meant) == 1 else 'them'} back."
        )
        there = {one.key for one in album.pictures}
        return self.again(
            values,
            visitor,
            words.left_alone(step) or said,
            [one for one in self.place(values).ticked if one in there],
        )

    def undone(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            step = self.mine(values, who(request), "Editing captions").undo()
            return self.again(values, who(request), _turned(step, "Undone"))

    def redone(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            step = self.mine(values, who(request), "Editing captions").redo()
            return self.again(values, who(request), _turned(step, "Done again"))


def called(album: Album) -> str:
    """The trigger word that a dataset's captions seem to have: a first tag of one word which they all share."""
    captions = [picture.caption for picture in album.pictures if picture.caption]
    first = tags(captions[0])[:1] if captions else []
    return (
        first[0]
        if first and " " not in first[0] and all(has_words(one, first[0]) for one in captions)
        else ""
    )


def _turned(step: Step | None, verb: str) -> str:
    if step is None:
        return sweep.note("There is nothing more.")
    return words.left_alone(step) or sweep.note(f"{verb}: {step.title}.")
