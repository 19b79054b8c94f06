"""The LoRAs of a home: those that came with the studio, its own, those of folders beside it.

Knows: which name each has, how one is found by it, what is added to home/loras. Does not know: what
a LoRA file is (lora_file.py); which folders are looked through (shelf.py).

    home/loras/moon.safetensors           moon
    home/loras/a/x, home/loras/b/x        a/x and b/x
    home/models/moon.safetensors          moon, or models/moon where that is taken
    a1111's models/Lora/ink.safetensors   a1111/ink; ink alone where nothing else is called so
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from studio.core.generation.request import LoraUse
from studio.errors import BadFile, LoraNotFound, StudioError, quote
from studio.settings import Settings, shipped
from studio.storage import atomic
from studio.storage.models import lora_file
from studio.storage.models.folder_scan import ScannedFile, has_weights_suffix
from studio.storage.models.header_index import HeaderIndex
from studio.storage.models.loose_files import LooseFiles, Unusable
from studio.storage.models.lora_file import LoraInfo
from studio.storage.models.names import explain_absence, select_names
from studio.storage.models.shelf import Shelf, ShelfFile, ShelfScan
from studio.storage.odd_files import explain_odd_file, make_printable

MAX_LORAS = 10_000


@dataclass(frozen=True)
class _LoraPlace:
    """Where a LoRA lies; with what the look at its folder said, where there was one."""

    path: Path
    scanned: ScannedFile | None = None


class LoraShelf:
    """The LoRAs of a home. Every call looks at the disk."""

    def __init__(
        self, settings: Settings, index: HeaderIndex, loose_files: LooseFiles, shelf: Shelf
    ) -> None:
        self._folder = settings.loras
        self._shipped_folder = shipped("assets") / "loras"
        self._index = index
        self._loose_files = loose_files
        self._shelf = shelf
        # By name: what a file holds, and the same under that name.
        self._named: dict[str, tuple[LoraInfo, LoraInfo]] = {}

    def list_loras(self, scan: ShelfScan | None = None) -> list[LoraInfo | Unusable]:
        """List all LoRAs by name, and what lies among the home's own and cannot be used.

        Args:
            scan: What the shelf saw just now, where somebody has asked it already.
        """
        loras: list[LoraInfo | Unusable] = []
        for name, place in self._find_all(scan or self._shelf.scan()).items():
            try:
                with explain_odd_file(place.path):
                    loras.append(self._read(name, place))
            except StudioError as error:
                unusable = self._loose_files.describe(place.path, str(error))
                loras.append(replace(unusable, name=make_printable(name)))
        self._index.save()
        return loras

    def get(self, name: str) -> LoraInfo:
        """Look up a LoRA.

        Args:
            name: Its name, its path in home/loras without the ending, or the end of one of them
                where only one LoRA has that (names.py).

        Raises:
            LoraNotFound: There is none of this name, or there are several; the message names them.
            BadFile: The file cannot be used.
        """
        own_files = self.list_own_files()
        places = self._name_own_files(own_files)
        place = places.get(name)
        if place is None:
            by_path = {self._relative_name(path): path for path in own_files}
            place = _LoraPlace(by_path[name]) if name in by_path else None
        if place is None:
            name, place = self._find_by_end(name, own_files, places)
        return self._read(name, place)

    def add(self, source: Path, name: str) -> LoraInfo:
        """Copy a LoRA file into home/loras.

        Args:
            source: Where it lies now.
            name: The file name that its owner gave it.

        Raises:
            BadFile: It is no LoRA that can be used, or there is one of this name already.
        """
        if Path(name).suffix.lower() != ".safetensors":
            raise BadFile(
                f"{quote(name)} is not a .safetensors file; other kinds can contain programs."
            )
        path = self._folder / f"{atomic.safe_name(Path(name).stem)}.safetensors"
        try:
            lora_file.read_lora_info(source, path.stem)
        except BadFile as error:
            raise BadFile(str(error).replace(source.name, path.name)) from None
        try:
            atomic.copy_file(source, path)
        except FileExistsError:
            raise BadFile(f"There is already a LoRA {path.stem}; rename the file first.") from None
        return self._read(path.stem, _LoraPlace(path))

    def list_own_files(self) -> list[Path]:
        """List the files of weights in home/loras at any depth, linked ones too, each only once."""
        files: list[Path] = []
        visited: set[str] = set()
        for folder, subfolders, names in os.walk(self._folder, followlinks=True):
            real_path = os.path.realpath(folder)
            if real_path in visited:
                subfolders.clear()
                continue
            visited.add(real_path)
            if len(files) > MAX_LORAS:
                subfolders.clear()
            subfolders.sort()
            files += [Path(folder, name) for name in names if has_weights_suffix(name)]
        return files

    def _find_all(self, scan: ShelfScan) -> dict[str, _LoraPlace]:
        """Return all LoRAs by name: shipped and own ones, then those in other folders."""
        places = self._name_own_files(self.list_own_files())
        known = {file.path: file.scanned for file in scan.files}
        places = {
            name: replace(place, scanned=known.get(place.path)) for name, place in places.items()
        }
        waiting = self._index.num_waiting > 0
        return {
            name: place
            for name, place in places.items()
            # What nobody has read yet comes later; the shelf has left it out.
            if not waiting or place.scanned or not place.path.is_relative_to(self._folder)
        } | self._name_others([file for file in scan.files if self._is_elsewhere(file)], places)

    def _name_own_files(self, paths: Sequence[Path]) -> dict[str, _LoraPlace]:
        """Return LoRA files by stem, or by folder/stem where several have the same one.

        LoRAs of the home hide a shipped one of their name.
        """
        files = sorted(paths)
        num_files_by_stem = Counter(path.stem for path in files)
        shipped_files = {
            path.stem: _LoraPlace(path)
            for path in sorted(self._shipped_folder.glob("*.safetensors"))
            if path.stem not in num_files_by_stem
        }
        return shipped_files | {
            path.stem
            if num_files_by_stem[path.stem] == 1
            else self._relative_name(path): _LoraPlace(path)
            for path in files
        }

    def _name_others(
        self, files: Sequence[ShelfFile], places: dict[str, _LoraPlace]
    ) -> dict[str, _LoraPlace]:
        """Return LoRAs in other folders by names that are not taken yet."""
        named: dict[str, _LoraPlace] = {}
        for file in files:
            name = file.name
            if name in places or name in named:
                name = f"{file.root.path.name}/{name}"
            if name not in places and name not in named:
                named[name] = _LoraPlace(file.path, file.scanned)
        return named

    def _find_by_end(
        self, name: str, own_files: Sequence[Path], places: dict[str, _LoraPlace]
    ) -> tuple[str, _LoraPlace]:
        """Return the only LoRA that a name may stand for, with its whole name.

        Raises LoraNotFound for none and for several.
        """
        files = [file for file in self._shelf.find_candidates(name) if self._is_elsewhere(file)]
        named = places | self._name_others(files, places)
        whole_names = {place.path: whole_name for whole_name, place in named.items()}
        # Its own go by their paths too, whether or not another one has the same stem.
        spelled = {self._relative_name(path): path for path in own_files}
        spelled |= {whole_name: place.path for whole_name, place in named.items()}
        matches = select_names(name, spelled)
        same = list(dict.fromkeys(whole_names[spelled[match]] for match in matches))
        if len(same) == 1:
            return same[0], named[same[0]]
        usable = [lora.name for lora in self.list_loras() if isinstance(lora, LoraInfo)]
        message = explain_absence("LoRA", name, "the library", usable, same)
        raise LoraNotFound(make_printable(message))

    def _is_elsewhere(self, file: ShelfFile) -> bool:
        """Whether a file is a LoRA outside of home/loras: of another folder, or a misplaced one."""
        return (
            file.model_file.kind == "lora"
            and not file.model_file.problem
            and file.root.path != self._folder
        )

    def _relative_name(self, path: Path) -> str:
        return path.relative_to(self._folder).with_suffix("").as_posix()

    def _read(self, name: str, place: _LoraPlace) -> LoraInfo:
        """Return a LoRA under a name. Raises BadFile if it cannot be used."""
        path = place.path
        facts = self._index.read_scanned(place.scanned) if place.scanned else None
        known = self._named.get(name)
        if facts and known and known[0] is facts.lora:
            return known[1]
        try:
            LoraUse(name=name)
        except ValueError:
            raise BadFile(
                "its name contains characters that a tag cannot (<, >, :, spaces at either end), "
                "or is too long; rename it."
            ) from None
        if path.suffix.lower() != ".safetensors":
            raise BadFile(self._loose_files.explain(path))
        lora = facts.lora if facts and facts.lora else self._index.read_lora(path)
        if isinstance(lora, str):
            raise BadFile(lora)
        named = lora if lora.name == name else replace(lora, name=name)
        self._named[name] = (lora, named)
        return named
