"""The gallery in a browser: chosen, ticked, thrown away and had back; the lightbox by keys; a sweep as one card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from studio.core.base import validate
from studio.core.generation.request import ResolvedRequest
from studio.core.sweeps.spec import SweepSpec
from studio.settings import load
from studio.storage.gallery import ImageOrigin
from studio.storage.home import Home
from support.browser import Studio, shot

COLOURS = ("red", "lime", "blue", "cyan", "magenta", "yellow")
SPEC: Any = {"base": {"seed": 1}, "axes": [{"field": "steps", "values": [4, 5, 6]}]}


def fill(home_folder: Path) -> None:
    """Six loose images of different colours, the oldest first, and three of a sweep."""
    home = Home(load(home=home_folder, device="cpu"))
    sweep_id = home.sweeps.save(validate(SweepSpec, SPEC), "owner")
    for number in range(9):
        home.gallery.save(
            Image.new("RGB", (640, 400), COLOURS[number % 6] if number >= 3 else "gray"),
            ResolvedRequest(prompt=f"image {number}", width=640, height=400, seed=number),
            digest=f"{number:064d}",
            content_hashes={},
            seconds=1.0,
            owner="owner",
            origin=ImageOrigin("sweep", sweep_id) if number < 3 else None,
        )
    home.close()


@pytest.fixture
def page(studio: Studio, visit: Callable[..., Page]) -> Page:
    fill(studio.home)
    page = visit(studio)
    page.get_by_role("tab", name="Gallery", exact=True).click()
    expect(page.locator(".images-entry")).to_have_count(7)
    return page


def names(page: Page) -> list[str]:
    return [str(tile.get_attribute("aria-label")) for tile in page.locator(".images-tile").all()]


@pytest.mark.slow
def test_bin_undo_and_empty(page: Page, studio: Studio) -> None:
    tiles = page.locator(".images-tile")
    assert names(page)[0] == "image 8"
    assert names(page)[6].startswith("Sweep: ")
    tiles.nth(0).click()
    expect(page.locator("#gallery-view img")).to_be_visible()
    tiles.nth(1).click(modifiers=["Control"])
    tiles.nth(3).click(modifiers=["Shift"])
    expect(page.locator(".images-line.ticked")).to_contain_text("3 images selected")
    shot(page, "gallery-ticked")
    page.locator("#gallery-bin-ticked").click()
    expect(page.locator(".images-line.undo")).to_contain_text("Moved 3 images to the bin.")
    expect(page.locator(".images-entry")).to_have_count(4)
    page.locator("#gallery-undo").click()
    expect(page.locator(".images-entry")).to_have_count(7)
    page.keyboard.press("Control+a")
    expect(page.locator(".images-line.ticked")).to_contain_text("9 images selected")
    page.keyboard.press("Delete")
    expect(page.locator("#gallery-count")).to_contain_text("No images yet")
    files = list((studio.home / "outputs").rglob("*.png"))
    assert len(files) == 9
    page.locator("#gallery-bin-open").click()
    expect(page.locator(".images-entry")).to_have_count(9)
    page.locator(".images-tile").first.click(modifiers=["Control"])
    page.locator("#gallery-restore").click()
    expect(page.locator(".images-entry")).to_have_count(8)
    shot(page, "gallery-bin")
    page.locator("#gallery-empty").click()
    expect(page.locator(".images-line.question")).to_contain_text("Delete all 8 images for good?")
    assert len([path for path in files if path.is_file()]) == 9
    page.locator("#gallery-empty-yes").click()
    expect(page.locator("#gallery-count")).to_contain_text("The bin is empty.")
    assert len([path for path in files if path.is_file()]) == 1


@pytest.mark.slow
def test_a_card_opens_and_a_frame_ticks(page: Page) -> None:
    page.locator(".images-entry.many .images-tile").click()
    expect(page.locator(".images-line.series")).to_contain_text("Sweep: Steps")
    expect(page.locator(".images-entry")).to_have_count(3)
    box = page.locator(".images-list").bounding_box()
    first = page.locator(".images-entry").nth(0).bounding_box()
    second = page.locator(".images-entry").nth(1).bounding_box()
    assert box
    assert first
    assert second
    page.mouse.move(first["x"] + 4, box["y"] + 3)
    page.mouse.down()
    page.mouse.move(second["x"] + 20, first["y"] + 40, steps=5)
    page.mouse.up()
    expect(page.locator(".images-line.ticked")).to_contain_text("2 images selected")
    page.keyboard.press("Escape")
    expect(page.locator(".images-line.ticked")).to_have_count(0)
    page.locator("#gallery-series-back").click()
    expect(page.locator(".images-entry")).to_have_count(7)


@pytest.mark.slow
def test_the_lightbox(page: Page) -> None:
    page.locator(".images-tile").first.dblclick()
    image = page.locator("dialog.lightbox[open] img")
    expect(image).to_have_attribute("alt", "image 8")
    page.keyboard.press("ArrowRight")
    expect(image).to_have_attribute("alt", "image 7")
    page.keyboard.press("4")
    expect(page.locator(".lightbox-about")).to_contain_text("★★★★")
    page.keyboard.press("f")
    expect(page.locator(".lightbox-about")).to_contain_text("♥")
    expect(page.locator(".lightbox-scale")).to_have_text("100 %")  # it is smaller than the window
    page.locator(".lightbox-sheet").hover()
    page.mouse.wheel(0, -100)
    expect(page.locator(".lightbox-scale")).to_have_text("115 %")
    shot(page, "gallery-lightbox")
    page.keyboard.press("z")
    expect(page.locator(".lightbox-scale")).to_have_text("100 %")
    page.keyboard.press("Delete")
    expect(image).to_have_attribute("alt", "image 6")
    page.keyboard.press("Escape")
    expect(page.locator("dialog.lightbox[open]")).to_have_count(0)
    expect(page.locator(".images-entry")).to_have_count(6)
    expect(page.locator("#gallery-about")).to_contain_text("image 6")
    page.locator(".images-bar select[name=stars]").select_option("")
    page.keyboard.press("Control+z")
    expect(page.locator(".images-entry")).to_have_count(7)
    page.locator(".images-bar select[name=stars]").select_option("4")
    expect(page.locator(".images-entry")).to_have_count(1)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits(page: Page, width: int, height: int, theme: Any) -> None:
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": height})
    page.evaluate(f"document.body.classList.toggle('dark', {str(theme == 'dark').lower()})")
    page.locator(".images-tile").first.click()
    if width < 900:  # it opens large at once
        expect(page.locator("dialog.lightbox[open] img")).to_be_visible()
        shot(page, f"gallery-lightbox-{width}-{theme}")
        page.keyboard.press("Escape")
    page.locator(".images-tile").nth(1).click(modifiers=["Control"])
    expect(page.locator("#gallery-view img")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tile = page.locator(".images-entry").first.bounding_box()
    assert tile
    assert tile["y"] + tile["height"] <= height
    shot(page, f"gallery-{width}-{theme}")
