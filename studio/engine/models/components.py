"""Networks and tokenizers from the folders of a model in diffusers' layout.

Knows: that weights are complete, finite files are read offline, and in which number format.
Does not know: families, what the networks are for.

Every network gets its number format explicitly: transformers would keep the saved one and diffusers
take float32, which puts a half-precision text encoder beside a float U-Net.
"""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers

from studio.engine.models.devices import Device, is_device_lost, is_out_of_memory
from studio.engine.models.transformers_loader import build_placement, find_missing_weights
from studio.errors import BadFile
from studio.storage.models.library import ModelInfo


def load_tokenizer(tokenizer_class: Any, info: ModelInfo, subfolder: str) -> Any:
    """Read a tokenizer from a model's folder. Raises BadFile."""
    try:
        return tokenizer_class.from_pretrained(
            info.path, subfolder=subfolder, local_files_only=True
        )
    except Exception as error:  # of odd values in its files the library raises anything
        raise BadFile(f"The tokenizer of {info.name} cannot be read: {error!s:.200}") from error


def load_network(
    network_class: Any, info: ModelInfo, subfolder: str, device: Device, dtype: torch.dtype
) -> Any:
    """Read a network from a model's folder, frozen, to the device.

    Raises:
        BadFile: A file is broken, or lacks weights.
    """
    # Progress bars belong in a terminal, not in a worker's log.
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    try:
        network, loading_info = network_class.from_pretrained(
            info.path,
            subfolder=subfolder,
            variant=info.variant,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **build_placement(device),
        )
    except Exception as error:  # of odd values in config.json the libraries raise anything
        if is_out_of_memory(error) or is_device_lost(error):
            raise
        raise BadFile(
            f"The {subfolder} of {info.name} cannot be read "
            f"({type(error).__name__}: {error!s:.200}). Copy the model again."
        ) from error
    missing = find_missing_weights(loading_info)
    if missing:
        raise BadFile(
            f"The {subfolder} of {info.name} lacks weights, such as {missing[0]!s:.100}. "
            "Copy the model again."
        )
    return network.eval().requires_grad_(False).to(device.torch_device)
