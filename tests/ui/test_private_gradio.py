"""What is used of gradio that is not public is still there."""

from __future__ import annotations

import gradio as gr

from studio.ui.private_gradio import event_payload, set_queue_poll_seconds


def test_the_payload_of_an_event() -> None:
    assert event_payload(gr.EventData(None, {"what": "a"})) == {"what": "a"}
    assert event_payload(gr.EventData(None, None)) == {}


def test_the_queue_of_a_page() -> None:
    page = gr.Blocks()
    page.queue()
    assert isinstance(page._queue.sleep_when_free, float)
    set_queue_poll_seconds(page, 0.25)
    assert page._queue.sleep_when_free == 0.25
