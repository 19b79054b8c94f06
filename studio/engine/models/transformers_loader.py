"""Captioners and CLIP models: from a folder as transformers writes it to a network on a device.

Knows: number formats, what a broken folder looks like. Does not know: which kinds there are, what they are asked.
"""

from __future__ import annotations

from typing import Any

import transformers
from safetensors import SafetensorError

from studio.engine.models.devices import Device
from studio.errors import BadFile
from studio.storage.models.transformers_models import NetworkInfo


def load(model: Any, reader: Any, info: NetworkInfo, device: Device) -> tuple[Any, Any]:
    """A network with what prepares pictures and words for it, ready; `model` and `reader` are classes of transformers.

    Raises BadFile for a folder that is broken.
    """
    transformers.utils.logging.disable_progress_bar()  # its home is a terminal, not a worker's log
    try:
        made, told = model.from_pretrained(
            info.path,
            dtype=device.dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
        eyes = reader.from_pretrained(info.path, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise BadFile(
            f"{info.name} cannot be read ({type(error).__name__}: {error!s:.200}). Copy the folder again."
        ) from error
    missing = sorted(key for key in told["missing_keys"] if not key.endswith("position_ids"))
    if missing or told["mismatched_keys"]:
        raise BadFile(
            f"{info.name} lacks weights, such as {(missing or list(told['mismatched_keys']))[0]!s:.100}. "
            "Copy the folder again."
        )
    return made.eval().requires_grad_(False).to(device.torch), eyes
