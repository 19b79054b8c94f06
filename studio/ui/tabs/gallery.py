"""The Gallery tab: every picture that was made, searched, looked at, compared, sent on.

Knows: its layout and paging. Does not know: how pictures are stored.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import BadFile, DatasetError
from studio.storage.gallery import Picture
from studio.ui import show
from studio.ui.components.before_after import Compare
from studio.ui.components.denoise_strip import Strip
from studio.ui.guard import Visitor, who
from studio.ui.widgets import SHORT, Desk, Tab, Updates

ID = "gallery"
PAGE = 48
PIN, UNPIN = "Pin to compare", "Unpin"


class GalleryTab:
    """One build of the tab."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        with gr.Row(elem_classes="workspace"):
            with gr.Column(scale=7, min_width=320):
                with gr.Row(elem_classes="search-row"):
                    self.words = gr.Textbox(
                        placeholder="Search prompts, models, schedulers, seeds",
                        show_label=False,
                        scale=4,
                        max_lines=1,
                        elem_id="gallery-search",
                        container=False,
                    )
                    self.newer = gr.Button("← Newer", size="sm", min_width=80)
                    self.older = gr.Button("Older →", size="sm", min_width=80)
                self.count = gr.HTML(elem_id="gallery-count")
                self.grid = gr.Gallery(
                    columns=5,
                    fit_columns=False,
                    allow_preview=False,
                    show_label=False,
                    object_fit="cover",
                    height="auto",
                    elem_id="gallery-grid",
                    interactive=False,
                    buttons=[],
                )
            with gr.Column(scale=5, min_width=320, elem_classes="stage"):
                self.view = gr.Image(
                    show_label=False,
                    type="filepath",
                    image_mode=None,
                    interactive=False,
                    visible=False,
                    buttons=["download", "fullscreen"],
                    elem_id="gallery-view",
                    height=480,
                )
                self.compare = Compare("gallery-compare")
                self.about = gr.HTML(
                    '<p class="nothing">Choose a picture to see it large, with its settings.</p>',
                    elem_id="gallery-about",
                )
                with gr.Row(visible=False, elem_classes="send") as self.send:
                    self.pin = gr.Button(PIN, size="sm", elem_id="gallery-pin")
                    self.delete = gr.Button(
                        "Delete", size="sm", variant="stop", elem_id="gallery-delete"
                    )
                with gr.Row(visible=False, elem_classes="strip-row") as self.learn:
                    self.dataset = gr.Textbox(
                        label="Add to a dataset",
                        placeholder="its name; a new one is begun",
                        max_lines=1,
                        scale=4,
                        elem_id="gallery-dataset",
                    )
                    self.add = gr.Button("Add", size="sm", min_width=80, elem_id="gallery-add")
                self.strip = Strip(self.desk, "gallery-strip")
        self.page = gr.State(0)
        self.paths: gr.State = gr.State([])
        self.picked = gr.State(None)
        self.pinned = gr.State(None)  # the path of the one that others are compared with
        self.wire()

    @property
    def listed(self) -> list[Any]:
        return [self.grid, self.count, self.paths, self.page, self.newer, self.older]

    @property
    def viewed(self) -> list[Any]:
        return [
            self.view,
            self.about,
            self.picked,
            self.pinned,
            self.pin,
            self.send,
            self.learn,
            self.strip.place,
            *self.compare.outputs,
        ]

    def wire(self) -> None:
        self.strip.wire(self.picked)
        self.words.change(self.find, self.words, self.listed, **SHORT)
        self.newer.click(self.turn_newer, [self.words, self.page], self.listed, **SHORT)
        self.older.click(self.turn_older, [self.words, self.page], self.listed, **SHORT)
        self.grid.select(self.pick, [self.paths, self.pinned], self.viewed, **SHORT)
        self.pin.click(self.turn_pin, [self.picked, self.pinned], self.viewed, **SHORT)
        self.add.click(self.add_to, [self.picked, self.dataset], None, **SHORT)
        self.delete.click(
            self.remove, [self.picked, self.words, self.page], [*self.listed, *self.viewed], **SHORT
        )

    def find(self, words: str, request: gr.Request) -> Updates:
        return self.found(words, 0, who(request))

    def found(self, words: str | None, page: int, visitor: Visitor) -> Updates:
        words = words or ""
        total = self.desk.gallery.count(words, visitor.sees)
        page = max(0, min(page, (total - 1) // PAGE))
        pictures = self.desk.gallery.search(words, visitor.sees, PAGE, page * PAGE)
        first = page * PAGE + 1
        if total:
            said = f"{first}–{first + len(pictures) - 1} of {total}"
        else:
            said = (
                "Nothing matches."
                if words
                else "No pictures yet: make one in the txt2img tab and it is kept here."
            )
        return {
            self.newer: gr.Button(interactive=page > 0),
            self.older: gr.Button(interactive=(page + 1) * PAGE < total),
            self.grid: [str(p.thumb if p.thumb.is_file() else p.path) for p in pictures],
            self.page: page,
            self.count: f'<p class="nothing">{said}</p>',
            self.paths: [str(p.path) for p in pictures],
        }

    def turn_newer(self, words: str, page: int, request: gr.Request) -> Updates:
        return self.found(words, page - 1, who(request))

    def turn_older(self, words: str, page: int, request: gr.Request) -> Updates:
        return self.found(words, page + 1, who(request))

    def pick(self, paths: list[str], pinned: str | None, event: gr.SelectData) -> Updates:
        return self.shown(
            paths[event.index]
            if isinstance(event.index, int) and 0 <= event.index < len(paths)
            else None,
            pinned,
        )

    def turn_pin(self, picked: str | None, pinned: str | None) -> Updates:
        """Keep the one in view to compare others with, or let the kept one go."""
        if pinned is None and picked:
            gr.Info("Pinned. Choose another picture to compare it with.")
        return self.shown(picked, None if pinned else picked)

    def shown(self, path: str | None, pinned: str | None) -> Updates:
        """A picture, or it and the pinned one with a slider between them."""
        picture, other = (self.desk.gallery.get(one) if one else None for one in (path, pinned))
        other = other if other and other.path.is_file() else None
        kept = {self.pinned: str(other.path) if other else None, self.pin: UNPIN if other else PIN}
        if picture is None or not picture.path.is_file():
            return {
                **kept,
                self.view: gr.Image(visible=False),
                self.about: '<p class="nothing">That picture is gone.</p>',
                self.picked: None,
                self.send: gr.Row(visible=False),
                self.learn: gr.Row(visible=False),
                **self.strip.seen(False),
                **self.compare.closed(),
            }
        two = other is not None and other.path != picture.path
        sides = (
            self.compare.shown(
                (other.path, f"pinned: {_called(other)}"), (picture.path, _called(picture))
            )
            if (other and two)
            else self.compare.closed()
        )
        return {
            **kept,
            self.view: gr.Image(str(picture.path), visible=not two),
            self.about: show.settings(picture),
            self.picked: str(picture.path),
            self.send: gr.Row(visible=True),
            self.learn: gr.Row(visible=True),
            **self.strip.seen(True),
            **sides,
        }

    def add_to(self, picked: str | None, name: str, request: gr.Request) -> None:
        """The picture in view, marked as generated, with its prompt as its caption."""
        with show.said():
            who(request).must_own("Adding pictures to datasets")
            picture = self.desk.gallery.get(picked) if picked else None
            if picture is None:
                raise BadFile("That picture is gone; choose another one.")
            if not (name := (name or "").strip()):
                raise DatasetError("Which dataset? Say the name of one, or of a new one.")
            taken = self.desk.shelf.albums.add_made(name, [picture])
            if taken.left:
                raise DatasetError(" ".join(taken.left[0]))
            gr.Info(f"Added to {html.escape(name)}, with its prompt as its caption.")

    def remove(self, picked: str | None, words: str, page: int, request: gr.Request) -> Updates:
        with show.said():
            visitor = who(request)
            picture = self.desk.gallery.get(picked) if picked else None
            if picture is None:
                return {self.send: gr.Row(visible=False)}
            if picture.owner != visitor.id:
                visitor.must_own("Deleting others' pictures")
            self.desk.gallery.delete(Path(picture.path))
            return {
                **self.found(words, page, visitor),
                **self.shown(None, None),
                self.about: '<p class="nothing">Deleted.</p>',
            }


def _called(picture: Picture) -> str:
    """A picture in a few words."""
    words = picture.request.prompt or picture.request.task
    return f"{words if len(words) < 50 else words[:47] + '…'} · seed {picture.request.seed}"


def build(desk: Desk) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = GalleryTab(desk)
    return Tab(
        ID,
        "Gallery",
        picked=tab.picked,
        send=tab.send,
        opened=lambda visitor: tab.found("", 0, visitor),
        outputs=tab.listed,
    )
