"""A folder whose files of weights are used, and how their names are made of where they lie.

Knows: names. Does not know: which folders there are (folder_layouts.py, referenced_folders.py);
what is in a file.

    home/embeddings/neg/hands.pt                  neg/hands
    a1111's models/Lora/style/ink.safetensors     a1111/style/ink
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from studio.storage.odd_files import make_printable


@dataclass(frozen=True)
class Root:
    """A folder whose files are used.

    Attributes:
        path: The folder; it need not be there.
        title: What the names of its files begin with; empty for the home's own.
        is_sorted: Whether its own folders only sort the files by kind, and names go without them.
        is_repository: Whether it is one model of the hub, which may be a part of others.
    """

    path: Path
    title: str = ""
    is_sorted: bool = False
    is_repository: bool = False

    def list_names(self, relative: str, *, is_folder: bool = False) -> list[str]:
        """Return what a file may be called, the shortest name first, for where that is taken.

        Args:
            relative: Path of a file of weights, or a model's folder, below this root; with slashes.
            is_folder: Whether it is a folder, whose name has no ending.
        """
        folder, slash, name = relative.rpartition("/")
        stem, dot, suffix = name.rpartition(".")
        if is_folder or not stem:
            stem, dot, suffix = name, "", ""
        whole = f"{folder}{slash}{stem}"
        head = f"{self.title}/" if self.title else ""
        names = [f"{head}{whole}".removesuffix("/")]
        if self.is_sorted and slash:
            names.insert(0, head + whole.partition("/")[2])
        if dot:
            names += [f"{name}.{suffix}" for name in names]
        return [name if name.isascii() else make_printable(name) for name in names]

    def describe_place(self, path: Path) -> str:
        """Return where a file lies, below the root: `models/Lora/ink.safetensors`."""
        relative = str(path)[len(str(self.path)) + 1 :].replace("\\", "/")
        return make_printable(relative or self.path.name)

    def holds(self, path: Path) -> bool:
        """Whether a path is this folder or lies below it."""
        return f"{path}{os.sep}".startswith(f"{self.path}{os.sep}")
