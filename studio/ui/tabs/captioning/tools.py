"""Edits of many captions: search and replace, tags, what spoils a training and what mends it, where pictures come from, export.

Knows: the boxes of each edit and its preview. Does not know: how an edit is carried out, the pictures beside their captions.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from studio.core.base import check
from studio.core.captions.edits import Edit, TextEdit, edit_of
from studio.core.captions.lint import Finding, Rules, together
from studio.errors import BadFile, InvalidSpec
from studio.storage import atomic
from studio.storage.datasets.dataset import Album
from studio.ui import show
from studio.ui.form import number
from studio.ui.guard import Visitor, who
from studio.ui.tabs.captioning.browser import View
from studio.ui.tabs.captioning.state import Find
from studio.ui.views import dataset as words
from studio.ui.views import sweep
from studio.ui.widgets import BUTTONS, SHORT, Desk, Updates

ROWS = 30  # captions before and after that are shown
DOES = [
    ("Rename", "rename_tags"),
    ("Delete", "delete_tags"),
    ("Add in front", "first"),
    ("Add at the end", "add_tags"),
    ("Sort by count", "count"),
    ("Sort by name", "name"),
    ("Each only once", "dedupe_tags"),
    ("Keep the first …", "keep_tags"),
]


class Tools:
    """One build of it. Edits are for the pictures that are ticked; if none is, for those shown."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        with gr.Accordion("Search and replace", open=False, elem_id="tool-replace"):
            with gr.Row():
                self.find = gr.Textbox(
                    label="Find", max_lines=1, min_width=130, elem_id="tool-find"
                )
                self.to = gr.Textbox(
                    label="Replace by", max_lines=1, min_width=130, elem_id="tool-to"
                )
            self.how = gr.CheckboxGroup(
                [
                    ("Capitals count", "capitals"),
                    ("Whole words", "words"),
                    ("A pattern (regex)", "pattern"),
                ],
                value=["capitals"],
                show_label=False,
                elem_id="tool-how",
                elem_classes="ticks",
            )
            with gr.Row():
                self.preview = gr.Button("Show first", size="sm", elem_id="tool-preview")
                self.replace = gr.Button(
                    "Replace", size="sm", variant="primary", elem_id="tool-apply"
                )
            self.before = gr.HTML(elem_id="tool-before")
        with gr.Accordion("Tags", open=False, elem_id="tool-tags") as self.tags:
            self.chips = gr.HTML(js_on_load=BUTTONS, elem_id="tool-chips")
            with gr.Row():
                self.tag = gr.Textbox(
                    label="Tags",
                    max_lines=1,
                    min_width=130,
                    placeholder="red, blue",
                    elem_id="tool-tag",
                    info="Click above, or write; commas between.",
                )
                self.new = gr.Textbox(
                    label="New name, or how many",
                    max_lines=1,
                    min_width=130,
                    elem_id="tool-new",
                    info="For Rename and Keep.",
                )
            with gr.Row(elem_classes="turn"):
                self.does = gr.Dropdown(
                    DOES, value="rename_tags", label="Do", min_width=130, elem_id="tool-does"
                )
                self.carry = gr.Button("Do it", size="sm", variant="primary", elem_id="tool-carry")
        with gr.Accordion(
            "Check: what could spoil a training", open=False, elem_id="tool-lint"
        ) as self.checks:
            with gr.Row(elem_classes="turn"):
                self.resolution = number(
                    label="Trained at, px",
                    precision=0,
                    min_width=90,
                    placeholder="512",
                    elem_id="tool-resolution",
                )
                self.words = gr.Number(
                    label="Words at least", value=3, precision=0, min_width=90, elem_id="tool-words"
                )
                self.tokens = gr.Number(
                    label="Tokens at most",
                    value=77,
                    precision=0,
                    min_width=90,
                    elem_id="tool-tokens",
                )
                self.check = gr.Button("Check", size="sm", min_width=70, elem_id="tool-check")
            self.findings = gr.HTML(js_on_load=BUTTONS, elem_id="tool-findings")
        with gr.Accordion("Where the pictures come from, export", open=False, elem_id="tool-card"):
            with gr.Row():
                self.source = gr.Textbox(
                    label="Source", max_lines=1, min_width=110, elem_id="tool-source"
                )
                self.author = gr.Textbox(
                    label="Author", max_lines=1, min_width=110, elem_id="tool-author"
                )
                self.licence = gr.Textbox(
                    label="Licence",
                    max_lines=1,
                    min_width=110,
                    placeholder="CC BY 4.0",
                    elem_id="tool-licence",
                )
            with gr.Row():
                self.say = gr.Button("Say so of these pictures", size="sm", elem_id="tool-say")
                self.export = gr.Button(
                    "Export with its data card", size="sm", variant="primary", elem_id="tool-export"
                )
            self.known = gr.HTML(elem_id="tool-known")
            self.file = gr.File(
                label="The dataset", visible=False, interactive=False, elem_id="tool-file"
            )

    def wire(self, view: View) -> None:
        self.view = view
        replacing = {self.find, self.to, self.how, *view.meaning}
        self.preview.click(self.previewed, replacing, self.before, **SHORT)
        self.replace.click(self.replaced, replacing, [self.before, *view.outputs], **SHORT)
        tagging = {self.tag, self.new, self.does, *view.meaning}
        self.tags.expand(self.counted, view.meaning, self.chips, **SHORT)
        self.chips.click(self.take_tag, self.tag, self.tag, **SHORT)
        self.carry.click(self.tagged, tagging, [self.chips, *view.outputs], **SHORT)
        checking = {self.resolution, self.words, self.tokens, *view.inputs}
        gr.on(
            [self.checks.expand, self.check.click],
            self.checked,
            checking,
            self.findings,
            preprocess=False,
            **SHORT,
        )
        self.findings.click(
            self.mend, checking, [self.findings, *view.outputs], preprocess=False, **SHORT
        )
        saying = {self.source, self.author, self.licence, *view.meaning}
        self.say.click(self.said, saying, [self.known, *view.outputs], **SHORT)
        self.export.click(self.exported, view.inputs, [self.file, self.known], **SHORT)

    # ---- one edit -----------------------------------------------------------------------------------------------

    def _before(self, values: Updates, edit: TextEdit, visitor: Visitor) -> str:
        keys, filter = self.view.meant(values, visitor)
        found = self.desk.shelf.open(self.view.place(values).name, visitor).preview(
            edit, keys, filter
        )
        title = f"{words.many(len(found), 'caption')} would change" + (
            f", the first {ROWS}" if len(found) > ROWS else ""
        )
        return words.changes(
            [(one.key, one.old, one.new) for one in found[:ROWS]], len(found), title
        )

    def _done(
        self, values: Updates, edit: Edit, visitor: Visitor, keys: list[str] | None = None
    ) -> Updates:
        """Carried out, as one step, on those named or those that are meant."""
        album = self.view.mine(values, visitor, "Editing captions")
        chosen, filter = self.view.meant(values, visitor) if keys is None else (keys, "")
        step = album.apply(edit, keys=chosen, filter=filter)
        said = sweep.note(
            f"{step.title}: {words.many(step.changed, 'change')}."
            if step.changed
            else "Nothing had to be changed."
        )
        return self.view.again(values, visitor, words.left_alone(step) or said)

    def _replacing(self, values: Updates) -> TextEdit:
        how = values[self.how] or []
        made = edit_of(
            {
                "kind": "replace",
                "find": values[self.find] or "",
                "to": values[self.to] or "",
                **{name: name in how for name in ("capitals", "words", "pattern")},
            }
        )
        assert not made.kind.startswith("set_")
        return made  # type: ignore[return-value]

    def previewed(self, values: Updates, request: gr.Request) -> str:
        with show.said():
            return self._before(values, self._replacing(values), who(request))

    def replaced(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            return {**self._done(values, self._replacing(values), who(request)), self.before: ""}

    # ---- tags ---------------------------------------------------------------------------------------------------

    def counted(self, values: Updates, request: gr.Request) -> str:
        with show.said():
            if not (name := self.view.place(values).name):
                return ""
            keys, filter = self.view.meant(values, who(request))
            return words.tags(self.desk.shelf.open(name, who(request)).tags(filter, keys))

    def take_tag(self, now: str, event: gr.EventData) -> str:
        """One more tag in hand, or one less."""
        tag = str((event._data or {}).get("subject"))[:500]
        held = [one.strip() for one in (now or "").split(",") if one.strip()]
        return ", ".join([one for one in held if one != tag] if tag in held else [*held, tag])

    def tagged(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            visitor = who(request)
            return {
                **self._done(values, self._tag_edit(values), visitor),
                self.chips: self.counted(values, request),
            }

    def _tag_edit(self, values: Updates) -> Edit:
        held = [one.strip() for one in (values[self.tag] or "").split(",") if one.strip()]
        new, does = str(values[self.new] or "").strip(), str(values[self.does])
        if does in ("rename_tags", "delete_tags", "add_tags", "first") and not held:
            raise InvalidSpec(["Tags: click those that are meant, or write them."])
        if does == "rename_tags" and not new:
            raise InvalidSpec(["New name: write what they are to be called."])
        if does == "keep_tags" and not new.isdecimal():
            raise InvalidSpec([f"How many: has to be a whole number (not {new!r:.40})."])
        made: dict[str, dict[str, Any]] = {
            "rename_tags": {"kind": does, "tags": held, "to": new},
            "delete_tags": {"kind": does, "tags": held},
            "add_tags": {"kind": does, "tags": held},
            "first": {"kind": "add_tags", "tags": held, "first": True},
            "dedupe_tags": {"kind": does},
            "keep_tags": {"kind": does, "count": new},
        }
        return edit_of(made.get(does) or {"kind": "sort_tags", "by": does})

    # ---- what spoils --------------------------------------------------------------------------------------------

    def _found(self, values: Updates, visitor: Visitor) -> tuple[Album, list[Finding]]:
        raw = {
            "trigger": values[self.view.trigger] or "",
            "resolution": values[self.resolution] or 0,
            "tokens": values[self.tokens] or 0,
            "words": values[self.words] or 0,
        }
        rules = check(Rules, raw)
        album = self.desk.shelf.open(self.view.place(values).name, visitor)
        return album, album.lint(rules)

    def checked(self, values: Updates, request: gr.Request) -> str:
        with show.said():
            if not (name := self.view.place(values).name):
                return ""
            told = words.lint(self._found(values, who(request))[1])
            looking = self.desk.shelf.looking(name)
            return told + (
                sweep.note("Its pictures are still being looked at; check again in a moment.")
                if looking
                else ""
            )

    def mend(self, values: Updates, event: gr.EventData, request: gr.Request) -> Updates:
        """One finding, or all of a kind; what the button says comes from the browser, so it is only words."""
        with show.said():
            visitor = who(request)
            try:
                kind, file = json.loads(str((event._data or {}).get("subject")))
            except (ValueError, TypeError, RecursionError):
                raise BadFile(
                    "The page asked for something that the studio does not know."
                ) from None
            visitor.must_own("Editing captions")
            meant = [
                one
                for one in self._found(values, visitor)[1]
                if one.kind == kind and file in ("", one.file)
            ]
            if not meant:
                return {
                    self.findings: words.lint(self._found(values, visitor)[1]),
                    self.view.note: sweep.note("That is mended already."),
                }
            done = together(meant)
            if done is None:
                return self._by_captioner(values, meant, visitor)
            updates = self._done(values, done[0], visitor, done[1])
            return {**updates, self.findings: words.lint(self._found(values, visitor)[1])}

    def _by_captioner(self, values: Updates, meant: list[Finding], visitor: Visitor) -> Updates:
        """What only words can mend: those pictures are shown and none is ticked, so that by hand or captioner they are meant."""
        found = tuple(Find(one.file, words.KINDS.get(one.kind, one.kind)) for one in meant)
        said = sweep.note(
            f"{words.many(len(found), 'picture')} to be captioned: write beside them, or choose “All anew”, "
            "and press Caption."
        )
        return self.view.again(values, visitor, said, [], found=found, page=0, filter="")

    # ---- where from ---------------------------------------------------------------------------------------------

    def said(self, values: Updates, request: gr.Request) -> Updates:
        with show.said():
            given = {
                name: text.strip()
                for name in ("source", "author", "licence")
                if (text := str(values[getattr(self, name)] or "")).strip()
            }
            if not given:
                raise InvalidSpec(["Source, author, licence: write at least one of them."])
            updates = self._done(values, edit_of({"kind": "set_source", **given}), who(request))
            return {**updates, self.known: self._known(values, who(request))}

    def _known(self, values: Updates, visitor: Visitor) -> str:
        album = self.desk.shelf.open(self.view.place(values).name, visitor)
        sources = album.sources()
        said = sum(one.key in sources for one in album.pictures)
        return sweep.note(
            f"Of {said:,} of {words.many(len(album.pictures), 'picture')} it is said where they come from."
        )

    def exported(self, values: Updates, request: gr.Request) -> Updates:
        """The dataset as a zip, with captions, who wrote them, and where pictures come from."""
        with show.said():
            visitor = who(request)
            visitor.must_own("Exporting datasets")
            album = self.desk.shelf.open(self.view.place(values).name, visitor)
            folder = Path(
                tempfile.mkdtemp(dir=get_upload_folder())
            )  # gradio's own, which it empties after a day
            path = album.export(folder / f"{atomic.safe_name(album.name)}.zip")
            return {
                self.file: gr.File(str(path), visible=True),
                self.known: self._known(values, visitor),
            }
