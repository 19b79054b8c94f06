"""The LoRAs that come with the studio: what a fresh home can do with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from studio.core.generation.request import GenerationRequest, LoraUse
from studio.core.sweeps.spec import SweepSpec, plan_sweep
from studio.core.training.config import TrainingConfig
from studio.services.submission import Services
from studio.settings import Settings, load, shipped
from studio.storage.home import Home
from studio.storage.models.library import Library, LoraInfo
from studio.storage.presets import Presets

LORAS = shipped("assets") / "loras"
NAMES = sorted(path.stem for path in LORAS.glob("*.safetensors"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(home=tmp_path / "home", device="cpu")


def test_a_fresh_home_lists_them(settings: Settings) -> None:
    loras = Library(settings).list_loras()
    assert NAMES == ["moon", "mysks"]
    assert [lora.name for lora in loras if isinstance(lora, LoraInfo)] == NAMES
    assert not (settings.loras / "moon.safetensors").exists()


@pytest.mark.parametrize("name", NAMES)
def test_each_is_of_its_preset(settings: Settings, name: str) -> None:
    """The card names the command; the file carries the settings that the command reads."""
    from studio.cli.train import load_config

    card = (LORAS / "README.md").read_text()
    (preset,) = [
        path
        for path in (shipped("presets") / "training").glob("*-pocket.toml")
        if f'name = "{name}"' in path.read_text()
    ]
    assert f"studio train presets/training/{preset.name}" in card
    expected, _ = load_config(preset, False, [])
    carried, _ = load_config(LORAS / f"{name}.safetensors", False, [])
    assert isinstance(carried, TrainingConfig)
    for field in TrainingConfig.model_fields:
        value = getattr(expected, field)
        if value is not None:
            assert getattr(carried, field) == value, field


def test_every_shipped_preset_of_sweeps_can_run_at_once(settings: Settings) -> None:
    """None names a size or a model, so that each can be had with a model of one's own."""
    services = Services(Home(settings))
    presets = Presets(SweepSpec, settings.home / "none", shipped("presets") / "sweeps")
    for name in presets.list_names():
        spec = presets.load(name)
        assert not {"model", "width", "height"} & set(spec.base), name
        services.check_plan(plan_sweep(spec, seed=1))


def test_a_lora_of_the_home_hides_a_shipped_one(settings: Settings) -> None:
    library = Library(settings)
    shipped_hash = library.get_content_hash(library.get_lora("moon"))
    for place in (
        settings.loras / "moon.safetensors",
        settings.loras / "mine" / "moon.safetensors",
    ):
        place.parent.mkdir(exist_ok=True, parents=True)
        tensors = load_file(LORAS / "moon.safetensors")
        save_file({key: tensor * 0.5 for key, tensor in tensors.items()}, place)
        info = library.get_lora("moon")
        assert info.path == place
        assert library.get_content_hash(info) != shipped_hash
        assert sorted(lora.name for lora in library.list_loras()) == NAMES
        place.unlink()
    assert library.get_content_hash(library.get_lora("moon")) == shipped_hash


def test_one_can_be_uploaded_under_the_name_of_a_shipped_one(settings: Settings) -> None:
    library = Library(settings)
    assert library.add_lora(LORAS / "mysks.safetensors", "moon.safetensors").name == "moon"
    assert library.get_lora("moon").path.parent == settings.loras


def test_they_are_read_only_and_stay_where_they_are(settings: Settings, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in LORAS.iterdir()}
    library = Library(settings)
    library.check_request(GenerationRequest(loras=(LoraUse(name="moon"), LoraUse(name="mysks"))))
    shutil.copy(LORAS / "moon.safetensors", tmp_path)
    assert {path.name: path.read_bytes() for path in LORAS.iterdir()} == before
