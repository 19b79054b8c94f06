"""Kohya's files → a training run of the studio, and a sentence about every key.

Knows: which file it is (sd-scripts' TOML, the GUI's JSON, a dataset_config, one of the studio's
own), the plan behind `studio train FILE --plan`.
Does not know: where models and images are; nothing is read but the text.

The run is the one that kohya would have done, with its keys that override each other in silence.
`as_meant` takes the other reading where people usually meant it: epochs for `epoch`, Adafactor at
the rate that is given, a warm-up that is given, samples where there are prompts. What the studio
does not have is reported; without an optimizer, schedule or kind of LoRA that it has, or without a
model or dataset, there is no config, and `faults` say why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.core.base import validate
from studio.core.families.family import FamilyName
from studio.core.families.registry import FAMILIES
from studio.core.families.shapes import ModelShape
from studio.core.training.config import TrainingConfig
from studio.core.training.kohya import dataset, network, optimizer
from studio.core.training.kohya.parser import KohyaFile, parse_folder_name, parse_kohya_file
from studio.core.training.kohya.reader import KohyaReader, Notice, format_value
from studio.core.training.kohya.unsupported_keys import OTHER_FAMILY_KEYS
from studio.core.training.lora_targets import (
    count_modules,
    select_modules,
)
from studio.core.training.steps import count_steps
from studio.errors import InvalidSpec

__all__ = ["KohyaImport", "Notice", "import_config", "parse_folder_name", "plan_import"]


@dataclass(frozen=True)
class KohyaImport:
    """The result of an import.

    `values` has every setting, None where it is not known; `config` is None unless all are known.
    """

    config: TrainingConfig | None
    values: dict[str, Any]
    faults: tuple[str, ...]
    notices: tuple[Notice, ...]
    family: FamilyName | None


def import_config(
    text: str, file_name: str = "", as_meant: bool = False, dataset_config: str = ""
) -> KohyaImport:
    """Read the settings of a training run from a file.

    Args:
        text: The file's text.
        file_name: Its name, which may tell the family and names the LoRA where nothing else does.
        as_meant: Take the reading that people usually mean (see above).
        dataset_config: The text of a dataset_config beside it.

    Raises:
        InvalidSpec: The text cannot be read, or values are wrong; it names all of them.
    """
    kohya_file = parse_kohya_file(text)
    if kohya_file.file_format == "own":
        config = validate(TrainingConfig, kohya_file.values)
        values = config.model_dump(mode="json")
        return KohyaImport(config, values, (), (), network.guess_family(config.model))
    if dataset_config:
        kohya_file = _merge_dataset_config(kohya_file, parse_kohya_file(dataset_config))
    reader = KohyaReader(kohya_file, as_meant)
    family = network.detect_family(reader, file_name)
    _refuse_other_families(reader)
    if kohya_file.file_format == "dataset":
        reader.mark_unresolved(
            "model",
            "pretrained_model_name_or_path",
            "a dataset_config does not set the model, the LoRA, the learning rate or the length.",
        )
    else:
        dataset.read_model(reader, family)
        network.read_length(reader)
        network.read_network(reader)
        optimizer.read_optimizer(reader)
        network.drop_unused_convolutions(reader)
        dataset.read_monitoring(reader)
    dataset.read_batch_settings(reader)
    dataset.read_caption_settings(reader)
    dataset.read_image_settings(reader)
    dataset.read_dataset(reader, file_name)
    reader.report_remaining()
    reader.raise_faults()
    return _build_import(reader, family)


def plan_import(
    text: str,
    file_name: str = "",
    as_meant: bool = False,
    *,
    dataset_config: str = "",
    shape: ModelShape | None = None,
    image_counts: int | Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """Plan an import: what `studio train FILE --plan` prints.

    Works without weights and data: what is not known is None, with the reason among the notices.

    Args:
        text: The file's text.
        file_name: Its name.
        as_meant: Take the reading that people usually mean.
        dataset_config: The text of a dataset_config beside it.
        shape: The model's shape, where the caller has the model.
        image_counts: How many images there are, as for `count_steps`, where the caller has them.

    Returns:
        `config` (all settings), `steps`, `modules` (how many layers of each part) and `notices` of
        every key.

    Raises:
        InvalidSpec: As `import_config`.
    """
    imported = import_config(text, file_name, as_meant, dataset_config)
    values = imported.values
    notices = [notice.model_dump(include={"key", "note", "kind"}) for notice in imported.notices]
    config = _fill_unknown_values(values)
    steps = None
    if values["steps"] is None and (values["epochs"] is None or image_counts is None):
        note = (
            "depend on the number of images: epochs × images × repeats ÷ batch size ÷ accumulation."
        )
        notices.append({"key": "steps", "kind": "unknown", "note": note})
    else:
        steps = count_steps(config, image_counts or 0)
    if shape is None and imported.family:
        shape = FAMILIES[imported.family].shape
    module_counts = None
    if shape is None:
        note = "depend on the model's family, which neither the file nor the names in it reveal."
        notices.append({"key": "modules", "kind": "unknown", "note": note})
    elif values["targets"] is None:
        note = "cannot be counted: the file asks for something the studio cannot train."
        notices.append({"key": "modules", "kind": "unknown", "note": note})
    else:
        modules = select_modules(
            shape,
            config.targets,
            config.target_modules,
            train_unet=config.train_unet,
            train_text_encoders=config.train_text_encoder,
            train_norm=config.train_norm,
        )
        module_counts = count_modules(modules)
    return {"config": values, "steps": steps, "modules": module_counts, "notices": notices}


def _merge_dataset_config(kohya_file: KohyaFile, dataset_file: KohyaFile) -> KohyaFile:
    """Let a dataset_config decide over the images, with a notice of what it overrides."""
    if dataset_file.file_format != "dataset" or kohya_file.file_format == "dataset":
        raise InvalidSpec(
            [
                "dataset_config: the second file must be a dataset_config with [[datasets]], and "
                "the first one must have training settings."
            ]
        )
    for key in ("train_data_dir", "reg_data_dir", "in_json", *dataset_file.values):
        if kohya_file.values.pop(key, None) is not None:
            name = kohya_file.original_names.get(key, key)
            kohya_file.notices.append(("conflicting", name, "overridden by the dataset_config."))
    kohya_file.values.pop("dataset_config", None)
    kohya_file.values |= dataset_file.values
    kohya_file.original_names |= dataset_file.original_names
    kohya_file.notices += [
        *dataset_file.notices,
        ("taken", "dataset_config", "read from the second file."),
    ]
    return kohya_file


def _refuse_other_families(reader: KohyaReader) -> None:
    for key, family in OTHER_FAMILY_KEYS.items():
        if reader.read_value(key):
            reader.mark_unresolved(
                "model",
                key,
                f"is for {family}; the studio trains LoRAs for Stable Diffusion 1.x, 2.x and XL.",
            )


def _fill_unknown_values(values: Mapping[str, Any]) -> TrainingConfig:
    """Return a config with defaults in place of what is not known, to compute with the rest."""
    known_values = {
        key: value
        for key, value in values.items()
        if value is not None or key in ("steps", "learning_rate")
    }
    return validate(TrainingConfig, {"dataset": "?", "name": "unknown"} | known_values)


def _build_import(reader: KohyaReader, family: FamilyName | None) -> KohyaImport:
    unresolved = reader.unresolved
    known_values = {key: value for key, value in reader.values.items() if key not in unresolved}
    try:
        config = validate(TrainingConfig, {"dataset": "?", "name": "unknown"} | known_values)
    except InvalidSpec as error:
        raise InvalidSpec([f"As studio settings: {fault}" for fault in error.faults]) from None
    values = config.model_dump(mode="json") | dict.fromkeys(unresolved)
    sentences = [
        format_value(sentence) if len(sentence) > 400 else sentence
        for sentence in unresolved.values()
    ]
    return KohyaImport(
        config=None if unresolved else config,
        values=values,
        faults=tuple(dict.fromkeys(sentences)),
        notices=tuple(reader.notices),
        family=family,
    )
