"""What each file of weights is, remembered until the file changes.

Knows: paths and stamps. Does not know: what a header says (model_file.py), which files there are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from studio.storage.models import model_file
from studio.storage.models.model_file import ModelFile
from studio.storage.odd_files import explain_odd_file


class HeaderIndex:
    """What the headers of one home's files said when they were last read."""

    def __init__(self) -> None:
        self._entries: dict[Path, tuple[tuple[int, int], ModelFile]] = {}

    def identify(self, path: Path) -> ModelFile:
        """Return what a file is, without the texts in its header. Raises BadFile."""
        with explain_odd_file(path):
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            known = self._entries.get(path)
            if known is None or known[0] != stamp:
                identified = model_file.identify_file(path)
                known = (stamp, replace(identified, metadata={}))  # trainers write megabytes there
                self._entries[path] = known
            return known[1]
