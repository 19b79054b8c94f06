"""What the Training tab says before a training begins: the pictures, the number of steps, minutes and memory, all that is wrong.

Knows: the shelf of datasets, what tries and earlier runs have measured. Does not know: components; how anything is trained.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from studio.core.training.config import TrainingConfig
from studio.core.training.steps import steps
from studio.errors import DatasetError, StudioError
from studio.imaging import decode
from studio.storage.datasets.training_set import Dataset
from studio.ui import show
from studio.ui.guard import Visitor
from studio.ui.views import sweep, training
from studio.ui.widgets import Desk

THUMBS, SIDE = 8, 104  # pictures of a dataset that are shown, and how large
# What the time and memory of a step depend on; the rest of the settings changes neither.
COSTLY = frozenset(
    {
        "model",
        "dataset",
        "batch",
        "accumulation",
        "rank",
        "targets",
        "patterns",
        "conv_rank",
        "dropout",
        "train_unet",
        "train_text_encoder",
        "optimizer",
        "resolution",
        "buckets",
        "bucket_min",
        "bucket_max",
        "bucket_step",
        "bucket_no_upscale",
        "precision",
        "gradient_checkpointing",
        "class_pictures",
        "validation_share",
    }
)


def told(desk: Desk, config: TrainingConfig, visitor: Visitor) -> str:
    """The plan of a training that can begin. Raises what Desk.check_training raises."""
    found = desk.check_training(config, visitor)
    pictures, aside, total = length(config, found)
    shapes = {(item.width, item.height) for item in found.items}
    guess = config.steps is None and config.buckets and config.batch > 1 and len(shapes) > 1
    return training.plan(
        config, pictures, aside, total, said(measured(desk, config, visitor), total), guess
    )


def length(config: TrainingConfig, found: Dataset) -> tuple[int, int, int]:
    """Pictures an epoch (without the settings' repeats), how many are kept back, and steps."""
    pictures, aside = found.count, 0
    if config.validation_share:
        aside = min(max(round(config.validation_share * len(found.items)), 1), len(found.items) - 1)
        pictures = max(1, round(pictures * (1 - aside / len(found.items))))
    return pictures, aside, steps(config, pictures)


def measured(desk: Desk, config: TrainingConfig, visitor: Visitor) -> Mapping[str, Any] | None:
    """What a step of such a training takes: from a try, or from a run with the same costly settings."""
    wanted = config.model_dump(mode="json", include=set(COSTLY))
    return next(
        (
            cost
            for known, cost in _costs(desk, visitor)
            if {name: known.get(name) for name in COSTLY} == wanted
        ),
        None,
    )


def _costs(desk: Desk, visitor: Visitor) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for job in desk.jobs.history(200, visitor.sees):
        if job.kind == "probe" and job.state == "done" and isinstance(job.result, dict):
            yield job.spec.get("config") or {}, job.result.get("cost") or {}
    for run in desk.runs.listing(visitor.sees)[:50]:
        if isinstance(run.about.get("cost"), dict):
            yield run.config.model_dump(mode="json"), run.about["cost"]


def said(cost: Mapping[str, Any] | None, total: int) -> str:
    """Minutes and memory in words."""
    if not cost or not {"seconds", "working", "room"} <= cost.keys():
        return "How long it takes is not known yet: try it for a few seconds."
    need = f"{show.size(cost['working'])} of {show.size(cost['room'])} free memory beside the model"
    return f"About {show.duration(cost['seconds'] * total)} ({show.duration(cost['seconds'])} a step) · {need}"


def look(desk: Desk, name: Any, visitor: Visitor) -> str:
    """What is in a dataset."""
    if not name:
        return ""
    try:
        found = desk.dataset(str(name), visitor)
    except DatasetError as error:
        return sweep.faults([str(error)])
    many = len(found.items)
    chosen = [found.items[k * many // min(many, THUMBS)] for k in range(min(many, THUMBS))]
    thumbs = [(thumb(item.path, item.content), item.caption) for item in chosen]
    return training.dataset(found, [(address, caption) for address, caption in thumbs if address])


@lru_cache(maxsize=512)
def thumb(path: Path, content: str) -> str:
    """A small picture as an address that carries it: no dataset is served. `content` is its file's hash."""
    try:
        image = decode.load(path.read_bytes(), path.name).image.convert("RGB")
    except (StudioError, OSError):
        return ""
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=72)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
