"""`studio` without a command: the page.

Knows: that one page at a time has a home, what runs beside it. Does not know: what is on the page.
"""

from __future__ import annotations

import argparse
import threading
import time

from studio.cli.parser import GUEST_FLAGS
from studio.cli.runner import load_settings
from studio.errors import Busy
from studio.settings import Settings

CLEAN_UP_SECONDS = 24 * 3600.0
PAGE_FLAGS = (
    "host",
    "port",
    "share",
    "auth",
    "guests",
    "allow_hosts",
    "root_path",
    "trusted_proxies",
    "allow_embedding",
    "new_visitors",
    "bin_days",
)


def run(arguments: argparse.Namespace) -> None:
    """Open the page: take the home, keep a worker alive, serve."""
    from studio.services.supervisor import Supervisor
    from studio.storage.home import Home
    from studio.storage.locks import Lock

    settings = load_settings(arguments, *PAGE_FLAGS, *GUEST_FLAGS)
    lock = Lock(settings.home, "studio")
    if not lock.acquire(timeout_seconds=1.0):
        raise Busy(
            f"Another studio is already open on {settings.home}; use that one, or start this one "
            "with another --home."
        )
    home = Home(settings)
    supervisor = Supervisor(settings, home.jobs, lambda: home.gallery.bin.describe_space())
    threading.Thread(target=supervisor.run, daemon=True).start()
    threading.Thread(target=_clean_up, args=(settings,), daemon=True).start()
    from studio.ui.app import serve

    serve(home, lambda: supervisor.problem, open_browser=arguments.open)


def _clean_up(settings: Settings) -> None:
    """Tidy the home beside the page once a day, with stores of its own that are closed again."""
    from studio.storage.cleanup import tidy_home
    from studio.storage.home import Home

    while True:
        home = Home(settings)
        tidy_home(home)
        home.uploads.delete_expired()
        home.close()
        time.sleep(CLEAN_UP_SECONDS)
