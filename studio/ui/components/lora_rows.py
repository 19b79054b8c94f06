"""A list of LoRAs as one component of a page: a row for each, with weights and trigger words.

Knows: that its value is the list itself, as JSON. Does not know: how rows are drawn (lora_rows.js);
which LoRAs there are (lora_picker.py sends it what rows say of them).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.core.base import field_schemas
from studio.core.generation.lora_use import LoraUse
from studio.ui.views.templates import render_macro

SCRIPT = Path(__file__).with_name("lora_rows.js").read_text("utf-8")


def build_lora_rows(**component_kwargs: Any) -> Component:
    """Build the component for a list of LoRAs.

    Its value goes in and comes out as [{"name": …, "unet": …, "text_encoder": …}, …].

    Args:
        component_kwargs: Settings for `gr.HTML`, such as `elem_id`.
    """
    weight = field_schemas(LoraUse)["unet"]
    component: Component = gr.HTML(
        html_template=render_macro(
            "components.html",
            "lora_rows",
            minimum=weight["minimum"],
            maximum=weight["maximum"],
            step=weight["step"],
        ),
        js_on_load=SCRIPT,
        apply_default_css=False,
        **component_kwargs,
    )
    return component
