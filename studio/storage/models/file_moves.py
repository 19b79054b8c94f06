"""Move a file of weights, and what lies beside it and belongs to it, to another folder of the home.

Knows: which files go with one, and what stands in the way.
Does not know: what a file is and where it belongs (model_file.py, library.py).
"""

from __future__ import annotations

import os
from pathlib import Path

from studio.errors import BadFile
from studio.storage import atomic
from studio.storage.models.model_file import WEIGHTS_SUFFIXES

# peft gives all its files the same names, and keeps the alpha in the second.
_PEFT_STEM, _PEFT_CONFIG = "adapter_model", "adapter_config.json"


def find_obstacle(path: Path, folder: Path) -> str:
    """Return why a file cannot be moved from a folder, as the end of a sentence; empty if it can.

    Args:
        path: The file.
        folder: The folder of the home that it lies in, at any depth.
    """
    if not str(path.relative_to(folder)).isprintable():
        return "has characters in its name that cannot be shown; rename it first"
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
        if path.is_symlink() or not is_inside:
            return (
                "is a link to a file elsewhere, which the studio does not touch; move it yourself"
            )
    except (OSError, RuntimeError):  # links in a circle
        return "cannot be reached"
    return ""


def move_to_folder(path: Path, folder: Path, target_folder: Path) -> Path:
    """Move a file and what belongs to it (its config, preview, notes), never over other files.

    What belongs to it goes first: whoever finds the file at its new place finds all of it.

    Args:
        path: The file.
        folder: The folder of the home that it lies in, at any depth.
        target_folder: The folder to move it to, on the same disk.

    Returns:
        Where it lies now.

    Raises:
        BadFile: Something stands in the way; then nothing has moved.
    """
    obstacle = find_obstacle(path, folder)
    if obstacle:
        name = "".join(char if char.isprintable() else "?" for char in path.name)
        raise BadFile(f"{name} {obstacle}.")
    sources = [*_list_companions(path), path]
    for source in sources:
        if os.path.lexists(target_folder / source.name):
            raise _name_taken(source.name, target_folder)
    moved: list[Path] = []
    try:
        for source in sources:
            atomic.move_file(source, target_folder / source.name)
            moved.append(source)
    except OSError as error:
        for source in reversed(moved):
            os.replace(target_folder / source.name, source)
        if isinstance(error, FileExistsError):
            raise _name_taken(source.name, target_folder) from None
        raise BadFile(
            f"{path.name} could not be moved to {target_folder.name}/ ({error.strerror}); move it "
            "yourself."
        ) from None
    return target_folder / path.name


def _name_taken(name: str, folder: Path) -> BadFile:
    return BadFile(
        f"There is already a file {name} in {folder.name}/; rename one of the two first."
    )


def _list_companions(path: Path) -> list[Path]:
    """List the files that go where a file of weights goes: `moon.yaml` with `moon.safetensors`."""
    try:
        beside = sorted(path.parent.iterdir())
    except OSError:
        return []
    names = {_PEFT_CONFIG} if path.stem == _PEFT_STEM else set()
    return [
        file
        for file in beside
        if (file.name.startswith(f"{path.stem}.") or file.name in names)
        and file != path
        and not file.name.lower().endswith(WEIGHTS_SUFFIXES)
        and file.is_file()
        and not file.is_symlink()
    ]
