"""What a tab is to the others.

Knows: how tabs hand images and settings to each other. Does not know: what is on any particular
tab.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from studio.core.generation.request import GenerationRequest
from studio.services.visitor import Visitor
from studio.storage.gallery import GeneratedImage
from studio.ui.components.form_memory import FormMemory
from studio.ui.events import Updates
from studio.ui.form import Form


@dataclass(frozen=True)
class Handoff:
    """What buttons in a block of a tab hand to other tabs.

    Attributes:
        block: The block with the buttons.
        build: Says which tab gets what; None for a press that hands nothing over.
        targets: The ids of the tabs that may get something: each costs an event a press.
    """

    block: Any
    build: Callable[[gr.EventData, Visitor], tuple[str, Any] | None]
    targets: tuple[str, ...]


@dataclass
class Tab:
    """What a built tab is to the others.

    Attributes:
        id: Of its element; with the title it comes from the page's table of tabs.
        title: What stands on it.
        form: Makes it a place that images can be sent to.
        selected_path: The image in view; with `send_row`, where the buttons go, it is a place they
            come from.
        on_open: Runs when it is first seen, or each time if nobody types there: visitor → updates.
        load_request: Shows what another tab hands over.
        receive_image: Shows an image that is sent there.
        receive_fields: Sets single fields of its form, which it checks.
        redraw_image: Shows an image that is to be painted again, larger.
        upscale_image: Shows an image that is to be made larger as it is.
        handoff: A block whose buttons hand something over, and which tab gets what.
        outputs: What `on_open` and `load_request` change.
        form_outputs: What `receive_image`, `redraw_image` and `upscale_image` change.
        source_image: The image that it works on: its own results can be worked on again.
        memory: What a browser keeps of its form, for a reload.
        restore: Puts that back, over what `on_open` has filled in.
        has_text_input: People type into it, which coming back to the tab is not to change.
    """

    id: str = ""
    title: str = ""
    form: Form[GenerationRequest] | None = None
    selected_path: gr.State | None = None
    send_row: gr.Row | None = None
    on_open: Callable[[Visitor], Updates] | None = None
    load_request: Callable[[Any, Visitor], Updates] | None = None
    receive_image: Callable[[GeneratedImage, Visitor], Updates] | None = None
    receive_fields: Callable[[dict[str, Any], Visitor], Updates] | None = None
    redraw_image: Callable[[GeneratedImage, Visitor], Updates] | None = None
    upscale_image: Callable[[GeneratedImage, Visitor], Updates] | None = None
    handoff: Handoff | None = None
    outputs: list[Any] = field(default_factory=list)
    form_outputs: list[Any] = field(default_factory=list)
    source_image: gr.State | None = None
    memory: FormMemory | None = None
    restore: Callable[[Any, Visitor], Updates] | None = None
    has_text_input: bool = False
