"""`studio train` as a user types it: kohya's settings, our own, stopped, resumed, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from safetensors import safe_open

from studio.core.training.lora_targets import count_modules, select_modules
from studio.settings import load, shipped
from studio.storage.models.library import Library
from studio.storage.models.model_shape import read_model_shape
from studio.storage.training.runs import Runs
from support.models import make_toy_z_image
from support.sentences import check_sentence

Studio = Callable[..., CompletedProcess[str]]
QUICK = """
model = "pocket"
dataset = "moon"
name = "quick"
trigger = "moon"
steps = 3
batch = 2
rank = 2
resolution = 64
buckets = false
seed = 5
"""


@pytest.fixture
def studio(command: Studio) -> Studio:
    """`studio train …` on a home of its own."""
    return lambda *words: command("train", *words, "--keep-free", "0")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "quick.toml"
    path.write_text(QUICK)
    return path


@pytest.mark.slow
def test_a_lora_from_a_file_and_the_same_from_the_lora(studio: Studio, spec: Path) -> None:
    made = studio(str(spec))
    assert made.returncode == 0, made.stderr
    path = Path(made.stdout.strip())
    with safe_open(path, "pt") as file:
        assert file.metadata()["ss_network_dim"] == "2"
        assert any(
            key.endswith(".alpha")
            for key in file.keys()  # noqa: SIM118
        )
    planned = json.loads(studio(str(path), "--plan").stdout)
    assert planned["config"]["dataset"] == "moon"
    assert planned["steps"] == 3
    again = studio(str(path), "--set", "name=again")
    with safe_open(path, "pt") as one, safe_open(again.stdout.strip(), "pt") as other:
        assert set(one.keys()) == set(other.keys())
        assert all(one.get_tensor(key).equal(other.get_tensor(key)) for key in one.keys())  # noqa: SIM118


@pytest.mark.slow
def test_a_run_is_gone_on_with(studio: Studio, spec: Path, tmp_path: Path) -> None:
    assert studio(str(spec), "--resume").returncode == 1
    first = studio(str(spec))
    again = studio(str(spec), "--resume")
    assert (first.returncode, again.returncode) == (0, 0)
    assert len(Runs(load(home=tmp_path / "home")).list_runs()) == 1


@pytest.mark.parametrize(
    "preset", sorted((shipped("presets") / "training").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_preset_is_planned_without_weights_and_data(studio: Studio, preset: Path) -> None:
    planned = json.loads(studio(str(preset), "--plan").stdout)
    assert planned["steps"] > 0
    assert planned["config"]["name"]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--set", "steps=0", "--set", "rank=x"], 2),
        (["--set", "nonsense"], 2),
        (["--set", "stepz=3"], 2),
        (["--set", "model=nowhere"], 1),
        (["--set", "dataset=nothing"], 1),
    ],
    ids=["values", "no value", "no field", "no model", "no dataset"],
)
def test_nonsense_in_plain_words(studio: Studio, spec: Path, words: list[str], status: int) -> None:
    done = studio(str(spec), *words)
    assert done.returncode == status, done.stderr
    check_sentence(done.stderr)
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_a_setting_can_be_emptied(studio: Studio, spec: Path) -> None:
    spec.write_text(f"{QUICK}checkpoint_every = 2\n")
    planned = json.loads(studio(str(spec), "--plan", "--set", "checkpoint_every=").stdout)
    assert planned["config"]["checkpoint_every"] is None
    assert studio(str(spec), "--plan", "--set", "name=").returncode == 2


def test_a_plan_counts_the_layers_of_the_model_that_is_there(
    studio: Studio, spec: Path, tmp_path: Path, toys: Path
) -> None:
    """Not those that its name makes one think of."""
    models = tmp_path / "home/models"
    models.mkdir(parents=True)
    (models / "v1-5").symlink_to(toys / "toy-sd2")
    for name in ("pocket", "v1-5"):
        planned = json.loads(studio(str(spec), "--plan", "--set", f"model={name}").stdout)
        model = Library(load(home=tmp_path / "home")).get_model(name)
        shape, _ = read_model_shape(model)
        expected = count_modules(select_modules(shape, "attention + feed-forward"))
        assert planned["modules"]["unet"] == expected["unet"]
    unknown = json.loads(studio(str(spec), "--plan", "--set", "model=nowhere").stdout)
    assert unknown["modules"] is None


def test_a_plan_refuses_what_the_run_would(studio: Studio, spec: Path, tmp_path: Path) -> None:
    models = tmp_path / "home/models"
    make_toy_z_image(models / "zimg")
    done = studio(str(spec), "--plan", "--set", "model=zimg")
    assert done.returncode == 2
    check_sentence(done.stderr)


def test_files_that_are_none(studio: Studio, tmp_path: Path) -> None:
    for name, text in (("a.toml", "[["), ("b.json", "{"), ("c.safetensors", "x"), ("d.toml", "")):
        (tmp_path / name).write_text(text)
        done = studio(str(tmp_path / name), "--plan")
        assert done.returncode in (1, 2)
        assert done.stderr
        assert "Traceback" not in done.stderr
    assert studio(str(tmp_path / "gone.toml")).returncode == 1
