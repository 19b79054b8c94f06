"""A folder whose files of weights are used, and how their names are made of where they lie.

Knows: names. Does not know: which folders there are (folder_layouts.py, referenced_folders.py);
what is in a file.

    home/embeddings/neg/hands.pt                  neg/hands
    a1111's models/Lora/style/ink.safetensors     a1111/style/ink
"""

from __future__ import annotations

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

    def list_names(self, path: Path, *, is_folder: bool = False) -> list[str]:
        """Return what a file may be called, the shortest name first, for where that is taken.

        Args:
            path: A file of weights, or a folder of a model, in this root.
            is_folder: Whether it is a folder, whose name has no ending.
        """
        relative = path.relative_to(self.path)
        parts = relative.parts
        if not is_folder:
            parts = (*parts[:-1], relative.stem)
        short = parts[1:] if self.is_sorted and len(parts) > 1 else parts
        names = ["/".join(filter(None, (self.title, *kept))) for kept in (short, parts)]
        if not is_folder:
            names += [name + path.suffix for name in names]
        return [make_printable(name) for name in dict.fromkeys(names)]

    def describe_place(self, path: Path) -> str:
        """Return where a file lies, below the root: `models/Lora/ink.safetensors`."""
        relative = path.relative_to(self.path).as_posix()
        return make_printable(self.path.name if relative == "." else relative)
