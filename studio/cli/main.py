"""`studio`: one command, and how it ends.

Knows: which module does a command (it is imported when the command runs), exit statuses, how errors
are said at a terminal. Does not know: what the commands do.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from typing import NoReturn

from studio.cli.parser import build_parser
from studio.errors import Cancelled, InvalidSpec, StudioError


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process with its status."""
    _escape_unwritable_text()
    arguments = build_parser().parse_args(argv)
    module, function = arguments.command.split(":")
    from studio.cli.runner import log

    try:
        getattr(importlib.import_module(module), function)(arguments)
    except InvalidSpec as error:
        log(str(error))
        sys.exit(2)
    except StudioError as error:
        log(str(error))
        sys.exit(1)
    except (KeyboardInterrupt, Cancelled):
        log("stopped")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(0)


def _escape_unwritable_text() -> None:
    """Have names that the terminal cannot write come out escaped, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
