"""Download as …, and what pictures carry, without a browser."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from studio.core.generation.carried import CarryOptions
from studio.core.generation.request import ResolvedRequest
from studio.services.submission import Services
from studio.storage.gallery import GeneratedImage, read_image_settings
from studio.ui.tabs.gallery import GalleryTab
from support.sentences import refused
from support.unopened_page import unopened_page
from support.visitors import ANN, BOB, OWNER, Asked

REQUEST = ResolvedRequest(prompt="a boat", width=64, height=64, seed=7)


@pytest.fixture
def tab(desk: Services, by: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GalleryTab:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(uploads))
    with unopened_page():
        return GalleryTab(desk)


def save(desk: Services, owner: str) -> GeneratedImage:
    return desk.home.gallery.save(
        Image.new("RGB", (64, 64), "red"),
        REQUEST,
        digest="0" * 64,
        content_hashes={},
        seconds=1.0,
        owner=owner,
    )


def choose(tab: GalleryTab, path: Any, **values: Any) -> dict[Any, Any]:
    form = tab.exports.form
    shown = {"format": "WebP", "quality": 80, "carry": "everything", "ai_mark": "yes"} | values
    sent: dict[Any, Any] = {form[name]: value for name, value in shown.items()}
    return sent | {tab.selected_path: path, tab.paths: path if isinstance(path, list) else [path]}


def get_file(tab: GalleryTab, updates: dict[Any, Any]) -> Path:
    component = updates[tab.exports.file]
    assert component.visible
    value: Any = component.value
    return Path(value["path"] if isinstance(value, dict) else value)


def test_the_picture_in_view(tab: GalleryTab, desk: Services) -> None:
    image = save(desk, ANN.id)
    for visitor in (ANN, OWNER):
        asked: Any = Asked(visitor)
        path = get_file(tab, tab.exports.export_selected(choose(tab, str(image.path)), asked))
        assert path.name == f"{image.path.stem}.webp"
        assert read_image_settings(path).values == REQUEST.model_dump(mode="json")
    stranger: Any = Asked(BOB)
    for picked, changes in ((str(image.path), {}), ("/etc/passwd", {}), (None, {})):
        with refused(gr.Error):
            tab.exports.export_selected(choose(tab, picked, **changes), stranger)
    owner: Any = Asked(OWNER)
    with refused(gr.Error):
        tab.exports.export_selected(choose(tab, str(image.path), quality=1e9, format="x"), owner)


def test_a_whole_page_is_the_owners(tab: GalleryTab, desk: Services) -> None:
    paths = [str(save(desk, ANN.id).path) for _ in range(2)]
    owner: Any = Asked(OWNER)
    path = get_file(tab, tab.exports.export_page(choose(tab, paths), owner))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"{Path(name).stem}.webp" for name in paths]
    for visitor, pages in ((ANN, paths), (OWNER, [])):
        asked: Any = Asked(visitor)
        with refused(gr.Error):
            tab.exports.export_page(choose(tab, pages), asked)


def test_what_pictures_carry_is_the_owners_choice(tab: GalleryTab, desk: Services) -> None:
    box = tab.carry_options
    owner: Any = Asked(OWNER)
    guest: Any = Asked(ANN)
    sent: dict[Any, Any] = {
        box.form["carry"]: "nothing",
        box.form["ai_mark"]: False,
        box.form["comfyui_graph"]: False,
    }
    with refused(gr.Error):
        box.save(sent, guest)
    box.save(sent, owner)
    chosen = CarryOptions(carry="nothing", ai_mark=False)
    assert desk.home.gallery.options.load() == chosen
    shown = box.render(OWNER)
    assert shown[box.form["carry"]] == "nothing"
    assert shown[box.box].visible
    assert not box.render(ANN)[box.box].visible
    assert box.render(ANN)[box.form["carry"]] == "everything"  # guests are told nothing
    assert Image.open(save(desk, OWNER.id).path).info == {}
