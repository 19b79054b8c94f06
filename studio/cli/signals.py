"""Ctrl + C and SIGTERM, heard at every moment from the first line of a command to its last.

Knows: which signals end a command, and how long it may take. Does not know: any command.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

GRACE_SECONDS = 3.0  # an open page with a browser on it ends within 2
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal came; `exit_status` is what shells make of it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.exit_status = 128 + signal_number


@contextmanager
def hear_signals() -> Iterator[None]:
    """Have Ctrl + C and SIGTERM end this process, whatever the block is doing.

    Either raises `Interrupted` in the main thread. That alone is not heard always: an import or a
    library may catch everything, Python only prints what is raised in a callback of its garbage
    collector, and at its end it waits for threads. So a thread ends the process once
    GRACE_SECONDS have passed. Nothing is lost by it: what is done is in the job table.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former_handlers = {number: signal.signal(number, _interrupt) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in former_handlers.items():
            signal.signal(number, handler)


def _interrupt(signal_number: int, _frame: object) -> None:
    error = Interrupted(signal_number)
    ending = threading.Timer(GRACE_SECONDS, os._exit, (error.exit_status,))
    ending.daemon = True
    ending.start()
    raise error
