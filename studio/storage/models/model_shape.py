"""The shape of a model, read from the config files in its folder.

Knows: where a model's configs lie. Does not know: what they mean (core/training/lora_targets.py),
weights.
"""

from __future__ import annotations

from typing import Any

from studio.core.families.registry import FAMILIES
from studio.core.families.shapes import ModelShape
from studio.core.training.lora_targets import parse_model_shape
from studio.errors import BadFile
from studio.storage.models.library import ModelInfo
from studio.storage.odd_files import read_json


def read_model_shape(info: ModelInfo) -> tuple[ModelShape, dict[str, Any]]:
    """Return a model's shape, and the config of its denoiser.

    Raises:
        BadFile: A config cannot be read.
        UnknownFamily: The model has networks that cannot be trained.
    """
    family = FAMILIES[info.family]
    encoder_configs = [_read_config(info, part.encoder) for part in family.text_encoders]
    denoiser_config = _read_config(info, family.denoiser)
    return parse_model_shape(denoiser_config, encoder_configs), denoiser_config


def _read_config(info: ModelInfo, component: str) -> dict[str, Any]:
    try:
        return read_json(info.path / component / "config.json")
    except (OSError, ValueError) as error:
        raise BadFile(
            f"The {component} of {info.name} cannot be read ({type(error).__name__}). "
            "Copy the model again."
        ) from None
