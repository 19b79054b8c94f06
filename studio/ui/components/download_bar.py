"""Paste a link, read what it is, download it, watch it come.

Knows: the link's field, what was looked up, the list of downloads and its buttons. Does not know:
sites and files (services/downloads.py); where on the page this stands; what else the tab shows.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.core.base import validate
from studio.core.downloads.plan import DownloadSpec
from studio.core.jobs import DOWNLOAD
from studio.errors import BadFile
from studio.services.downloads import Downloads
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.jobs import Job
from studio.ui.errors import report_errors
from studio.ui.events import (
    BUTTON_CLICK_JS,
    EVENT_OPTIONS,
    ROW_EVENT_OPTIONS,
    UNQUEUED_EVENT_OPTIONS,
    Updates,
    poll_while_visible_js,
    visitor_from_request,
)
from studio.ui.private_gradio import event_payload
from studio.ui.views.downloads import render_downloads, render_plan

NUM_ENDED_SHOWN = 3
NUM_RECENT_READ = 60  # jobs of all kinds, among which those are looked for
MAX_ID_DIGITS = 18
VARIANT_CHOICES = [("Recommended", "auto"), ("Half precision", "fp16"), ("Full", "full")]


class DownloadBar:
    """The components; made where they are to stand."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.downloads = Downloads(services.home.settings)
        with gr.Column(visible=False, elem_id="download-bar") as self.block:
            with gr.Row(elem_classes="download-row"):
                self.link = gr.Textbox(
                    label="Add by link",
                    placeholder="org/name, a page of Hugging Face or Civitai, or a file's address",
                    scale=5,
                    min_width=260,
                    max_lines=1,
                    elem_id="download-link",
                )
                self.variant = gr.Dropdown(
                    VARIANT_CHOICES, value="auto", label="Precision", scale=1, min_width=180
                )
                self.look = gr.Button("Look up", scale=0, min_width=100, elem_id="download-look")
            self.found = gr.HTML(elem_id="download-found")
            with gr.Row(visible=False, elem_classes="download-row") as self.choice:
                self.name = gr.Textbox(
                    label="Save as",
                    placeholder="the name used on its site",
                    max_lines=1,
                    elem_id="download-name",
                )
                self.is_confirmed = gr.Checkbox(
                    label="I trust this site", visible=False, elem_id="download-trust"
                )
                self.start = gr.Button(
                    "Download", variant="primary", scale=0, min_width=130, elem_id="download-start"
                )
        self.list = gr.HTML(
            js_on_load=BUTTON_CLICK_JS + poll_while_visible_js(0.5),
            elem_id="download-list",
            render=False,
        )
        self.shown_spec = gr.State(None)
        self.shown_revision = gr.State(None)
        self.last_done = gr.State(None)  # the library is shown anew when it changes

    @property
    def outputs(self) -> list[Any]:
        """The components that `on_open` updates."""
        return [self.block, self.list]

    def place_list(self) -> None:
        """Place the list of downloads, which is seen while the link's field may be closed."""
        self.list.render()  # type: ignore[no-untyped-call]

    def wire(self) -> None:
        """Connect the events."""
        looked_up = [self.found, self.choice, self.name, self.is_confirmed, self.shown_spec]
        # What was shown for another link is gone before this one is asked about, and stays gone
        # where that fails.
        gr.on(
            [self.look.click, self.link.submit], self.clear, None, looked_up, **EVENT_OPTIONS
        ).then(self.look_up, {self.link, self.variant}, looked_up, **EVENT_OPTIONS)
        looking_closer = self.is_confirmed.input(
            self.look_closer,
            {self.shown_spec, self.name, self.is_confirmed},
            [self.found, self.name],
            **EVENT_OPTIONS,
        )
        self.start.click(
            self.submit,
            {self.shown_spec, self.name, self.is_confirmed},
            [*looked_up, self.link, self.list],
            cancels=[looking_closer],  # else its answer would come back to the empty bar
            **EVENT_OPTIONS,
        )
        self.list.click(self.handle_action, None, None, **ROW_EVENT_OPTIONS)
        self.list.submit(
            self.poll,
            {self.shown_revision},
            [self.list, self.shown_revision, self.last_done],
            **UNQUEUED_EVENT_OPTIONS,
        )

    def on_open(self, visitor: Visitor) -> Updates:
        """Return what a page that opens shows: nothing for guests, and nobody is asked."""
        return {
            self.block: gr.Column(visible=not visitor.is_guest),
            self.list: self.render(visitor),
        }

    def render(self, visitor: Visitor) -> str:
        """Render the downloads that run, wait, or ended last; nothing for guests."""
        return "" if visitor.is_guest else render_downloads(self._list_jobs())

    def clear(self) -> Updates:
        """Forget what was shown for a link."""
        return {
            self.found: "",
            self.choice: gr.Row(visible=False),
            self.name: "",
            self.is_confirmed: gr.Checkbox(value=False, visible=False),
            self.shown_spec: None,
        }

    def look_up(self, values: Updates, request: gr.Request) -> Updates:
        """Show what is behind the link."""
        with report_errors():
            visitor = visitor_from_request(request)
            visitor.require_owner("Downloading")
            link, variant = values[self.link], values[self.variant]
            if not str(link or "").strip():
                raise BadFile("Paste a link first.")
            spec = validate(DownloadSpec, {"link": link, "variant": variant or "auto"})
            plan = self.downloads.look_up(spec, visitor)
            warnings = self.downloads.list_warnings(plan)
            spec = spec.model_copy(update={"version": plan.version})
            return {
                self.found: render_plan(plan, warnings),
                self.choice: gr.Row(visible=True),
                self.name: plan.name if plan.is_name_known else "",
                self.is_confirmed: gr.Checkbox(value=False, visible=not plan.is_known_host),
                self.shown_spec: spec.model_dump(mode="json"),
            }

    def look_closer(self, values: Updates, request: gr.Request) -> Updates:
        """Ask a site that is trusted now for the name of the file, where nobody has said one."""
        with report_errors():
            visitor = visitor_from_request(request)
            visitor.require_owner("Downloading")
            shown = values[self.shown_spec]
            is_asked = values[self.is_confirmed] is True and not values[self.name]
            if not is_asked or not isinstance(shown, dict):
                return {self.found: gr.skip()}
            spec = validate(DownloadSpec, shown | {"is_host_confirmed": True})
            plan = self.downloads.look_up(spec, visitor)
            return {
                self.found: render_plan(plan, self.downloads.list_warnings(plan)),
                self.name: plan.name,
            }

    def submit(self, values: Updates, request: gr.Request) -> Updates:
        """Queue the download of what is shown."""
        with report_errors():
            visitor = visitor_from_request(request)
            visitor.require_owner("Downloading")
            shown = values[self.shown_spec]
            if not isinstance(shown, dict):
                raise BadFile("Look a link up first.")
            own = {
                "name": values[self.name] or "",
                "is_host_confirmed": bool(values[self.is_confirmed]),
            }
            self.services.submit_download(validate(DownloadSpec, shown | own), visitor)
            return {**self.clear(), self.link: "", self.list: self.render(visitor)}

    def handle_action(self, event: gr.EventData, request: gr.Request) -> None:
        """Handle a button of a download: stop it, or go on with it. The next poll shows it."""
        with report_errors():
            visitor = visitor_from_request(request)
            visitor.require_owner("Downloading")
            data = event_payload(event)
            job = self._require_job(str(data.get("target")))
            match data.get("action"):
                case "cancel":
                    self.services.home.jobs.cancel(job.id)
                case "again":
                    self.services.retry_job(job, visitor)
                case "remove":
                    self.downloads.hide_ended(self.services.home.jobs, job, visitor)

    def poll(self, values: Updates, request: gr.Request) -> Updates:
        """Render the downloads, if a job has changed since the page last asked."""
        visitor = visitor_from_request(request)
        revision = self.services.home.jobs.get_revision()
        if visitor.is_guest or revision == values[self.shown_revision]:
            return {self.shown_revision: gr.skip()}
        jobs = self._list_jobs()
        last_done = max((job.id for job in jobs if job.state == "done"), default=0)
        return {
            self.list: render_downloads(jobs),
            self.shown_revision: revision,
            self.last_done: last_done,
        }

    def _list_jobs(self) -> list[Job]:
        jobs = self.services.home.jobs
        open_jobs = jobs.list_open(kind=DOWNLOAD.name)
        open_links = {job.spec.get("link") for job in open_jobs}
        hidden = self.downloads.list_hidden(jobs)
        ended: list[Job] = []
        for job in jobs.list_recent(NUM_RECENT_READ):
            is_newest = job.spec.get("link") not in open_links
            if job.kind == DOWNLOAD.name and not job.is_open and is_newest:
                open_links.add(job.spec.get("link"))
                if job.id not in hidden:
                    ended.append(job)
        return [*open_jobs, *ended[:NUM_ENDED_SHOWN]]

    def _require_job(self, job_id: str) -> Job:
        is_number = job_id.isdecimal() and job_id.isascii() and len(job_id) <= MAX_ID_DIGITS
        job = self.services.home.jobs.get(int(job_id)) if is_number else None
        if job is None or job.kind != DOWNLOAD.name:
            raise BadFile("That download no longer exists.")
        return job
