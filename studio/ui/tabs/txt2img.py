"""The txt2img tab: say what you want, watch it come, keep it.

Knows: its own layout. Does not know: what its buttons do (maker.py); how a picture is made; who carries the job there.
"""

from __future__ import annotations

import gradio as gr

from studio.ui import show
from studio.ui.components.lora_picker import Chooser
from studio.ui.tabs.generation import Maker
from studio.ui.widgets import Desk, Tab


class Txt2Img(Maker):
    """One build of the tab."""

    ID = TITLE = "txt2img"
    TASKS = ("txt2img",)

    def lay_out(self) -> None:
        with gr.Row(elem_classes="workspace"):
            with gr.Column(scale=5, min_width=320, elem_classes="controls"):
                with gr.Column(elem_classes="say"):
                    self.words("a photo of a red ball on a beach", autofocus=True)
                with gr.Group():
                    self.size()
                self.loras = Chooser(self.desk, self.form)
                self.numbers()
                self.hires()
                self.more()
            with gr.Column(scale=7, min_width=320, elem_classes="stage"):
                self.staged(show.EMPTY)


def build(desk: Desk) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    return Txt2Img(desk).tab()
