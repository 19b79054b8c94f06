"""A list of prompts beside a form: one a line, each a job of the queue.

Knows: its components; that all lines are checked before one is queued. Does not know: how a line is
read (core/generation/templates/prompt_list.py), the rest of the form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from studio.core.generation.request import GenerationRequest
from studio.core.generation.templates.prompt_list import (
    ListedPrompt,
    build_requests,
    parse_prompt_list,
)
from studio.errors import InvalidSpec, StudioError
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.ui.errors import report_errors, show_warning
from studio.ui.events import EVENT_OPTIONS, UNQUEUED_EVENT_OPTIONS, Updates, visitor_from_request
from studio.ui.views.common import pluralize
from studio.ui.views.images import render_note


class PromptListBox:
    """The folded box. `read_base` returns the form's settings, by field."""

    def __init__(
        self, services: Services, name: str, read_base: Callable[[Updates], dict[str, Any]]
    ) -> None:
        self.services = services
        self.read_base = read_base
        with gr.Accordion("Prompt list", open=False, elem_id=f"{name}-prompt-list-block"):
            self.text = gr.Textbox(
                label="One prompt per line",
                lines=4,
                max_lines=12,
                placeholder='a red boat\n--prompt "a blue boat" --steps 30 --seed 7',
                info=(
                    "Everything else is as on this page; A1111's --steps, --seed … apply to their "
                    "line."
                ),
                elem_id=f"{name}-prompt-list",
            )
            self.summary = gr.HTML(elem_id=f"{name}-prompt-list-summary")
            self.queue = gr.Button("Queue all", size="sm", elem_id=f"{name}-queue-list")

    def wire(self, form_inputs: set[Any], refreshed: list[Any], render: Callable[..., Any]) -> None:
        """Connect events and handlers.

        Args:
            form_inputs: What `read_base` reads.
            refreshed: What shows the queue.
            render: Returns its updates for a visitor.
        """
        self.render = render
        self.text.change(
            self.describe,
            {self.text, *form_inputs},
            self.summary,
            preprocess=False,
            trigger_mode="always_last",
            **UNQUEUED_EVENT_OPTIONS,
        )
        self.queue.click(
            self.submit,
            {self.text, *form_inputs},
            [self.text, self.summary, *refreshed],
            preprocess=False,
            **EVENT_OPTIONS,
        )

    def describe(self, values: Updates) -> str:
        """Say how many jobs the list makes, or which lines are wrong."""
        text = str(values.pop(self.text) or "")
        if not text.strip():
            return ""
        try:
            prompts = parse_prompt_list(text)
            requests = build_requests(prompts, self.read_base(values))
        except InvalidSpec as error:
            return render_note("\n".join(error.faults))
        num_images = sum(request.num_images for request in requests)
        sentences = [f"{pluralize(len(requests), 'job')}, {pluralize(num_images, 'image')}."]
        sentences += [note for prompt in prompts for note in prompt.notes]
        return render_note(" ".join(sentences))

    def submit(self, values: Updates, request: gr.Request) -> Updates:
        """Queue a job for each line, once all of them are checked."""
        with report_errors():
            visitor = visitor_from_request(request)
            prompts = parse_prompt_list(str(values.pop(self.text) or ""))
            if not prompts:
                raise InvalidSpec(["List: empty; write one prompt per line."])
            self.queue_all(prompts, self.read_base(values), visitor)
            for prompt in prompts:
                for note in prompt.notes:
                    show_warning(note, seconds=12)
            return {self.text: "", self.summary: "", **self.render(visitor)}

    def queue_all(
        self, prompts: list[ListedPrompt], base: dict[str, Any], visitor: Visitor
    ) -> None:
        """Queue all lines. Raises InvalidSpec with all that are wrong, before one is queued."""

        def check(request: GenerationRequest) -> None:
            try:
                self.services.prepare_generation(request, visitor)
            except InvalidSpec:
                raise
            except StudioError as error:
                raise InvalidSpec([str(error)]) from None

        for request in build_requests(prompts, base, check):
            self.services.submit_generation(request, visitor)
