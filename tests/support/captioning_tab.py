"""What a browser sends to the Captions tab, and what it is told."""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.services.submission import Services
from studio.settings import shipped
from studio.ui.tabs.captioning.tab import CaptioningTab

PLUSH = shipped("assets") / "datasets" / "mysks"


def page(tab: CaptioningTab, name: str = "bears", **more: Any) -> dict[Any, Any]:
    """What the browser sends: the parts of the form with what they begin with."""
    values = {part: part.value for part in tab.form.inputs}
    values |= {
        tab.browser.dataset: name,
        tab.browser.filter: "",
        tab.browser.page: 0,
        tab.browser.hits: (),
        tab.browser.cards: [],
    }
    values |= {
        part: part.value
        for tool in (tab.edit_tools, tab.clip_search)
        for part in vars(tool).values()
        if isinstance(part, gr.Textbox | gr.Number | gr.Dropdown | gr.CheckboxGroup)
    }
    return values | {getattr(tab.edit_tools, key): value for key, value in more.items()}


def cards(tab: CaptioningTab, shown: dict[Any, Any]) -> list[dict[str, Any]]:
    """What a page is told of its pictures."""
    return list(shown[tab.browser.cards].props["options"]["cards"])


def typed(key: str, text: str, was: str, dataset: str = "bears") -> Any:
    return gr.EventData(
        None, {"action": "put", "dataset": dataset, "target": key, "text": text, "was": was}
    )


def text(desk: Services, key: str) -> str:
    return (desk.home.settings.home / "datasets" / "bears" / key).read_text().strip()
