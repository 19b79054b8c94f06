"""Settings from a picture on the page: what goes into the form, what stays, what the panel says, what is handed over."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.core.generation.recipes.recipe import Recipe
from studio.core.sweeps.spec import SweepSpec
from studio.errors import BadPicture
from studio.services.submission import Services
from studio.ui.components import recipe_import
from studio.ui.tabs.txt2img import Txt2Img
from studio.ui.views.recipes import render_recipe
from support.sentences import refused
from support.unopened_page import unopened_page
from support.visitors import ANN, HOSTILE, OWNER, Asked, pressed

TEXT = (
    "a boat <lora:ink:0.8>\nNegative prompt: fog\nSteps: 12, Sampler: Euler, Schedule type: Uniform, "
    "CFG scale: 5, Seed: 7, Size: 64x64, Model: pocket, Refiner: xl, Version: v1.10.1"
)


@pytest.fixture
def tab(desk: Services) -> Txt2Img:
    with unopened_page():
        return Txt2Img(desk)


def on_page(tab: Txt2Img, **changed: Any) -> dict[Any, Any]:
    values = {component: component.value for component in tab.form.components.values()}
    return values | {tab.form[name]: value for name, value in changed.items()}


def drop(tab: Txt2Img, folder: Path, text: str, **changed: Any) -> dict[Any, Any]:
    info = PngInfo()
    info.add_itxt("parameters", text)
    Image.new("RGB", (1, 1)).save(folder / "x.png", pnginfo=info)
    file = {"path": str(folder / "x.png"), "orig_name": "x.png"}
    part = tab.recipe_import
    return part.import_file({**on_page(tab, **changed), part.file: file}, Asked(OWNER))


@pytest.fixture
def folder(desk: Services, monkeypatch: pytest.MonkeyPatch) -> Path:
    uploads = desk.home.settings.home / "uploads"
    uploads.mkdir(exist_ok=True)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(uploads))
    return uploads


def paste(tab: Txt2Img, text: str, **changed: Any) -> dict[Any, Any]:
    part = tab.recipe_import
    return part.import_text({**on_page(tab, **changed), part.text: text}, Asked(ANN))


def test_a_dropped_picture_fills_the_form_and_says_what_it_lacks(
    tab: Txt2Img, folder: Path
) -> None:
    updates = drop(tab, folder, TEXT)
    form = tab.form
    assert (updates[form["prompt"]], updates[form["negative_prompt"]]) == ("a boat", "fog")
    assert (updates[form["steps"]], updates[form["seed"]]) == (12, 7)
    panel = updates[tab.recipe_import.panel].value
    assert "Made with A1111" in panel
    assert "Steps 12" in panel
    assert "Not loaded: Refiner." in panel
    assert "The LoRA ink is not here; it is left out." in panel
    assert updates[tab.recipe_import.file] is None


def test_nothing_written_is_emptied(tab: Txt2Img) -> None:
    settings = TEXT.split("\n")[-1]
    mine = {"prompt": "my words", "negative_prompt": "mine", "loras": [{"name": "a"}]}
    updates = paste(tab, settings, **mine)
    for name in ("prompt", "negative_prompt", "loras"):
        assert tab.form[name] not in updates
    assert updates[tab.form["steps"]] == 12
    assert updates[tab.recipe_import.text] == ""


def test_what_the_picture_before_left_is_set_to_what_an_unnamed_setting_means(
    tab: Txt2Img,
) -> None:
    """A1111 writes clip skip, a second pass, ENSD and their like only where they are not off."""
    before = {"clip_skip": 2, "hires_scale": 2.0, "ensd": 31337, "emphasis": "Ignore", "eta": 0.5}
    updates = paste(tab, TEXT, **before)
    form = tab.form
    assert (updates[form["clip_skip"]], updates[form["hires_scale"]]) == (1, 1.0)
    assert (updates[form["ensd"]], updates[form["emphasis"]]) == (0, "Original")
    panel = updates[tab.recipe_import.panel].value
    (line,) = re.findall(r"Not in it, so set to their defaults: ([^<]*)\.", panel)
    assert set(line.split(", ")) >= {"Clip skip", "Hires scale", "Eta noise seed delta", "Emphasis"}
    assert "Variation strength" not in line  # was off before
    assert "set to their defaults" not in paste(tab, TEXT)[tab.recipe_import.panel].value
    named = paste(tab, TEXT.replace("Seed: 7", "Seed: 7, Clip skip: 2"), clip_skip=3)
    assert named[form["clip_skip"]] == 2
    assert "set to their defaults" not in named[tab.recipe_import.panel].value


def test_prompts_alone(tab: Txt2Img) -> None:
    updates = paste(tab, "a boat\nNegative prompt: fog", steps=33, clip_skip=2)
    assert updates[tab.form["prompt"]] == "a boat"
    assert tab.form["steps"] not in updates
    assert tab.form["clip_skip"] not in updates


@pytest.mark.parametrize("text", ["", "   ", "just words", '{"a": 1}', None, 5])
def test_what_holds_no_settings_leaves_the_form_alone(tab: Txt2Img, text: Any) -> None:
    with refused(gr.Error):
        paste(tab, text)


def test_values_that_are_not_valid_are_named(tab: Txt2Img) -> None:
    updates = paste(tab, TEXT.replace("Steps: 12", "Steps: 500").replace("64x64", "70x70"))
    assert tab.form["steps"] not in updates
    panel = updates[tab.recipe_import.panel].value
    assert "Steps: must be 150 or less" in panel
    assert "Width" in panel


def test_one_of_several_recipes(tab: Txt2Img, monkeypatch: pytest.MonkeyPatch) -> None:
    choices = [
        ("first pass", Recipe("X", {"steps": 3})),
        ("second pass", Recipe("X", {"steps": 4})),
    ]
    recipe = Recipe("X", {"steps": 3}, choices=choices)
    part = tab.recipe_import
    monkeypatch.setattr(recipe_import.gallery, "read_text_settings", lambda _text: recipe)
    updates = paste(tab, "text")
    assert "second pass" in updates[part.panel].value
    assert updates[part.recipe] is recipe
    for target, steps in (("1", 4), ("0", 3)):
        values = {**on_page(tab), part.recipe: recipe}
        updates = part.choose(values, pressed("choose", target), Asked(OWNER))
        assert updates[tab.form["steps"]] == steps
        assert "second pass" in updates[part.panel].value
    for odd in (pressed("choose", "7"), pressed("choose", "x"), pressed("other", "1")):
        updates = part.choose({**on_page(tab), part.recipe: recipe}, odd, Asked(OWNER))
        assert list(updates) == [part.panel]


def test_a_recipe_is_varied_in_a_sweep(tab: Txt2Img) -> None:
    panel = paste(tab, TEXT)[tab.recipe_import.panel].value
    assert "Vary in a sweep" in panel
    values = json.dumps({"prompt": "a boat", "seed": 7, "steps": 12, "num_images": 3})
    handed = tab.recipe_import.build_handoff(pressed("vary", values), OWNER)
    assert handed is not None
    target, sweep = handed
    assert target == "sweep"
    assert isinstance(sweep, SweepSpec)
    assert (sweep.base.prompt, sweep.base.seed, sweep.base.num_images) == ("a boat", 7, 1)
    assert tab.recipe_import.build_handoff(pressed("choose", "1"), OWNER) is None
    for odd in ("", "[]", "[" * 5000, "{"):
        with refused(gr.Error):
            tab.recipe_import.build_handoff(pressed("vary", odd), OWNER)


def test_the_panel_is_no_way_in_for_html() -> None:
    html = render_recipe(HOSTILE, {"prompt": HOSTILE}, [HOSTILE], titles=[HOSTILE], handed=HOSTILE)
    assert "<script>" not in html
    assert "<img" not in html
    many = render_recipe("X", {}, [f"note {number}" for number in range(40)])
    assert "… and 10 more" in many


def test_an_error_is_a_sentence(tab: Txt2Img, folder: Path) -> None:
    with refused((gr.Error, BadPicture)):
        drop(tab, folder, "just words")
