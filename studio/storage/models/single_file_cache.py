"""What single-file models are, remembered until a file changes, in memory and on disk.

Knows: the cache file, and that an autoencoder beside a checkpoint belongs to it. Does not know: how
a file is read (single_files.py); names, decisions of the owner.

Reading a header of 2,500 tensors takes 10 ms. The cache only saves work: what is lost, broken or of
another version is read anew.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from studio.errors import BadFile, StudioError
from studio.storage import odd_files
from studio.storage.models import single_files
from studio.storage.models.folder_scan import read_stamp
from studio.storage.models.header_index import WORTH_KEEPING_SECONDS, get_reader_version
from studio.storage.models.model_info import ModelInfo, PartFile
from studio.storage.models.shelf import ShelfFile

log = logging.getLogger(__name__)

MAX_CACHE_BYTES = 256 * 2**20


class SingleFileCache:
    """The single-file models of one home, as their files say."""

    def __init__(self, cache_file: Path) -> None:
        self._cache_file = cache_file
        self._entries: dict[str, dict[str, Any]] | None = None
        self._unsaved_seconds = 0.0

    def read(self, file: ShelfFile) -> ModelInfo:
        """Return what a checkpoint or denoiser of the shelf is, under its name there.

        Raises:
            BadFile: It is not whole; a sentence that begins with "its".
        """
        sidecar = single_files.find_sidecar(file.path)
        stamp = [*file.scanned.stamp, *(read_stamp(sidecar) if sidecar else ())]
        entries = self._load()
        entry = entries.get(str(file.path))
        if entry is None or entry["stamp"] != stamp:
            begin = time.monotonic()
            entry = {"stamp": stamp, **_read(file)}
            entries[str(file.path)] = entry
            self._unsaved_seconds += time.monotonic() - begin
        if "problem" in entry:
            raise BadFile(entry["problem"])
        return replace(_decode(file.path, entry["model"]), name=file.name)

    def save(self) -> None:
        """Write what was read to the cache file, if that took long enough to be worth it."""
        if self._unsaved_seconds < WORTH_KEEPING_SECONDS:
            return
        self._unsaved_seconds = 0.0
        entries = _read_cache(self._cache_file) | self._load()  # another process may have written
        data = json.dumps({"version": get_reader_version(), "files": entries})
        odd_files.write_cache(self._cache_file, data.encode())

    def _load(self) -> dict[str, dict[str, Any]]:
        if self._entries is None:
            self._entries = _read_cache(self._cache_file)
        return self._entries


def _read(file: ShelfFile) -> dict[str, Any]:
    """Return what is kept of a file, as it comes back from the disk."""
    try:
        facts = asdict(single_files.read_single_file(file))
    except StudioError as error:
        return {"problem": str(error)}
    kept: dict[str, Any] = json.loads(json.dumps({"model": facts}, default=str))
    return kept


def _decode(path: Path, facts: Mapping[str, Any]) -> ModelInfo:
    parts = {
        name: PartFile(**part | {"path": Path(part["path"])})
        for name, part in facts["parts"].items()
    }
    overrides = tuple((what, how) for what, how in facts["overrides"])
    return ModelInfo(
        **{
            **facts,
            "path": path,
            "parts": parts,
            "overrides": overrides,
            "notes": tuple(facts["notes"]),
        }
    )


def _read_cache(cache_file: Path) -> dict[str, dict[str, Any]]:
    """Return what a cache file holds; nothing of one that is broken or of another version."""
    try:
        stored = odd_files.read_json(cache_file, MAX_CACHE_BYTES)
        if stored.get("version") != get_reader_version():
            return {}
        for path, entry in stored["files"].items():
            if "problem" not in entry:
                _decode(Path(path), entry["model"])
        return dict(stored["files"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("%s is read again (%s)", cache_file.name, type(error).__name__)
        return {}
