"""The pictures of a dataset beside their captions, edited in place, and which of them are ticked: one component.

Knows: what the page is told of them. Does not know: how they are drawn and when a caption is sent (cards.js), what becomes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

SCRIPT = Path(__file__).with_name("caption_grid.js").read_text("utf-8")


def cards(**settings: Any) -> gr.HTML:
    """The component. Its value are the keys that are ticked.

    Its click says {what: put | like | aside | others | all, dataset, subject: a picture's key, text, was, ticked}; without a
    subject those ticked are meant.
    """
    return gr.HTML(
        value=[],
        html_template='<div class="album-bar" hidden></div><div class="album-cards"></div>',
        js_on_load=SCRIPT,
        apply_default_css=False,
        told={},
        **settings,
    )


def page(
    dataset: str,
    rows: Sequence[dict[str, Any]],
    shown: int,
    whole: bool,
    locked: bool,
    ticked: Sequence[str] | None = None,
) -> gr.HTML:
    """What the component shows next: the cards of a page, how many the filter lets through, whether those are all.

    Without `ticked` what is ticked stays so: only the browser knows it while somebody ticks.
    """
    told = {
        "dataset": dataset,
        "cards": list(rows),
        "shown": shown,
        "whole": whole,
        "locked": locked,
    }
    return gr.HTML(told=told) if ticked is None else gr.HTML(list(ticked), told=told)


def keys(given: Any) -> tuple[str, ...]:
    """The keys that the browser says are ticked; whatever else it says is nothing."""
    return (
        tuple(key for key in given if isinstance(key, str))
        if isinstance(given, (list, tuple))
        else ()
    )
