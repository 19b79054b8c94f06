"""Delete what lies about in a home and is of no use to anybody.

Knows: everything that may refer to an image of inputs/: jobs, sweeps, generated images, presets.
Does not know: what these mean; when to clean up.
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


def delete_unreferenced_inputs(settings: Settings, jobs: Jobs) -> int:
    """Delete images of inputs/ that nothing refers to any more; return how many.

    Only for the process that holds the home; it may die at any time. Nothing is deleted where
    anything that may refer to an image cannot be read; the log says what.
    """
    try:
        return Inputs(settings).delete_unreferenced(_iter_referring_texts(settings, jobs))
    except (OSError, sqlite3.Error, StudioError) as error:
        log.warning("Nothing in %s was thrown away: %s", settings.inputs, error)
        return 0


def _iter_referring_texts(settings: Settings, jobs: Jobs) -> Iterator[str]:
    """Yield every text that may name an image."""
    yield from jobs.iter_specs()
    sweeps = Sweeps(settings)
    yield from sweeps.list_specs()
    sweeps.close()
    for preset in settings.presets.rglob("*.toml"):
        yield preset.read_text("utf-8", "replace")
    gallery = Gallery(settings)
    gallery.sync()  # a killed worker may have written an image that is not in the index
    yield from gallery.iter_metadata()
    gallery.close()
