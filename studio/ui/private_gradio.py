"""What is used of gradio that is not public, so that one test says when a new version breaks it.

Knows: the attributes' names. Does not know: what they are used for.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.components.api_component import Api


class Page(gr.Blocks):
    """A page whose endpoints take the defaults of parameters that a program leaves out.

    gradio's own client sends every parameter; over HTTP a program posts a list, which is shorter
    when it was written before the last parameters came.
    """

    def validate_inputs(self, block_fn: BlockFunction, inputs: list[Any]) -> None:
        """Add the defaults that are missing at the end of an endpoint's values, in place."""
        missing = block_fn.inputs[len(inputs) :]
        inputs.extend(block.value for block in missing if isinstance(block, Api))
        super().validate_inputs(block_fn, inputs)


def event_payload(event: gr.EventData) -> dict[str, Any]:
    """Return what JavaScript's `trigger` sent along with an event of an HTML block."""
    payload = event._data
    return payload if isinstance(payload, dict) else {}


def set_queue_poll_seconds(page: gr.Blocks, seconds: float) -> None:
    """Set how long the queue of a page waits between two looks for an event."""
    page._queue.sleep_when_free = seconds


def serve_own_scripts(page: gr.Blocks) -> None:
    """Have a page with a public link load its scripts from the studio, not from gradio's server.

    The link itself is there by then; only the choice of the page's template asks again.
    """
    page.share = False
