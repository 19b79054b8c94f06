"""The Queue tab: what runs, what waits, what was; stop it, move it, do it again.

Knows: its buttons. Does not know: what a job does. Guests see that others' jobs are there, not what they are about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from studio.errors import BadFile
from studio.ui import show
from studio.ui.guard import Visitor, own, who
from studio.ui.widgets import BUTTONS, SHORT, SILENT, Desk, Tab, Updates, while_seen

ID = "queue"
SHOWN = 60


class QueueTab:
    """One build of the tab."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.rows = gr.HTML(js_on_load=BUTTONS + while_seen(0.5), elem_id="queue-list")
        self.seen = gr.State(None)
        self.rows.submit(self.tick, self.seen, [self.rows, self.seen], **SILENT)
        self.rows.click(self.act, None, [self.rows], **SHORT)

    def render(self, visitor: Visitor) -> str:
        waiting = self.desk.jobs.waiting()
        past = [job for job in self.desk.jobs.history(SHOWN) if not job.open]
        return show.queue(own([*waiting, *past], visitor), may_jump=not visitor.guest)

    def tick(self, seen: Any, request: gr.Request) -> Updates:
        now = self.desk.jobs.beat()
        return (
            {self.seen: gr.skip()}
            if now == seen
            else {self.rows: self.render(who(request)), self.seen: now}
        )

    def act(self, event: gr.EventData, request: gr.Request) -> Updates:
        with show.said():
            visitor, data = who(request), event._data or {}
            verb, subject = data.get("what"), str(data.get("subject"))
            job = (
                self.desk.jobs.get(int(subject))
                if subject.isdecimal() and len(subject) < 19
                else None
            )
            if job is None:
                raise BadFile(f"There is no job {subject:.20} any more.")
            visitor.may_touch(job)
            if verb == "first":
                visitor.must_own("Jumping the queue")
            verbs: dict[Any, Callable[[int], object]] = {
                "cancel": self.desk.jobs.cancel,
                "first": self.desk.jobs.first,
                "last": self.desk.jobs.last_in_line,
                "retry": self.desk.jobs.retry,
            }
            if verb in verbs:
                verbs[verb](job.id)
            return {self.rows: self.render(visitor)}


def build(desk: Desk) -> Tab:
    """Lay the tab out inside the Blocks that is being built."""
    tab = QueueTab(desk)
    return Tab(
        ID, "Queue", opened=lambda visitor: {tab.rows: tab.render(visitor)}, outputs=[tab.rows]
    )
