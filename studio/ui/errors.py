"""The one place where errors and notices become messages of the page and of the API.

Knows: gradio's errors and toasts, which read their text as HTML; which errors a visitor may read.
Does not know: what went wrong.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from studio.errors import StudioError
from studio.storage.atomic import find_disk_error

log = logging.getLogger(__name__)


@contextmanager
def report_errors(plain_text: bool = False) -> Iterator[None]:
    """Turn a StudioError into a message for the visitor; any other error is a bug and is logged.

    Args:
        plain_text: Whether the message is for a program; else it is HTML for the page.

    Raises:
        gr.Error: With the message.
    """
    try:
        yield
    except gr.Error:
        raise
    except StudioError as error:
        text = str(error) if plain_text else _to_html(str(error))
        raise gr.Error(text, duration=None, print_exception=False) from None
    except Exception as error:
        if disk_error := find_disk_error(error):
            text = str(disk_error) if plain_text else _to_html(str(disk_error))
            raise gr.Error(text, duration=None, print_exception=False) from None
        log.exception("a handler of the page or an endpoint failed")
        raise gr.Error(
            ("Something went wrong inside the studio; the log has the details."),
            print_exception=False,
        ) from None


def show_info(text: str, seconds: float = 10) -> None:
    """Tell the visitor something in a toast; it stays for `seconds`."""
    gr.Info(_to_html(text), duration=seconds)


def show_warning(text: str, seconds: float = 10) -> None:
    """Tell the visitor in a toast what is not as they may expect; it stays for `seconds`."""
    gr.Warning(_to_html(text), duration=seconds)


def _to_html(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
