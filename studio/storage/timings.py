"""How long things take on this machine: measured while they are done, remembered for predictions.

Knows: rates.json in the home (loading a model, encoding a prompt), the gallery (denoising), the
library (sizes). Does not know: how anything is measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from studio.core.sweeps.spec import ModelTimings
from studio.settings import Settings
from studio.storage import odd_files
from studio.storage.gallery import Gallery
from studio.storage.models.library import Library

TIMING_FIELDS = ("load", "encode")  # seconds until a model is ready, and for encoding one prompt
FLOAT32_BYTES = 4  # of an activation: float32 is the largest type that is computed in
MAX_SECONDS = 1e6  # more was never measured
MIN_RELATIVE_CHANGE = 0.2  # a smaller one is not worth a write


def record_timings(settings: Settings, model: str, **seconds: float) -> None:
    """Remember what was measured with a model, unless it hardly changed.

    Args:
        settings: Whose home.
        model: The model's name.
        seconds: Durations by their names, which are those of TIMING_FIELDS.
    """
    path = _timings_file(settings)
    timings = _read_timings(path)
    previous = timings.get(model, {})
    if any(
        abs(value - previous.get(name, 0.0)) > MIN_RELATIVE_CHANGE * value
        for name, value in seconds.items()
    ):
        timings[model] = previous | {name: round(value, 4) for name, value in seconds.items()}
        odd_files.write_cache(path, json.dumps(timings).encode())


def load_timings(
    settings: Settings,
    gallery: Gallery,
    library: Library,
    models: Iterable[str],
    batched: bool = False,
) -> dict[str, ModelTimings]:
    """Return what was measured with some models; names that the library lacks are left out.

    Args:
        settings: Whose home.
        gallery: Where the seconds of generated images stand.
        library: Where the models' sizes stand.
        models: Names of models.
        batched: Whether to prefer measurements of several images in one U-Net call.
    """
    recorded = _read_timings(_timings_file(settings))
    infos = {model.name: model for model in library.list_models()}
    timings = {}
    for name in infos.keys() & set(models):
        info = infos[name]
        rate = gallery.get_seconds_per_megapixel(name, batched=True) if batched else None
        seconds = recorded.get(name, {})
        timings[name] = ModelTimings(
            native_size=info.native_size,
            seconds_per_megapixel=rate or gallery.get_seconds_per_megapixel(name),
            model_bytes=info.size_bytes,
            bytes_per_pixel=2.0 * FLOAT32_BYTES * info.activation_elements_per_pixel,
            load=seconds.get("load"),
            encode=seconds.get("encode"),
        )
    return timings


def _timings_file(settings: Settings) -> Path:
    return settings.home / "rates.json"


def _read_timings(path: Path) -> dict[str, dict[str, float]]:
    try:
        timings = {}
        for model, seconds in odd_files.read_json(path).items():
            timings[str(model)] = {
                name: float(seconds[name])
                for name in TIMING_FIELDS
                if 0 <= seconds.get(name, -1) <= MAX_SECONDS
            }
        return timings
    except Exception:
        return {}  # only a memory: what is lost or broken is measured again
