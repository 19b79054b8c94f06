"""A page to build a tab on that nobody opens."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr
import pytest

# gradio asks for the same ones at every component.
_get_argument_names = functools.cache(inspect.getfullargspec)


@contextmanager
def unopened_page() -> Iterator[gr.Blocks]:
    """Build components without the page's app.

    gradio makes one when the page begins and one when it ends, and describes all components: that took longer than a tab.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradio.blocks.App.create_app", lambda *given, **named: None)
        patch.setattr(gr.Blocks, "get_config_file", lambda page: {})
        patch.setattr(inspect, "getfullargspec", _get_argument_names)
        with gr.Blocks() as page:
            yield page
