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

from studio.cli.signals import Interrupted, hear_signals
from studio.errors import Cancelled, InvalidSpec, StudioError


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process with its status."""
    _escape_unwritable_text()
    with hear_signals():
        sys.exit(_run_command(argv))


def _run_command(argv: Sequence[str] | None) -> int:
    """Run one command; return the exit status."""
    try:
        from studio.cli.parser import build_parser

        arguments = build_parser().parse_args(argv)
        module, function = arguments.command.split(":")
        getattr(importlib.import_module(module), function)(arguments)
    except InvalidSpec as error:
        return _report(str(error), 2)
    except StudioError as error:
        return _report(str(error), 1)
    except Interrupted as interruption:
        return _report("stopped", interruption.exit_status)
    except (KeyboardInterrupt, Cancelled):
        return _report("stopped", 130)
    except BrokenPipeError:
        return 1
    except OSError as error:
        from studio.storage.atomic import find_disk_error

        if disk_error := find_disk_error(error):
            return _report(str(disk_error), 1)
        raise
    return 0


def _report(message: str, status: int) -> int:
    """Print one line for the person at the terminal; return the status."""
    print(f"studio: {message}", file=sys.stderr)
    return status


def _escape_unwritable_text() -> None:
    """Have names that the terminal cannot write come out escaped, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
