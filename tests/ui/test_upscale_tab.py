"""The Upscale tab without a browser: what is queued for a picture, what the page says of it, and of the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.core.generation.request import ResolvedRequest
from studio.core.generation.upscaling import UpscaleRecord
from studio.services.submission import Services
from studio.storage.gallery import GeneratedImage
from studio.ui.components.before_after import load_before_image
from studio.ui.tabs.txt2img import Txt2Img
from studio.ui.tabs.upscale import UpscaleTab
from studio.ui.views.images import render_image_settings
from support import upscalers
from support.sentences import refused
from support.unopened_page import unopened_page
from support.visitors import ANN, BOB, OWNER, Asked

MADE_WITH = ResolvedRequest(prompt="a red boat", width=64, height=64, seed=7)


@pytest.fixture
def tab(desk: Services, by: Any) -> UpscaleTab:
    with unopened_page():
        return UpscaleTab(desk)


def save(
    desk: Services, upscale: UpscaleRecord | None = None, owner: str = "owner"
) -> GeneratedImage:
    return desk.home.gallery.save(
        Image.new("RGB", (64, 48), "red"),
        MADE_WITH,
        digest="0" * 64,
        content_hashes={},
        seconds=1.0,
        owner=owner,
        upscale=upscale,
    )


def page(tab: UpscaleTab, updates: dict[Any, Any], **fields: Any) -> dict[Any, Any]:
    """What the browser sends after these updates, with what somebody filled in."""
    values = {component: component.value for component in tab.form.components.values()}
    values |= {tab.source: None} | updates
    return values | {tab.form[name]: value for name, value in fields.items()}


def test_a_picture_of_the_studio_is_queued_with_its_settings(
    tab: UpscaleTab, desk: Services
) -> None:
    updates = tab.receive_image(save(desk), OWNER)
    assert Path(updates[tab.image]).is_file()
    values = page(tab, updates, scale=2)
    assert "64 × 48 becomes 128 × 96, with pocket-x4." in tab.update_note(values)[tab.note]
    shown = tab.submit(values, Asked(OWNER))
    (job,) = desk.home.jobs.list_open()
    assert shown[tab.result_panel.timer].active
    assert (job.kind, job.owner) == ("upscale", OWNER.id)
    assert (job.spec["upscaler"], job.spec["scale"]) == ("pocket-x4", 2)
    assert job.spec["request"] == MADE_WITH.model_dump(mode="json")


def test_the_page_offers_what_is_there_and_names_what_will_be_used(
    tab: UpscaleTab, desk: Services
) -> None:
    upscalers.write(
        desk.home.settings.upscalers / "4x-UltraSharp.safetensors", upscalers.rrdb(blocks=1)
    )
    choices = tab.on_open(OWNER)[tab.form["upscaler"]].choices
    assert [value for _, value in choices] == [
        "",
        "Lanczos",
        "Nearest",
        "pocket-x4",
        "4x-UltraSharp",
    ]
    photo = save(
        desk, UpscaleRecord(image="0" * 64, upscaler="Lanczos", scale=2, has_settings=False)
    )
    values = page(tab, tab.receive_image(photo, OWNER), longer_side=100)
    assert "becomes 100 × 75, with 4x-UltraSharp." in tab.update_note(values)[tab.note]


@pytest.mark.parametrize(
    "fields",
    [
        {"scale": 20},
        {"scale": "many"},
        {"longer_side": 10},
        {"longer_side": 16_384, "scale": None},
        {"upscaler": "../../etc/passwd"},
    ],
)
def test_what_cannot_be_is_said_on_the_page_and_queues_nothing(
    tab: UpscaleTab, desk: Services, fields: dict[str, Any]
) -> None:
    values = page(tab, tab.receive_image(save(desk), OWNER), **fields)
    with refused(gr.Error):
        tab.submit(values, Asked(OWNER))
    assert desk.home.jobs.list_open() == []


def test_nothing_without_a_picture(tab: UpscaleTab) -> None:
    with refused(gr.Error):
        tab.submit(page(tab, {}), Asked(OWNER))
    with refused(gr.Error):
        tab.take_upload({tab.image: {"path": "/etc/passwd"}}, Asked(OWNER))


def test_transparent_places_are_taken_in(tab: UpscaleTab, desk: Services) -> None:
    saved = save(desk)
    Image.new("RGBA", (64, 48), (255, 0, 0, 90)).save(saved.path)
    updates = tab.receive_image(saved, OWNER)
    stored = desk.home.inputs.load(updates[tab.source].image, keeps_transparency=True)
    assert stored.getpixel((5, 5)) == (255, 0, 0, 90)


def test_a_guest_works_on_what_they_brought_alone(tab: UpscaleTab, desk: Services) -> None:
    updates = tab.receive_image(save(desk, owner="ann"), ANN)
    tab.submit(page(tab, updates, scale=4), Asked(ANN))
    with refused(gr.Error):
        tab.submit(page(tab, updates, scale=8), Asked(ANN))
    with refused(gr.Error):
        tab.submit(page(tab, updates), Asked(BOB))
    assert [job.owner for job in desk.home.jobs.list_open()] == ["ann"]


def test_what_is_said_of_the_result(desk: Services) -> None:
    source = desk.home.inputs.add(Image.new("RGB", (32, 24), "blue")).sha256
    record = UpscaleRecord(image=source, upscaler="<b>4x", scale=2, has_settings=True)
    known = save(desk, record)
    html = render_image_settings(known)
    assert "a red boat" in html
    assert "× 2 with &lt;b&gt;4x" in html
    assert load_before_image(desk, str(known.path)) == desk.home.inputs.get_path(source)
    unknown = save(desk, record.model_copy(update={"has_settings": False}))
    html = render_image_settings(unknown)
    assert "64 × 48" in html
    assert "Seed" not in html
    assert "pocket" not in html


def test_settings_of_a_picture_find_its_upscaler_or_say_that_it_is_not_here(
    desk: Services, by: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = desk.home.settings.home / "uploads"
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    with unopened_page():
        tab = Txt2Img(desk)
    info = PngInfo()
    text = "a boat\nSteps: 20, Sampler: Euler, Schedule type: Uniform, CFG scale: 7, Seed: 1, "
    text += (
        "Size: 64x64, Model: pocket, Hires upscale: 2, Hires upscaler: R-ESRGAN 4x+, Version: v1.10"
    )
    info.add_itxt("parameters", text)
    Image.new("RGB", (16, 16)).save(folder / "x.png", pnginfo=info)

    def read() -> Any:
        values = {component: component.value for component in tab.form.components.values()}
        file = {"path": str(folder / "x.png"), "orig_name": "x.png"}
        part = tab.recipe_import
        updates = part.import_file({**values, part.file: file}, Asked(OWNER))
        return updates, updates[part.panel].value

    updates, panel = read()
    assert updates[tab.form["hires_upscaler"]] == ""
    assert "The upscaler RealESRGAN_x4plus is not here; Lanczos is used." in panel
    there = desk.home.settings.upscalers / "deep" / "RealESRGAN_x4plus.safetensors"
    upscalers.write(there, upscalers.rrdb(blocks=1))
    updates, panel = read()
    assert updates[tab.form["hires_upscaler"]] == "deep/RealESRGAN_x4plus"
    assert "upscaler RealESRGAN" not in panel
