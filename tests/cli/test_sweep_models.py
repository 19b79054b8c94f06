"""What a model's family makes of a sweep or a picture on the command line: its own settings where none are
chosen, and a refusal by name before anything is painted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import tomli_w

from studio.core.families.registry import FAMILIES
from studio.core.generation.family_rules import list_family_notes
from studio.core.generation.request import GenerationRequest
from support.models import make_toy_z_image
from support.sentences import check_sentence

Studio = Callable[..., CompletedProcess[str]]
Plan = Callable[..., CompletedProcess[str]]
BASE = {"prompt": "a red house", "width": 64, "height": 64, "model": "zimg"}
SEEDS = {"field": "seed", "values": [1, 2]}


@pytest.fixture(scope="module")
def z_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "zimg"
    make_toy_z_image(folder)
    return folder


@pytest.fixture
def studio(tmp_path: Path, command: Studio, z_image: Path) -> Studio:
    models = tmp_path / "home/models"
    models.mkdir(parents=True)
    (models / "zimg").symlink_to(z_image)
    return command


@pytest.fixture
def plan(tmp_path: Path, studio: Studio) -> Plan:
    """`plan(axes, setting=…)` is `studio sweep --plan` of a file with these."""

    def plan(*axes: dict[str, Any], **base: Any) -> CompletedProcess[str]:
        values = BASE | base
        given = {name: value for name, value in values.items() if value is not None}
        file = tmp_path / "spec.toml"
        file.write_text(tomli_w.dumps({"base": given, "axes": list(axes)}))
        return studio("sweep", str(file), "--plan")

    return plan


def settings_of(result: CompletedProcess[str], *names: str) -> list[tuple[Any, ...]]:
    assert result.returncode == 0, result.stderr
    requests = [cell["request"] for cell in json.loads(result.stdout)["cells"]]
    return [tuple(request[name] for name in names) for request in requests]


@pytest.mark.parametrize(
    "axis",
    [
        {"field": "scheduler", "values": ["DDIM", "DEIS", "Euler"]},
        {"field": "clip_skip", "values": [3, 2, 1]},
    ],
    ids=["scheduler", "clip_skip"],
)
def test_every_value_that_cannot_be_is_named(plan: Plan, axis: dict[str, Any]) -> None:
    """The last cell is one that can, and all have the same model, LoRAs and images."""
    result = plan(axis, SEEDS)
    assert result.returncode == 2
    check_sentence(result.stderr)
    for value in axis["values"][:2]:
        assert str(value) in result.stderr.replace("Cell 1, 1", "").replace("Cell 2, 1", "")


def test_open_settings_are_the_models_own(plan: Plan, studio: Studio) -> None:
    names = ("scheduler", "noise_schedule", "steps", "guidance")
    assert settings_of(plan(SEEDS), *names) == [("Euler", "Automatic", 8, 1)] * 2
    chosen = plan(SEEDS, scheduler="Heun", guidance=7.0)  # its default, and yet chosen
    assert settings_of(chosen, *names) == [("Heun", "Automatic", 8, 7)] * 2


def test_an_axis_decides_and_the_rest_is_the_models_own(plan: Plan) -> None:
    axis = {"field": "scheduler", "values": ["UniPC", "Heun"]}
    assert settings_of(plan(axis), "scheduler", "noise_schedule", "steps") == [
        ("UniPC", "Automatic", 8),
        ("Heun", "Automatic", 8),
    ]


def test_each_model_of_an_axis_takes_its_own(plan: Plan) -> None:
    models = {"field": "model", "values": ["pocket", "zimg"]}
    settings = settings_of(
        plan(models, model=None, steps=3), "model", "scheduler", "steps", "guidance"
    )
    assert settings == [("pocket", "DPM++ 2M", 3, 7), ("zimg", "Euler", 3, 1)]


def test_what_is_chosen_and_does_not_suit_is_refused_by_name(plan: Plan) -> None:
    result = plan(SEEDS, scheduler="Euler a", noise_schedule="Uniform")
    assert result.returncode == 2
    check_sentence(result.stderr)
    assert result.stderr.count("Z-Image") == 1


def test_a_stored_sweep_comes_to_the_same_cells(plan: Plan, studio: Studio, tmp_path: Path) -> None:
    from studio.core.base import validate
    from studio.core.sweeps.spec import SweepSpec, plan_sweep
    from studio.services.submission import Services
    from studio.services.visitor import Visitor
    from studio.settings import load
    from studio.storage.home import Home

    home = Home(load(home=tmp_path / "home", device="cpu"))
    axis = {"field": "model", "values": ["pocket", "zimg"]}
    spec = validate(SweepSpec, {"base": {"prompt": "a moon"}, "axes": [axis]})
    services = Services(home)
    owner = Visitor("owner", is_guest=False)
    sweep_id = services.prepare_sweep(spec, owner).subject_id
    stored = home.sweeps.get(sweep_id)
    assert stored
    assert [cell.request.scheduler for cell in plan_sweep(stored.spec).cells] == [
        "DPM++ 2M",
        "Euler",
    ]
    services.prepare_sweep(stored.spec, owner, sweep_id)  # goes on as it was
    again = home.sweeps.get(sweep_id)
    assert again
    assert again.spec == stored.spec
    home.close()


def test_a_picture_is_told_first_what_suits_the_family(studio: Studio) -> None:
    """What a scheduler can run on elsewhere helps nobody whose model cannot use it."""
    result = studio("generate", "--model", "zimg", "--scheduler", "DDIM", "--prompt", "a")
    assert result.returncode == 2
    check_sentence(result.stderr)
    assert "Karras" not in result.stderr
    result = studio(
        "generate", "--model", "zimg", "--scheduler", "DDIM", "--noise-schedule", "Karras"
    )
    check_sentence(result.stderr)
    assert "Model default" not in result.stderr


def test_a_rescale_without_guidance_is_refused(plan: Plan) -> None:
    """The model's own guidance is none, which a picture is told as well."""
    result = plan({"field": "guidance_rescale", "values": [0, 0.7]})
    assert result.returncode == 2
    check_sentence(result.stderr)


def test_a_negative_prompt_without_effect_is_said() -> None:
    family = FAMILIES["z-image"]
    request = GenerationRequest(negative_prompt="fog", guidance=1.0)
    (note,) = list_family_notes(request, family)
    assert note.startswith("Negative prompt: ")
    assert not list_family_notes(GenerationRequest(negative_prompt="fog", guidance=2.0), family)
    composed = request.model_copy(update={"prompt": "a boat AND a moon"})
    assert not list_family_notes(composed, family)  # what AND adds is beyond the negative prompt
