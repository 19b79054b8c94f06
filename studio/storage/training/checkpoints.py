"""Checkpoints of a training: folders of files that are complete, or not there.

Knows: writing aside, a manifest with the hash of every file last, the rename; which checkpoint is
the newest intact one, and what is wrong with the others.
Does not know: torch; what is in the files.

    step-00000100/weights.safetensors, optimizer.safetensors, state.json, manifest.json
    .step-00000100.….tmp, .old       left by a killed process; `delete_leftovers` removes it
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import BadFile
from studio.storage import atomic, odd_files

MANIFEST_FILE = "manifest.json"
MANIFEST_VERSION = 1
_FOLDER_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Checkpoint:
    """A training after `step` steps. `content_hash` is the sha256 of its weights."""

    step: int
    path: Path
    size_bytes: int
    content_hash: str


def save(folder: Path, step: int, files: Mapping[str, bytes]) -> Checkpoint:
    """Write a checkpoint, all of it or nothing.

    Args:
        folder: holds the checkpoints of one run.
        step: optimizer steps done so far; an older checkpoint of the same step is replaced.
        files: contents by file name.

    Raises:
        BadFile: the disk does not take it; nothing has changed then.
    """
    path = folder / f"step-{step:08d}"
    staging_folder = folder / f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp"
    entries = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }
    manifest = {"format": MANIFEST_VERSION, "step": step, "files": entries}
    try:
        for name, data in files.items():
            atomic.write(staging_folder / name, data)
        atomic.write(staging_folder / MANIFEST_FILE, json.dumps(manifest).encode())
        atomic.replace_folder(staging_folder, path)
    finally:
        shutil.rmtree(staging_folder, ignore_errors=True)
    return _checkpoint_from_manifest(path, manifest)


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """List the checkpoints that look intact by names and sizes (no hashes), the oldest first."""
    return _scan(folder)[0]


def find_newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Find the newest intact checkpoint, every byte checked.

    Returns:
        The checkpoint or None, and a sentence for each newer one that had to be passed over.
    """
    candidates, notes = _scan(folder)
    for checkpoint in reversed(candidates):
        try:
            read_files(checkpoint)
        except BadFile as error:
            notes.append(str(error))
            continue
        return checkpoint, [note for note in notes if _parse_step(note) > checkpoint.step]
    return None, notes


def read_files(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Read all files of a checkpoint, by name.

    Raises:
        BadFile: a file cannot be read or does not match the manifest.
    """
    files = {}
    for name, entry in _read_manifest(checkpoint.path)["files"].items():
        try:
            with odd_files.open_file(checkpoint.path / name) as file:
                data = file.read()
        except OSError as error:
            raise BadFile(
                f"{checkpoint.path.name} was skipped: its {name} cannot be read ({error.strerror})."
            ) from None
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise BadFile(
                f"{checkpoint.path.name} was skipped: its {name} has changed since it was saved."
            )
        files[name] = data
    return files


def prune(folder: Path, max_checkpoints: int) -> None:
    """Delete all but the newest `max_checkpoints` that look intact; 0 keeps all."""
    if not max_checkpoints:
        return
    for checkpoint in list_checkpoints(folder)[:-max_checkpoints]:
        # renamed first: half of it must not be taken for a checkpoint
        discarded_path = checkpoint.path.with_name(f".{checkpoint.path.name}.old")
        try:
            os.rename(checkpoint.path, discarded_path)
        except OSError:
            continue  # it stays, and is tried again after the next one
        shutil.rmtree(discarded_path, ignore_errors=True)


def delete_leftovers(folder: Path) -> None:
    """Delete what a killed process left behind; only the process that writes here may do that."""
    for path in _list_paths(folder):
        if path.name.startswith(".step-"):
            shutil.rmtree(path, ignore_errors=True)


def _scan(folder: Path) -> tuple[list[Checkpoint], list[str]]:
    """Return the checkpoints that look intact, and what is wrong with the others."""
    checkpoints = []
    notes = []
    for path in _list_paths(folder):
        if path.name.startswith("."):
            continue
        try:
            manifest = _read_manifest(path)
            _check_sizes(path, manifest)
        except BadFile as error:
            notes.append(str(error))
            continue
        checkpoints.append(_checkpoint_from_manifest(path, manifest))
    return checkpoints, notes


def _list_paths(folder: Path) -> list[Path]:
    return odd_files.list_folder(folder)


def _check_sizes(path: Path, manifest: Mapping[str, Any]) -> None:
    for name, entry in manifest["files"].items():
        file = path / name
        if not file.is_file() or file.stat().st_size != entry["bytes"]:
            raise BadFile(f"{path.name} was skipped: its {name} is missing or cut off.")


def _read_manifest(path: Path) -> dict[str, Any]:
    """Raise BadFile for a folder that is no checkpoint of ours."""
    try:
        manifest = odd_files.read_json(path / MANIFEST_FILE)
        is_valid = _is_valid_manifest(manifest, path.name)
    except Exception:  # any value may be of any type
        is_valid = False
    if not is_valid:
        raise BadFile(f"{path.name} was skipped: it is not a complete checkpoint.")
    return manifest


def _is_valid_manifest(manifest: Any, folder_name: str) -> bool:
    """Check the form of a manifest; also raises what a value of any other type raises."""
    entries = manifest["files"]
    if manifest["format"] != MANIFEST_VERSION or not _FOLDER_NAME.fullmatch(folder_name):
        return False
    if manifest["step"] != _parse_step(folder_name):
        return False
    return all(
        type(entry["bytes"]) is int and isinstance(entry["sha256"], str) and Path(name).name == name
        for name, entry in entries.items()
    )


def _checkpoint_from_manifest(path: Path, manifest: Mapping[str, Any]) -> Checkpoint:
    entries = manifest["files"]
    return Checkpoint(
        step=int(manifest["step"]),
        path=path,
        size_bytes=sum(entry["bytes"] for entry in entries.values()),
        content_hash=str(entries.get("weights.safetensors", {}).get("sha256", "")),
    )


def _parse_step(name: str) -> int:
    match = _FOLDER_NAME.match(name)
    return int(match[1]) if match else 0
