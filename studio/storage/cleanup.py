"""Delete what lies about in a home and is of no use to anybody.

Knows: everything that may refer to an image of inputs/: jobs, sweeps, generated images, presets.
Does not know: what these mean; when to clean up.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator

from studio.errors import StudioError
from studio.storage.home import Home

log = logging.getLogger(__name__)


def delete_unreferenced_inputs(home: Home) -> int:
    """Delete images of inputs/ that nothing refers to any more; return how many.

    Only for the process that holds the home; it may die at any time. Nothing is deleted where
    anything that may refer to an image cannot be read; the log says what.
    """
    try:
        return home.inputs.delete_unreferenced(_iter_referring_texts(home))
    except (OSError, sqlite3.Error, StudioError) as error:
        log.warning("Nothing in %s was thrown away: %s", home.settings.inputs, error)
        return 0


def _iter_referring_texts(home: Home) -> Iterator[str]:
    """Yield every text that may name an image."""
    yield from home.jobs.iter_specs()
    yield from home.sweeps.list_specs()
    for preset in home.settings.presets.rglob("*.toml"):
        yield preset.read_text("utf-8", "replace")
    home.gallery.sync()  # a killed worker may have written an image that is not in the index
    yield from home.gallery.iter_metadata()
