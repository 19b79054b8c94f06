"""Delete what lies about in a home and is of no use to anybody.

Knows: everything that may refer to an image of inputs/: jobs, sweeps, generated images, presets;
what may go by itself when the studio starts, and what only when its owner says so. Does not know:
what these mean; how leftovers of each kind are found (leftovers.py).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from studio.errors import StudioError
from studio.storage import leftovers
from studio.storage.home import Home
from studio.storage.leftovers import Leftover
from studio.storage.odd_files import read_file

log = logging.getLogger(__name__)


def tidy_home(home: Home) -> int:
    """Remove what needs no asking, when a studio has taken the home; return how many things.

    These are files that killed processes left half written, uploads of yesterday, thumbnails of
    deleted images, the beginning of endless logs, images that have been in the bin for as long as
    its owner keeps them, and inputs that nothing refers to. Only for the process that holds the
    home; it may die at any time.
    """
    for notice in home.notices:
        log.warning("%s", notice)
    settings = home.settings
    found = chain(
        leftovers.find_temporary_files(settings),
        leftovers.find_uploads(settings),
        leftovers.find_thumbnails(settings),
        leftovers.find_logs(settings),
    )
    removed = 0
    try:
        removed = sum(leftovers.remove(leftover) for leftover in found)
        removed += delete_expired_images(home)
        home.gallery.sync()
        home.link_images()
    except (OSError, StudioError) as error:
        log.warning("Not all of %s was tidied up: %s", settings.home, error)
    return removed + delete_unreferenced_inputs(home)


def find_leftovers(home: Home) -> list[Leftover]:
    """Find all that `remove_leftovers` would remove, by kind; nothing is changed."""
    settings = home.settings
    found = [
        *leftovers.find_temporary_files(settings),
        *(
            Leftover("unused inputs", path, leftovers.measure(path))
            for path in _find_unused_inputs(home)
        ),
        *leftovers.find_uploads(settings),
        *leftovers.find_thumbnails(settings),
        *leftovers.find_caches(settings),
        *leftovers.find_logs(settings),
        *leftovers.find_damaged_files(settings),
        *leftovers.find_unfinished_downloads(settings),
        *(
            Leftover("images in the bin", path, leftovers.measure(path))
            for path in _find_expired_images(home)
        ),
    ]
    history_bytes = home.datasets.measure_forgotten_history()
    if history_bytes:
        path = settings.home / "captions.sqlite"
        found.append(Leftover("history of edits", path, history_bytes))
    return found


def remove_leftovers(home: Home, found: list[Leftover]) -> list[Leftover]:
    """Remove what was found; return what could not be removed.

    Only for the process that holds the home.
    """
    remaining = []
    delete_expired_images(home)
    for leftover in found:
        if leftover.kind == "history of edits":
            home.datasets.forget_history()
        elif not leftovers.remove(leftover):
            remaining.append(leftover)
    return remaining


def delete_expired_images(home: Home) -> int:
    """Delete images that have been in the bin for as long as they are kept; return how many.

    Raises DiskError where the disk does not let one go.
    """
    deadline = home.gallery.bin_options.compute_deadline()
    return home.gallery.bin.empty(binned_before=deadline) if deadline is not None else 0


def _find_expired_images(home: Home) -> list[Path]:
    deadline = home.gallery.bin_options.compute_deadline()
    return home.gallery.bin.list_paths(binned_before=deadline) if deadline is not None else []


def delete_unreferenced_inputs(home: Home) -> int:
    """Delete images of inputs/ that nothing refers to any more; return how many.

    Only for the process that holds the home; it may die at any time. Nothing is deleted where
    anything that may refer to an image cannot be read; the log says what.
    """
    return home.inputs.delete(_find_unused_inputs(home))


def _find_unused_inputs(home: Home) -> list[Path]:
    """Find images of inputs/ that nothing refers to; none where that cannot be seen."""
    try:
        paths = home.inputs.find_unreferenced(_iter_referring_texts(home))
        if paths and home.notices:  # after reading: a table may have been found damaged just now
            log.warning("Nothing in %s is thrown away: a table was damaged.", home.settings.inputs)
            return []
        return paths
    except (OSError, sqlite3.Error, StudioError) as error:
        log.warning("Nothing in %s was thrown away: %s", home.settings.inputs, error)
        return []


def _iter_referring_texts(home: Home) -> Iterator[str]:
    """Yield every text that may name an image."""
    yield from home.jobs.iter_specs()
    yield from home.sweeps.list_specs()
    for preset in home.settings.presets.rglob("*.toml"):
        yield read_file(preset).decode("utf-8", "replace")
    home.gallery.sync()  # a killed worker may have written an image that is not in the index
    yield from home.gallery.iter_metadata()
