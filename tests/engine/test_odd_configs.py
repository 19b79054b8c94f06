"""Odd values in the configs of models: the file and the key are named, or what the library said; never a traceback."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTokenizer

from studio.engine.models.components import load_network, load_tokenizer
from studio.engine.models.devices import resolve
from studio.engine.models.flow_schedulers import build_flow_scheduler
from studio.engine.models.schedulers import build_scheduler
from studio.errors import BadFile, UnknownFamily
from studio.settings import Settings, load
from studio.storage.models.library import Library, read_model_info
from support.models import POCKET
from support.sentences import refused

SCHEDULER_CONFIG = json.loads((POCKET / "scheduler" / "scheduler_config.json").read_text())
NUMBERS = [
    "linspace()",
    [1, "x"],
    {"a": 1},
    float("nan"),
    float("inf"),
    10**400,
    -(10**9),
    True,
    [],
]


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A copy of the embedded model that may be spoiled."""
    folder = tmp_path / "home" / "models" / "odd"
    folder.mkdir(parents=True)
    for name in ("model_index.json", "scheduler", "unet", "vae", "text_encoder", "tokenizer"):
        source = POCKET / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy(source, folder / name)
    return folder


@pytest.fixture
def settings(model_folder: Path) -> Settings:
    return load(home=model_folder.parents[1], device="cpu")


def set_value(file: Path, key: str, value: Any) -> None:
    config = json.loads(file.read_text())
    config[key] = value
    file.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("scheduler/scheduler_config.json", "beta_start"),
        ("scheduler/scheduler_config.json", "num_train_timesteps"),
        ("unet/config.json", "layers_per_block"),
        ("unet/config.json", "norm_eps"),
        ("vae/config.json", "scaling_factor"),
        ("vae/config.json", "latent_channels"),
        ("text_encoder/config.json", "num_hidden_layers"),
    ],
)
def test_a_word_in_the_place_of_a_number_is_named(
    settings: Settings, model_folder: Path, file: str, key: str
) -> None:
    set_value(model_folder / file, key, "linspace()")
    with refused(UnknownFamily) as caught:
        Library(settings).get_model("odd")
    assert file in str(caught.value)
    assert key in str(caught.value)
    assert "linspace()" in str(caught.value)


@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize("file", ["scheduler/scheduler_config.json", "unet/config.json"])
def test_what_is_no_number_hides_no_other_model(
    settings: Settings, model_folder: Path, file: str, value: Any
) -> None:
    key = "beta_end" if file.startswith("scheduler") else "block_out_channels"
    set_value(model_folder / file, key, value)
    models = {model.name: model for model in Library(settings).scan_models()}
    assert file in str(getattr(models["odd"], "problem", ""))
    assert not hasattr(models["pocket"], "problem")


@pytest.mark.parametrize("key", ["prediction_type", "timestep_spacing", "beta_schedule"])
def test_a_number_in_the_place_of_a_word_is_named(
    settings: Settings, model_folder: Path, key: str
) -> None:
    set_value(model_folder / "scheduler" / "scheduler_config.json", key, [5])
    with refused(UnknownFamily):
        Library(settings).get_model("odd")


@pytest.mark.parametrize(
    "changes",
    [
        {"beta_schedule": "linspace()"},
        {"trained_betas": "linspace()"},
        {"timestep_spacing": "linspace()"},
        {"beta_start": "linspace()"},
        {"num_train_timesteps": None},
    ],
    ids=str,
)
def test_what_diffusers_does_not_take_is_a_sentence(changes: dict[str, Any]) -> None:
    with pytest.raises(BadFile, match=r"scheduler/scheduler_config\.json has values"):
        build_scheduler("Euler", "Model default", SCHEDULER_CONFIG | changes, 5, 0)


def test_odd_shifts_of_a_flow_are_a_sentence() -> None:
    for config in ({"shift": "x"}, {"base_shift": "x"}, {"base_image_seq_len": 4096}):
        with pytest.raises(BadFile, match="scheduler_config"):
            build_flow_scheduler("Euler", "Model default", config, 5, num_tokens=64)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("unet", "down_block_types", 7),
        ("unet", "act_fn", ["silu"]),
        ("vae", "up_block_types", ["NoSuchBlock"]),
        ("vae", "norm_num_groups", 7),
    ],
)
def test_networks_that_the_library_cannot_build(
    model_folder: Path, part: str, key: str, value: Any
) -> None:
    info = read_model_info(model_folder)
    set_value(model_folder / part / "config.json", key, value)
    network_class = UNet2DConditionModel if part == "unet" else AutoencoderKL
    with pytest.raises(BadFile, match=f"The {part} of odd cannot be read"):
        load_network(network_class, info, part, resolve("cpu"), torch.float32)


@pytest.mark.parametrize("value", NUMBERS[:4], ids=str)
def test_a_tokenizer_with_odd_settings_loads_or_is_a_sentence(
    model_folder: Path, value: Any
) -> None:
    info = read_model_info(model_folder)
    for file in sorted((model_folder / "tokenizer").glob("*.json")):
        original = file.read_text()
        for key in ("model_max_length", "bos_token", "tokenizer_class", "added_tokens_decoder"):
            config = json.loads(original)
            if not isinstance(config, dict):
                continue
            file.write_text(json.dumps(config | {key: value}))
            try:
                load_tokenizer(CLIPTokenizer, info, "tokenizer")
            except BadFile as error:
                assert "tokenizer of odd cannot be read" in str(error)  # noqa: PT017
        file.write_text(original)


def test_a_pipe_in_the_place_of_a_config_is_not_waited_for(
    settings: Settings, model_folder: Path
) -> None:
    for file in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        original = (model_folder / file).read_bytes()
        (model_folder / file).unlink()
        os.mkfifo(model_folder / file)
        models = {model.name: model for model in Library(settings).scan_models()}
        assert "pipe" in getattr(models["odd"], "problem", "") or "cannot be read" in getattr(
            models["odd"], "problem", ""
        )
        (model_folder / file).unlink()
        (model_folder / file).write_bytes(original)
