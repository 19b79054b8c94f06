"""Presets: settings under a name, as TOML files that a person can read and write.

Knows: the shipped folder and the home's, which hides a shipped preset of the same name.
Does not know: which spec is kept; it is handed in.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Generic, TypeVar

import tomli_w

from studio.core.base import Value, check
from studio.errors import BadFile, InvalidSpec
from studio.storage import atomic

V = TypeVar("V", bound=Value)
MOST_BYTES = 200_000  # the longest prompts, every letter written as an escape


def read(path: Path, model: type[V], what: str) -> V:
    """A spec from a TOML file; `what` is what errors call it. Raises BadFile for no TOML, InvalidSpec with all its bad fields."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadFile(f"{what} is larger than {MOST_BYTES} bytes: it is none.")
        values: dict[str, Any] = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"{what} cannot be read: {error}") from None
    try:
        return check(model, values)
    except InvalidSpec as error:
        raise InvalidSpec([f"{what}: {fault}" for fault in error.faults]) from None


class Presets(Generic[V]):
    """Presets of one kind of spec, such as `presets/pictures/*.toml` for requests."""

    def __init__(self, model: type[V], shipped: Path, own: Path) -> None:
        self.model, self.own = model, own
        self._folders = (own, shipped)

    def names(self) -> list[str]:
        return sorted(self._files())

    def load(self, name: str) -> V:
        """Raises BadFile for one that is missing or no TOML, InvalidSpec with all its bad fields."""
        path = self._files().get(name)
        if path is None:
            raise BadFile(
                f"There is no preset {name!r:.60}; there is {', '.join(self.names()) or 'none'}."
            )
        return read(path, self.model, f"The preset {name}")

    def save(self, name: str, value: V) -> Path:
        """Keep what differs from the defaults, in the home's folder."""
        path = self.own / f"{atomic.safe_name(name)}.toml"
        kept = value.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        atomic.write(path, tomli_w.dumps(kept).encode())
        return path

    def _files(self) -> dict[str, Path]:
        """Names are only ever looked up here, so that none leads to another folder."""
        return {
            path.stem: path
            for folder in self._folders[::-1]
            if folder.is_dir()
            for path in folder.glob("*.toml")
            if path.is_file() and not path.name.startswith(".")
        }
