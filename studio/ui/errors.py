"""The one place where errors and notices become messages of the page and of the API.

Knows: gradio's errors and toasts, which read their text as HTML; which errors a visitor may read.
Does not know: what went wrong.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gradio as gr

from studio.errors import StudioError
from studio.storage.atomic import find_disk_error

log = logging.getLogger(__name__)


SECONDS_PER_CHARACTER = 0.06  # of a toast with an error: as long as it takes to read
LEAST_ERROR_SECONDS, MOST_ERROR_SECONDS = 5.0, 20.0


def _never(_error: StudioError) -> bool:
    return False


@contextmanager
def report_errors(
    plain_text: bool = False, *, is_shown: Callable[[StudioError], bool] = _never
) -> Iterator[None]:
    """Turn a StudioError into a message for the visitor; any other error is a bug and is logged.

    Args:
        plain_text: Whether the message is for a program; else it is HTML for the page.
        is_shown: Whether all of an error stands beside fields of the page: then no toast says it.

    Raises:
        gr.Error: With the message.
    """
    try:
        yield
    except gr.Error:
        raise
    except StudioError as error:
        raise _build_error(error, plain_text, is_visible=not is_shown(error)) from None
    except Exception as error:
        if disk_error := find_disk_error(error):
            raise _build_error(disk_error, plain_text) from None
        log.exception("a handler of the page or an endpoint failed")
        raise gr.Error(
            ("Something went wrong inside the studio; the log has the details."),
            print_exception=False,
        ) from None


def _build_error(error: StudioError, plain_text: bool, is_visible: bool = True) -> gr.Error:
    text = str(error)
    seconds = min(MOST_ERROR_SECONDS, LEAST_ERROR_SECONDS + SECONDS_PER_CHARACTER * len(text))
    return gr.Error(
        text if plain_text else _to_html(text),
        duration=seconds,
        visible=is_visible,
        print_exception=False,
    )


def show_info(text: str, seconds: float = 5) -> None:
    """Tell the visitor something in a toast; it stays for `seconds`."""
    gr.Info(_to_html(text), duration=seconds)


def show_warning(text: str, seconds: float = 8) -> None:
    """Tell the visitor in a toast what is not as they may expect; it stays for `seconds`."""
    gr.Warning(_to_html(text), duration=seconds)


def _to_html(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
