"""The private parts of diffusers that we use, under names of our own.

Knows: how diffusers 0.42 stores a scheduler's config, and renames the weights of the original
repositories. Does not know: which schedulers there are; where weights come from.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    LDM_UNET_KEY,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)

_CONFIG_ATTRIBUTE = "_internal_dict"


def copy_scheduler(scheduler: Any) -> Any:
    """Return an independent copy of a scheduler. The two share the config, which is frozen."""
    duplicate = copy.copy(scheduler)
    duplicate.__dict__ = {
        name: value if name == _CONFIG_ATTRIBUTE else copy.deepcopy(value)
        for name, value in vars(scheduler).items()
    }
    return duplicate


def convert_unet(
    tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Return a U-Net's tensors by diffusers' names; those by LDM's have no prefix.

    Raises KeyError for a name that is missing.
    """
    prefixed = {LDM_UNET_KEY + name: tensor for name, tensor in tensors.items()}
    weights: dict[str, torch.Tensor] = convert_ldm_unet_checkpoint(prefixed, dict(config))
    return weights


def convert_vae(
    tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Return an autoencoder's tensors by diffusers' names; those by LDM's have no prefix.

    Raises KeyError for a name that is missing.
    """
    weights: dict[str, torch.Tensor] = convert_ldm_vae_checkpoint(dict(tensors), dict(config))
    return weights


def convert_open_clip(
    network: torch.nn.Module, tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return a text encoder's tensors by transformers' names; those by OpenCLIP's have no prefix.

    All begin with `text_model.`, but for the projection. `network` says how wide it is.
    """
    weights: dict[str, torch.Tensor] = convert_open_clip_checkpoint(
        network, dict(tensors), prefix=""
    )
    return weights
