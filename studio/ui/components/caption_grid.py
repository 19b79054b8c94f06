"""The caption grid: images of a dataset beside captions edited in place, with tick boxes.

Knows: the values that the page is sent and those that it sends back. Does not know: how cards are
drawn and when a caption is sent (caption_grid.js), what happens to it (tabs/captioning).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

SCRIPT = Path(__file__).with_name("caption_grid.js").read_text("utf-8")


def build_caption_grid(**component_kwargs: Any) -> gr.HTML:
    """Build the component; its value is the list of ticked keys.

    A click sends {action, dataset, target, text, was, ticked}: `action` is put, like, aside, others
    or all; `target` an image's key. Without a target the click is for the ticked images.

    Args:
        component_kwargs: settings for `gr.HTML`, such as `elem_id`.
    """
    return gr.HTML(
        value=[],
        html_template='<div class="album-bar" hidden></div><div class="album-cards"></div>',
        js_on_load=SCRIPT,
        apply_default_css=False,
        options={},
        **component_kwargs,
    )


def update_caption_grid(
    dataset: str,
    cards: Sequence[dict[str, Any]],
    *,
    num_matching: int,
    is_complete: bool,
    locked: bool,
    selected_keys: Sequence[str] | None = None,
) -> gr.HTML:
    """Build the update that shows another page of cards.

    Args:
        dataset: name of the open dataset; empty for none.
        cards: the cards of the page, as described at the top of caption_grid.js.
        num_matching: number of images that pass the filter, on all pages.
        is_complete: whether those are all images of the dataset.
        locked: whether captions cannot be edited.
        selected_keys: keys to tick; None leaves ticks alone, which only the browser knows while
            somebody ticks.
    """
    props = {
        "dataset": dataset,
        "cards": list(cards),
        "shown": num_matching,
        "whole": is_complete,
        "locked": locked,
    }
    if selected_keys is None:
        return gr.HTML(options=props)
    return gr.HTML(list(selected_keys), options=props)


def parse_selected_keys(value: Any) -> tuple[str, ...]:
    """Return the ticked keys in a browser's `value`; anything malformed counts as no tick."""
    if not isinstance(value, list | tuple):
        return ()
    return tuple(key for key in value if isinstance(key, str))
