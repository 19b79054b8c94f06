"""The files of weights that are one part of something: where they lie, and what they are called.

Knows: the folders that are looked through, names, that a file's kind is what its header says.
Does not know: what a header says (model_file.py); what is done with a file; LoRAs and models
(library.py).

    home/vae/anime.safetensors          anime
    home/embeddings/neg/hands.pt        neg/hands
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.errors import BadFile, ModelNotFound, StudioError, list_alternatives, quote
from studio.storage.models.header_index import HeaderIndex
from studio.storage.models.header_rules import KIND_TITLES, FileKind
from studio.storage.models.model_file import PICKLE_SUFFIXES, WEIGHTS_SUFFIXES, ModelFile
from studio.storage.odd_files import make_printable

MAX_FILES = 20_000  # of one root
# A folder with one of these is a model in many files, and none of them is one by itself.
MODEL_FOLDER_MARKS = ("model_index.json", "config.json")


@dataclass(frozen=True)
class Root:
    """A folder whose files are used.

    Attributes:
        path: The folder; it need not be there.
        title: What the names of its files begin with; empty for the home's own.
    """

    path: Path
    title: str = ""


@dataclass(frozen=True)
class ShelfFile:
    """A file of weights by the name that people call it.

    Attributes:
        name: Its path in its root without the ending, behind the root's title.
        path: Where it lies.
        model_file: What its header says.
        root: Where it was found.
    """

    name: str
    path: Path
    model_file: ModelFile
    root: Root


class Shelf:
    """The files of weights of a home. Every call looks at the disk."""

    def __init__(self, roots: Sequence[Root], index: HeaderIndex) -> None:
        self._roots = tuple(roots)
        self._index = index

    def list_files(self, kind: FileKind) -> list[ShelfFile]:
        """List the files of a kind by name, those that cannot be used too."""
        files: dict[str, ShelfFile] = {}
        for root in self._roots:
            for path in walk_weights(root.path):
                try:
                    identified = self._index.identify(path)
                except StudioError:
                    continue  # the list of what could not be read says why
                if identified.kind != kind:
                    continue
                name = _build_name(root, path)
                if name in files:  # another ending
                    name += path.suffix
                files[name] = ShelfFile(name, path, identified, root)
        return sorted(files.values(), key=lambda file: file.name.casefold())

    def list_pickles(self) -> list[tuple[str, Path]]:
        """List the files that are named like pickles, each with the name it would go by."""
        return [
            (_build_name(root, path), path)
            for root in self._roots
            for path in walk_weights(root.path)
            if path.suffix.lower() in PICKLE_SUFFIXES
        ]

    def get_file(self, kind: FileKind, name: str) -> ShelfFile:
        """Look up a file that can be used.

        Args:
            kind: What it has to be.
            name: Its name; the last part of it is enough where only one file has that.

        Raises:
            ModelNotFound: There is none of this name; the message names close matches.
            BadFile: It cannot be used; the message says why.
        """
        files = {file.name: file for file in self.list_files(kind)}
        file = files.get(name)
        if file is None:
            same_stem = [entry for entry in files.values() if entry.name.split("/")[-1] == name]
            if len(same_stem) != 1:
                matches = [entry.name for entry in same_stem]
                matches = matches or difflib.get_close_matches(name, files, 3, 0.4)
                raise ModelNotFound(
                    f"There is no {KIND_TITLES[kind]} {quote(name)} in the library; there is "
                    f"{list_alternatives(matches, list(files))}."
                )
            file = same_stem[0]
        if file.model_file.problem:
            raise BadFile(file.model_file.sentence)
        return file


def has_weights_suffix(name: str) -> bool:
    """Return whether a file is named like one of weights."""
    return not name.startswith(".") and name.lower().endswith(WEIGHTS_SUFFIXES)


def walk_weights(folder: Path) -> list[Path]:
    """List the files of weights in a folder and its subfolders, linked ones too, each only once."""
    files: list[Path] = []
    visited: set[str] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        real_path = os.path.realpath(parent)
        is_model = parent != str(folder) and not set(MODEL_FOLDER_MARKS).isdisjoint(names)
        if real_path in visited or is_model or len(files) >= MAX_FILES:
            subfolders.clear()
            continue
        visited.add(real_path)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files += [Path(parent, name) for name in sorted(names) if has_weights_suffix(name)]
    return files[:MAX_FILES]


def _build_name(root: Root, path: Path) -> str:
    name = path.relative_to(root.path).with_suffix("").as_posix()
    return make_printable(f"{root.title}/{name}" if root.title else name)
