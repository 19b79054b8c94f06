"""The Queue tab: jobs that run, wait and have ended; stop, move or retry them.

Knows: its buttons; guests see that jobs of other people are there, not what they are about.
Does not know: what a job does.
"""

from __future__ import annotations

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
    EVENT_OPTIONS,
    UNQUEUED_EVENT_OPTIONS,
    Updates,
    poll_while_visible_js,
    visitor_from_request,
)
from studio.ui.private_gradio import event_payload
from studio.ui.tab import Tab
from studio.ui.views.jobs import render_queue

MAX_HISTORY_JOBS = 60
MAX_ID_DIGITS = 18  # of what SQLite stores as an integer


class QueueTab:
    """The components of the tab."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.rows = gr.HTML(
            js_on_load=BUTTON_CLICK_JS + poll_while_visible_js(0.5), elem_id="queue-list"
        )
        self.shown_revision = gr.State(None)
        self.rows.submit(
            self.poll,
            self.shown_revision,
            [self.rows, self.shown_revision],
            **UNQUEUED_EVENT_OPTIONS,
        )
        self.rows.click(self.handle_action, None, [self.rows], **EVENT_OPTIONS)

    def render(self, visitor: Visitor) -> str:
        """Render the open jobs in their order, then those that have ended."""
        open_jobs = self.services.home.jobs.list_open()
        recent_jobs = self.services.home.jobs.list_recent(MAX_HISTORY_JOBS)
        ended_jobs = [job for job in recent_jobs if not job.is_open]
        rows = mark_visible_jobs([*open_jobs, *ended_jobs], visitor)
        return render_queue(rows, may_prioritize=not visitor.is_guest)

    def poll(self, shown_revision: Any, request: gr.Request) -> Updates:
        """Render the queue, if it has changed since the page last asked."""
        revision = self.services.home.jobs.get_revision()
        if revision == shown_revision:
            return {self.shown_revision: gr.skip()}
        return {
            self.rows: self.render(visitor_from_request(request)),
            self.shown_revision: revision,
        }

    def handle_action(self, event: gr.EventData, request: gr.Request) -> Updates:
        """Handle a button of a job."""
        with report_errors():
            visitor = visitor_from_request(request)
            data = event_payload(event)
            job = self._require_job(str(data.get("target")))
            visitor.require_job_access(job)
            action = data.get("action")
            if action == "first":
                visitor.require_owner("Jumping the queue")
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
            return {self.rows: self.render(visitor)}

    def _require_job(self, job_id: str) -> Job:
        """Return the job of an id that a browser sent, or raise BadFile."""
        job = None
        if job_id.isdecimal() and len(job_id) <= MAX_ID_DIGITS:
            job = self.services.home.jobs.get(int(job_id))
        if job is None:
            raise BadFile(f"There is no job {job_id:.20} any more.")
        return job


def build(services: Services) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = QueueTab(services)
    return Tab(on_open=lambda visitor: {tab.rows: tab.render(visitor)}, outputs=[tab.rows])
