"""What lies about in a home and is of no use to anybody goes.

Knows: everything that may refer to a picture of inputs/: jobs, sweeps, pictures that were made, presets. Does not know: what these
mean; when to tidy.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator

from studio.errors import StudioError
from studio.settings import Settings
from studio.storage.gallery import Gallery
from studio.storage.inputs import Inputs
from studio.storage.jobs import Jobs
from studio.storage.sweeps import Sweeps

log = logging.getLogger(__name__)


def tidy(settings: Settings, jobs: Jobs) -> int:
    """Throw away pictures of inputs/ that nothing refers to any more; how many. For who holds the home; it may die at any time.

    Nothing goes if anything that may refer to one cannot be read; the log says what.
    """
    try:
        return Inputs(settings).tidy(_texts(settings, jobs))
    except (OSError, sqlite3.Error, StudioError) as error:
        log.warning("Nothing in %s was thrown away: %s", settings.inputs, error)
        return 0


def _texts(settings: Settings, jobs: Jobs) -> Iterator[str]:
    """All that may name a picture."""
    yield from jobs.specs()
    sweeps = Sweeps(settings)
    yield from sweeps.specs()
    sweeps.close()
    for preset in settings.presets.rglob("*.toml"):
        yield preset.read_text("utf-8", "replace")
    gallery = Gallery(settings)
    gallery.sync()  # a killed worker may have left a picture that is not listed
    yield from gallery.said()
    gallery.close()
