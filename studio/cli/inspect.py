"""`studio inspect FILE`: what a file is, or a picture at an address, as JSON.

Knows: which reader is for which file. Does not know: what is in them; torch; gradio.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.cli.runner import COMMAND_LINE, print_json
from studio.core.generation.recipes.report import report_recipe
from studio.errors import BadFile
from studio.services.picture_links import fetch_settings
from studio.settings import load
from studio.storage import gallery
from studio.storage.models import lora_file, model_file
from studio.storage.models.library import read_model_info
from studio.storage.models.model_file import WEIGHTS_SUFFIXES, ModelFile
from studio.storage.models.pickles import Pickles, find_use

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
    """Print what a file or folder is, or a picture on the web."""
    if arguments.file.startswith("https://"):
        recipe = fetch_settings(arguments.file, COMMAND_LINE, is_trusted=arguments.yes)
        print_json(report_recipe(recipe))
        return
    print_json(inspect_file(Path(arguments.file).expanduser()))


def inspect_file(path: Path) -> dict[str, Any]:
    """Return what an image, model folder, LoRA or other file of weights is.

    Raises BadFile and BadPicture.
    """
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise BadFile(f"{path} is not a model folder: it has no model_index.json.")
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
    if path.suffix.lower() in WEIGHTS_SUFFIXES:
        return _inspect_weights(path)
    return report_recipe(gallery.read_image_settings(path, with_sidecars=True))


def _inspect_weights(path: Path) -> dict[str, Any]:
    """Return what a file of weights is, by its header. Raises BadFile if it cannot be read."""
    identified = _identify(path)
    if identified.kind == "unknown" and identified.problem:
        raise BadFile(identified.sentence)
    facts: dict[str, Any] = {
        "kind": identified.kind,
        "sentence": identified.sentence,
        "family": identified.family or None,
        "folder": identified.folder or None,
        "bytes": identified.size_bytes,
        "dtype": identified.dtype,
        "metadata": dict(identified.metadata),
    }
    if identified.kind in ("checkpoint", "denoiser"):
        facts |= {
            "prediction": identified.prediction,
            "zero_terminal_snr": identified.is_zero_snr,
            "inpainting": identified.is_inpainting,
            "contents": identified.contents,
        }
    if identified.kind == "lora":
        facts["adapter"] = identified.adapter
    if identified.kind == "lora" and not identified.problem:
        lora = lora_file.read_lora_info(path)
        facts |= {name: getattr(lora, field) for name, field in LORA_FIELDS.items()}
        facts["tags"] = dict(lora.tags)
    return facts


def _identify(path: Path) -> ModelFile:
    """Return what a file of weights is.

    A pickle where those are read is read too, as the library does it; nothing of that is kept.
    """
    if find_use(path) is None:
        return model_file.identify_file(path)
    with tempfile.TemporaryDirectory() as folder:
        (converted,) = Pickles(load(home=folder, device="cpu")).convert([path]).values()
        if isinstance(converted, str):
            raise BadFile(converted)
        return replace(model_file.identify_file(converted), path=path)
