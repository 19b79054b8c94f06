"""`studio inspect` of texts and JSON, `studio generate --from`: what a file says, what flags override, what is logged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from studio.cli.generate import build_request
from studio.cli.inspect import inspect_file
from studio.cli.parser import build_parser
from studio.cli.recipe_file import read_recipe_values
from studio.core.generation.recipes.recipe import Recipe
from studio.errors import BadFile, BadPicture
from studio.settings import Settings
from studio.storage import gallery
from studio.storage.home import Home
from support.sentences import refused

TEXT = (
    "a boat <lora:ink:0.8>\nNegative prompt: fog\nSteps: 12, Sampler: DPM++ 2M Karras, CFG Scale: 5, "
    "Seed: 7, Size: 64x64, Model: C:\\Users\\jane\\dream.safetensors, Version: v1.10.1"
)


def test_a_text_and_a_sidecar_are_inspected(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT, "utf-8")
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    for name in ("a.txt", "a.png"):
        report = inspect_file(tmp_path / name)
        assert (report["kind"], report["source"]) == ("picture", "A1111")
        assert report["request"]["seed"] == 7
        assert {"kind": "model", "name": "dream"} in report["files"]
        assert "jane" not in json.dumps(report)
    (tmp_path / "a.txt").unlink()
    with refused(BadPicture):
        inspect_file(tmp_path / "a.png")
    (tmp_path / "b.json").write_text('{"what": 1}', "utf-8")
    with refused(BadPicture):
        inspect_file(tmp_path / "b.json")


def test_settings_of_a_file_and_flags_before_them(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text(TEXT, "utf-8")
    home = Home(settings)
    values = read_recipe_values(home, tmp_path / "a.txt", 0)
    home.close()
    said = capsys.readouterr().err
    for sentence in (
        "a.txt was made with A1111.",
        "The model dream is not here; the selected one is kept.",
        "The LoRA ink is not here; it is left out.",
    ):
        assert sentence in said
    request = build_request({"steps": "3"}, values)
    assert (request.prompt, request.steps, request.seed) == ("a boat", 3, 7)
    assert (request.scheduler, request.noise_schedule) == ("DPM++ 2M", "Karras")
    assert request.loras == ()
    flags = build_parser().parse_args(["generate", "--from", "a.txt", "--recipe", "2"])
    assert (flags.recipe_file, flags.recipe_number) == (Path("a.txt"), 2)


def test_one_of_several_recipes_and_a_picture_that_is_not_here(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (1, 1)).save(file)
    home = Home(settings)
    choices = [("first", Recipe("X", {"steps": 3})), ("second", Recipe("X", {"steps": 4}))]
    recipe = Recipe("X", {"steps": 3}, choices=choices)
    monkeypatch.setattr(gallery, "read_image_settings", lambda *_args, **_options: recipe)
    assert read_recipe_values(home, file, 0) == {"steps": 3}
    assert read_recipe_values(home, file, 2) == {"steps": 4}
    with refused(BadFile):
        read_recipe_values(home, file, 3)
    with refused(BadFile):
        read_recipe_values(home, tmp_path / "none.png", 0)
    recipe = Recipe("studio", {"image": "ab" * 32})
    with refused(BadFile):
        read_recipe_values(home, file, 0)
    home.close()


def test_the_flags_model_is_the_one_that_paints(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text(TEXT.replace("Seed: 7", "Seed: 7, Clip skip: 2"), "utf-8")
    home = Home(settings)
    values = read_recipe_values(home, tmp_path / "a.txt", 0, "pocket")
    home.close()
    assert "dream" not in capsys.readouterr().err  # it is not asked for
    assert "model" not in values
    assert (values["clip_skip"], values["hires_scale"]) == (2, 1)
