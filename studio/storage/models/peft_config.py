"""The settings that peft writes beside or into a file of adapters.

Knows: where diffusers and peft put them, and how they name layers. Does not know: the tensors
(lora_file.py); peft itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.errors import BadFile, quote
from studio.storage.odd_files import read_json

MAX_CONFIG_BYTES = 2**20

PeftConfig = Mapping[str, Any]


def list_files(path: Path) -> list[Path]:
    """List the files of a LoRA: the file itself, and peft's config beside it if there is one."""
    config_path = path.with_name("adapter_config.json")
    if path.stem == "adapter_model" and config_path.is_file():
        return [path, config_path]
    return [path]


def read_peft_configs(path: Path, metadata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return peft's settings by network, "" for all.

    diffusers writes them into the header, peft itself into a file beside it. LoHa and LoKr have
    `alpha` where LoRA has `lora_alpha`.

    Raises:
        BadFile: They cannot be read, or what they say would be guessed.
    """
    try:
        settings = json.loads(str(metadata.get("lora_adapter_metadata", "{}")))
        files = list_files(path)
        if len(files) > 1:
            settings = read_json(files[1], MAX_CONFIG_BYTES) | settings
        configs = _group_by_network(settings)
        for config in configs.values():
            config["alpha"] = _parse_optional(config.get("lora_alpha", config.get("alpha")))
            config["rank"] = _parse_optional(config.get("r"))
            for name in ("alpha_pattern", "rank_pattern"):
                config[name] = _parse_pattern(config.get(name) or {})
            config["feedforward_modules"] = _parse_names(config.get("feedforward_modules"))
            config["num_cayley_neumann_terms"] = _parse_terms(config)
    except Exception:  # any value may be of any type
        raise BadFile(
            f"{path.name}: the settings that peft wrote with it cannot be read, so its alpha is "
            "not known."
        ) from None
    return configs


def get_number(config: PeftConfig, name: str, dotted_name: str) -> float | None:
    """Return what the settings give a layer; None where they say nothing.

    Args:
        config: Of the layer's network.
        name: alpha or rank.
        dotted_name: The layer's, as the file has it.
    """
    pattern: Mapping[str, tuple[int, float]] = config.get(f"{name}_pattern", {})
    parts = dotted_name.split(".")
    endings = [".".join(parts[k:]) for k in range(len(parts))]
    matches = [pattern[ending] for ending in endings if ending in pattern]
    if matches:
        return min(matches)[1]
    number: float | None = config.get(name)
    return number


def is_feedforward(config: PeftConfig, dotted_name: str) -> bool | None:
    """Whether (IA)³ scales what a layer takes; None where the settings do not say it."""
    names: tuple[str, ...] | None = config.get("feedforward_modules")
    if names is None:
        return None
    return any(dotted_name == name or dotted_name.endswith(f".{name}") for name in names)


def _group_by_network(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Turn {"unet.lora_alpha": 4, "r": 8} into {"unet": {"lora_alpha": 4}, "": {"r": 8}}."""
    configs: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        network, dot, name = key.partition(".")
        if dot:
            configs.setdefault(network, {})[name] = value
        else:
            configs.setdefault("", {})[key] = value
    return configs


def _parse_number(value: Any) -> float:
    """Raise ValueError for what is no number, or too large for a float."""
    if type(value) not in (int, float) or not -1e30 < value < 1e30:
        raise ValueError(f"{quote(value)} is no number")
    return float(value)


def _parse_optional(value: Any) -> float | None:
    return None if value is None else _parse_number(value)


def _parse_pattern(patterns: Mapping[str, Any]) -> dict[str, tuple[int, float]]:
    """Return numbers by the ending of layer names, each with its position.

    The first that fits a layer counts. Raises ValueError for any other regular expression.
    """
    numbers: dict[str, tuple[int, float]] = {}
    for position, (pattern, number) in enumerate(patterns.items()):
        ending = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if not re.fullmatch(r"[\w.-]+", ending):
            raise ValueError(f"{quote(pattern)} is no layer's name")
        numbers.setdefault(ending, (position, _parse_number(number)))
    return numbers


def _parse_names(names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    return tuple(names) if isinstance(names, list) else (str(names),)


def _parse_terms(config: PeftConfig) -> int:
    """Return of how many terms OFT's series is; 0 if it computes the inverse."""
    if not config.get("use_cayley_neumann", True):
        return 0
    terms = _parse_number(config.get("num_cayley_neumann_terms", 5))
    if terms not in range(1, 100):
        raise ValueError(f"{quote(terms)} terms")
    return int(terms)
