"""The Gallery tab without a browser: a picture that was made goes into a dataset."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest
from PIL import Image
from test_sweep_tab import ANN, OWNER, Asked

from studio.core.generation.request import GenerationRequest
from studio.ui.tabs.gallery import GalleryTab
from studio.ui.widgets import Desk


@pytest.fixture
def tab(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> GalleryTab:
    monkeypatch.setattr("studio.ui.tabs.gallery.who", lambda request: request.visitor)
    with gr.Blocks():
        return GalleryTab(desk)


def test_a_picture_goes_into_a_dataset_with_its_prompt(tab: GalleryTab, desk: Desk) -> None:
    request = GenerationRequest(prompt="a red boat <b>", width=64, height=64, seed=7)
    path = str(
        desk.gallery.save(
            Image.new("RGB", (64, 64), "red"), request, "0" * 64, {}, 1.0, OWNER.id
        ).path
    )
    asked: Any = Asked(OWNER)
    tab.add_to(path, " boats ", asked)
    tab.add_to(path, "boats", asked)
    album = desk.shelf.open("boats", OWNER)
    assert [picture.caption for picture in album.pictures] == [
        "a red boat <b>"
    ] * 2  # nothing is overwritten
    assert {source.generated for source in album.sources().values()} == {True}
    for picked, name, visitor, words in (
        (path, "", OWNER, "Which dataset"),
        (None, "boats", OWNER, "gone"),
        ("/etc/passwd", "boats", OWNER, "gone"),
        (path, "boats", ANN, "owner"),
        (path, "moon", OWNER, "moon"),
    ):
        guest: Any = Asked(visitor)
        with pytest.raises(gr.Error, match=words):
            tab.add_to(picked, name, guest)
    assert len(desk.shelf.open("boats", OWNER).pictures) == 2
    tab.add_to(path, "../out", asked)
    assert (
        not (desk.settings.home / "out").exists()
        and len(desk.shelf.open("out", OWNER).pictures) == 1
    )
