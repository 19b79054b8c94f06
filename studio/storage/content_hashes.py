"""Content hashes of what lies on disk, remembered until a file of it changes.

Knows: hashes.json in the home, sizes and dates of files. Does not know: what the files are.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.storage import atomic


class Hashes:
    """The memory of one home."""

    def __init__(self, home: Path) -> None:
        self._file, self._writing = home / "hashes.json", threading.Lock()

    def of(self, name: Path, parts: Sequence[Path], root: Path, compute: bool = True) -> str:
        """sha256 over names (below `root`) and bytes of `parts`, remembered as `name`'s. Of one file alone it is that file's own
        sha256, as other programs and sites show it. Without `compute` an unknown one is "" (gigabytes take a while)."""
        stamp = [[str(p.relative_to(root)), p.stat().st_size, p.stat().st_mtime_ns] for p in parts]
        known = self._known().get(str(name), {})
        if (
            isinstance(known, dict)
            and known.get("stamp") == stamp
            and isinstance(known.get("sha256"), str)
        ):
            return str(known["sha256"])
        if not compute:
            return ""
        digest = _hash(parts, root)
        with self._writing:
            every = self._known() | {str(name): {"stamp": stamp, "sha256": digest}}
            atomic.write(self._file, json.dumps(every).encode())
        return digest

    def _known(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._file.read_bytes()))
        except (OSError, ValueError, TypeError, RecursionError):
            return {}  # a cache: what is lost or broken is computed again


def _hash(parts: Sequence[Path], root: Path) -> str:
    digests = []
    for path in parts:
        with open(path, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256"))
    if len(parts) == 1:
        return digests[0].hexdigest()
    total = hashlib.sha256()
    for path, digest in zip(parts, digests):
        total.update(f"{path.relative_to(root).as_posix()}\0".encode() + digest.digest())
    return total.hexdigest()
