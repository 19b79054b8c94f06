"""The text of a kohya file → plain keys and values, hostile text included.

Knows: TOML with and without sections (sd-scripts flattens them), the GUI's JSON and what the GUI
passes on of it, dataset_config files, folder names.
Does not know: what a key means to a training run (network.py, optimizer.py, dataset.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from studio.core.toml_text import load_toml
from studio.errors import InvalidSpec, quote

NoticeKind = Literal["taken", "inert", "conflicting", "unsupported", "unknown"]
FileFormat = Literal["training", "gui", "dataset", "own"]

MAX_JSON_CHARACTERS = 500_000  # the GUI's files have 6,000
MAX_TOML_CHARACTERS = 64 * 1024  # which tomllib reads in half a second at worst
MAX_KEYS = 2000
MAX_REPEATS = 1_000_000
GUI_KEY_ALIASES = {
    "optimizer": "optimizer_type",
    "max_resolution": "resolution",
    "sdxl_no_half_vae": "no_half_vae",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
}
_LORA_TYPES = {
    "Standard": ("networks.lora", ""),
    "Kohya LoCon": ("networks.lora", ""),
    "LoCon": ("lycoris.kohya", "locon"),
    "LyCORIS/LoCon": ("lycoris.kohya", "locon"),
    "LyCORIS/LoHa": ("lycoris.kohya", "loha"),
    "LyCORIS/LoKr": ("lycoris.kohya", "lokr"),
    "LyCORIS/DyLoRA": ("lycoris.kohya", "dylora"),
    "LyCORIS/Native Fine-Tuning": ("lycoris.kohya", "full"),
    "LyCORIS/Diag-OFT": ("lycoris.kohya", "diag-oft"),
    "LyCORIS/BOFT": ("lycoris.kohya", "boft"),
    "LyCORIS/GLoRA": ("lycoris.kohya", "glora"),
    "LyCORIS/iA3": ("lycoris.kohya", "ia3"),
}
_NETWORK_ARG_KEYS = (
    "rank_dropout",
    "module_dropout",
    "down_lr_weight",
    "mid_lr_weight",
    "up_lr_weight",
    "block_lr_zero_threshold",
    "block_dims",
    "block_alphas",
    "conv_block_dims",
    "conv_block_alphas",
)
# What the GUI hands on for LyCORIS alone.
_LYCORIS_ARG_KEYS = (
    *("factor", "decompose_both", "use_cp", "use_tucker", "use_scalar", "train_norm", "dora_wd"),
    *("rank_dropout_scale", "bypass_mode", "rescaled"),
)
_DATASET_KEY_ALIASES = {"batch_size": "train_batch_size"}


@dataclass
class KohyaFile:
    """The contents of a file.

    `values` are by sd-scripts' names; `original_names` has the file's own where they differ;
    `notices` are (kind, key, note).
    """

    file_format: FileFormat
    values: dict[str, Any]
    original_names: dict[str, str] = field(default_factory=dict)
    notices: list[tuple[NoticeKind, str, str]] = field(default_factory=list)


def parse_folder_name(folder: str) -> tuple[int, str] | None:
    """Split a folder's name as kohya does: 40_moon → (40, "moon"); None for any other name."""
    first, *words = folder.split("_")
    try:
        repeats = int(first)
    except ValueError:
        return None
    if not 1 <= repeats <= MAX_REPEATS:
        return None
    return repeats, "_".join(words)


def parse_kohya_file(text: str) -> KohyaFile:
    """Read a kohya file, or a training config of the studio.

    Args:
        text: The file's text, TOML or JSON.

    Raises:
        InvalidSpec: It is neither, or far too large.
    """
    is_json = text.lstrip("\ufeff \t\r\n").startswith("{")
    max_characters = MAX_JSON_CHARACTERS if is_json else MAX_TOML_CHARACTERS
    if len(text) > max_characters:
        raise InvalidSpec(
            [
                f"The file is {len(text):,} characters long; training settings have a few "
                f"thousand, at most {max_characters:,}."
            ]
        )
    data = _load_json_or_toml(text.lstrip("\ufeff"), is_json)
    if not data:
        raise InvalidSpec(["The file is empty; choose one with training settings."])
    if isinstance(data.get("dataset"), str):
        return KohyaFile("own", data)
    if "datasets" in data:
        return _parse_dataset_config(data)
    kohya_file = _parse_gui_json(data) if is_json else _parse_training_toml(data)
    key_count = len(kohya_file.values)
    if key_count > MAX_KEYS:
        raise InvalidSpec(
            [f"The file has {key_count:,} keys; training settings have at most {MAX_KEYS:,}."]
        )
    return kohya_file


def _load_json_or_toml(text: str, is_json: bool) -> dict[str, Any]:
    try:
        if not is_json:
            return load_toml(text)
        data: dict[str, Any] = json.loads(text, object_pairs_hook=_reject_duplicate_keys)
    except RecursionError:
        raise InvalidSpec(["The file is nested too deeply for training settings."]) from None
    except ValueError as error:
        reason = str(error) if len(str(error)) < 200 else f"{str(error)[:200]} …"
        language = "JSON" if is_json else "TOML"
        raise InvalidSpec([f"The file is not valid {language}: {reason.rstrip('.')}."]) from None
    return data


def is_off(value: Any) -> bool:
    """Return whether the GUI does not write a value: it is empty, false or 0."""
    if isinstance(value, str):
        try:
            return not value.strip() or float(value) == 0
        except ValueError:
            return False
    if value is None or isinstance(value, bool | int | float):
        return not value
    return value in ([], {})


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {quote(key)} appears twice; remove one of them")
        values[key] = value
    return values


def _parse_training_toml(data: Mapping[str, Any]) -> KohyaFile:
    """Flatten the sections as sd-scripts does; of equal keys the last one stays."""
    kohya_file = KohyaFile("training", {})
    for key, value in data.items():
        section = value if isinstance(value, dict) else {key: value}
        for name, setting in section.items():
            if name in kohya_file.values:
                note = "appears in two sections; kohya silently uses the last one."
                kohya_file.notices.append(("conflicting", name, note))
            kohya_file.values[name] = setting
    return kohya_file


def _parse_gui_json(data: Mapping[str, Any]) -> KohyaFile:
    """Return what the GUI would pass to sd-scripts."""
    kohya_file = KohyaFile("gui", {})
    for key, value in data.items():
        name = GUI_KEY_ALIASES.get(key, key)
        if name != key:
            kohya_file.original_names[name] = key
        if is_off(value) and key not in ("max_data_loader_n_workers", "keep_tokens", "sdxl"):
            note = "empty, off or 0: the GUI does not pass it on."
            kohya_file.notices.append(("inert", key, note))
        else:
            kohya_file.values[name] = value
    _convert_gui_length(kohya_file, data)
    _convert_gui_learning_rates(kohya_file, data)
    _convert_gui_network(kohya_file, data)
    for key in ("optimizer_args", "lr_scheduler_args"):
        arguments = kohya_file.values.get(key)
        if isinstance(arguments, str):
            kohya_file.values[key] = arguments.replace('"', "").split()
    _drop_unused_noise_keys(kohya_file)
    return kohya_file


def _drop_unused_noise_keys(kohya_file: KohyaFile) -> None:
    noise_type = kohya_file.values.get("noise_offset_type", "Original")
    unused_keys = ("multires_noise_iterations", "multires_noise_discount")
    if noise_type == "Multires":
        unused_keys = ("noise_offset", "adaptive_noise_scale")
    for key in unused_keys:
        if kohya_file.values.pop(key, None) is not None:
            note = f"the GUI does not pass it on with noise_offset_type {quote(noise_type)}."
            kohya_file.notices.append(("inert", key, note))


def _convert_gui_length(kohya_file: KohyaFile, data: Mapping[str, Any]) -> None:
    values = kohya_file.values
    if "lr_warmup" in values:
        values["lr_warmup_steps"] = values.pop("lr_warmup")
        kohya_file.original_names["lr_warmup_steps"] = "lr_warmup"
    has_length = "max_train_steps" in values or "max_train_epochs" in values
    if not has_length and "epoch" in values and is_off(data.get("dataset_config")):
        values["max_train_epochs"] = values.pop("epoch")
        kohya_file.original_names["max_train_epochs"] = "epoch"


def _convert_gui_learning_rates(kohya_file: KohyaFile, data: Mapping[str, Any]) -> None:
    """Leave out a part without a rate of its own where the other part has one."""
    values = kohya_file.values
    trains_unet = not is_off(data.get("unet_lr"))
    trains_encoder = not is_off(data.get("text_encoder_lr"))
    has_part_lr = trains_unet or trains_encoder
    if has_part_lr and values.pop("learning_rate", None) is not None:
        kohya_file.notices.append(
            ("inert", "learning_rate", "the GUI passes on unet_lr and text_encoder_lr instead.")
        )
    for key in ("network_train_unet_only", "network_train_text_encoder_only"):
        if values.pop(key, None) is not None:
            note = "the GUI expresses this with a learning rate of 0."
            kohya_file.notices.append(("inert", key, note))
    if trains_unet and not trains_encoder:
        values["network_train_unet_only"] = True
        kohya_file.original_names["network_train_unet_only"] = "text_encoder_lr"
    if trains_encoder and not trains_unet:
        values["network_train_text_encoder_only"] = True
        kohya_file.original_names["network_train_text_encoder_only"] = "unet_lr"


def _convert_gui_network(kohya_file: KohyaFile, data: Mapping[str, Any]) -> None:
    kind = kohya_file.values.pop("LoRA_type", "Standard")
    unknown_type = (f"LoRA_type {quote(kind)}", "")
    module, algorithm = _LORA_TYPES.get(kind if isinstance(kind, str) else "", unknown_type)
    kohya_file.values["network_module"] = module
    kohya_file.original_names["network_module"] = (
        "LoRA_type" if "LoRA_type" in data else "network_module"
    )
    arguments = []
    if algorithm:
        preset = data.get("LyCORIS_preset") or "full"
        arguments = [f"algo={algorithm}", f"preset={preset!s:.60}"]
    lycoris_keys = _LYCORIS_ARG_KEYS if module == "lycoris.kohya" else ()
    for key in ("conv_dim", "conv_alpha", *_NETWORK_ARG_KEYS, *lycoris_keys):
        value = kohya_file.values.pop(key, None)
        if value is None:
            continue
        if key.startswith("conv_") and kind == "Standard":
            kohya_file.notices.append(("inert", key, "the GUI passes it on only for LoCon."))
        else:
            arguments.append(f"{key}={value!s:.200}")
            kohya_file.original_names[f"network_args.{key}"] = key
    if arguments:
        kohya_file.values["network_args"] = arguments
        kohya_file.original_names["network_args.algo"] = "LoRA_type"
        kohya_file.original_names["network_args.preset"] = "LyCORIS_preset"


def _parse_dataset_config(data: Mapping[str, Any]) -> KohyaFile:
    """Read a dataset_config; of several folders the first one's settings count, with a notice."""
    kohya_file = KohyaFile("dataset", {})
    folders = _list_dataset_folders(data)
    trained_folders = [folder for folder in folders if folder.get("is_reg") is not True]
    class_folder_count = len(folders) - len(trained_folders)
    if class_folder_count:
        note = (
            f"{class_folder_count} folders of class images are left out; the studio generates its "
            "own (Class images)."
        )
        kohya_file.notices.append(("unsupported", "is_reg", note))
    if not trained_folders:
        raise InvalidSpec(
            ["datasets: all folders hold class images (is_reg), so there is nothing to learn."]
        )
    kohya_file.notices += [
        ("unsupported", key, "not one of dataset_config's tables.")
        for key in data
        if key not in ("general", "datasets")
    ]
    keys = dict.fromkeys(key for folder in trained_folders for key in folder)
    for key in keys:
        if key == "is_reg":
            continue
        values = [folder.get(key) for folder in trained_folders]
        if key != "image_dir" and any(value != values[0] for value in values):
            note = "differs between the folders; the studio uses the first one's for all."
            if key == "num_repeats":
                note += " For separate repeats, name the folders like 40_moon."
            kohya_file.notices.append(("unsupported", key, note))
        name = _DATASET_KEY_ALIASES.get(key, key)
        if name != key:
            kohya_file.original_names[name] = key
        if key == "image_dir":
            kohya_file.values[name] = values
        else:
            kohya_file.values[name] = next(value for value in values if value is not None)
    return kohya_file


def _list_dataset_folders(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the settings of every folder: its own, else its dataset's, else the general ones."""
    general = data.get("general", {})
    datasets = data["datasets"]
    is_list = isinstance(datasets, list) and 1 <= len(datasets) <= MAX_KEYS
    if not is_list or not isinstance(general, dict):
        raise InvalidSpec(
            ["datasets: must be a list of tables ([[datasets]]), and general a table."]
        )
    folders: list[dict[str, Any]] = []
    for number, dataset in enumerate(datasets, 1):
        subsets: Any = dataset.get("subsets") if isinstance(dataset, dict) else None
        is_list = isinstance(subsets, list) and bool(subsets)
        if not is_list or not all(isinstance(subset, dict) for subset in subsets):
            raise InvalidSpec(
                [f"datasets: number {number} must have a list of tables [[datasets.subsets]]."]
            )
        shared = {key: value for key, value in dataset.items() if key != "subsets"}
        folders += [{**general, **shared, **subset} for subset in subsets]
    if len(folders) > MAX_KEYS:
        raise InvalidSpec(
            [f"datasets: at most {MAX_KEYS:,} folders are allowed (the file has {len(folders):,})."]
        )
    return folders
