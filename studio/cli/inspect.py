"""`studio inspect FILE`: what a file is, as JSON.

Knows: which reader is for which file. Does not know: what is in them; torch; gradio.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from studio.errors import BadFile
from studio.storage import atomic, gallery
from studio.storage.models import lora_file
from studio.storage.models.library import PICKLE_SUFFIXES, read_model_info

# What is printed of a LoRA, and the attribute that holds it.
LORA_FIELDS = {
    "name": "name",
    "family": "family",
    "rank": "rank",
    "alpha": "alpha",
    "layers": "layers",
    "networks": "networks",
    "bytes": "size_bytes",
    "title": "title",
    "base_model": "base_model",
    "trigger_words": "trigger_words",
}


def run(arguments: argparse.Namespace) -> None:
    """Print what a file or folder is."""
    print(json.dumps(inspect_file(arguments.file.expanduser()), ensure_ascii=False))


def inspect_file(path: Path) -> dict[str, Any]:
    """Return what an image, model folder, LoRA or other safetensors file is.

    Raises BadFile and BadPicture.
    """
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise BadFile(f"{path} is no model folder: it has no model_index.json.")
        model = read_model_info(path)
        return {
            "kind": "model",
            "name": model.name,
            "family": model.family,
            "prediction": model.prediction_type,
            "side": model.native_size,
            "dtype": model.dtype,
            "bytes": model.size_bytes,
            "inpainting": model.is_inpainting,
        }
    if not path.is_file():
        raise BadFile(f"There is no file {path}.")
    if path.suffix == ".safetensors":
        header = atomic.read_safetensors_header(path)
        if any("lora" in key for key in header):
            lora = lora_file.read_lora_info(path)
            return {
                "kind": "lora",
                **{name: getattr(lora, field) for name, field in LORA_FIELDS.items()},
                "tags": dict(lora.tags),
            }
        metadata = header.pop("__metadata__", {})
        tensors = [entry for entry in header.values() if isinstance(entry, dict)]
        return {
            "kind": "safetensors",
            "tensors": len(header),
            "metadata": metadata,
            "bytes": path.stat().st_size,
            "dtypes": dict(Counter(str(tensor.get("dtype")) for tensor in tensors)),
        }
    if path.suffix in PICKLE_SUFFIXES:
        raise BadFile(
            f"{path.name} may carry programs and is not opened; only .safetensors weights are."
        )
    return gallery.read_image_settings(path).to_report()
