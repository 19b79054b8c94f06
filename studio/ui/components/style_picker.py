"""Styles beside the prompts: chosen by name, written into the prompts, saved from them.

Knows: its components and what they do to the prompts of a form. Does not know: files of styles
(storage/prompt_files.py), what a style does (core/generation/templates/styles.py).
"""

from __future__ import annotations

import gradio as gr

from studio.core.base import validate
from studio.core.generation.request import GenerationRequest
from studio.core.generation.templates.prompt_files import Style
from studio.core.generation.templates.styles import apply_styles
from studio.core.generation.templates.written import find_styles
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.ui.components.name_dropdown import load_names_on_focus
from studio.ui.errors import report_errors, show_info
from studio.ui.events import EVENT_OPTIONS, Updates, visitor_from_request
from studio.ui.form import Form
from studio.ui.views.prompt_files import render_prompt_file_faults

PROMPT_FIELDS = ("prompt", "negative_prompt", "styles")


class StylePicker:
    """The folded block below the prompts. Styles are the owner's: guests are offered none."""

    def __init__(self, services: Services, form: Form[GenerationRequest]) -> None:
        self.services = services
        self.form = form
        name = form.name
        with gr.Accordion("Styles", open=False, elem_id=f"{name}-styles-block") as self.box:
            form.add(
                "styles",
                choices=[],
                multiselect=True,
                allow_custom_value=True,
                info="From the home's styles.csv; added around the prompts in this order.",
            )
            self.faults = gr.HTML(visible=False, elem_id=f"{name}-prompt-file-faults")
            self.write = gr.Button(
                "Insert into the prompt", size="sm", elem_id=f"{name}-write-styles"
            )
            with gr.Row():
                self.style_name = gr.Textbox(
                    label="Save both prompts as a style",
                    placeholder="a name",
                    max_lines=1,
                    scale=3,
                    elem_id=f"{name}-style-name",
                )
                self.save = gr.Button(
                    "Save style", scale=1, min_width=80, elem_id=f"{name}-save-style"
                )

    def wire(self) -> None:
        """Connect events and handlers."""
        components = [self.form[name] for name in PROMPT_FIELDS]
        load_names_on_focus(self.form["styles"], self.list_names)
        self.box.expand(self.show_faults, None, self.faults, **EVENT_OPTIONS)
        self.write.click(
            self.write_styles, set(components), components, preprocess=False, **EVENT_OPTIONS
        )
        self.save.click(
            self.save_style,
            {self.style_name, *components},
            [self.style_name, self.form["styles"]],
            preprocess=False,
            **EVENT_OPTIONS,
        )

    def list_names(self, visitor: Visitor) -> list[str]:
        """Return the styles that a visitor may use."""
        return list(self.services.get_prompt_files(visitor).list_styles())

    def show_faults(self, request: gr.Request) -> gr.HTML:
        """Say what in the owner's files of styles and wildcards cannot be used."""
        with report_errors():
            visitor = visitor_from_request(request)
            faults = [] if visitor.is_guest else self.services.home.prompt_files.list_faults()
            return gr.HTML(render_prompt_file_faults(faults), visible=bool(faults))

    def write_styles(self, values: Updates, request: gr.Request) -> Updates:
        """Write the chosen styles into the prompts, and choose none any more."""
        with report_errors():
            typed = self._read(values)
            if not typed.styles:
                return {self.form["styles"]: gr.skip()}
            visitor_from_request(request).require_owner("Using styles")
            styles = find_styles(typed.styles, self.services.home.prompt_files)
            prompt, negative_prompt = apply_styles(styles, *typed.prompts)
            return {
                self.form["prompt"]: prompt,
                self.form["negative_prompt"]: negative_prompt,
                self.form["styles"]: [],
            }

    def save_style(self, values: Updates, request: gr.Request) -> Updates:
        """Keep both prompts on the page as a style."""
        with report_errors():
            visitor = visitor_from_request(request)
            visitor.require_owner("Saving styles")
            name = str(values.pop(self.style_name) or "")
            typed = self._read(values)
            self.services.home.prompt_files.save_style(Style(name, *typed.prompts))
            show_info(f"Saved as “{name}”.")
            return {
                self.style_name: "",
                self.form["styles"]: gr.Dropdown(self.list_names(visitor)),
            }

    def _read(self, values: Updates) -> GenerationRequest:
        raw = self.form.read_raw(values)
        return validate(GenerationRequest, {name: raw[name] for name in PROMPT_FIELDS})
