"""The lines under the page's title that say why nothing runs, and which files were damaged.

Knows: who may read what about it; when the page asks what is new, for its header too.
Does not know: what the matter is (services/supervisor.py), what runs (job_line.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from studio.ui.components.job_line import JobLine
from studio.ui.events import UNQUEUED_EVENT_OPTIONS, Updates, visitor_from_request
from studio.ui.views.templates import render_macro

# Empty it has no height, so there is nothing of it to be in view.
# A page that nobody looks at does not ask; one that follows a job asks each second.
POLL_JS = """let waited = 0;
setInterval(() => {
  waited += 1;
  if (document.hidden) return;
  if (waited < 3 && !document.querySelector('#job-line .job-line')) return;
  waited = 0;
  trigger('submit');
}, 1000);"""
GUEST_SENTENCE = (
    "Nothing can be made right now: the studio has a problem, which its owner can see. Waiting "
    "jobs will continue afterwards."
)


class Notice:
    """An HTML block that is empty while all is well."""

    def __init__(
        self,
        get_problem: Callable[[], str],
        list_notices: Callable[[], list[str]] = list,
        job_line: JobLine | None = None,
    ) -> None:
        self._get_problem = get_problem
        self._list_notices = list_notices
        self.job_line = job_line
        self.block = gr.HTML("", js_on_load=POLL_JS, elem_id="notice")
        blocks = [self.block, job_line.block] if job_line else [self.block]
        self.block.submit(self.poll_page, set(blocks), blocks, **UNQUEUED_EVENT_OPTIONS)

    def poll_page(self, values: Updates, request: gr.Request) -> Updates:
        """Render all that every tab shows, as far as it has changed since the page last asked."""
        updates: Updates = {self.block: self.poll(values[self.block], request)}
        if self.job_line:
            html = self.job_line.render(visitor_from_request(request))
            is_same = html == (values[self.job_line.block] or "")
            updates[self.job_line.block] = gr.skip() if is_same else html
        return updates

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
