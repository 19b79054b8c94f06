"""The txt2img tab: say what you want, watch it come, keep it.

Knows: its own layout.
Does not know: what its buttons do (generation.py); how an image is made; who runs the job.
"""

from __future__ import annotations

import gradio as gr

from studio.services.submission import Services
from studio.ui.components.prompt_list_box import PromptListBox
from studio.ui.tab import Tab
from studio.ui.tabs.generation import GenerationTab
from studio.ui.views.images import RESULT_PLACEHOLDER


class Txt2Img(GenerationTab):
    """The components of the tab."""

    ID = "txt2img"
    HANDS_RECIPES_OVER = True
    TASKS = ("txt2img",)

    def build_layout(self) -> None:
        """Place every component."""
        with gr.Row(elem_classes="workspace"):
            with gr.Column(elem_classes="controls"):
                self.add_prompts("a photo of a red ball on a beach", autofocus=True)
                self.add_main_settings()
                self.add_hires()
                self.add_extras()
                self.prompt_list = PromptListBox(self.services, self.ID, self.form.read_raw)
            with gr.Column(elem_classes="stage"):
                self.add_result_panel(RESULT_PLACEHOLDER)

    def wire(self) -> None:
        """Connect events and handlers."""
        super().wire()
        panel = self.result_panel
        self.prompt_list.wire(self.form.inputs, [*panel.refresh_outputs, self.stop], panel.render)


def build(services: Services) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    return Txt2Img(services).build_tab()
