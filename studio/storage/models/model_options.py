"""What the owner decided about models, kept in the home by the content of their files.

Knows: model_settings.json. Does not know: where a model lies, what is done with the decisions.

Folders of other programs are never written to, and a file that is moved or renamed keeps what was
decided: it goes by its sha256. The size stands beside it, so that only files which can be meant
have to be read through.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from studio.errors import BadFile, quote
from studio.storage import atomic, odd_files

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
MAX_NAME_CHARS = 300


@dataclass(frozen=True)
class ModelOptions:
    """What was decided about one model; what is empty or None was not.

    Attributes:
        prediction_type: What its denoiser predicts, by diffusers' names.
        is_zero_snr: Whether its last timestep is nothing but noise.
        vae: The file of the autoencoder that is taken instead of its own, by its name.
        text_encoders: Files of text encoders by their names, by the part's folder.
    """

    prediction_type: str = ""
    is_zero_snr: bool | None = None
    vae: str = ""
    text_encoders: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was decided."""
        return self == ModelOptions()


NO_OPTIONS = ModelOptions()


class ModelOptionsStore:
    """The decisions of one home."""

    def __init__(self, home: Path) -> None:
        self._file = home / "model_settings.json"
        self._write_lock = threading.Lock()

    def is_known_size(self, size_bytes: int) -> bool:
        """Return whether something was decided about a model of that size."""
        return any(entry.get("size") == size_bytes for entry in self._load().values())

    def get(self, sha256: str) -> ModelOptions:
        """Return what was decided about a model, by the hash of its files."""
        entry = self._load().get(sha256)
        return _parse(entry) if entry else NO_OPTIONS

    def save(self, sha256: str, size_bytes: int, options: ModelOptions) -> None:
        """Keep what was decided about a model; nothing of it forgets the model.

        Raises:
            InvalidSpec: A prediction that there is not.
            BadFile: The file of decisions is broken, and would be lost.
        """
        if options.prediction_type and options.prediction_type not in PREDICTION_TYPES:
            raise BadFile(
                f"Prediction type: must be one of {', '.join(PREDICTION_TYPES)} "
                f"(you entered {quote(options.prediction_type)})."
            )
        with self._write_lock:
            entries = self._load(must_be_whole=True)
            entries.pop(sha256, None)
            if not options.is_empty:
                entries[sha256] = {"size": size_bytes, **asdict(options)}
            atomic.write(self._file, json.dumps(entries, indent=1).encode())

    def _load(self, must_be_whole: bool = False) -> dict[str, dict[str, Any]]:
        try:
            entries = odd_files.read_json(self._file)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            if must_be_whole:
                raise BadFile(
                    f"{self._file.name} in the home cannot be read; move it away first, because "
                    "it holds the settings of other models."
                ) from None
            return {}
        return {key: entry for key, entry in entries.items() if isinstance(entry, dict)}


def _parse(entry: Mapping[str, Any]) -> ModelOptions:
    """Return the options in an entry; values that cannot be are left out."""
    prediction, zero_snr = entry.get("prediction_type"), entry.get("is_zero_snr")
    encoders = entry.get("text_encoders")
    return ModelOptions(
        prediction if prediction in PREDICTION_TYPES else "",
        zero_snr if isinstance(zero_snr, bool) else None,
        _parse_name(entry.get("vae")),
        {str(part): _parse_name(name) for part, name in encoders.items() if _parse_name(name)}
        if isinstance(encoders, dict)
        else {},
    )


def _parse_name(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_NAME_CHARS else ""
