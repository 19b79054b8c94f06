"""What several tabs share: the desk they work at, what a tab is to the others, settings that events have in common.

Knows: how tabs hand pictures to each other. Does not know: what is on any particular tab.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from studio.errors import Busy, InvalidSpec
from studio.settings import Settings
from studio.spec.request import GenerationRequest
from studio.store.gallery import Gallery
from studio.store.jobs import Jobs
from studio.store.library import Library
from studio.store.presets import Presets
from studio.ui.form import Form
from studio.ui.guard import Visitor

Updates = dict[Any, Any]
GUEST_JOBS = 8  # open at once
# Every handler is short, for the work is a job: so none is limited, and none shows gradio's own spinner.
SHORT: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
SILENT: dict[str, Any] = SHORT | {"queue": False}  # a plain POST; but a gr.Error is not shown: only for looking
# A list of rows with buttons is one HTML block; its buttons say what to do with what.
BUTTONS = """element.addEventListener('click', event => {
  const button = event.target.closest('button[data-do]');
  if (button) trigger('click', {what: button.dataset.do, subject: button.dataset.subject});
});"""


@dataclass(frozen=True)
class Desk:
    """What the tabs work with."""

    settings: Settings
    jobs: Jobs
    gallery: Gallery
    library: Library
    presets: Presets[GenerationRequest]

    def submit(self, request: GenerationRequest, visitor: Visitor, key: str | None = None) -> int:
        """Queue a picture. Raises InvalidSpec for what this visitor may not ask, ModelNotFound, UnknownFamily."""
        if visitor.guest:
            request.check_guest()
            if len(self.jobs.waiting(visitor.id)) >= GUEST_JOBS:
                raise Busy(f"You have {GUEST_JOBS} jobs waiting already, which is all that a guest may have; wait for one.")
        model = self.library.model(request.model)
        if visitor.guest and request.width is None and model.side > 1024:
            raise InvalidSpec([f"Width: {model.name} is made for {model.side} px; guests may ask for 1024 at most."])
        return self.jobs.submit("generate", request.model_dump(mode="json"), owner=visitor.id, key=key)


@dataclass
class Tab:
    """What a built tab is to the others.

    `form` makes it a place that pictures can be sent to; `picked` (the path of the picture in view) and `send` (where
    the buttons go) make it a place they come from. `opened` runs when a page opens: visitor → updates.
    """

    id: str
    title: str
    form: Form[GenerationRequest] | None = None
    picked: gr.State | None = None
    send: gr.Row | None = None
    opened: Callable[[Visitor], Updates] | None = None
    outputs: list[Any] = field(default_factory=list)
