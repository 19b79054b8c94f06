"""Captioners and CLIP models on disk: folders as transformers writes them.

Knows: such folders in home/models and the embedded ones, what each is (by its config.json), size,
content hash. Does not know: torch; models that generate images (library.py), what is loaded.

    models/blip-large/config.json, model.safetensors, preprocessor_config.json, tokenizer.json …
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from studio.core.catalog import CAPTIONERS, DEFAULT_CAPTIONER, DEFAULT_CLIP
from studio.errors import BadFile, StudioError
from studio.settings import Settings, shipped
from studio.storage import odd_files
from studio.storage.content_hashes import ContentHashes
from studio.storage.models.library import Unusable, get_by_name
from studio.storage.odd_files import explain_odd_file, list_folder

CLIP_MODEL_TYPES = ("clip",)
PREPROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt")
CONTENT_SUFFIXES = (".json", ".safetensors", ".txt")


@dataclass(frozen=True)
class TransformersModelInfo:
    """A folder with one network; `model_type` is that of its config.json."""

    name: str
    path: Path
    model_type: str
    size_bytes: int
    bundled: bool = False


class TransformersModels:
    """The captioners and CLIP models of a home. Every call reads the disk."""

    def __init__(self, settings: Settings) -> None:
        self._models_folder = settings.models
        self._pocket_folder = shipped("assets") / "pocket"
        self._hashes = ContentHashes(settings.home)

    def list_captioners(self) -> list[TransformersModelInfo | Unusable]:
        """List all captioners by name."""
        return list(self._find(tuple(CAPTIONERS)).values())

    def list_clip_models(self) -> list[TransformersModelInfo | Unusable]:
        """List all CLIP models by name."""
        return list(self._find(CLIP_MODEL_TYPES).values())

    def get_captioner(self, name: str = DEFAULT_CAPTIONER) -> TransformersModelInfo:
        """Look up a captioner.

        Raises:
            ModelNotFound: there is none of this name; the message names close matches.
            UnknownFamily: it cannot be used; the message says what is wrong with its folder.
        """
        return self._get_by_name(name, tuple(CAPTIONERS), "captioning model")

    def get_clip_model(self, name: str = DEFAULT_CLIP) -> TransformersModelInfo:
        """Look up a CLIP model.

        Raises:
            ModelNotFound: there is none of this name; the message names close matches.
            UnknownFamily: it cannot be used; the message says what is wrong with its folder.
        """
        return self._get_by_name(name, CLIP_MODEL_TYPES, "CLIP model")

    def get_content_hash(self, info: TransformersModelInfo) -> str:
        """Return the sha256 over all files of a model, remembered until one changes."""
        files = sorted(
            path
            for path in info.path.iterdir()
            if path.is_file() and path.suffix in CONTENT_SUFFIXES
        )
        return self._hashes.get_hash(info.path, files, info.path)

    def _get_by_name(
        self, name: str, model_types: Collection[str], noun: str
    ) -> TransformersModelInfo:
        return get_by_name(self._find(model_types), name, noun, "home/models")

    def _find(self, model_types: Collection[str]) -> dict[str, TransformersModelInfo | Unusable]:
        """Return models by name; one of the home hides an embedded one of the same name."""
        folders: list[tuple[str, Path]] = []
        paths = list_folder(self._models_folder)
        folders += [(path.name, path) for path in paths if not path.name.startswith(".")]
        if "clip" in model_types:
            folders.append((DEFAULT_CLIP, self._pocket_folder / "clip"))
        else:
            folders.append((DEFAULT_CAPTIONER, self._pocket_folder / "captioner"))
        models: dict[str, TransformersModelInfo | Unusable] = {}
        for name, path in folders:
            model_type = _read_model_type(path)
            if model_type in model_types and name not in models:
                bundled = path.parent == self._pocket_folder
                models[name] = _read_info(name, path, model_type, bundled)
        return models


def _read_info(
    name: str, path: Path, model_type: str, bundled: bool
) -> TransformersModelInfo | Unusable:
    try:
        with explain_odd_file(path, "it"):
            return TransformersModelInfo(name, path, model_type, _measure_weights(path), bundled)
    except StudioError as error:
        return Unusable(name, path, str(error))


def _read_model_type(path: Path) -> str:
    """Read the model type from config.json; "" for a folder of another kind."""
    try:
        return str(odd_files.read_json(path / "config.json")["model_type"])
    except Exception:  # whatever it is, it is no captioner's; the library says what is wrong
        return ""


def _measure_weights(path: Path) -> int:
    """Return the bytes of a complete folder's weights; raise BadFile if something is missing."""
    sizes = {file.name: file.stat().st_size for file in path.iterdir() if file.is_file()}
    num_bytes = sum(size for name, size in sizes.items() if name.endswith(".safetensors"))
    if not num_bytes:
        raise BadFile("it has no .safetensors file; other kinds of weights can contain programs.")
    for alternatives in (PREPROCESSOR_FILES, TOKENIZER_FILES):
        if not sizes.keys() & set(alternatives):
            raise BadFile(f"its {alternatives[0]} is missing.")
    return num_bytes
