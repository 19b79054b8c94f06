"""What events have in common: their settings, who is behind one, files that come with one.

Knows: gradio's events and uploads. Does not know: any component or tab; what a visitor may do
(services/visitor.py).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from studio.errors import BadFile
from studio.services.visitor import Visitor, visitor_from_scope
from studio.storage import atomic

Updates = dict[Any, Any]
# Every handler is short, for the work is a job: so none is limited, and none shows gradio's own
# spinner. Its page would still keep a status for each component that an event changes, and look
# through all components for each of those.
EVENT_OPTIONS: dict[str, Any] = {
    "show_progress": "hidden",
    "show_progress_on": [],
    "api_visibility": "private",
    "concurrency_limit": None,
}
# A plain POST; but a gr.Error is not shown: only for looking.
UNQUEUED_EVENT_OPTIONS: dict[str, Any] = EVENT_OPTIONS | {"queue": False}

# Of a list of rows: a click on a second row comes while the first one's answer is still on its way,
# and gradio would drop it.
ROW_EVENT_OPTIONS: dict[str, Any] = EVENT_OPTIONS | {"trigger_mode": "multiple"}


def button_click_js(selector: str = "button[data-action]") -> str:
    """Return JavaScript by which the buttons of an HTML block say what to do with what.

    A block that is drawn anew while a button is held down has lost that button, and the browser
    knows of no click: what was pressed is done when it is let go.
    """
    return f"""{{
  const send = button =>
    trigger('click', {{action: button.dataset.action, target: button.dataset.target}});
  let pressed = null;
  element.addEventListener('pointerdown', event => {{
    pressed = event.button ? null : event.target.closest('{selector}');
  }});
  element.addEventListener('pointercancel', () => {{ pressed = null; }});
  element.addEventListener('pointerup', () => {{
    if (pressed && !pressed.isConnected) send(pressed);
    pressed = null;
  }});
  element.addEventListener('click', event => {{
    const button = event.target.closest('{selector}');
    if (button) send(button);
  }});
}}"""


BUTTON_CLICK_JS = button_click_js()  # a list of rows with buttons is one HTML block


def poll_while_visible_js(interval_seconds: float) -> str:
    """Return JavaScript by which an HTML block sends `submit` again and again in an open tab.

    A gr.Timer would go on in tabs that nobody sees. Of the block itself nothing is to be seen while
    it is empty.
    """
    return (
        "{ const panel = element.closest('[role=tabpanel]') || element; "
        "setInterval(() => { if (panel.offsetParent && !document.hidden) trigger('submit'); }, "
        f"{interval_seconds * 1000:.0f}); }}"
    )


def look_at_js(selector: str, label: str) -> str:
    """Return JavaScript that brings what a button did into view (static/look.js).

    Args:
        selector: The first element that it fits and that is shown is gone to.
        label: What a screen reader calls it.
    """
    detail = json.dumps({"selector": selector, "label": label})
    return f"() => {{ dispatchEvent(new CustomEvent('studio-look', {{detail: {detail}}})) }}"


def visitor_from_request(request: gr.Request) -> Visitor:
    """Return the visitor behind a gradio event."""
    if request.request is None:  # not from HTTP: nobody that could be known
        return Visitor("api", is_guest=True)
    return visitor_from_scope(request.request.scope)


def read_sent_text(file: Any, max_bytes: int) -> tuple[str, str]:
    """Return the text of a file of settings that a visitor sent, and the name it had.

    Call it in a thread, as gradio calls handlers that are no coroutines.

    Raises:
        BadFile: It is no upload, or larger than any such file.
    """
    path, name = resolve_upload(file)
    if path.stat().st_size > max_bytes:
        raise BadFile(
            f"{name:.80} is larger than {max_bytes:,} bytes, so it is not a settings file."
        )
    return path.read_text("utf-8-sig", "replace"), name


def resolve_upload(file: Any) -> tuple[Path, str]:
    """Return the file that a visitor sent, and the name it had.

    Raises BadFile for any other: a path is only words of the visitor's. (gradio looks only at paths
    that say they are files, and then also takes those which the page serves.)
    """
    path = file.get("path") if isinstance(file, dict) else None
    try:
        upload = Path(path).resolve() if isinstance(path, str) and path else None
    except (OSError, ValueError):
        upload = None
    if upload is None or not upload.is_relative_to(Path(get_upload_folder()).resolve()):
        raise BadFile("Send a file.")
    return upload, str(file.get("orig_name") or "")


def write_handed_file(name: str, data: bytes) -> Path:
    """Write a file that is handed out to whoever asked; gradio's folder is emptied after a day."""
    path = Path(tempfile.mkdtemp(dir=get_upload_folder())) / name
    atomic.write(path, data, durable=False)
    return path
