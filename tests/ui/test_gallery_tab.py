"""The Gallery tab without a browser: a picture that was made goes into a dataset."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest
from PIL import Image

from studio.core.generation.request import ResolvedRequest
from studio.services.submission import Services
from studio.ui.tabs.gallery import GalleryTab
from support.sentences import refused
from support.unopened_page import unopened_page
from support.visitors import ANN, OWNER, Asked


@pytest.fixture
def tab(desk: Services, by: Any) -> GalleryTab:
    with unopened_page():
        return GalleryTab(desk)


def test_a_picture_goes_into_a_dataset_with_its_prompt(tab: GalleryTab, desk: Services) -> None:
    request = ResolvedRequest(prompt="a red boat <b>", width=64, height=64, seed=7)
    path = str(
        desk.home.gallery.save(
            Image.new("RGB", (64, 64), "red"),
            request,
            digest="0" * 64,
            content_hashes={},
            seconds=1.0,
            owner=OWNER.id,
        ).path
    )
    asked: Any = Asked(OWNER)
    tab.add_to_dataset({tab.selected_path: path, tab.dataset: " boats "}, asked)
    tab.add_to_dataset({tab.selected_path: path, tab.dataset: "boats"}, asked)
    album = desk.dataset_registry.open("boats", OWNER)
    assert [picture.caption for picture in album.images] == [
        "a red boat <b>"
    ] * 2  # nothing is overwritten
    assert {source.generated for source in album.read_sources().values()} == {True}
    for picked, name, visitor in (
        (path, "", OWNER),
        (None, "boats", OWNER),
        ("/etc/passwd", "boats", OWNER),
        (path, "boats", ANN),
        (path, "moon", OWNER),
    ):
        guest: Any = Asked(visitor)
        with refused(gr.Error):
            tab.add_to_dataset({tab.selected_path: picked, tab.dataset: name}, guest)
    assert len(desk.dataset_registry.open("boats", OWNER).images) == 2
    tab.add_to_dataset({tab.selected_path: path, tab.dataset: "../out"}, asked)
    assert not (desk.home.settings.home / "out").exists()
    assert len(desk.dataset_registry.open("out", OWNER).images) == 1
