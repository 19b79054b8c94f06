"""What each file of weights is, remembered until the file changes.

Knows: paths and stamps; that a pickle is what it was converted to. Does not know: what a header
says (model_file.py), which files there are, how pickles are read (pickles.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from studio.storage.models import model_file
from studio.storage.models.model_file import ModelFile
from studio.storage.models.pickles import Pickles
from studio.storage.odd_files import explain_odd_file


class HeaderIndex:
    """What the headers of one home's files said when they were last read."""

    def __init__(self, pickles: Pickles | None = None) -> None:
        self._pickles = pickles
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
            identified = known[1]
            if self._pickles and identified.is_pickle:
                return self._identify_pickle(self._pickles, identified)
            return identified

    def _identify_pickle(self, pickles: Pickles, identified: ModelFile) -> ModelFile:
        """Return what a pickle is by what it was converted to; else why it was not."""
        converted = pickles.get_converted(identified.path)
        if converted:
            return replace(self.identify(converted), path=identified.path, converted=converted)
        problem = pickles.get_problem(identified.path)
        return replace(identified, problem=problem) if problem else identified
