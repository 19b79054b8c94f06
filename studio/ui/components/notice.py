"""The lines under the page's title that say why nothing runs, and which files were damaged.

Knows: who may read what about it. Does not know: what the matter is (services/supervisor.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from studio.ui.events import UNQUEUED_EVENT_OPTIONS, visitor_from_request
from studio.ui.views.templates import render_macro

# Empty it has no height, so there is nothing of it to be in view.
POLL_JS = "setInterval(() => { if (!document.hidden) trigger('submit'); }, 3000);"
GUEST_SENTENCE = (
    "Nothing can be made right now: the studio has a problem, which its owner can see. Waiting "
    "jobs will continue afterwards."
)


class Notice:
    """An HTML block that is empty while all is well."""

    def __init__(
        self, get_problem: Callable[[], str], list_notices: Callable[[], list[str]] = list
    ) -> None:
        self._get_problem = get_problem
        self._list_notices = list_notices
        self.block = gr.HTML("", js_on_load=POLL_JS, elem_id="notice")
        self.block.submit(self.poll, self.block, self.block, **UNQUEUED_EVENT_OPTIONS)

    def poll(self, shown: Any, request: gr.Request) -> Any:
        """Render what is the matter, if that has changed since the page last asked."""
        html = self.render(visitor_from_request(request).is_guest)
        return gr.skip() if html == (shown or "") else html

    def render(self, is_guest: bool) -> str:
        """Render what is the matter: a guest learns that something is, not which folder it is."""
        problem = self._get_problem()
        if is_guest:
            sentences = [GUEST_SENTENCE] if problem else []
        else:
            sentences = [*([problem] if problem else []), *self._list_notices()]
        return render_macro("page.html", "notices", texts=sentences) if sentences else ""
