"""Captioners and CLIP models on disk: folders as transformers writes them.

Knows: such folders in home/models and the embedded ones, what each is (by its config.json), size, content hash.
Does not know: torch; models that paint (library.py), what is loaded.

    models/blip-large/config.json, model.safetensors, preprocessor_config.json, tokenizer.json …
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from studio.core.catalog import CAPTIONERS, DEFAULT_CAPTIONER, DEFAULT_CLIP
from studio.errors import BadFile
from studio.settings import Settings, shipped
from studio.storage.content_hashes import Hashes
from studio.storage.models.library import Unusable, named

CLIP = ("clip",)
READERS = ("processor_config.json", "preprocessor_config.json")  # how pictures are prepared
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt")
ENDINGS = (".json", ".safetensors", ".txt")


@dataclass(frozen=True)
class NetworkInfo:
    """A folder with one network; `kind` is its `model_type`."""

    name: str
    path: Path
    kind: str
    bytes: int
    embedded: bool = False


class Networks:
    """The shelf. Every call looks at the disk."""

    def __init__(self, settings: Settings) -> None:
        self._models, self._pocket = settings.models, shipped("assets") / "pocket"
        self._hashes = Hashes(settings.home)

    def captioners(self) -> list[NetworkInfo | Unusable]:
        """All that can caption, by name."""
        return list(self._found(tuple(CAPTIONERS)).values())

    def clips(self) -> list[NetworkInfo | Unusable]:
        """All that knows pictures and words, by name."""
        return list(self._found(CLIP).values())

    def captioner(self, name: str = DEFAULT_CAPTIONER) -> NetworkInfo:
        """Raises ModelNotFound, which names the nearest, or UnknownFamily, which says what is wrong with the folder."""
        return self._named(name, tuple(CAPTIONERS), "captioner")

    def clip(self, name: str = DEFAULT_CLIP) -> NetworkInfo:
        """The same for a CLIP model."""
        return self._named(name, CLIP, "CLIP model")

    def content(self, info: NetworkInfo) -> str:
        """sha256 over all files of it, remembered until one changes."""
        parts = sorted(
            path for path in info.path.iterdir() if path.is_file() and path.suffix in ENDINGS
        )
        return self._hashes.of(info.path, parts, info.path)

    def _named(self, name: str, kinds: Collection[str], what: str) -> NetworkInfo:
        return named(self._found(kinds), name, what, "home/models")

    def _found(self, kinds: Collection[str]) -> dict[str, NetworkInfo | Unusable]:
        """The home's own come first and hide an embedded one of the same name."""
        own = sorted(self._models.iterdir()) if self._models.is_dir() else []
        places = [(path.name, path) for path in own if not path.name.startswith(".")]
        places.append(
            (DEFAULT_CLIP, self._pocket / "clip")
            if "clip" in kinds
            else (DEFAULT_CAPTIONER, self._pocket / "captioner")
        )
        found: dict[str, NetworkInfo | Unusable] = {}
        for name, path in places:
            kind = _kind(path)
            if kind in kinds and name not in found:
                try:
                    found[name] = NetworkInfo(
                        name, path, kind, _bytes(path), path.parent == self._pocket
                    )
                except BadFile as error:
                    found[name] = Unusable(name, path, str(error))
                except OSError as error:
                    found[name] = Unusable(name, path, f"it cannot be read ({error.strerror}).")
        return found


def _kind(path: Path) -> str:
    """What config.json says; "" for any other folder."""
    try:
        return str(json.loads((path / "config.json").read_bytes())["model_type"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ""


def _bytes(path: Path) -> int:
    """Size of the weights of a folder that has all it needs. Raises BadFile, whose sentence goes on after its name."""
    there = {file.name: file.stat().st_size for file in path.iterdir() if file.is_file()}
    size = sum(size for name, size in there.items() if name.endswith(".safetensors"))
    if not size:
        raise BadFile("it has no .safetensors file; other kinds of weights can carry programs.")
    for needed in (READERS, TOKENIZERS):
        if not there.keys() & set(needed):
            raise BadFile(f"its {needed[0]} is missing.")
    return size
