"""Networks and tokenizers of a model, from its folders in diffusers' layout or from its files.

Knows: that weights are complete, finite files are read offline, and in which number format.
Does not know: families, what the networks are for; how a file is read (part_files.py).

Every network gets its number format explicitly: transformers would keep the saved one and diffusers
take float32, which puts a half-precision text encoder beside a float U-Net.
"""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers

from studio.engine.models.devices import Device, is_device_lost, is_out_of_memory
from studio.engine.models.part_files import build_clip_tokenizer, load_part_file
from studio.engine.models.transformers_loader import build_placement, find_missing_weights
from studio.errors import BadFile
from studio.storage.models.model_configs import check_is_there, read_config
from studio.storage.models.model_info import ModelInfo

# What old configs say of the end of a text: transformers then looks for the largest id, which is
# another one as soon as tokens are added. CLIP's own end is the last of its vocabulary.
OLD_EOS_TOKEN_ID, CLIP_EOS_TOKEN_ID = 2, 49_407


def load_tokenizer(tokenizer_class: Any, info: ModelInfo, subfolder: str) -> Any:
    """Read a tokenizer of a model. Raises BadFile."""
    if subfolder in info.configs:
        return build_clip_tokenizer(tokenizer_class, read_config(info, subfolder)["pad_token"])
    try:
        return tokenizer_class.from_pretrained(
            info.path, subfolder=subfolder, local_files_only=True
        )
    except Exception as error:  # of odd values in its files the library raises anything
        raise BadFile(f"The tokenizer of {info.name} cannot be read: {error!s:.200}") from error


def load_network(
    network_class: Any, info: ModelInfo, subfolder: str, device: Device, dtype: torch.dtype
) -> Any:
    """Read a network of a model, frozen, to the device.

    Raises:
        BadFile: A file is broken, or lacks weights.
    """
    # Progress bars belong in a terminal, not in a worker's log.
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    check_is_there(info, subfolder)
    if subfolder in info.parts:
        part = info.parts[subfolder]
        is_own = part.path == info.path
        title = f"{subfolder} of {info.name}" if is_own else f"{subfolder} in {part.path.name}"
        network = load_part_file(network_class, part, title=title, device=device, dtype=dtype)
    else:
        network = _load_from_folder(network_class, info, subfolder, device=device, dtype=dtype)
    _mend_end_of_text(network)
    return network.eval().requires_grad_(False).to(device.torch_device)


def _mend_end_of_text(network: Any) -> None:
    """Set what an old config says wrongly of CLIP's tokens."""
    config = network.config
    if not isinstance(config, transformers.CLIPTextConfig):
        return
    if config.eos_token_id == OLD_EOS_TOKEN_ID and config.vocab_size > CLIP_EOS_TOKEN_ID:
        config.eos_token_id = CLIP_EOS_TOKEN_ID
        for module in network.modules():
            if hasattr(module, "eos_token_id"):
                module.eos_token_id = CLIP_EOS_TOKEN_ID


def _load_from_folder(
    network_class: Any, info: ModelInfo, subfolder: str, *, device: Device, dtype: torch.dtype
) -> Any:
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
    return network
