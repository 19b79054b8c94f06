"""The gallery's grid: a page of images to choose and tick, their filters, a lightbox.

Knows: the values that the page is sent and those that it sends back. Does not know: how they are
drawn, keys and the mouse (image_grid.js); where images come from (tabs/gallery.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

SCRIPT = Path(__file__).with_name("image_grid.js").read_text("utf-8")
TEMPLATE = Path(__file__).with_name("image_grid.html").read_text("utf-8")
MAX_KEYS = 2_000  # entries that one event names
ALL_KEY = "*"  # stands for all images that the filter lets through


def build_image_grid(**component_kwargs: Any) -> gr.HTML:
    """Build the component; its value is the list of ticked keys.

    A key is `i` and an image's number, or `s` and the id of a sweep or a run. A click sends
    {action, show, chosen} and, by its action, `id`, `keys`, `ids`, `stars` or `days`.

    Args:
        component_kwargs: Settings for `gr.HTML`, such as `elem_id`.
    """
    return gr.HTML(
        value=[],
        html_template=TEMPLATE,
        js_on_load=SCRIPT,
        apply_default_css=False,
        options={},
        **component_kwargs,
    )


def parse_keys(value: Any) -> tuple[list[int], list[str], bool]:
    """Return what a browser's keys name: images, series, and whether it is all images.

    Anything malformed counts as nothing.
    """
    image_ids: list[int] = []
    series: list[str] = []
    if not isinstance(value, list | tuple):
        return image_ids, series, False
    for key in value[:MAX_KEYS]:
        if not isinstance(key, str):
            continue
        if key.startswith("i") and parse_image_id(key[1:]):
            image_ids.append(parse_image_id(key[1:]))
        elif key.startswith("s"):
            series.append(key[1:])
    return image_ids, series, ALL_KEY in value


def parse_image_ids(value: Any) -> list[int]:
    """Return the numbers of images that a browser sent."""
    if not isinstance(value, list | tuple):
        return []
    return [number for item in value[:MAX_KEYS] if (number := parse_image_id(item))]


def parse_image_id(value: Any) -> int:
    """Return the number of an image that a browser sent; 0, which none has, for what is none."""
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    is_number = text.isascii() and text.isdecimal() and len(text) <= 15
    return int(text) if is_number else 0


def format_choices(
    values: Sequence[tuple[str, int]], titles: dict[str, str] | None = None
) -> list[list[str]]:
    """Return values to filter by with their counts, as the page takes them."""
    names = titles or {}
    return [[value, f"{names.get(value, value)} ({count:,})"] for value, count in values]
