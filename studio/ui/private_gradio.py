"""What is used of gradio that is not public, so that one test says when a new version breaks it.

Knows: the attributes' names. Does not know: what they are used for.
"""

from __future__ import annotations

from typing import Any

import gradio as gr


def event_payload(event: gr.EventData) -> dict[str, Any]:
    """Return what JavaScript's `trigger` sent along with an event of an HTML block."""
    payload = event._data
    return payload if isinstance(payload, dict) else {}


def set_queue_poll_seconds(page: gr.Blocks, seconds: float) -> None:
    """Set how long the queue of a page waits between two looks for an event."""
    page._queue.sleep_when_free = seconds
