"""The cache of the Hugging Face hub: which of its models are whole, and what its files' names say.

Knows: `models--org--name/snapshots/<commit>`, links into `blobs/`, that a blob of weights is named
by its sha256. Does not know: what is in a model; downloads.

Source: huggingface_hub's guide "Understand caching"; since 2.x a link may lead through a second one
into a store that several caches share.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from studio.storage import odd_files

MAX_HOPS = 4
MAX_INDEX_BYTES = 16 * 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_hub_cache(folder: Path) -> bool:
    """Return whether a folder is a cache of the hub."""
    return any(_list_repositories(folder))


def list_snapshots(folder: Path) -> list[tuple[str, Path]]:
    """Return the models of a cache as (`org/name`, the folder of the version to use).

    The version is the one that `main` means, else the newest.
    """
    snapshots = []
    for repository in _list_repositories(folder):
        snapshot = _find_snapshot(repository)
        if snapshot:
            name = repository.name.removeprefix("models--").replace("--", "/")
            snapshots.append((name, snapshot))
    return snapshots


def find_missing_file(model_folder: Path) -> str:
    """Return a file of weights that a model's folder names and does not have; empty if it is whole.

    A download that was cut leaves out what it had not finished (`blobs/*.incomplete`).
    """
    for path in sorted(model_folder.glob("*/*")):
        if path.is_symlink() and not path.exists():
            return f"{path.parent.name}/{path.name}"
        if path.name.endswith(".safetensors.index.json"):
            for name in _list_pieces(path):
                if not (path.parent / name).is_file():
                    return f"{path.parent.name}/{name}"
    return ""


def read_blob_hash(path: Path) -> str:
    """Return the sha256 of a file's bytes where the hub's cache says it; empty where it does not.

    Believed is a link that leads into a folder `blobs` to a name of 64 hex digits: what the hub's
    own client gives only to a file whose bytes it has checked.
    """
    try:
        for _ in range(MAX_HOPS):
            if not path.is_symlink():
                return ""
            path = path.parent / os.readlink(path)
            path = path.parent.resolve() / path.name
            if path.parent.name == "blobs" and _SHA256.fullmatch(path.name):
                return path.name if path.is_file() else ""
    except OSError:
        pass
    return ""


def _list_repositories(folder: Path) -> Iterator[Path]:
    for path in odd_files.list_folder(folder):
        if path.name.startswith("models--") and (path / "snapshots").is_dir():
            yield path


def _find_snapshot(repository: Path) -> Path | None:
    snapshots = [path for path in odd_files.list_folder(repository / "snapshots") if path.is_dir()]
    try:
        commit = odd_files.read_file(repository / "refs" / "main", 200).decode("ascii").strip()
    except (OSError, ValueError):
        commit = ""
    for snapshot in snapshots:
        if snapshot.name == commit:
            return snapshot
    return max(snapshots, key=lambda path: path.stat().st_mtime_ns, default=None)


def _list_pieces(index_file: Path) -> list[str]:
    """Return the names of the files that an index of several pieces names."""
    try:
        weight_map = odd_files.read_json(index_file, MAX_INDEX_BYTES).get("weight_map")
    except (OSError, ValueError, json.JSONDecodeError):
        return []
    if not isinstance(weight_map, dict):
        return []
    names = {name for name in weight_map.values() if isinstance(name, str)}
    return sorted(name for name in names if "/" not in name and "\0" not in name)
