"""The shape of a model, read from its configs.

Knows: which configs say it. Does not know: where they lie (model_configs.py), what they mean
(core/training/lora_targets.py), weights.
"""

from __future__ import annotations

from typing import Any

from studio.core.families.registry import FAMILIES
from studio.core.families.shapes import ModelShape
from studio.core.training.lora_targets import parse_model_shape
from studio.storage.models.model_configs import read_config
from studio.storage.models.model_info import ModelInfo


def read_model_shape(info: ModelInfo) -> tuple[ModelShape, dict[str, Any]]:
    """Return a model's shape, and the config of its denoiser.

    Raises:
        BadFile: A config cannot be read.
        UnknownFamily: The model has networks that cannot be trained.
    """
    family = FAMILIES[info.family]
    encoder_configs = [read_config(info, part.encoder) for part in family.text_encoders]
    denoiser_config = read_config(info, family.denoiser)
    return parse_model_shape(denoiser_config, encoder_configs), denoiser_config
