"""Pickles that are read in the test's own process, where it is not the child that is tested.

A child takes two seconds for importing torch alone. That there is one, and what it may take, is the subject of
engine/test_pickles.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from studio.engine.models.pickle_reader import answer_file
from studio.storage.models.pickles import Pickles


def read_pickles_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the reader of pickles called instead of started; everything else stays."""

    def answer_files(
        pickles: Pickles, paths: Sequence[Path], entries: dict[Path, dict[str, Any]], max_bytes: int
    ) -> list[str]:
        return [
            answer_file(path, pickles._get_target(entries[path]["sha256"]), max_bytes)["problem"]
            for path in paths
        ]

    monkeypatch.setattr(Pickles, "_run_child", answer_files)
