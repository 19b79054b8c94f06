"""Captioners and CLIP models: from a folder as transformers writes it to a network on a device.

Knows: number formats, what a broken folder looks like.
Does not know: which kinds of captioner there are, what they are asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers

from studio.engine.models.devices import Device, is_device_lost, is_out_of_memory
from studio.errors import BadFile
from studio.storage.models.transformers_models import TransformersModelInfo


def load_model(
    model_class: Any, processor_class: Any, info: TransformersModelInfo, device: Device
) -> tuple[Any, Any]:
    """Load a network and its processor, ready for inference.

    Args:
        model_class: Class of transformers for the network.
        processor_class: Class of transformers that prepares images and texts for it.
        info: The model's folder and name.
        device: Where the network goes, and in which number format.

    Returns:
        The network and the processor.

    Raises:
        BadFile: The folder is broken.
    """
    # Progress bars belong in a terminal, not in a worker's log.
    transformers.utils.logging.disable_progress_bar()
    try:
        model, loading_info = model_class.from_pretrained(
            info.path,
            dtype=device.dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **build_placement(device),
        )
        processor = processor_class.from_pretrained(info.path, local_files_only=True)
    except Exception as error:  # of odd values in config.json the library raises anything
        if is_out_of_memory(error) or is_device_lost(error):
            raise
        raise BadFile(
            f"{info.name} cannot be read ({type(error).__name__}: {error!s:.200}). "
            "Copy the folder again."
        ) from error
    missing = find_missing_weights(loading_info)
    if missing:
        raise BadFile(
            f"{info.name} lacks weights, such as {missing[0]!s:.100}. Copy the folder again."
        )
    return model.eval().requires_grad_(False).to(device.torch_device), processor


def build_placement(device: Device) -> dict[str, Any]:
    """Return what makes `from_pretrained` read weights straight into a card's memory.

    Otherwise they all lie in the machine's own first: 7 GB for SDXL.
    """
    return {"device_map": {"": device.torch_device}} if device.kind == "cuda" else {}


def find_missing_weights(loading_info: Mapping[str, Any]) -> list[Any]:
    """Return the weights that a file lacks, or else those of another shape.

    Args:
        loading_info: What `from_pretrained` of diffusers or transformers says besides the network.
    """
    # Position ids are counted, not learned: older files hold them, newer ones do not.
    missing = sorted(
        key for key in loading_info["missing_keys"] if not key.endswith("position_ids")
    )
    return missing or list(loading_info["mismatched_keys"])
