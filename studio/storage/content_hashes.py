"""Content hashes of files on disk, remembered until a file changes.

Knows: hashes.json in the home, sizes and dates of files. Does not know: what the files are.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.storage import odd_files
from studio.storage.models.hub_cache import read_blob_hash

_SHORT_HASH_OFFSET, _SHORT_HASH_BYTES = 2**20, 2**16


class ContentHashes:
    """The hash cache of one home."""

    def __init__(self, home: Path) -> None:
        self._cache_file = home / "hashes.json"
        self._write_lock = threading.Lock()

    def get_hash(self, path: Path, files: Sequence[Path], root: Path, compute: bool = True) -> str:
        """Return the sha256 over the names and bytes of `files`.

        A single file's is its plain sha256, as other programs and sites show it.

        Args:
            path: What the hash is remembered for.
            files: The files, in a fixed order.
            root: The folder that their names are relative to.
            compute: Whether an unknown hash is computed (gigabytes take a while); "" if not.
        """
        stamp = [_stamp_file(file, root) for file in files]
        entry = self._load_cache().get(str(path))
        if isinstance(entry, dict) and entry.get("stamp") == stamp:
            cached = entry.get("sha256")
            if isinstance(cached, str):
                return cached
        if not compute:
            return ""
        digest = _hash_files(files, root)
        with self._write_lock:
            cache = self._load_cache()
            cache[str(path)] = {"stamp": stamp, "sha256": digest}
            odd_files.write_cache(self._cache_file, json.dumps(cache).encode())
        return digest

    def _load_cache(self) -> dict[str, Any]:
        try:
            return odd_files.read_json(self._cache_file)
        except (OSError, ValueError):
            return {}  # a cache: what is lost or broken is computed again


def compute_short_hash(path: Path) -> str:
    """Return the eight digits by which A1111 once knew a model, from 64 KiB in the middle of it.

    LoRA files still name their base model by them.
    """
    with odd_files.open_file(path) as file:
        file.seek(_SHORT_HASH_OFFSET)
        return hashlib.sha256(file.read(_SHORT_HASH_BYTES)).hexdigest()[:8]


def _stamp_file(file: Path, root: Path) -> list[str | int]:
    status = file.stat()
    return [str(file.relative_to(root)), status.st_size, status.st_mtime_ns]


def _hash_files(files: Sequence[Path], root: Path) -> str:
    digests = [_hash_file(path) for path in files]
    if len(files) == 1:
        return digests[0].hex()
    total = hashlib.sha256()
    for path, digest in zip(files, digests):
        total.update(f"{path.relative_to(root).as_posix()}\0".encode() + digest)
    return total.hexdigest()


def _hash_file(path: Path) -> bytes:
    """Return the sha256 of a file; the hub's cache has it in the name of what a link leads to."""
    known = read_blob_hash(path)
    if known:
        return bytes.fromhex(known)
    with odd_files.open_file(path) as file:
        return hashlib.file_digest(file, "sha256").digest()
