"""The files of weights of a home and of folders beside it: where they lie, what they are called.

Knows: the folders that are looked through, names, that a file's kind is what its header says.
Does not know: what a header says (model_file.py); whose folder it is (folder_layouts.py); what is
done with a file.

    home/vae/anime.safetensors          anime
    home/embeddings/neg/hands.pt        neg/hands
    a1111's models/VAE/x.safetensors    a1111/x
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from studio.errors import BadFile, ModelNotFound, StudioError
from studio.storage.models.folder_scan import (
    MAX_FILES,
    ScannedFile,
    has_weights_suffix,
    scan_folder,
)
from studio.storage.models.header_index import HeaderIndex
from studio.storage.models.header_rules import KIND_TITLES, FileKind
from studio.storage.models.model_file import PICKLE_SUFFIXES, ModelFile
from studio.storage.models.names import explain_absence, may_be_called, select_names
from studio.storage.models.roots import Root
from studio.storage.odd_files import make_printable

__all__ = ["MAX_FILES", "Root", "Shelf", "ShelfFile", "has_weights_suffix", "walk_weights"]


# The files of all roots, and folders of models by name.
RootsScan = tuple[list[tuple[ScannedFile, Root]], dict[str, tuple[Path, Root]]]


@dataclass(frozen=True)
class ShelfFile:
    """A file of weights by the name that people call it.

    Attributes:
        name: Its path in its root without the ending, behind the root's title.
        path: Where it lies.
        model_file: What its header says.
        root: Where it was found.
        scanned: Its path and stamp.
    """

    name: str
    path: Path
    model_file: ModelFile
    root: Root
    scanned: ScannedFile


@dataclass
class ShelfScan:
    """All that lies in the roots at one look.

    Attributes:
        files: The files that can be read, by kind and name.
        unreadable: The others, each with its root and what is said of it.
        model_folders: Folders of models in diffusers layout in folders beside the home, by name.
    """

    files: list[ShelfFile] = field(default_factory=list)
    unreadable: list[tuple[ScannedFile, Root, str]] = field(default_factory=list)
    model_folders: dict[str, tuple[Path, Root]] = field(default_factory=dict)


class Shelf:
    """The files of weights of a home. Every call looks at the disk."""

    def __init__(
        self,
        roots: Sequence[Root],
        index: HeaderIndex,
        list_more_roots: Callable[[], Sequence[Root]] = tuple,
    ) -> None:
        """Make a shelf.

        Args:
            roots: The home's own folders.
            index: What headers said.
            list_more_roots: Asked at every look: folders elsewhere, which come and go.
        """
        self._roots = tuple(roots)
        self._index = index
        self._list_more_roots = list_more_roots
        self._held = threading.local()  # what a thread saw that looks once for several questions

    @property
    def index(self) -> HeaderIndex:
        """What the headers of the files said."""
        return self._index

    @contextmanager
    def look_once(self) -> Iterator[None]:
        """Answer all that this thread asks in the block by one look at the folders."""
        if getattr(self._held, "scan", None) is not None:
            yield
            return
        self._held.scan = self._scan_roots()
        try:
            yield
        finally:
            self._held.scan = None

    def scan(self) -> ShelfScan:
        """Look at all roots; files that nobody has read yet may be left out (header_index.py)."""
        found, model_folders = self._scan_roots()
        known = {file.text for file in self._index.select_read([file for file, _ in found])}
        scan = self._identify([(file, root) for file, root in found if file.text in known])
        scan.model_folders = model_folders
        return scan

    def list_files(self, kind: FileKind) -> list[ShelfFile]:
        """List the files of a kind by name, those that cannot be used too."""
        files = [file for file in self.scan().files if file.model_file.kind == kind]
        return sorted(files, key=lambda file: file.name.casefold())

    def find_candidates(self, name: str) -> list[ShelfFile]:
        """Return all files that may be called so, by their own names; what cannot be read is not.

        They are read if nobody has done that yet, and no others.
        """
        return self.scan_candidates(name).files

    def scan_candidates(self, name: str) -> ShelfScan:
        """Return what `find_candidates` does, with the files that cannot be read."""
        return self._identify(
            (file, root)
            for file, root in self._scan_roots()[0]
            if may_be_called(name, make_printable(file.relative.rpartition("/")[2]))
        )

    def list_pickles(self) -> list[tuple[str, Path]]:
        """List the files that are named like pickles, each with the name it would go by."""
        return [
            (make_printable(root.list_names(file.relative)[0]), file.path)
            for file, root in self._scan_roots()[0]
            if file.text.lower().endswith(PICKLE_SUFFIXES)
        ]

    def get_file(self, kind: FileKind, name: str) -> ShelfFile:
        """Look up a file that can be used.

        Args:
            kind: What it has to be.
            name: Its name; the end of it is enough where only one file has that (names.py).

        Raises:
            ModelNotFound: There is none of this name, or there are several; the message names them.
            BadFile: It cannot be used; the message says why.
        """
        candidates = {
            file.name: file for file in self.find_candidates(name) if file.model_file.kind == kind
        }
        same = select_names(name, candidates)
        if len(same) != 1:
            names = [file.name for file in self.list_files(kind) if not file.model_file.problem]
            raise ModelNotFound(
                explain_absence(KIND_TITLES[kind], name, "the library", names, same)
            )
        file = candidates[same[0]]
        if file.model_file.problem:
            raise BadFile(file.model_file.sentence)
        return file

    def _scan_roots(self) -> RootsScan:
        """Return the files of all roots, and folders of models; what two roots hold counts once."""
        held: RootsScan | None = getattr(self._held, "scan", None)
        if held:
            return held
        files: dict[str, tuple[ScannedFile, Root]] = {}
        model_folders: dict[str, tuple[Path, Root]] = {}
        seen_folders: set[Path] = set()
        for root in (*self._roots, *self._list_more_roots()):
            scan = scan_folder(root.path, is_repository=root.is_repository)
            for file in scan.files:
                files.setdefault(file.text, (file, root))
            for folder in scan.model_folders:
                if root.title and folder not in seen_folders:
                    seen_folders.add(folder)
                    relative = folder.relative_to(root.path).as_posix()
                    names = root.list_names("" if relative == "." else relative, is_folder=True)
                    model_folders[_choose_name(names, model_folders)] = (folder, root)
        return list(files.values()), model_folders

    def _identify(self, found: Iterable[tuple[ScannedFile, Root]]) -> ShelfScan:
        """Name files by kind; two of one kind never have the same name."""
        scan = ShelfScan()
        names: dict[str, set[str]] = {}
        for file, root in found:
            try:
                identified = self._index.read_scanned(file).model_file
            except StudioError as error:
                scan.unreadable.append((file, root, str(error)))
                continue
            taken = names.setdefault(identified.kind, set())
            name = _choose_name(root.list_names(file.relative), taken)
            taken.add(name)
            scan.files.append(ShelfFile(name, identified.path, identified, root, file))
        return scan


def walk_weights(folder: Path) -> list[Path]:
    """List the files of weights in a folder and its subfolders, linked ones too, each only once."""
    return [file.path for file in scan_folder(folder).files]


def _choose_name(names: Sequence[str], taken: Container[str]) -> str:
    """Return the first name that is free; the last one gets a number where none is."""
    for name in names:
        if name not in taken:
            return name
    number = 2
    while f"{names[-1]} ({number})" in taken:
        number += 1
    return f"{names[-1]} ({number})"
