"""Who asks a tab for something, and what a browser sends when somebody clicks."""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.services.visitor import Visitor

HOSTILE = "\"><img src=x onerror=\"document.title='pwned'\"><script>alert(1)</script>&amp;'"
OWNER, ANN, BOB = (
    Visitor("owner", is_guest=False),
    Visitor("ann", is_guest=True),
    Visitor("bob", is_guest=True),
)


def pressed(action: str, target: str, value: str = "") -> Any:
    return gr.EventData(None, {"action": action, "target": target, "value": value})


class Asked(gr.Request):
    """A request of that visitor's; `who` is replaced to read it."""

    def __init__(self, visitor: Visitor) -> None:
        super().__init__()
        self.visitor = visitor
