"""The Gallery tab: every picture that was made, searched, looked at, sent on.

Knows: its layout and paging. Does not know: how pictures are stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from studio.ui import show
from studio.ui.guard import Visitor, who
from studio.ui.widgets import SHORT, Desk, Tab, Updates

ID = "gallery"
PAGE = 48


class GalleryTab:
    """One build of the tab."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        with gr.Row(elem_classes="workspace"):
            with gr.Column(scale=7, min_width=320):
                with gr.Row(elem_classes="search-row"):
                    self.words = gr.Textbox(placeholder="Search prompts, models, schedulers, seeds", show_label=False, scale=4,
                                            max_lines=1, elem_id="gallery-search", container=False)
                    self.newer = gr.Button("← Newer", size="sm", min_width=80)
                    self.older = gr.Button("Older →", size="sm", min_width=80)
                self.count = gr.HTML(elem_id="gallery-count")
                self.grid = gr.Gallery(columns=5, fit_columns=False, allow_preview=False, show_label=False, object_fit="cover",
                                       height="auto", elem_id="gallery-grid", interactive=False, buttons=[])
            with gr.Column(scale=5, min_width=320, elem_classes="stage"):
                self.view = gr.Image(show_label=False, type="filepath", image_mode=None, interactive=False, visible=False,
                                     buttons=["download", "fullscreen"], elem_id="gallery-view", height=480)
                self.about = gr.HTML('<p class="nothing">Choose a picture to see it large, with its settings.</p>',
                                     elem_id="gallery-about")
                with gr.Row(visible=False, elem_classes="send") as self.send:
                    self.delete = gr.Button("Delete", size="sm", variant="stop", elem_id="gallery-delete")
        self.page = gr.State(0)
        self.paths: gr.State = gr.State([])
        self.picked = gr.State(None)
        self.wire()

    @property
    def listed(self) -> list[Any]:
        return [self.grid, self.count, self.paths, self.page]

    @property
    def viewed(self) -> list[Any]:
        return [self.view, self.about, self.picked, self.send]

    def wire(self) -> None:
        self.words.change(self.find, self.words, self.listed, **SHORT)
        self.newer.click(self.turn_newer, [self.words, self.page], self.listed, **SHORT)
        self.older.click(self.turn_older, [self.words, self.page], self.listed, **SHORT)
        self.grid.select(self.pick, self.paths, self.viewed, **SHORT)
        self.delete.click(self.remove, [self.picked, self.words, self.page], [*self.listed, *self.viewed], **SHORT)

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
            said = "Nothing matches." if words else "No pictures yet: make one in the txt2img tab and it is kept here."
        return {self.grid: [str(p.thumb if p.thumb.is_file() else p.path) for p in pictures], self.page: page,
                self.count: f'<p class="nothing">{said}</p>', self.paths: [str(p.path) for p in pictures]}

    def turn_newer(self, words: str, page: int, request: gr.Request) -> Updates:
        return self.found(words, page - 1, who(request))

    def turn_older(self, words: str, page: int, request: gr.Request) -> Updates:
        return self.found(words, page + 1, who(request))

    def pick(self, paths: list[str], event: gr.SelectData) -> Updates:
        path = paths[event.index] if isinstance(event.index, int) and event.index < len(paths) else None
        picture = self.desk.gallery.get(path) if path else None
        if picture is None or not picture.path.is_file():
            return {self.view: gr.Image(visible=False), self.about: '<p class="nothing">That picture is gone.</p>',
                    self.picked: None, self.send: gr.Row(visible=False)}
        return {self.view: gr.Image(str(picture.path), visible=True), self.about: show.settings(picture),
                self.picked: str(picture.path), self.send: gr.Row(visible=True)}

    def remove(self, picked: str | None, words: str, page: int, request: gr.Request) -> Updates:
        with show.said():
            visitor = who(request)
            picture = self.desk.gallery.get(picked) if picked else None
            if picture is None:
                return {self.send: gr.Row(visible=False)}
            if picture.owner != visitor.id:
                visitor.must_own("Deleting others' pictures")
            self.desk.gallery.delete(Path(picture.path))
            return {**self.found(words, page, visitor), self.view: gr.Image(visible=False), self.picked: None,
                    self.about: '<p class="nothing">Deleted.</p>', self.send: gr.Row(visible=False)}


def build(desk: Desk) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = GalleryTab(desk)
    return Tab(ID, "Gallery", picked=tab.picked, send=tab.send, opened=lambda visitor: tab.found("", 0, visitor),
               outputs=tab.listed)
