"""Presets: settings under a name, as TOML files that a person can read and write.

Knows: the shipped folder and the home's, which hides a shipped preset of the same name.
Does not know: which spec is stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, TypeVar

import tomli_w

from studio.core.base import Spec, validate_stored
from studio.core.toml_text import load_toml
from studio.errors import BadFile, InvalidSpec, quote
from studio.storage import atomic
from studio.storage.odd_files import explain_odd_file, list_folder, read_file

SpecT = TypeVar("SpecT", bound=Spec)
MAX_SPEC_BYTES = 200_000  # the longest prompts with every letter written as an escape


def load_spec(path: Path, spec_class: type[SpecT], label: str) -> SpecT:
    """Return the spec in a TOML file.

    Args:
        path: The file.
        spec_class: What its values are validated as.
        label: What errors call it.

    Raises:
        BadFile: It is no TOML.
        InvalidSpec: All its bad fields.
    """
    with explain_odd_file(path, label):
        try:
            if path.stat().st_size > MAX_SPEC_BYTES:
                raise BadFile(
                    f"{label} is larger than {MAX_SPEC_BYTES} bytes: too large for a settings file."
                )
            values: dict[str, Any] = load_toml(read_file(path).decode("utf-8-sig"))
        except (OSError, ValueError) as error:
            raise BadFile(f"{label} cannot be read: {error}") from None
        try:
            return validate_stored(spec_class, values)
        except InvalidSpec as error:
            raise InvalidSpec([f"{label}: {fault}" for fault in error.faults]) from None


class Presets(Generic[SpecT]):
    """Presets of one kind of spec, such as `presets/pictures/*.toml` for requests."""

    def __init__(self, spec_class: type[SpecT], shipped_folder: Path, user_folder: Path) -> None:
        self.spec_class = spec_class
        self.user_folder = user_folder
        self.shipped_folder = shipped_folder

    def list_names(self, *, only_shipped: bool = False) -> list[str]:
        """Return the names of all presets, or of those that came with the studio, sorted."""
        return sorted(self._find_files(only_shipped))

    def load(self, name: str, *, only_shipped: bool = False) -> SpecT:
        """Return a preset; `only_shipped` looks for it among those that came with the studio.

        Raises BadFile for one that is missing or no TOML, InvalidSpec with all its bad fields.
        """
        path = self._find_files(only_shipped).get(name)
        if path is None:
            names = ", ".join(self.list_names(only_shipped=only_shipped)) or "none"
            raise BadFile(f"There is no preset {quote(name)}; available: {names}.")
        return load_spec(path, self.spec_class, f"The preset {name}")

    def save(self, name: str, spec: SpecT) -> Path:
        """Write what differs from the defaults into the home's folder; return the file."""
        path = self.user_folder / f"{atomic.safe_name(name)}.toml"
        atomic.write(path, tomli_w.dumps(spec.dump_for_file()).encode())
        return path

    def _find_files(self, only_shipped: bool) -> dict[str, Path]:
        """Return the files by name; the user's hide the shipped ones.

        Names are only ever looked up here, so that none leads to another folder.
        """
        files = {}
        folders = [self.shipped_folder] if only_shipped else [self.shipped_folder, self.user_folder]
        for folder in folders:
            for path in list_folder(folder):
                if path.suffix == ".toml" and not path.name.startswith(".") and not path.is_dir():
                    files[path.stem] = path
        return files
