"""What the files of new pictures carry, as the owner chose it: home/pictures.json.

Knows: that a flag, a variable or studio.toml comes before what was chosen on the page. Does not
know: what the choices come to (core/generation/carried.py).
"""

from __future__ import annotations

import json
from typing import Any

from studio.core.base import validate
from studio.core.generation.carried import CarryOptions
from studio.errors import InvalidSpec
from studio.settings import Settings
from studio.storage import atomic, odd_files

# By field: the setting that comes before it.
SETTING_NAMES = {
    "carry": "pictures_carry",
    "ai_mark": "mark_ai",
    "comfyui_graph": "comfyui_graphs",
}


class PictureOptions:
    """The choice of one home; page and workers each read the file anew."""

    def __init__(self, settings: Settings) -> None:
        self._file = settings.home / "pictures.json"
        values = {name: getattr(settings, setting) for name, setting in SETTING_NAMES.items()}
        self._fixed = {name: value for name, value in values.items() if value not in (None, "")}

    @property
    def fixed_fields(self) -> frozenset[str]:
        """The fields that this studio was started with, which the page cannot change."""
        return frozenset(self._fixed)

    def load(self) -> CarryOptions:
        """Return what holds now; of a file that cannot be read the defaults."""
        return validate(CarryOptions, {**self._load_chosen().model_dump(), **self._fixed})

    def save(self, options: CarryOptions) -> None:
        """Keep what was chosen. Raises DiskError where the disk does not take it."""
        values = options.model_dump(exclude=set(self._fixed))
        stored: dict[str, Any] = self._load_chosen().model_dump() | values
        atomic.write(self._file, json.dumps(stored, indent=1).encode())

    def _load_chosen(self) -> CarryOptions:
        try:
            return validate(CarryOptions, odd_files.read_json(self._file))
        except (OSError, ValueError, InvalidSpec):
            return CarryOptions()
