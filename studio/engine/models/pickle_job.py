"""The job that reads what is new of pickles in the folders of embeddings and upscalers.

Knows: how far it is. Does not know: how a pickle is read (storage/models/pickles.py has a child
process do it), who asked.
"""

from __future__ import annotations

from typing import Any

from studio.engine.context import WorkerContext
from studio.engine.progress import ProgressCallback
from studio.storage.jobs import Progress

FILES_AT_ONCE = 25  # by one child process; between two a stop is heard


def read_pickles(
    context: WorkerContext, _spec: dict[str, Any], report: ProgressCallback
) -> dict[str, Any]:
    """Read all pickles that were not read yet.

    Args:
        context: The worker's.
        _spec: Nothing.
        report: Hears how far it is; raises Cancelled to stop.

    Returns:
        "read", how many can be used now, and "notes", a sentence for each that cannot.

    Raises:
        DiskError: The home does not take what has to be written.
    """
    library = context.home.library
    paths = library.list_unread_pickles()
    num_read, notes = 0, []
    for first in range(0, len(paths), FILES_AT_ONCE):
        report(Progress(first, len(paths), "Reading older files"))
        results = library.pickles.convert(paths[first : first + FILES_AT_ONCE])
        sentences = [result for result in results.values() if isinstance(result, str)]
        num_read += len(results) - len(sentences)
        notes += sentences
    return {"read": num_read, "notes": notes}
