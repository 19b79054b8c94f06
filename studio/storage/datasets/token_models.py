"""As which model the tokens of a dataset's captions are counted.

Knows: token_models.json in the home (a dataset's folder → a model's name), which models read
captions otherwise than CLIP. Does not know: how tokens are counted
(storage/models/token_counter.py), who chooses.

CLIP reads the prompts of all Stable Diffusion models, so without a choice its count is right. The
embedded model has a small vocabulary of its own, in which a caption is two or three times as long.
"""

from __future__ import annotations

import json
from pathlib import Path

from studio.core.families.registry import FAMILIES
from studio.errors import StudioError
from studio.settings import Settings
from studio.storage import atomic, odd_files
from studio.storage.models.library import Library, ModelInfo
from studio.storage.models.token_counter import CLIP_VOCABULARY_SIZE, TokenCounter


class TokenModels:
    """The choices of a home; every call looks at the disk, for other processes choose too."""

    def __init__(self, settings: Settings) -> None:
        self._file = settings.home / "token_models.json"
        self._library = Library(settings)
        self._counters: dict[Path | None, TokenCounter] = {}

    def list_models(self) -> list[str]:
        """List the models with a vocabulary of their own that LoRAs can be trained on."""
        return [model.name for model in self._library.list_models() if _has_own_vocabulary(model)]

    def get_model(self, dataset_folder: Path) -> str:
        """Return the model that was chosen for a dataset; empty for CLIP, or if it is gone."""
        name = self._load().get(str(dataset_folder))
        return name if isinstance(name, str) and self._find_folder(name) else ""

    def set_model(self, dataset_folder: Path, name: str) -> None:
        """Choose a model for a dataset; an empty name is CLIP.

        Raises:
            ModelNotFound: There is no such model.
            BadFile: Its tokenizer cannot be read.
            DiskError: The home does not take the choice.
        """
        if name:
            self._get_counter(self._library.get_model(name).path)
        choices = {**self._load(), str(dataset_folder): name}
        if not name:
            del choices[str(dataset_folder)]
        atomic.write(self._file, json.dumps(choices, indent=1).encode())

    def get_counter(self, dataset_folder: Path) -> TokenCounter:
        """Return what counts the tokens of a dataset's captions."""
        name = self._load().get(str(dataset_folder))
        folder = self._find_folder(name) if isinstance(name, str) else None
        try:
            return self._get_counter(folder)
        except StudioError:  # its tokenizer was damaged meanwhile; the page shows CLIP again
            return self._get_counter(None)

    def _get_counter(self, model_folder: Path | None) -> TokenCounter:
        if model_folder not in self._counters:
            self._counters[model_folder] = TokenCounter(model_folder)
        return self._counters[model_folder]

    def _find_folder(self, name: str) -> Path | None:
        try:
            return self._library.get_model(name).path
        except StudioError:
            return None

    def _load(self) -> dict[str, object]:
        try:
            return odd_files.read_json(self._file)
        except (OSError, ValueError):
            return {}


def _has_own_vocabulary(model: ModelInfo) -> bool:
    family = FAMILIES[model.family]
    if not family.is_trainable:
        return False
    try:
        config = odd_files.read_json(model.path / family.text_encoders[0].encoder / "config.json")
    except (OSError, ValueError):
        return False
    return bool(config.get("vocab_size", CLIP_VOCABULARY_SIZE) != CLIP_VOCABULARY_SIZE)
