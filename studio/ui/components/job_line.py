"""The line in the header of every tab that says what runs, and leads to it.

Knows: its block. Does not know: which job it is (services/job_in_view.py), how it reads
(views/job_line.py), who asks when (notice.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from studio.services.job_in_view import find_job_in_view
from studio.services.visitor import Visitor
from studio.storage.home import Home
from studio.ui.views.job_line import render_job_line

MAX_REMEMBERED_LINES = 50  # of visitors whose line has not changed since

OPEN_TAB_JS = """element.addEventListener('click', event => {
  const {tab, title} = event.target.closest('[data-tab]')?.dataset ?? {};
  if (tab) dispatchEvent(new CustomEvent('studio-look', {detail: {tab, title}}));
});"""


class JobLine:
    """An HTML block that is empty while nothing of the visitor's is open."""

    def __init__(self, home: Home, tab_titles: Mapping[str, str]) -> None:
        """Place the block; `tab_titles` says by their ids what stands on the tabs."""
        self._home = home
        self._tab_titles = tab_titles
        self._rendered: dict[tuple[str, str], tuple[int, str]] = {}
        self.block = gr.HTML("", js_on_load=OPEN_TAB_JS, elem_id="job-line")

    def render(self, visitor: Visitor) -> str:
        """Render the visitor's job; the table is read only where it has changed."""
        revision = self._home.jobs.get_revision()
        key = (visitor.id, visitor.tab)
        remembered = self._rendered.get(key)
        if remembered and remembered[0] == revision:
            return remembered[1]
        html = render_job_line(find_job_in_view(self._home, visitor), self._tab_titles)
        if len(self._rendered) >= MAX_REMEMBERED_LINES:
            self._rendered.clear()
        self._rendered[key] = (revision, html)
        return html
