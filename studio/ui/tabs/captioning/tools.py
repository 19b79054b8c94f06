"""Edits of many captions: search and replace, tags, checks and their fixes, sources, export.

Knows: the boxes of each edit and its preview. Does not know: how an edit is carried out
(storage/datasets), the images beside their captions (browser.py).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from studio.core.base import validate
from studio.core.captions.edits import Edit, TextEdit, parse_edit
from studio.core.captions.lint import Finding, LintRules, combine_fixes
from studio.core.captions.text import split_tags
from studio.errors import BadFile, InvalidSpec, quote
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage import atomic
from studio.storage.datasets.dataset import Dataset
from studio.ui.errors import report_errors
from studio.ui.events import (
    BUTTON_CLICK_JS,
    EVENT_OPTIONS,
    ROW_EVENT_OPTIONS,
    Updates,
    visitor_from_request,
)
from studio.ui.form import build_number
from studio.ui.private_gradio import event_payload
from studio.ui.tabs.captioning.browser import DatasetBrowser
from studio.ui.tabs.captioning.state import SearchHit
from studio.ui.views import dataset as dataset_view
from studio.ui.views import sweep
from studio.ui.views.common import pluralize

CLIP_CHOICE = ("Stable Diffusion", "")  # whose models all read captions with CLIP
MAX_PREVIEW_ROWS = 30  # rows of captions before and after an edit
TAG_ACTIONS = [
    ("Rename", "rename_tags"),
    ("Delete", "delete_tags"),
    ("Add in front", "first"),
    ("Add at the end", "add_tags"),
    ("Sort by count", "count"),
    ("Sort by name", "name"),
    ("Remove duplicates", "dedupe_tags"),
    ("Keep the first …", "keep_tags"),
]


class EditTools:
    """The edit controls of one build of the tab.

    An edit is for the ticked images; if none is ticked, for those that the page lists.
    """

    def __init__(self, services: Services) -> None:
        self.services = services
        self._add_replace()
        self._add_tags()
        self._add_checks()
        self._add_sources()

    def _add_replace(self) -> None:
        with gr.Accordion("Search and replace", open=False, elem_id="tool-replace"):
            with gr.Row():
                self.find_text = gr.Textbox(
                    label="Find", max_lines=1, min_width=130, elem_id="tool-find"
                )
                self.replacement = gr.Textbox(
                    label="Replace with", max_lines=1, min_width=130, elem_id="tool-to"
                )
            self.match_options = gr.CheckboxGroup(
                [
                    ("Match case", "capitals"),
                    ("Whole words", "words"),
                    ("Regular expression", "pattern"),
                ],
                value=["capitals"],
                show_label=False,
                elem_id="tool-how",
                elem_classes="ticks",
            )
            with gr.Row():
                self.preview = gr.Button("Preview", size="sm", elem_id="tool-preview")
                self.replace = gr.Button(
                    "Replace", size="sm", variant="primary", elem_id="tool-apply"
                )
            self.changes = gr.HTML(elem_id="tool-before")

    def _add_tags(self) -> None:
        with gr.Accordion("Tags", open=False, elem_id="tool-tags") as self.tags_accordion:
            self.chips = gr.HTML(js_on_load=BUTTON_CLICK_JS, elem_id="tool-chips")
            with gr.Row():
                self.tag_list = gr.Textbox(
                    label="Tags",
                    max_lines=1,
                    min_width=130,
                    placeholder="red, blue",
                    elem_id="tool-tag",
                    info="Select tags above or type them, separated by commas.",
                )
                self.new_name = gr.Textbox(
                    label="New name or number",
                    max_lines=1,
                    min_width=130,
                    elem_id="tool-new",
                    info="For Rename and Keep.",
                )
            with gr.Row(elem_classes="turn"):
                self.tag_action = gr.Dropdown(
                    TAG_ACTIONS,
                    value="rename_tags",
                    label="Action",
                    min_width=130,
                    elem_id="tool-does",
                )
                self.apply_tag_action = gr.Button(
                    "Apply", size="sm", variant="primary", elem_id="tool-carry"
                )

    def _add_checks(self) -> None:
        with gr.Accordion(
            "Check dataset", open=False, elem_id="tool-lint"
        ) as self.checks_accordion:
            with gr.Row(elem_classes="turn"):
                self.resolution = build_number(
                    label="Training size, px",
                    precision=0,
                    min_width=90,
                    placeholder="512",
                    elem_id="tool-resolution",
                )
                self.min_words = gr.Number(
                    label="Minimum words", value=3, precision=0, min_width=90, elem_id="tool-words"
                )
                self.max_tokens = gr.Number(
                    label="Maximum tokens",
                    value=77,
                    precision=0,
                    min_width=90,
                    elem_id="tool-tokens",
                )
                self.token_model = gr.Dropdown(
                    [CLIP_CHOICE],
                    value="",
                    label="Tokenizer",
                    min_width=150,
                    elem_id="tool-token-model",
                )
                self.check = gr.Button("Check", size="sm", min_width=70, elem_id="tool-check")
            self.findings = gr.HTML(js_on_load=BUTTON_CLICK_JS, elem_id="tool-findings")

    def _add_sources(self) -> None:
        with gr.Accordion("Image sources and export", open=False, elem_id="tool-card"):
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
                self.set_source = gr.Button("Apply to these images", size="sm", elem_id="tool-say")
                self.export = gr.Button(
                    "Export with data card", size="sm", variant="primary", elem_id="tool-export"
                )
            self.source_note = gr.HTML(elem_id="tool-known")
            self.file = gr.File(
                label="Exported dataset", visible=False, interactive=False, elem_id="tool-file"
            )

    def wire(self, browser: DatasetBrowser) -> None:
        """Connect the events, with `browser` as the page of images."""
        self.browser = browser
        replace_inputs = {
            self.find_text,
            self.replacement,
            self.match_options,
            *browser.edit_inputs,
        }
        self.preview.click(self.preview_replace, replace_inputs, self.changes, **EVENT_OPTIONS)
        self.replace.click(
            self.replace_text, replace_inputs, [self.changes, *browser.outputs], **EVENT_OPTIONS
        )
        tag_inputs = {self.tag_list, self.new_name, self.tag_action, *browser.edit_inputs}
        self.tags_accordion.expand(
            self.render_tag_chips, browser.edit_inputs, self.chips, **EVENT_OPTIONS
        )
        self.chips.click(self.toggle_tag, self.tag_list, self.tag_list, **EVENT_OPTIONS)
        self.apply_tag_action.click(
            self.edit_tags, tag_inputs, [self.chips, *browser.outputs], **EVENT_OPTIONS
        )
        check_inputs = {self.resolution, self.min_words, self.max_tokens, *browser.inputs}
        gr.on(
            [self.checks_accordion.expand, self.check.click],
            self.check_captions,
            check_inputs,
            self.findings,
            preprocess=False,
            **EVENT_OPTIONS,
        )
        gr.on(
            [self.checks_accordion.expand, browser.dataset.change],
            self.show_token_model,
            browser.inputs,
            self.token_model,
            **EVENT_OPTIONS,
        )
        self.token_model.input(
            self.choose_token_model,
            {self.token_model, *check_inputs},
            [self.findings, *browser.outputs],
            preprocess=False,
            **ROW_EVENT_OPTIONS,
        )
        self.findings.click(
            self.fix_findings,
            check_inputs,
            [self.findings, *browser.outputs],
            preprocess=False,
            **EVENT_OPTIONS,
        )
        source_inputs = {self.source, self.author, self.licence, *browser.edit_inputs}
        self.set_source.click(
            self.save_source, source_inputs, [self.source_note, *browser.outputs], **EVENT_OPTIONS
        )
        self.export.click(
            self.export_dataset, browser.inputs, [self.file, self.source_note], **EVENT_OPTIONS
        )

    # ---- search and replace -------------------------------------------------------------------

    def _apply_edit(
        self, values: Updates, edit: Edit, visitor: Visitor, keys: list[str] | None = None
    ) -> Updates:
        """Apply an edit, as one step, to `keys` or else to the images that the page means."""
        dataset = self.browser.require_dataset(values, visitor, "Editing captions")
        filter_query = ""
        if keys is None:
            keys, filter_query = self.browser.resolve_targets(values, visitor)
        step = dataset.apply(edit, keys=keys, filter_query=filter_query)
        message = dataset_view.render_skipped_files(step)
        if not message:
            text = "Nothing to change."
            if step.num_changes:
                text = f"{step.title}: {pluralize(step.num_changes, 'change')}."
            message = sweep.render_note(text)
        return self.browser.rerender(values, visitor, message=message)

    def _build_replace_edit(self, values: Updates) -> TextEdit:
        options = values[self.match_options] or []
        edit = parse_edit(
            {
                "kind": "replace",
                "find": values[self.find_text] or "",
                "to": values[self.replacement] or "",
                **{name: name in options for name in ("capitals", "words", "pattern")},
            }
        )
        assert not edit.kind.startswith("set_")
        return edit  # type: ignore[return-value]

    def preview_replace(self, values: Updates, request: gr.Request) -> str:
        """Render the captions that a replacement would change, before and after."""
        with report_errors():
            visitor = visitor_from_request(request)
            edit = self._build_replace_edit(values)
            keys, filter_query = self.browser.resolve_targets(values, visitor)
            dataset = self._open_dataset(values, visitor)
            changes = dataset.preview(edit, keys, filter_query)
            title = f"{pluralize(len(changes), 'caption')} would change"
            if len(changes) > MAX_PREVIEW_ROWS:
                title += f", the first {MAX_PREVIEW_ROWS}"
            rows = [
                (change.key, change.old_caption, change.new_caption)
                for change in changes[:MAX_PREVIEW_ROWS]
            ]
            return dataset_view.render_caption_diff(rows, len(changes), title)

    def replace_text(self, values: Updates, request: gr.Request) -> Updates:
        """Replace text in captions and clear the preview."""
        with report_errors():
            edit = self._build_replace_edit(values)
            updates = self._apply_edit(values, edit, visitor_from_request(request))
            return {**updates, self.changes: ""}

    # ---- tags ---------------------------------------------------------------------------------

    def render_tag_chips(self, values: Updates, request: gr.Request) -> str:
        """Render the tags of the images that an edit is for, as buttons with counts."""
        with report_errors():
            if not self.browser.read_state(values).name:
                return ""
            visitor = visitor_from_request(request)
            keys, filter_query = self.browser.resolve_targets(values, visitor)
            tag_counts = self._open_dataset(values, visitor).count_tags(filter_query, keys)
            return dataset_view.render_tags(tag_counts)

    def toggle_tag(self, tag_list: str, event: gr.EventData) -> str:
        """Add the clicked tag to the box, or remove it if it is there."""
        clicked_tag = str(event_payload(event).get("target"))[:500]
        tags = split_tags(tag_list or "")
        if clicked_tag in tags:
            return ", ".join(tag for tag in tags if tag != clicked_tag)
        return ", ".join([*tags, clicked_tag])

    def edit_tags(self, values: Updates, request: gr.Request) -> Updates:
        """Apply the chosen action to tags and count the tags anew."""
        with report_errors():
            edit = self._build_tag_edit(values)
            updates = self._apply_edit(values, edit, visitor_from_request(request))
            return {**updates, self.chips: self.render_tag_chips(values, request)}

    def _build_tag_edit(self, values: Updates) -> Edit:
        tags = split_tags(values[self.tag_list] or "")
        new_name = str(values[self.new_name] or "").strip()
        action = str(values[self.tag_action])
        if action in ("rename_tags", "delete_tags", "add_tags", "first") and not tags:
            raise InvalidSpec(["Tags: select or enter at least one."])
        if action == "rename_tags" and not new_name:
            raise InvalidSpec(["New name: required."])
        if action == "keep_tags" and not new_name.isdecimal():
            raise InvalidSpec([f"Number: must be a whole number (you entered {quote(new_name)})."])
        match action:
            case "rename_tags":
                return parse_edit({"kind": action, "tags": tags, "to": new_name})
            case "delete_tags" | "add_tags":
                return parse_edit({"kind": action, "tags": tags})
            case "first":
                return parse_edit({"kind": "add_tags", "tags": tags, "first": True})
            case "dedupe_tags":
                return parse_edit({"kind": action})
            case "keep_tags":
                return parse_edit({"kind": action, "count": new_name})
        return parse_edit({"kind": "sort_tags", "by": action})

    # ---- checks -------------------------------------------------------------------------------

    def _lint(self, values: Updates, visitor: Visitor) -> list[Finding]:
        """Check the dataset by the rules on the page."""
        rules = validate(
            LintRules,
            {
                "trigger": values[self.browser.trigger] or "",
                "resolution": values[self.resolution] or 0,
                "tokens": values[self.max_tokens] or 0,
                "words": values[self.min_words] or 0,
            },
        )
        return self._open_dataset(values, visitor).lint(rules)

    def check_captions(self, values: Updates, request: gr.Request) -> str:
        """Render what could spoil a training."""
        with report_errors():
            name = self.browser.read_state(values).name
            if not name:
                return ""
            findings = self._lint(values, visitor_from_request(request))
            html = dataset_view.render_lint(findings)
            if self.services.dataset_registry.get_scan_progress(name):
                html += sweep.render_note(
                    "The images are still being scanned; check again in a moment."
                )
            return html

    def show_token_model(self, values: Updates, request: gr.Request) -> Any:
        """Offer the models that read captions in tokens of their own, and show the chosen one."""
        with report_errors():
            if not self.browser.read_state(values).name:
                return gr.skip()
            dataset = self._open_dataset(values, visitor_from_request(request))
            token_models = self.services.home.datasets.token_models
            choices = [CLIP_CHOICE, *((name, name) for name in token_models.list_models())]
            return gr.Dropdown(choices, value=token_models.get_model(dataset.folder))

    def choose_token_model(self, values: Updates, request: gr.Request) -> Updates:
        """Count the tokens of the dataset's captions as another model reads them, from now on."""
        with report_errors():
            visitor = visitor_from_request(request)
            visitor.require_owner("Choosing how tokens are counted")
            name = str(values[self.token_model] or "")
            dataset = self._open_dataset(values, visitor)
            self.services.home.datasets.token_models.set_model(dataset.folder, name)
            findings = dataset_view.render_lint(self._lint(values, visitor))
            return {**self.browser.rerender(values, visitor), self.findings: findings}

    def fix_findings(self, values: Updates, event: gr.EventData, request: gr.Request) -> Updates:
        """Fix one finding, or all of a kind.

        The click comes from the browser, so it only selects among the findings of a new check.
        """
        with report_errors():
            visitor = visitor_from_request(request)
            try:
                kind, file = json.loads(str(event_payload(event).get("target")))
            except (ValueError, TypeError, RecursionError):
                raise BadFile(
                    "The page asked for something that the studio does not know."
                ) from None
            visitor.require_owner("Editing captions")
            selected_findings = [
                finding
                for finding in self._lint(values, visitor)
                if finding.kind == kind and file in ("", finding.file)
            ]
            if not selected_findings:
                return {
                    self.findings: dataset_view.render_lint(self._lint(values, visitor)),
                    self.browser.message: sweep.render_note("That is already fixed."),
                }
            fix = combine_fixes(selected_findings)
            if fix is None:
                return self._show_findings(values, selected_findings, visitor)
            edit, keys = fix
            updates = self._apply_edit(values, edit, visitor, keys)
            remaining_findings = self._lint(values, visitor)
            return {**updates, self.findings: dataset_view.render_lint(remaining_findings)}

    def _show_findings(self, values: Updates, findings: list[Finding], visitor: Visitor) -> Updates:
        """Show the images whose captions only somebody, or a captioner, can write.

        None is ticked, so that a captioning is for all of them.
        """
        hits = tuple(
            SearchHit(finding.file, dataset_view.FINDING_LABELS.get(finding.kind, finding.kind))
            for finding in findings
        )
        message = sweep.render_note(
            f"{pluralize(len(hits), 'image')} to caption: type the captions, or set Existing "
            "captions to Replace and select Caption."
        )
        return self.browser.rerender(
            values, visitor, message=message, ticked_keys=[], hits=hits, page=0, filter=""
        )

    # ---- sources and export -------------------------------------------------------------------

    def save_source(self, values: Updates, request: gr.Request) -> Updates:
        """Save source, author and licence of the images that an edit is for."""
        with report_errors():
            visitor = visitor_from_request(request)
            texts = {
                "source": str(values[self.source] or "").strip(),
                "author": str(values[self.author] or "").strip(),
                "licence": str(values[self.licence] or "").strip(),
            }
            if not any(texts.values()):
                raise InvalidSpec(["Source, author, licence: enter at least one."])
            filled_texts = {name: text for name, text in texts.items() if text}
            edit = parse_edit({"kind": "set_source", **filled_texts})
            updates = self._apply_edit(values, edit, visitor)
            return {**updates, self.source_note: self._render_source_note(values, visitor)}

    def _render_source_note(self, values: Updates, visitor: Visitor) -> str:
        dataset = self._open_dataset(values, visitor)
        sources = dataset.read_sources()
        num_known = sum(image.key in sources for image in dataset.images)
        num_images = pluralize(len(dataset.images), "image")
        return sweep.render_note(f"{num_known:,} of {num_images} have a source.")

    def export_dataset(self, values: Updates, request: gr.Request) -> Updates:
        """Export the dataset as a zip with captions, their writers and the images' sources."""
        with report_errors():
            visitor = visitor_from_request(request)
            visitor.require_owner("Exporting datasets")
            dataset = self._open_dataset(values, visitor)
            # Gradio's own folder, which it empties after a day.
            folder = Path(tempfile.mkdtemp(dir=get_upload_folder()))
            path = dataset.export(folder / f"{atomic.safe_name(dataset.name)}.zip")
            return {
                self.file: gr.File(str(path), visible=True),
                self.source_note: self._render_source_note(values, visitor),
            }

    def _open_dataset(self, values: Updates, visitor: Visitor) -> Dataset:
        return self.services.dataset_registry.open(self.browser.read_state(values).name, visitor)
