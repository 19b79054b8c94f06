"""What is used of gradio that is not public is still there."""

from __future__ import annotations

import gradio as gr
import httpx
import pytest

from studio.ui.private_gradio import (
    Page,
    event_payload,
    serve_own_scripts,
    set_queue_poll_seconds,
)
from support.served import need_port


def test_the_payload_of_an_event() -> None:
    assert event_payload(gr.EventData(None, {"action": "a"})) == {"action": "a"}
    assert event_payload(gr.EventData(None, None)) == {}


def test_the_queue_of_a_page() -> None:
    page = gr.Blocks()
    page.queue()
    assert isinstance(page._queue.sleep_when_free, float)
    set_queue_poll_seconds(page, 0.25)
    assert page._queue.sleep_when_free == 0.25


def test_an_endpoint_takes_the_defaults_of_what_is_left_out() -> None:
    def add(left: int, right: int = 3) -> int:
        return left + right

    with Page() as page:
        gr.api(add, api_name="add")
    block_fn = next(iter(page.fns.values()))
    values: list[int] = [1]
    page.validate_inputs(block_fn, values)
    assert values == [1, 3]


def test_a_handler_of_the_page_gets_no_defaults() -> None:
    with Page() as page:
        boxes = [gr.Textbox("a"), gr.Textbox("b")]
        gr.Button().click(lambda first, second: None, boxes, None)
    block_fn = next(iter(page.fns.values()))
    with pytest.raises(ValueError, match="enough input values"):
        page.validate_inputs(block_fn, ["only one"])


def test_a_page_with_a_public_link_loads_its_own_scripts() -> None:
    need_port()
    with gr.Blocks() as page:
        gr.Button()
    page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
    try:
        page.share = True  # as gradio leaves it, once the link is there
        foreign = '<script type="module" crossorigin src="https://'
        assert foreign in httpx.get(page.local_url).text
        serve_own_scripts(page)
        assert foreign not in httpx.get(page.local_url).text
    finally:
        page.close()
