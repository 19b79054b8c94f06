"""Checkpoints: folders of files that are whole, or not there.

Knows: writing aside, a manifest with the hash of every file last, the rename; which is the newest whole one, and what is wrong
with the others. Does not know: torch; what is in the files.

    step-00000100/weights.safetensors, optimizer.safetensors, state.json, manifest.json
    .step-00000100.….tmp, .old       what a killed process left behind; `tidy` takes it away
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
from studio.storage import atomic

MANIFEST = "manifest.json"
FORMAT = 1
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Checkpoint:
    """A training after so many steps. `content` is the sha256 of its weights."""

    step: int
    path: Path
    bytes: int
    content: str


def save(folder: Path, step: int, parts: Mapping[str, bytes]) -> Checkpoint:
    """Write a checkpoint. Raises BadFile when the disk does not take it; then nothing has changed."""
    path = folder / f"step-{step:08d}"
    aside = folder / f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp"
    entries = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in parts.items()
    }
    manifest = {"format": FORMAT, "step": step, "files": entries}
    try:
        for name, data in parts.items():
            atomic.write(aside / name, data)
        atomic.write(aside / MANIFEST, json.dumps(manifest).encode())
        atomic.publish(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return _checkpoint(path, manifest)


def listing(folder: Path) -> list[Checkpoint]:
    """Those that look whole (names and sizes; the hashes are not computed), the oldest first."""
    return _looked(folder)[0]


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole one, every byte checked, and a sentence for each newer one that had to be left aside."""
    found, notes = _looked(folder)
    for one in reversed(found):
        try:
            read(one)
        except BadFile as error:
            notes.append(str(error))
            continue
        return one, [note for note in notes if _step_of(note) > one.step]
    return None, notes


def read(one: Checkpoint) -> dict[str, bytes]:
    """All its files, compared with the manifest. Raises BadFile."""
    found = {}
    for name, entry in _manifest(one.path)["files"].items():
        try:
            data = (one.path / name).read_bytes()
        except OSError as error:
            raise BadFile(
                f"{one.path.name} is left aside: its {name} cannot be read ({error.strerror})."
            ) from None
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise BadFile(f"{one.path.name} is left aside: its {name} is not as it was written.")
        found[name] = data
    return found


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` that look whole; 0 keeps all."""
    for one in listing(folder)[:-keep] if keep else ():
        gone = one.path.with_name(
            f".{one.path.name}.old"
        )  # first its name: half of it is not to be taken for a checkpoint
        try:
            os.rename(one.path, gone)
        except OSError:
            continue  # it stays, and is tried again after the next one
        shutil.rmtree(gone, ignore_errors=True)


def tidy(folder: Path) -> None:
    """Take away what a killed process left behind. Only for who writes here."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith(".step-"):
            shutil.rmtree(path, ignore_errors=True)


def _looked(folder: Path) -> tuple[list[Checkpoint], list[str]]:
    found, notes = [], []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        try:
            told = _manifest(path)
            for name, entry in told["files"].items():
                if not (path / name).is_file() or (path / name).stat().st_size != entry["bytes"]:
                    raise BadFile(f"{path.name} is left aside: its {name} is missing or cut off.")
            found.append(_checkpoint(path, told))
        except BadFile as error:
            notes.append(str(error))
    return found, notes


def _manifest(path: Path) -> dict[str, Any]:
    """Raises BadFile for a folder that is no checkpoint of ours."""
    try:
        told = json.loads((path / MANIFEST).read_bytes())
        names = list(told["files"])
        whole = (
            told["format"] == FORMAT
            and _NAME.fullmatch(path.name) is not None
            and told["step"] == _step_of(path.name)
        )
        whole = whole and all(
            isinstance(told["files"][name]["bytes"], int) and Path(name).name == name
            for name in names
        )
        whole = whole and all(isinstance(told["files"][name]["sha256"], str) for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise BadFile(f"{path.name} is left aside: it is no whole checkpoint.")
    return dict(told)


def _checkpoint(path: Path, told: Mapping[str, Any]) -> Checkpoint:
    entries = told["files"]
    return Checkpoint(
        int(told["step"]),
        path,
        sum(entry["bytes"] for entry in entries.values()),
        str(entries.get("weights.safetensors", {}).get("sha256", "")),
    )


def _step_of(name: str) -> int:
    match = _NAME.match(name)
    return int(match[1]) if match else 0
