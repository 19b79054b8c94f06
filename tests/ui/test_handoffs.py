"""What a tab hands over: to one of its targets, and a failure is said once."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from studio.services.visitor import Visitor
from studio.ui.app import _wire_handover_buttons
from studio.ui.tab import Handoff, Tab


def build_handlers(build: Any) -> list[Any]:
    """The handlers of two targets, in their order."""
    with gr.Blocks() as page:
        block, tab_bar = gr.HTML(), gr.Tabs()
        handoff = Handoff(block, build, ("txt2img", "sweep"))
        for name in handoff.targets:
            field = gr.Textbox()
            target = Tab(name, load_request=lambda content, _, field=field: {field: content})  # type: ignore[misc]
            target.outputs = [field]
            _wire_handover_buttons(handoff, target, tab_bar, gr.State(True))
    return [function.fn for function in page.fns.values()]


def test_one_target_gets_it() -> None:
    handlers = build_handlers(lambda _event, _visitor: ("sweep", "a moon"))
    event = gr.EventData(None, {})
    first, second = (handler(True, event, gr.Request()) for handler in handlers)
    assert "a moon" not in first.values()
    assert "a moon" in second.values()


def test_a_failure_is_said_once() -> None:
    def fail(_event: gr.EventData, _visitor: Visitor) -> None:
        raise gr.Error("There is no such LoRA.")

    first, second = build_handlers(fail)
    event = gr.EventData(None, {})
    with pytest.raises(gr.Error, match="no such LoRA"):
        first(True, event, gr.Request())
    assert len(second(True, event, gr.Request())) == 1  # the tab bar stays
