"""The text of a kohya file → plain keys and values, hostile text included.

Knows: TOML with and without sections (sd-scripts flattens them), the GUI's JSON and what the GUI makes of it, dataset_config files,
folder names. Does not know: what a key means to a training run (`kohya_rules`, `kohya_keys`).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from studio.errors import InvalidSpec

Kind = Literal["taken", "inert", "conflicting", "unsupported", "unknown"]
Form = Literal["training", "gui", "dataset", "own"]

LONGEST = 500_000  # characters; the GUI's files have 6,000
MOST_KEYS = 2000
MOST_REPEATS = 1_000_000
GUI_NAMES = {
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
}
_NETWORK_ARGS = (
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
_DATASET_NAMES = {"batch_size": "train_batch_size"}


@dataclass
class Given:
    """What stands in a file: values by sd-scripts' names, the file's own name of each, and what had to be said on the way."""

    form: Form
    values: dict[str, Any]
    names: dict[str, str] = field(default_factory=dict)
    said: list[tuple[Kind, str, str]] = field(default_factory=list)


def concept(folder: str) -> tuple[int, str] | None:
    """Repeats and words of a folder such as 40_moon, as kohya splits them: (40, "moon"). None for any other name."""
    first, *words = folder.split("_")
    try:
        repeats = int(first)
    except ValueError:
        return None
    return (repeats, "_".join(words)) if 1 <= repeats <= MOST_REPEATS else None


def parse(text: str) -> Given:
    """Raises InvalidSpec, in a plain sentence, for what is no such file."""
    if len(text) > LONGEST:
        raise InvalidSpec(
            [
                f"The file has {len(text):,} characters: training settings have a few thousand ({LONGEST:,} at most)."
            ]
        )
    is_json = text.lstrip("\ufeff \t\r\n").startswith("{")
    try:
        read = (
            json.loads(text.lstrip("\ufeff"), object_pairs_hook=_once)
            if is_json
            else tomllib.loads(text.lstrip("\ufeff"))
        )
    except RecursionError:
        raise InvalidSpec(["The file is nested too deeply to be training settings."]) from None
    except ValueError as error:
        told = str(error) if len(str(error)) < 200 else f"{str(error)[:200]} …"
        raise InvalidSpec(
            [f"The file is no {'JSON' if is_json else 'TOML'}: {told.rstrip('.')}."]
        ) from None
    if not read:
        raise InvalidSpec(["The file is empty: there are no settings in it."])
    if isinstance(read.get("dataset"), str):
        return Given("own", read)
    if "datasets" in read:
        return _dataset(read)
    given = _gui(read) if is_json else _sections(read)
    if len(given.values) > MOST_KEYS:
        raise InvalidSpec(
            [
                f"The file has {len(given.values):,} keys: training settings have {MOST_KEYS:,} at most."
            ]
        )
    return given


def off(value: Any) -> bool:
    """What the GUI takes for nothing, and does not write: empty, false, 0 (as 0 == False in Python)."""
    if isinstance(value, str):
        try:
            return not value.strip() or float(value) == 0
        except ValueError:
            return False
    return (
        value is None
        or value is False
        or (isinstance(value, int | float) and value == 0)
        or value in ([], {})
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r:.60} stands there twice; which one counts?")
        found[key] = value
    return found


def _sections(read: Mapping[str, Any]) -> Given:
    """sd-scripts puts all sections into one heap; of equal keys the last one stays."""
    given = Given("training", {})
    for key, value in read.items():
        for name, inner in value.items() if isinstance(value, dict) else [(key, value)]:
            if name in given.values:
                given.said.append(
                    (
                        "conflicting",
                        name,
                        "stands in two sections; kohya takes the last one, in silence.",
                    )
                )
            given.values[name] = inner
    return given


def _gui(read: Mapping[str, Any]) -> Given:
    """What the GUI would hand to sd-scripts."""
    given = Given("gui", {})
    for key, value in read.items():
        name = GUI_NAMES.get(key, key)
        if name != key:
            given.names[name] = key
        if off(value) and key not in ("max_data_loader_n_workers", "keep_tokens", "sdxl"):
            given.said.append(("inert", key, "is empty, off or 0: the GUI does not hand it on."))
        else:
            given.values[name] = value
    _gui_length(given, read)
    _gui_rates(given, read)
    _gui_network(given, read)
    for key in ("optimizer_args", "lr_scheduler_args"):
        if isinstance(value := given.values.get(key), str):
            given.values[key] = value.replace('"', "").split()
    noise = given.values.get("noise_offset_type", "Original")
    for key in (
        ("multires_noise_iterations", "multires_noise_discount")
        if noise != "Multires"
        else ("noise_offset", "adaptive_noise_scale")
    ):
        if given.values.pop(key, None) is not None:
            given.said.append(
                ("inert", key, f"the GUI does not hand it on with noise_offset_type {noise!r:.20}.")
            )
    return given


def _gui_length(given: Given, read: Mapping[str, Any]) -> None:
    values = given.values
    if "lr_warmup" in values:
        values["lr_warmup_steps"], given.names["lr_warmup_steps"] = (
            values.pop("lr_warmup"),
            "lr_warmup",
        )
    counted = {"max_train_steps", "max_train_epochs"} & values.keys()
    if not counted and "epoch" in values and off(read.get("dataset_config")):
        values["max_train_epochs"], given.names["max_train_epochs"] = values.pop("epoch"), "epoch"


def _gui_rates(given: Given, read: Mapping[str, Any]) -> None:
    unet, encoder = not off(read.get("unet_lr")), not off(read.get("text_encoder_lr"))
    if (unet or encoder) and given.values.pop("learning_rate", None) is not None:
        given.said.append(
            ("inert", "learning_rate", "the GUI hands on unet_lr and text_encoder_lr instead.")
        )
    for key in ("network_train_unet_only", "network_train_text_encoder_only"):
        if given.values.pop(key, None) is not None:
            given.said.append(("inert", key, "the GUI says it by a rate of 0."))
    if unet and not encoder:
        given.values["network_train_unet_only"], given.names["network_train_unet_only"] = (
            True,
            "text_encoder_lr",
        )
    if encoder and not unet:
        (
            given.values["network_train_text_encoder_only"],
            given.names["network_train_text_encoder_only"],
        ) = True, "unet_lr"


def _gui_network(given: Given, read: Mapping[str, Any]) -> None:
    kind = given.values.pop("LoRA_type", "Standard")
    module, algorithm = _LORA_TYPES.get(
        kind if isinstance(kind, str) else "", (f"LoRA_type {kind!r:.40}", "")
    )
    given.values["network_module"], given.names["network_module"] = (
        module,
        "LoRA_type" if "LoRA_type" in read else "network_module",
    )
    arguments = (
        [f"algo={algorithm}", f"preset={read.get('LyCORIS_preset') or 'full'!s:.60}"]
        if algorithm
        else []
    )
    for key in ("conv_dim", "conv_alpha", *_NETWORK_ARGS):
        value = given.values.pop(key, None)
        if value is None:
            continue
        if key.startswith("conv_") and kind == "Standard":
            given.said.append(("inert", key, "the GUI hands it on only for a LoCon."))
        else:
            arguments.append(f"{key}={value!s:.200}")
            given.names[f"network_args.{key}"] = key
    if arguments:
        given.values["network_args"] = arguments
        for key in ("algo", "preset"):
            given.names[f"network_args.{key}"] = "LoRA_type" if key == "algo" else "LyCORIS_preset"


def _dataset(read: Mapping[str, Any]) -> Given:
    """A dataset_config: what stands lower counts more. Of several folders the first one's settings are taken, and that is said."""
    given = Given("dataset", {})
    general, datasets = read.get("general", {}), read["datasets"]
    if (
        not isinstance(general, dict)
        or not isinstance(datasets, list)
        or not datasets
        or len(datasets) > MOST_KEYS
    ):
        raise InvalidSpec(
            ["datasets: has to be a list of tables ([[datasets]]), and general a table."]
        )
    folders: list[dict[str, Any]] = []
    for number, one in enumerate(datasets, 1):
        subsets = one.get("subsets") if isinstance(one, dict) else None
        if (
            not isinstance(subsets, list)
            or not subsets
            or not all(isinstance(subset, dict) for subset in subsets)
        ):
            raise InvalidSpec(
                [f"datasets: number {number} has to have a list of tables [[datasets.subsets]]."]
            )
        shared = {**general, **{key: value for key, value in one.items() if key != "subsets"}}
        folders += [{**shared, **subset} for subset in subsets]
    if len(folders) > MOST_KEYS:
        raise InvalidSpec([f"datasets: there are {len(folders):,} folders; {MOST_KEYS:,} at most."])
    learned = [folder for folder in folders if folder.get("is_reg") is not True]
    if len(learned) < len(folders):
        given.said.append(
            (
                "unsupported",
                "is_reg",
                f"{len(folders) - len(learned)} folders of class pictures are left out; the "
                "studio makes them itself (class pictures).",
            )
        )
    if not learned:
        raise InvalidSpec(
            ["datasets: all folders are of class pictures (is_reg); there is nothing to learn."]
        )
    given.said += [
        ("unsupported", key, "is not one of dataset_config's tables.")
        for key in read
        if key not in ("general", "datasets")
    ]
    for key in dict.fromkeys(key for folder in learned for key in folder):
        every = [folder.get(key) for folder in learned]
        if key == "is_reg":
            continue
        if key != "image_dir" and any(value != every[0] for value in every):
            given.said.append(
                (
                    "unsupported",
                    key,
                    "differs between the folders; the studio takes the first one's for all."
                    + " Name the folders 40_moon for repeats of their own."
                    * (key == "num_repeats"),
                )
            )
        name = _DATASET_NAMES.get(key, key)
        given.names |= {name: key} if name != key else {}
        given.values[name] = (
            every if key == "image_dir" else next(value for value in every if value is not None)
        )
    return given
