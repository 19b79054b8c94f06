"""Dropdowns of names of the library: a page carries few of them, the rest comes when one is opened.

Knows: how many names a page carries, when all are sent, what gradio's dropdown makes of a list that
grows while it is open. Does not know: which names there are, how the page looks through them.

With 5,000 names each list is about 400 kB, and a page has a dozen: they would be most of the page,
for every visit. So a list is sent when somebody opens it; gradio then finds names by typing
(static/name_lists.js, where a list comes after what was typed).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from studio.services.visitor import Visitor
from studio.ui.events import EVENT_OPTIONS, Updates, visitor_from_request

MAX_CARRIED = 100  # names of a list that a page has before it is opened


def carry_names(names: Sequence[str], value: Any = None) -> list[str]:
    """Return the names that a page carries, the chosen one first where not all of them are.

    Gradio remembers the chosen name by its place, and the place has to be the same in all lists.
    """
    if len(names) <= MAX_CARRIED:
        return list(names)
    return put_first(names, value)[:MAX_CARRIED]


def put_first(names: Sequence[Any], value: Any) -> list[Any]:
    """Return the names with the chosen one first, if it is one of them and the list is long."""
    if len(names) <= MAX_CARRIED or value not in names:
        return list(names)
    return [value, *(name for name in names if name != value)]


def load_names_on_focus(
    dropdown: Any,
    list_names: Callable[..., Sequence[Any]],
    inputs: Sequence[Any] = (),
    *,
    is_redrawn: bool = False,
) -> None:
    """Have a dropdown get all its names when it is opened; again only if they have changed.

    Args:
        dropdown: It has to take values that are in no list.
        list_names: The values of `inputs` and the visitor → all names.
        inputs: Components that say which names are wanted.
        is_redrawn: Whether other events give it shorter lists, so that each opening has to send.
    """
    shown = gr.State("")

    def load(request: gr.Request, chosen: Any, digest: str, *values: Any) -> Updates:
        visitor: Visitor = visitor_from_request(request)
        names = list_names(*values, visitor)
        if isinstance(chosen, str):
            names = put_first(names, chosen)
        new_digest = digest_names(names)
        if new_digest == digest and not is_redrawn:
            return {shown: gr.skip()}
        return {dropdown: gr.Dropdown(list(names)), shown: new_digest}

    dropdown.focus(load, [dropdown, shown, *inputs], [dropdown, shown], **EVENT_OPTIONS)


def digest_names(names: Sequence[Any]) -> str:
    """Return what changes with a list."""
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()
