"""A picture's address beside the place where files are dropped: the owner has it fetched and read.

Knows: its components. Does not know: how a site is asked (services/picture_links.py), what becomes
of the settings (recipe_import.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from studio.core.generation.recipes.recipe import Recipe
from studio.errors import BadFile
from studio.services.picture_links import fetch_settings
from studio.services.visitor import Visitor
from studio.ui.events import Updates


class PictureLink:
    """An address, whether its site is trusted, and a button."""

    def __init__(self, element_id: Callable[[str], str]) -> None:
        with gr.Row():
            self.link = gr.Textbox(
                label="Or paste its address",
                placeholder="https://image.civitai.com/…",
                max_lines=1,
                scale=3,
                elem_id=element_id("picture-link"),
            )
            self.fetch = gr.Button(
                "Fetch", scale=1, min_width=110, elem_id=element_id("fetch-picture")
            )
        self.is_trusted = gr.Checkbox(
            False,
            label="I trust this site",
            info=(
                "Needed for sites other than Civitai and Hugging Face. The image is read, not kept."
            ),
            elem_id=element_id("trust-picture-site"),
        )

    @property
    def inputs(self) -> list[Any]:
        """The components that `take` reads."""
        return [self.link, self.is_trusted]

    @property
    def cleared(self) -> Updates:
        """What a link that was read leaves behind."""
        return {self.link: "", self.is_trusted: False}

    def take(self, values: Updates, visitor: Visitor) -> Recipe:
        """Return the settings of the picture at the address, and take the inputs out of `values`.

        Raises what `fetch_settings` raises.
        """
        link, is_trusted = (values.pop(component) for component in self.inputs)
        if not isinstance(link, str) or not link.strip():
            raise BadFile("Paste the address of an image first.")
        return fetch_settings(link, visitor, is_trusted=is_trusted is True)
