"""The Gallery tab without a browser: filters, cards, the bin with undo, stars; each sees and bins their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from studio.core.base import validate
from studio.core.generation.lora_use import LoraUse
from studio.core.generation.request import ResolvedRequest
from studio.core.sweeps.spec import SweepSpec, plan_sweep
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.gallery import GeneratedImage, ImageOrigin
from studio.storage.sweeps import CellResult
from studio.storage.verdicts import Verdict
from studio.ui.tabs.gallery import GalleryTab
from studio.ui.tabs.gallery_page import PAGE_SIZE, GalleryPage, build_contents
from support.sentences import refused
from support.visitors import ANN, BOB, HOSTILE, OWNER, Asked

Save = Callable[..., GeneratedImage]
SPEC: Any = {
    "title": "steps <b>",
    "base": {"seed": 1},
    "axes": [{"field": "steps", "values": [4, 5]}],
}


@pytest.fixture
def tab(desk: Services, by: Any) -> GalleryTab:
    with gr.Blocks():
        return GalleryTab(desk)


@pytest.fixture
def save(desk: Services) -> Save:
    def save(
        owner: Visitor = OWNER, origin: ImageOrigin | None = None, **changes: Any
    ) -> GeneratedImage:
        request = ResolvedRequest(prompt="a boat", width=64, height=64, seed=7)
        return desk.home.gallery.save(
            Image.new("RGB", (64, 64), "red"),
            request.model_copy(update=changes),
            digest="0" * 64,
            content_hashes={},
            seconds=1.0,
            owner=owner.id,
            origin=origin,
        )

    return save


def press(
    tab: GalleryTab,
    action: str,
    visitor: Visitor = OWNER,
    selected: str | None = None,
    **data: Any,
) -> dict[Any, Any]:
    """What the page is told when the browser sends this."""
    values: dict[Any, Any] = {tab.selected_path: selected, tab.pinned_path: None}
    event: Any = gr.EventData(None, {"action": action, **data})
    asked: Any = Asked(visitor)
    return tab.handle_action(values, event, asked)


def options(tab: GalleryTab, updates: dict[Any, Any]) -> dict[str, Any]:
    return dict(updates[tab.grid].props["options"])


def listed(tab: GalleryTab, visitor: Visitor = OWNER, **show: Any) -> list[str]:
    return [
        entry["key"] for entry in options(tab, press(tab, "show", visitor, show=show))["entries"]
    ]


def test_a_sweep_is_one_card_and_opens(tab: GalleryTab, desk: Services, save: Save) -> None:
    sweep_id = desk.home.sweeps.save(validate(SweepSpec, SPEC), OWNER.id)
    first = save()
    many = [save(origin=ImageOrigin("sweep", sweep_id), seed=seed) for seed in range(3)]
    shown = options(tab, press(tab, "show", show={}))
    assert [entry["key"] for entry in shown["entries"]] == [f"s{sweep_id}", f"i{first.id}"]
    assert (shown["total"], shown["images"]) == (2, 4)
    card = shown["entries"][0]
    assert (card["title"], card["count"]) == ("Sweep: steps <b>", 3)
    opened = options(tab, press(tab, "show", show={"series": sweep_id}))
    assert [entry["key"] for entry in opened["entries"]] == [f"i{image.id}" for image in many[::-1]]
    assert opened["series"]["title"] == "Sweep: steps <b>"


def test_filters(tab: GalleryTab, desk: Services, save: Save) -> None:
    with_lora = save(loras=(LoraUse(name="moon"),))
    other = save(model="other", image="a" * 64)
    masked = save(image="a" * 64, mask="b" * 64)
    strip = save(origin=ImageOrigin("strip"))
    desk.home.sweeps.set_image_verdict(other.path, Verdict(4, best=True))
    made = {"with_lora": with_lora, "other": other, "masked": masked, "strip": strip}
    keys = {name: f"i{image.id}" for name, image in made.items()}
    assert listed(tab, lora="moon") == [keys["with_lora"]]
    assert listed(tab, model="other") == [keys["other"]]
    assert listed(tab, kind="img2img") == [keys["other"]]
    assert listed(tab, kind="inpaint") == [keys["masked"]]
    assert listed(tab, kind="strip") == [keys["strip"]]
    assert listed(tab, stars="4") == listed(tab, favourites=True) == [keys["other"]]
    assert listed(tab, stars="5") == []
    day = with_lora.path.parent.name
    assert len(listed(tab, day=day)) == 4
    assert listed(tab, day="2001-01-01") == []
    choices = options(tab, press(tab, "show"))["choices"]
    assert choices["kind"] == [
        ["img2img", "img2img (1)"],
        ["inpaint", "Inpaint (1)"],
        ["strip", "Denoising steps (1)"],
        ["txt2img", "txt2img (1)"],
    ]
    assert choices["lora"] == [["moon", "moon (1)"]]
    assert choices["day"] == [[day, f"{day} (4)"]]


def test_bin_and_undo(tab: GalleryTab, desk: Services, save: Save) -> None:
    images = [save(seed=seed) for seed in range(3)]
    keys = [f"i{image.id}" for image in images]
    updates = press(tab, "bin", selected=str(images[0].path), keys=keys[:2])
    shown = options(tab, updates)
    assert shown["undo"]["text"] == "Moved 2 images to the bin."
    assert [entry["key"] for entry in shown["entries"]] == keys[2:]
    assert shown["bin"]["count"] == 2
    assert "This image is in the bin" in updates[tab.details]
    assert all(image.path.is_file() for image in images)
    assert sorted(listed(tab, bin=True)) == sorted(keys[:2])
    back = options(tab, press(tab, "undo", ids=shown["undo"]["ids"]))
    assert sorted(entry["key"] for entry in back["entries"]) == sorted(keys)
    assert "undo" not in back
    with refused(gr.Error):
        press(tab, "bin", keys=["i999", "x", 5, None])


def test_a_card_is_binned_whole_and_all_that_match(
    tab: GalleryTab, desk: Services, save: Save
) -> None:
    loose = save()
    for seed in range(3):
        save(origin=ImageOrigin("sweep", "abc"), seed=seed)
    assert options(tab, press(tab, "bin", keys=["sabc"]))["bin"]["count"] == 3
    assert listed(tab) == [f"i{loose.id}"]
    assert options(tab, press(tab, "restore", show={"bin": True}, keys=["*"]))["bin"]["count"] == 0
    assert options(tab, press(tab, "bin", show={"query": "boat"}, keys=["*"]))["bin"]["count"] == 4


def test_the_bin_is_emptied(tab: GalleryTab, desk: Services, save: Save) -> None:
    image, kept = save(), save(seed=8)
    press(tab, "bin", keys=[f"i{image.id}"])
    updates = press(tab, "empty", selected=str(image.path), show={"bin": True})
    shown = options(tab, updates)
    assert shown["message"] == "Deleted 1 image for good."
    assert not image.path.exists()
    assert kept.path.is_file()
    assert updates[tab.selected_path] is None


def test_guests_see_and_bin_only_their_own(tab: GalleryTab, desk: Services, save: Save) -> None:
    ann, bob = save(ANN), save(BOB)
    assert listed(tab, ANN) == [f"i{ann.id}"]
    press(tab, "bin", ANN, keys=[f"i{ann.id}", f"i{bob.id}"])
    with refused(gr.Error):
        press(tab, "bin", ANN, keys=[f"i{bob.id}"])
    assert desk.home.gallery.get(bob.path).binned == 0
    press(tab, "bin", OWNER, keys=[f"i{bob.id}"])
    assert desk.home.gallery.bin.count() == 2
    press(tab, "undo", ANN, ids=[bob.id])
    press(tab, "restore", ANN, show={"bin": True}, keys=["*"])
    assert desk.home.gallery.get(bob.path).binned > 0
    assert desk.home.gallery.get(ann.path).binned == 0
    press(tab, "empty", ANN)
    assert bob.path.is_file()
    for action in ("choose", "stars", "favourite"):
        with refused(gr.Error):
            press(tab, action, ANN, id=bob.id, stars=3)
    with refused(gr.Error):
        press(tab, "days", ANN, days="3")
    assert options(tab, press(tab, "show", ANN))["choices"]["model"] == [["pocket", "pocket (1)"]]


def test_days(tab: GalleryTab, desk: Services) -> None:
    assert options(tab, press(tab, "days", days="3"))["bin"]["days"] == 3
    assert desk.home.gallery.bin_options.load_days() == 3
    for days in ("-1", "99999", "x", None, ""):
        with refused(gr.Error):
            press(tab, "days", days=days)
    assert desk.home.gallery.bin_options.load_days() == 3


def test_stars_are_the_sweeps(tab: GalleryTab, desk: Services, save: Save) -> None:
    spec = validate(SweepSpec, SPEC)
    sweep_id = desk.home.sweeps.save(spec, OWNER.id)
    key = plan_sweep(spec).cells[0].key
    image = save(origin=ImageOrigin("sweep", sweep_id))
    desk.home.sweeps.save_cell_result(sweep_id, key, CellResult(image.path, image.digest, 1.0))
    desk.home.sweeps.set_verdict(sweep_id, key, Verdict(2, "a note"))
    assert listed(tab, stars="2", series=sweep_id) == [f"i{image.id}"]
    press(tab, "stars", id=image.id, stars=5)
    press(tab, "favourite", id=image.id)
    result = desk.home.sweeps.load_cell_results(sweep_id)[key]
    assert result.verdict == Verdict(5, "a note", True)
    desk.home.sweeps.delete(sweep_id)
    assert desk.home.sweeps.get_image_verdict(image.path) == Verdict(5, best=True)
    for stars in (6, "x", None, -1):
        with refused(gr.Error):
            press(tab, "stars", id=image.id, stars=stars)


def test_stars_survive_a_lost_index(tab: GalleryTab, desk: Services, save: Save) -> None:
    sweep_id = desk.home.sweeps.save(validate(SweepSpec, SPEC), OWNER.id)
    image, loose = save(origin=ImageOrigin("sweep", sweep_id)), save()
    key = plan_sweep(validate(SweepSpec, SPEC)).cells[0].key
    desk.home.sweeps.save_cell_result(sweep_id, key, CellResult(image.path, image.digest, 1.0))
    desk.home.sweeps.set_image_verdict(loose.path, Verdict(3))
    desk.home.close()
    for path in desk.home.settings.home.glob("gallery.sqlite*"):
        path.unlink()
    desk.home.gallery.sync()
    assert desk.home.link_images() == 2
    assert desk.home.link_images() == 0
    shown = build_contents(desk, GalleryPage(), OWNER).options
    assert {entry["key"][0]: entry["stars"] for entry in shown["entries"]} == {"s": 0, "i": 3}


def test_choosing_shows_it(tab: GalleryTab, desk: Services, save: Save) -> None:
    image = save(prompt=HOSTILE)
    updates = press(tab, "choose", id=image.id)
    assert updates[tab.selected_path] == str(image.path)
    assert "<script" not in updates[tab.details]
    assert Path(image.path).name in updates[tab.details]
    with refused(gr.Error):
        press(tab, "choose", id=10**12)


@pytest.mark.parametrize(
    "show",
    [
        None,
        5,
        [],
        {"page": -1},
        {"page": "x"},
        {"page": 10**9},
        {"query": "x" * 10**6},
        {"stars": "²"},
        {"query": "\ud800", "series": "\0"},
    ],
)
def test_nonsense_shows_a_page(tab: GalleryTab, save: Save, show: Any) -> None:
    save()
    assert options(tab, press(tab, "show", show=show))["size"] == PAGE_SIZE
    with refused(gr.Error):
        press(tab, "format c:", show=show)


def test_pages(tab: GalleryTab, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.ui.tabs.gallery_page.PAGE_SIZE", 2)
    images = [save(seed=seed) for seed in range(5)]
    keys = [f"i{image.id}" for image in images[::-1]]
    assert [listed(tab, page=page) for page in range(4)] == [
        keys[:2],
        keys[2:4],
        keys[4:],
        keys[4:],
    ]
    last = options(tab, press(tab, "bin", show={"page": 2}, keys=keys[4:]))
    assert [entry["key"] for entry in last["entries"]] == keys[2:4]
