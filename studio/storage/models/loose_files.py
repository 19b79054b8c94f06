"""Files of weights that are no model or LoRA where they lie: what they are, and where they belong.

Knows: the folders of a home that such files lie in; which may be moved from one to another.
Does not know: what a header says (model_file.py); how a file is moved (file_moves.py); which models
and LoRAs can be used (library.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from studio.errors import BadFile, StudioError, quote
from studio.settings import Settings
from studio.storage.models import file_moves, model_file
from studio.storage.models.folder_scan import has_weights_suffix
from studio.storage.models.header_index import HeaderIndex
from studio.storage.odd_files import list_folder, make_printable

_OWN_LISTS = ("models", "loras")  # what lies there is listed by library.py


@dataclass(frozen=True)
class Unusable:
    """Something that looks like a model or a LoRA but cannot be used, and why.

    Attributes:
        name: What people call it.
        path: The file or folder.
        problem: Why it cannot be used where it lies.
        file: Its path in the home, if it can be moved to another folder of it.
        move_to: That folder; empty if it cannot.
    """

    name: str
    path: Path
    problem: str
    file: str = ""
    move_to: str = ""


class LooseFiles:
    """The files of weights in a home that are in no model's folder."""

    def __init__(self, settings: Settings, index: HeaderIndex) -> None:
        self._home = settings.home
        self._folders = {
            "models": settings.models,
            "loras": settings.loras,
            "vae": settings.vaes,
            "text_encoders": settings.text_encoders,
            "embeddings": settings.embeddings,
            "upscalers": settings.upscalers,
        }
        self._index = index

    def list_in_home(self) -> list[Path]:
        """List the files that lie in the home folder itself, where none belongs."""
        return _list_weights(self._home)

    def list_misplaced(self) -> list[Path]:
        """List the files in the folders of single kinds that are of another kind."""
        return [path for path in self._list_single_kinds() if self._is_misplaced(path)]

    def _list_single_kinds(self) -> list[Path]:
        folders = [folder for name, folder in self._folders.items() if name not in _OWN_LISTS]
        return [path for folder in folders for path in _list_weights(folder)]

    def _is_misplaced(self, path: Path) -> bool:
        try:
            identified = self._index.identify(path)
        except StudioError:
            return True
        return identified.folder != self._find_folder(path) or bool(identified.problem)

    def describe(self, path: Path, problem: str = "") -> Unusable:
        """Return what a file is, and where it belongs.

        Args:
            path: A file of weights.
            problem: Why it cannot be used, if that is known already. Where it lies in the wrong
                folder, that is said instead.
        """
        name = make_printable(path.name)
        try:
            identified = self._index.identify(path)
        except StudioError as error:
            return Unusable(name, path, problem or str(error))
        folder = self._find_folder(path)
        if not identified.folder or folder is None or folder == identified.folder:
            return Unusable(name, path, problem or model_file.explain_no_model(identified))
        unusable = Unusable(name, path, identified.write_sentence("It"))
        is_reached = folder == "loras" or path.parent == self._folders.get(folder, self._home)
        if not is_reached or file_moves.find_obstacle(path, self._home / folder):
            return unusable
        file = path.relative_to(self._home).as_posix()
        return replace(unusable, file=file, move_to=identified.folder)

    def explain(self, path: Path) -> str:
        """Return in one sentence with its name what a file is. Raises BadFile."""
        return self._index.identify(path).sentence

    def move(self, file: str, lora_files: Sequence[Path]) -> Path:
        """Move a file to the folder where its kind belongs.

        Args:
            file: Its path in the home. It is looked up among those that are there, and never used
                as a path.
            lora_files: All that lie in the folder of LoRAs, at any depth.

        Returns:
            Where it lies now.

        Raises:
            BadFile: It is not there, has no other place to go to, or that place is taken.
        """
        candidates = [
            *self.list_in_home(),
            *_list_weights(self._folders["models"]),
            *self._list_single_kinds(),
            *lora_files,
        ]
        paths = {path.relative_to(self._home).as_posix(): path for path in candidates}
        path = paths.get(file)
        if path is None:
            raise BadFile(f"The file {quote(file)} is no longer in the home; refresh.")
        identified = self._index.identify(path)
        name = make_printable(path.name)
        if identified.kind == "unknown":
            raise BadFile(f"{identified.sentence[:-1]}, so there is no folder to move it to.")
        if not identified.folder:
            raise BadFile(
                f"{name} is {identified.description}; the studio has no folder for that kind yet, "
                "so it stays where it is."
            )
        folder = self._find_folder(path)
        if folder == identified.folder:
            raise BadFile(f"{name} is already in {folder}/, where it belongs.")
        target_folder = self._folders[identified.folder]
        if identified.folder == "loras":
            _check_stem(path.stem, target_folder, lora_files)
        return file_moves.move_to_folder(path, self._home / str(folder), target_folder)

    def _find_folder(self, path: Path) -> str | None:
        """Return which folder of the home a file lies in; empty for the home itself."""
        for name, folder in self._folders.items():
            if path.is_relative_to(folder):
                return name
        return "" if path.parent == self._home else None


def _list_weights(folder: Path) -> list[Path]:
    return [
        path
        for path in list_folder(folder)
        if has_weights_suffix(path.name) and not os.path.isdir(path)
    ]


def _check_stem(stem: str, lora_folder: Path, lora_files: Sequence[Path]) -> None:
    """Raise BadFile if a LoRA goes by that name: recipes would no longer say which is meant."""
    for path in lora_files:
        if path.stem.casefold() == stem.casefold():
            name = make_printable(path.relative_to(lora_folder).as_posix())
            raise BadFile(
                f"There is already a file {name} in {lora_folder.name}/; rename one of the two "
                "first."
            )
