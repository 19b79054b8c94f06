"""Models to begin with, for somebody who has only the embedded one.

Knows: when the hub is asked about them: only when the section is opened. Does not know: which they
are and what is asked (services/downloads.py); how downloads are shown (download_bar.py).
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.core.downloads.plan import DownloadSpec
from studio.errors import BadFile
from studio.services.downloads import STARTING_POINTS, Downloads
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.ui.errors import report_errors
from studio.ui.events import BUTTON_CLICK_JS, EVENT_OPTIONS, Updates, visitor_from_request
from studio.ui.private_gradio import event_payload
from studio.ui.views.downloads import render_first_steps
from studio.ui.views.templates import render_nothing, render_outcome


class FirstSteps:
    """A section that is closed until somebody wants it."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.downloads = Downloads(services.home.settings)
        with gr.Accordion(
            "Get your first models",
            open=False,
            visible=False,
            elem_id="first-steps",
        ) as self.section:
            self.cards = gr.HTML(
                render_nothing("Asking Hugging Face for sizes and licences …"),
                js_on_load=BUTTON_CLICK_JS,
                elem_id="first-steps-cards",
            )
            self.outcome = gr.HTML(elem_id="first-steps-outcome")
        self.versions = gr.State({})
        self.section.expand(self.look_up, None, [self.cards, self.versions], **EVENT_OPTIONS)
        self.cards.click(self.submit, self.versions, self.outcome, **EVENT_OPTIONS)

    @property
    def outputs(self) -> list[Any]:
        """The components that `on_open` updates."""
        return [self.section]

    def on_open(self, visitor: Visitor, *, is_home_empty: bool) -> Updates:
        """Return what a page that opens shows: the closed section, for the owner alone.

        Where there is nothing yet but what is shipped, its label stands out; the hub is asked once
        somebody opens it.
        """
        classes = ["beckons"] if is_home_empty else []
        return {self.section: gr.Accordion(visible=not visitor.is_guest, elem_classes=classes)}

    def look_up(self, request: gr.Request) -> Updates:
        """Ask the hub what each of them is today."""
        with report_errors():
            facts = self.downloads.describe_starting_points(visitor_from_request(request))
            versions = {entry.point.link: entry.plan.version for entry in facts if entry.plan}
            return {self.cards: render_first_steps(facts), self.versions: versions}

    def submit(self, versions: Any, event: gr.EventData, request: gr.Request) -> str:
        """Queue the download of one of them, as it was shown; return what came of it."""
        with report_errors():
            link = str(event_payload(event).get("target"))
            if link not in {point.link for point in STARTING_POINTS}:
                raise BadFile("There is no such starting point.")
            known = versions if isinstance(versions, dict) else {}
            spec = DownloadSpec(link=link, version=str(known.get(link, "")))
            self.services.submit_download(spec, visitor_from_request(request))
            text = "Download started; the list of downloads shows its progress."
            return render_outcome(text)
