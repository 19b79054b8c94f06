"""What a dataset is and what is wrong with it, as plain data: for the command line and for programs.

Knows: which facts are told. Does not know: how a folder is read (album.py), what spoils a training (core/captions/lint.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from studio.core.captions.lint import Rules
from studio.errors import DatasetError
from studio.storage.datasets.dataset import Album
from studio.storage.datasets.training_set import nothing


def summary(
    album: Album, rules: Rules, report: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Pictures, captions, repeats, what is broken, what to mend, the most frequent tags. Every picture is decoded once: `report`.

    Raises DatasetError where there are no pictures.
    """
    if not album.pictures and not album.broken:
        raise DatasetError(nothing(album.folder, []))
    album.examine(report)
    counts = album.counts()
    return {
        "name": album.name,
        "folder": str(album.folder),
        "pictures": counts.pictures,
        "captioned": counts.captioned,
        "layout": counts.layout,
        "repeats": dict(counts.repeats),
        "broken": [{"file": file, "says": reason} for file, reason in album.broken],
        "lint": [finding.json() for finding in album.lint(rules)],
        "tags": dict(album.tags()[:100]),
        "notes": album.notes,
    }
