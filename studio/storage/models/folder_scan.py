"""Which files of weights lie in a folder, each with a stamp that changes when it does.

Knows: one look at each folder gives names, sizes and dates at once; links in circles; which files
beside one say something of it. Does not know: what is in any file; what files are called.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from studio.storage.models.model_file import WEIGHTS_SUFFIXES

MAX_FILES = 20_000  # of one folder with all below it
MAX_DEPTH = 12
# A folder with one of these is a model in many files, and none of them is one by itself.
MODEL_INDEX = "model_index.json"
MODEL_FOLDER_MARKS = (MODEL_INDEX, "config.json")
# What is said of a file may stand in one of these beside it.
SIDECAR_SUFFIXES = (".civitai.info", ".json", ".yaml")
PEFT_CONFIG = "adapter_config.json"

Stamp = tuple[int, ...]  # date in ns and size in bytes of a file and of what lies beside it


@dataclass(frozen=True)
class ScannedFile:
    """A file of weights.

    A look at 5,000 of them makes no `Path` of any: that alone would take as long as all the rest.

    Attributes:
        text: Its path.
        relative: Its path below the folder that was scanned, with slashes.
        stamp: Changes when it or its sidecars do.
    """

    text: str
    relative: str
    stamp: Stamp

    @cached_property
    def path(self) -> Path:
        """Its path as one."""
        return Path(self.text)


@dataclass
class FolderScan:
    """What a folder holds: files of weights, and models in many files, each by its folder."""

    files: list[ScannedFile] = field(default_factory=list)
    model_folders: list[Path] = field(default_factory=list)


def has_weights_suffix(name: str) -> bool:
    """Return whether a file is named like one of weights."""
    return not name.startswith(".") and name.lower().endswith(WEIGHTS_SUFFIXES)


def scan_folder(folder: Path, *, is_repository: bool = False) -> FolderScan:
    """Look for files of weights in a folder and its subfolders, linked ones too, each only once.

    A folder that is not there, or may not be read, holds nothing.

    Args:
        folder: Where to look.
        is_repository: Whether the folder itself may be a part of a model in many files, such as a
            text encoder of the hub; else only a whole model counts.
    """
    scan = FolderScan()
    marks = MODEL_FOLDER_MARKS[: 1 + is_repository]
    _scan_into(scan, str(folder), visited=set(), depth=MAX_DEPTH, marks=marks)
    return scan


def read_stamp(path: Path) -> Stamp:
    """Return the stamp of one file. Raises OSError where it is not there."""
    stat = os.stat(path)
    stamp = [stat.st_mtime_ns, stat.st_size]
    for name in _list_sidecar_names(path.name):
        try:
            beside = os.stat(path.with_name(name))
            stamp += [beside.st_mtime_ns, beside.st_size]
        except (OSError, ValueError):
            stamp += [0, 0]
    return tuple(stamp)


def _scan_into(
    scan: FolderScan,
    folder: str,
    prefix: str = "",
    *,
    visited: set[str],
    depth: int,
    marks: tuple[str, ...],
) -> None:
    """Add what a folder holds; subfolders after its own files, all by name.

    Args:
        scan: What is added to.
        folder: The folder.
        prefix: Its path below the folder where the scan began, with a slash at its end.
        visited: The real paths of those that were scanned already.
        depth: How many levels it may have.
        marks: Names of files that make it a model in many files.
    """
    try:
        real_path = os.path.realpath(folder)
        with os.scandir(folder) as iterator:
            entries = {entry.name: entry for entry in iterator}
    except OSError:
        return
    if real_path in visited or not depth:
        return
    visited.add(real_path)
    if not entries.keys().isdisjoint(marks):
        if MODEL_INDEX in entries:
            scan.model_folders.append(Path(folder))
        return
    for name in sorted(entries):
        if len(scan.files) >= MAX_FILES:
            return
        if has_weights_suffix(name):
            _add_file(scan, prefix, entries[name], entries)
    for name in sorted(entries):
        if not name.startswith(".") and _is_folder(entries[name]):
            _scan_into(
                scan,
                entries[name].path,
                f"{prefix}{name}/",
                visited=visited,
                depth=depth - 1,
                marks=MODEL_FOLDER_MARKS,
            )


def _add_file(
    scan: FolderScan,
    prefix: str,
    entry: os.DirEntry[str],
    entries: Mapping[str, os.DirEntry[str]],
) -> None:
    name = entry.name
    try:
        if entry.is_dir():
            return
        stat = entry.stat()
    except OSError:  # a link that leads nowhere: listed, so that somebody says so
        scan.files.append(ScannedFile(entry.path, prefix + name, (0, -1)))
        return
    stamp = [stat.st_mtime_ns, stat.st_size]
    for sidecar in _list_sidecar_names(name):
        beside = entries.get(sidecar)
        try:
            stamp += [beside.stat().st_mtime_ns, beside.stat().st_size] if beside else [0, 0]
        except OSError:
            stamp += [0, 0]
    scan.files.append(ScannedFile(entry.path, prefix + name, tuple(stamp)))


def _list_sidecar_names(name: str) -> list[str]:
    stem = os.path.splitext(name)[0]
    names = [stem + suffix for suffix in SIDECAR_SUFFIXES]
    return [*names, PEFT_CONFIG] if stem == "adapter_model" else names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
