"""The one place where errors become messages of the page and of the API.

Knows: gradio's errors; which errors a visitor may read. Does not know: what went wrong.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from studio.errors import StudioError

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
        text = str(error) if plain_text else html.escape(str(error)).replace("\n", "<br>")
        raise gr.Error(text, duration=None, print_exception=False) from None
    except Exception:
        log.exception("a handler of the page or an endpoint failed")
        raise gr.Error(
            "Something went wrong inside the studio; the log says what.", print_exception=False
        ) from None
