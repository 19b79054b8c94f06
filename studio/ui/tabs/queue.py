"""The Queue tab: jobs that run, wait and have ended; stop, move or retry them.

Knows: its buttons; guests see that jobs of other people are there, not what they are about.
Does not know: what a job does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gradio as gr

from studio.errors import BadFile
from studio.services.submission import Services
from studio.services.visitor import Visitor, mark_visible_jobs
from studio.storage.jobs import Job
from studio.ui.errors import report_errors
from studio.ui.events import (
    BUTTON_CLICK_JS,
    ROW_EVENT_OPTIONS,
    UNQUEUED_EVENT_OPTIONS,
    Updates,
    poll_while_visible_js,
    visitor_from_request,
)
from studio.ui.private_gradio import event_payload
from studio.ui.tab import Tab
from studio.ui.views.jobs import render_queue

JOBS_PER_PAGE = 60
MAX_ID_DIGITS = 18  # of what SQLite stores as an integer


class QueueTab:
    """The components of the tab."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.rows = gr.HTML(
            js_on_load=BUTTON_CLICK_JS + poll_while_visible_js(0.5), elem_id="queue-list"
        )
        self.page: gr.State = gr.State(0)
        self.shown_revision = gr.State(None)
        self.rows.submit(
            self.poll,
            {self.shown_revision, self.page},
            [self.rows, self.shown_revision],
            **UNQUEUED_EVENT_OPTIONS,
        )
        self.rows.click(self.handle_action, self.page, [self.rows, self.page], **ROW_EVENT_OPTIONS)

    def render(self, visitor: Visitor, page: int = 0) -> Updates:
        """Render a page of the jobs: the open ones in their order, then those that have ended.

        Args:
            visitor: Who is looking.
            page: Counts from 0; the nearest page there is is shown.
        """
        jobs = self.services.home.jobs
        num_open = jobs.count(is_open=True)
        num_jobs = num_open + jobs.count(is_open=False)
        num_pages = max(1, math.ceil(num_jobs / JOBS_PER_PAGE))
        page = max(0, min(page, num_pages - 1))
        offset = page * JOBS_PER_PAGE
        shown = jobs.list_open(limit=JOBS_PER_PAGE, offset=offset)
        if len(shown) < JOBS_PER_PAGE:
            shown += jobs.list_ended(JOBS_PER_PAGE - len(shown), max(0, offset - num_open))
        rows = mark_visible_jobs(shown, visitor)
        queue_html = render_queue(
            rows, may_prioritize=not visitor.is_guest, page=page, num_pages=num_pages
        )
        return {self.rows: queue_html, self.page: page}

    def poll(self, values: Updates, request: gr.Request) -> Updates:
        """Render the queue, if it has changed since the page last asked."""
        revision = self.services.home.jobs.get_revision()
        if revision == values[self.shown_revision]:
            return {self.shown_revision: gr.skip()}
        updates = self.render(visitor_from_request(request), values[self.page])
        return {self.rows: updates[self.rows], self.shown_revision: revision}

    def handle_action(self, page: int, event: gr.EventData, request: gr.Request) -> Updates:
        """Handle a button of a job, or turn the page."""
        with report_errors():
            visitor = visitor_from_request(request)
            data = event_payload(event)
            action, target = data.get("action"), str(data.get("target"))
            if action == "page":
                is_number = target.isdecimal() and len(target) <= MAX_ID_DIGITS
                return self.render(visitor, int(target) if is_number else 0)
            job = self._require_job(target)
            visitor.require_job_access(job)
            if action == "first":
                visitor.require_owner("Reordering the queue")
            jobs = self.services.home.jobs
            methods: dict[Any, Callable[[int], object]] = {
                "cancel": jobs.cancel,
                "first": jobs.move_to_front,
                "last": jobs.move_to_back,
            }
            if action in methods:
                methods[action](job.id)
            elif action == "retry":
                self.services.retry_job(job, visitor)
            return self.render(visitor, page)

    def _require_job(self, job_id: str) -> Job:
        """Return the job of an id that a browser sent, or raise BadFile."""
        job = None
        if job_id.isdecimal() and len(job_id) <= MAX_ID_DIGITS:
            job = self.services.home.jobs.get(int(job_id))
        if job is None:
            raise BadFile(f"Job {job_id:.20} no longer exists.")
        return job


def build(services: Services) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = QueueTab(services)
    return Tab(on_open=tab.render, outputs=[tab.rows, tab.page])
