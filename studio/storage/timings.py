"""How long things take on this machine: measured while they are done, remembered for predictions.

Knows: rates.json in the home (loading and reading, by model), the gallery (painting), the library (sizes).
Does not know: how anything is measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from studio.core.sweeps.spec import Rates
from studio.settings import Settings
from studio.storage import atomic
from studio.storage.gallery import Gallery
from studio.storage.models.library import Library

MEASURED = ("load", "encode")  # seconds until a model is ready, and for reading one prompt
BYTES = 4  # of a number, for what is computed beside the model's own bytes: float32, the largest


def note(settings: Settings, model: str, **seconds: float) -> None:
    """Remember what was measured with a model, in place of what was known; a small change is not worth a write."""
    known = _read(_file(settings))
    before = known.get(model, {})
    if any(abs(value - before.get(name, 0.0)) > 0.2 * value for name, value in seconds.items()):
        known[model] = before | {name: round(value, 4) for name, value in seconds.items()}
        atomic.write(_file(settings), json.dumps(known).encode())


def rates(
    settings: Settings,
    gallery: Gallery,
    library: Library,
    models: Iterable[str],
    together: bool = False,
) -> dict[str, Rates]:
    """What was measured with those models; `together` asks for painting several at once, if that was ever done."""
    known, there = _read(_file(settings)), {model.name: model for model in library.models()}
    found = {}
    for name in {name for name in models if name in there}:
        row = (gallery.rate(name, together=True) if together else None) or gallery.rate(name)
        found[name] = Rates(
            side=there[name].side,
            row=row,
            held=there[name].bytes,
            pixel=2.0 * BYTES * there[name].working,
            **{key: known.get(name, {}).get(key) for key in MEASURED},
        )
    return found


def _file(settings: Settings) -> Path:
    return settings.home / "rates.json"


def _read(file: Path) -> dict[str, dict[str, float]]:
    try:
        return {
            str(model): {name: float(told[name]) for name in MEASURED if told.get(name, -1) >= 0}
            for model, told in json.loads(file.read_bytes()).items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}  # only a memory: what is lost or broken is measured again
