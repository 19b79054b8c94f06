"""A form's memory without a browser: what was typed comes back, loads are undone, an image's parts are reused."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.errors import StudioError
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.gallery import GeneratedImage
from studio.ui.components.form_memory import MAX_KEPT_CHARS, parse_kept
from studio.ui.tabs.txt2img import Txt2Img
from support.unopened_page import unopened_page
from support.visitors import ANN, BOB, OWNER, Asked

pytestmark = pytest.mark.usefixtures("by")


@pytest.fixture
def tab(desk: Services) -> Txt2Img:
    with unopened_page():
        return Txt2Img(desk)


@pytest.fixture
def image(desk: Services) -> GeneratedImage:
    request = ResolvedRequest(prompt="a boat", negative_prompt="fog", width=64, height=96, seed=7)
    return desk.home.gallery.save(
        Image.new("RGB", (64, 96), "red"),
        request,
        digest="0" * 64,
        content_hashes={},
        seconds=1.0,
        owner=ANN.id,
    )


def kept(**values: Any) -> str:
    return json.dumps({"values": values})


def plain(update: Any) -> Any:
    """A component's new value, whichever way the update gives it."""
    if isinstance(update, dict):
        return update.get("value")
    return update.value if isinstance(update, gr.components.Component) else update


def fields(tab: Txt2Img, updates: dict[Any, Any]) -> dict[str, Any]:
    return {
        name: plain(updates[component])
        for name, component in tab.form.components.items()
        if component in updates
    }


def form_values(tab: Txt2Img, **changes: Any) -> dict[Any, Any]:
    """What the browser sends of a form at its defaults but for these."""
    values = dict.fromkeys({*tab.estimate_inputs, tab.result_panel.selected_path, tab.preset})
    values |= tab.form.fill(GenerationRequest())
    return values | {tab.form[name]: value for name, value in changes.items()}


def press(tab: Txt2Img, visitor: Visitor, *, path: str = "", **data: Any) -> dict[Any, Any]:
    event: Any = gr.EventData(None, data)
    asked: Any = Asked(visitor)
    values = form_values(tab, prompt="mine", seed=5)
    values[tab.result_panel.selected_path] = path or None
    return tab.handle_page_event(values, event, asked)


def test_what_was_typed_comes_back_as_it_was_typed(tab: Txt2Img) -> None:
    rows = [{"name": "moon", "unet": 0.5, "text_encoder": 0.5}]
    updates = tab.restore(
        kept(
            prompt="a (cat:2000)",  # refused when it is asked for, not forgotten
            negative_prompt="fog",
            steps=999,
            guidance=7.5,
            scheduler="DPM++ 2M",
            noise_schedule="Karras",
            width=None,
            loras=rows,
            seed=12,
        ),
        OWNER,
    )
    shown = fields(tab, updates)
    assert shown["prompt"] == "a (cat:2000)"
    assert (shown["negative_prompt"], shown["steps"], shown["guidance"]) == ("fog", 999, 7.5)
    assert (shown["scheduler"], shown["noise_schedule"]) == ("DPM++ 2M", "Karras")
    assert (shown["seed"], shown["loras"]) == (12, rows)
    assert "clip_skip" not in shown  # it stays as the tab fills it


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        '{"values": 3}',
        "[" * 100_000,
        kept(prompt="x" * MAX_KEPT_CHARS),
        None,
        7,
    ],
    ids=lambda text: str(text)[:12],
)
def test_what_no_page_keeps_counts_as_nothing(tab: Txt2Img, text: Any) -> None:
    assert parse_kept(text) == {}
    assert tab.restore(text, OWNER) == {}


def test_hostile_values_are_left_out(tab: Txt2Img) -> None:
    odd = kept(prompt=["x"], steps={"a": 1}, seed=True, loras="x", scheduler=["Euler"], magic=1)
    shown = fields(tab, tab.restore(odd, OWNER))
    assert not {"prompt", "steps", "seed"} & shown.keys()
    assert shown["loras"] == []


def test_a_loaded_preset_is_undone(tab: Txt2Img, desk: Services) -> None:
    name = desk.home.presets.list_names()[0]
    before = form_values(tab, prompt="mine", steps="many", seed=77)
    asked: Any = Asked(OWNER)
    loaded = tab.load_preset({**before, tab.preset: name}, asked)
    assert plain(loaded[tab.form["seed"]]) != 77 or plain(loaded[tab.form["prompt"]]) != "mine"
    assert loaded[tab.memory.undo].visible
    undone = tab.undo_load(loaded[tab.memory.previous], asked)
    assert fields(tab, undone)["seed"] == 77
    assert fields(tab, undone)["prompt"] == "mine"
    assert not undone[tab.memory.undo].visible
    assert set(tab.undo_load("x", asked)) == set(tab.memory.outputs)


def test_reset_puts_every_field_at_its_default(tab: Txt2Img) -> None:
    asked: Any = Asked(OWNER)
    shown = fields(tab, tab.reset_form(asked))
    default = GenerationRequest(model=tab.form["model"].value)
    assert shown.keys() == tab.form.components.keys()
    for name in ("prompt", "steps", "guidance", "seed", "scheduler", "noise_schedule", "model"):
        assert shown[name] == getattr(default, name)


def test_the_palette_lists_and_loads_presets(tab: Txt2Img, desk: Services) -> None:
    desk.home.presets.save("mine", GenerationRequest(steps=31))
    options = press(tab, OWNER, action="presets")[tab.memory.block].props["options"]
    assert "mine" in options["presets"]
    assert (
        "mine"
        not in press(tab, BOB, action="presets")[tab.memory.block].props["options"]["presets"]
    )
    assert fields(tab, press(tab, OWNER, action="preset", name="mine"))["steps"] == 31
    with pytest.raises(gr.Error):
        press(tab, BOB, action="preset", name="mine")


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("prompt", {"prompt": "a boat", "negative_prompt": "fog"}),
        ("seed", {"seed": 7}),
        ("size", {"width": 64, "height": 96}),
    ],
)
def test_a_part_of_an_image_is_reused(
    tab: Txt2Img, image: GeneratedImage, part: str, changed: dict[str, Any]
) -> None:
    updates = press(tab, ANN, path=str(image.path), action="reuse", part=part)
    assert fields(tab, updates) == changed
    assert updates[tab.memory.previous]["prompt"] == "mine"  # and can be undone
    by_number = press(tab, ANN, action="reuse", part=part, id=str(image.id))
    assert fields(tab, by_number) == changed
    everything = fields(tab, press(tab, ANN, action="reuse", part="all", id=image.id))
    assert everything.keys() == tab.form.components.keys()
    assert everything["seed"] == 7


def test_an_image_becomes_a_favourite_and_goes_to_the_bin(
    tab: Txt2Img, image: GeneratedImage, desk: Services
) -> None:
    path = str(image.path)
    for is_favourite in (True, False):
        press(tab, ANN, path=path, action="favourite")
        assert desk.home.sweeps.get_image_verdict(image.path).best is is_favourite
    press(tab, ANN, path=path, action="bin")
    binned = desk.home.gallery.get_by_id(image.id)
    assert binned is not None
    assert binned.binned
    desk.home.gallery.bin.restore([image.id], ANN.owner_filter)
    assert image.path.is_file()


@pytest.mark.parametrize("action", ["reuse", "favourite", "bin"])
def test_other_peoples_images_stay_theirs(
    tab: Txt2Img, image: GeneratedImage, action: str, desk: Services
) -> None:
    for given in ({"id": image.id}, {"path": str(image.path)}, {"id": "99999"}, {"id": ["x"]}, {}):
        with pytest.raises((gr.Error, StudioError)):
            press(tab, BOB, action=action, part="all", **given)
    assert image.path.is_file()
    assert not desk.home.sweeps.get_image_verdict(image.path).best


def test_nonsense_is_refused(tab: Txt2Img, image: GeneratedImage) -> None:
    with pytest.raises((gr.Error, StudioError)):
        press(tab, ANN, path=str(image.path), action="format the disk")
