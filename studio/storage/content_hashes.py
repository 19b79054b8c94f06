"""Content hashes of files on disk, remembered until a file changes.

Knows: hashes.json in the home, sizes and dates of files. Does not know: what the files are.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.storage import atomic, odd_files
from studio.storage.models.hub_cache import read_blob_hash

_STATED_HASH_KEY = "sshs_model_hash"  # kohya's trainer writes it into the header
_SHORT_HASH_OFFSET, _SHORT_HASH_BYTES = 2**20, 2**16


class ContentHashes:
    """The hash cache of one home."""

    def __init__(self, home: Path) -> None:
        self._cache_file = home / "hashes.json"
        self._write_lock = threading.Lock()
        self._loaded: tuple[tuple[int, int], dict[str, Any]] = ((0, 0), {})

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
        self._remember(str(path), {"stamp": stamp, "sha256": digest})
        return digest

    def get_tensors_hash(self, path: Path, compute: bool = True) -> str:
        """Return the hash by which A1111 and Civitai (AutoV3) know a safetensors file of a LoRA.

        It is the sha256 of what follows the header; A1111 believes the header where that says it.

        Args:
            path: The file.
            compute: Whether an unknown hash is computed; "" if not.

        Raises OSError and BadFile.
        """
        stamp = [_stamp_file(path, path.parent)]
        key = f"tensors {path}"
        entry = self._load_cache().get(key)
        if isinstance(entry, dict) and entry.get("stamp") == stamp:
            cached = entry.get("sha256")
            if isinstance(cached, str):
                return cached
        digest = _read_stated_hash(path)
        if not digest and not compute:
            return ""
        digest = digest or _hash_tensors(path)
        self._remember(key, {"stamp": stamp, "sha256": digest})
        return digest

    def _remember(self, key: str, entry: dict[str, Any]) -> None:
        with self._write_lock:
            cache = self._load_cache()
            cache[key] = entry
            odd_files.write_cache(self._cache_file, json.dumps(cache).encode())

    def _load_cache(self) -> dict[str, Any]:
        """Return the cache; read anew only where its file changed: lists ask it for each file."""
        try:
            status = self._cache_file.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if self._loaded[0] != stamp:
                self._loaded = (stamp, odd_files.read_json(self._cache_file))
            return dict(self._loaded[1])
        except (OSError, ValueError):
            return {}  # a cache: what is lost or broken is computed again


def compute_short_hash(path: Path) -> str:
    """Return the eight digits by which A1111 once knew a model, from 64 KiB in the middle of it.

    LoRA files still name their base model by them.
    """
    with odd_files.open_file(path) as file:
        file.seek(_SHORT_HASH_OFFSET)
        return hashlib.sha256(file.read(_SHORT_HASH_BYTES)).hexdigest()[:8]


def _read_stated_hash(path: Path) -> str:
    """Return what a header says is the hash of the tensors; empty where it says nothing."""
    metadata = atomic.read_safetensors_header(path).get("__metadata__")
    stated = metadata.get(_STATED_HASH_KEY) if isinstance(metadata, dict) else None
    return stated if isinstance(stated, str) and re.fullmatch("[0-9a-f]{64}", stated) else ""


def _hash_tensors(path: Path) -> str:
    """Return the sha256 of the bytes after the header."""
    with odd_files.open_file(path) as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return hashlib.file_digest(file, "sha256").hexdigest()


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
