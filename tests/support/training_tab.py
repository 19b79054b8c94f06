"""Settings of a run, as the Training tab begins it."""

from __future__ import annotations

from typing import Any

from studio.core.base import validate
from studio.core.training.config import TrainingConfig

MOON: dict[str, Any] = {
    "dataset": "moon",
    "name": "moon",
    "steps": 40,
    "train_batch_size": 2,
    "resolution": 64,
    "seed": 7,
}


def config(**more: Any) -> TrainingConfig:
    return validate(TrainingConfig, MOON | more)
