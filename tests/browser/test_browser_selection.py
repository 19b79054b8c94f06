"""The Captions tab in a real browser: pictures ticked by mouse and keyboard, over pages, on a phone; repeats; near-duplicates."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from studio.settings import shipped
from support.browser import Studio, fill, opened, shot

pytestmark = pytest.mark.slow
COUNT = 30  # two pages
DATASETS = shipped("assets") / "datasets"


@pytest.fixture
def folder(shared: Studio) -> Path:
    folder = shared.home / "datasets" / "dots"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(COUNT):
        Image.new("RGB", (64, 64), (8 * number, 90, 255 - 8 * number)).save(
            folder / f"{number:02}.png"
        )
        (folder / f"{number:02}.txt").write_text(f"dot, {'even' if number % 2 == 0 else 'odd'}\n")
    return folder


def box(page: Page, key: str) -> Locator:
    return page.get_by_role("checkbox", name=f"Select {key}.png", exact=True)


def ticked(page: Page, count: int) -> None:
    expect(page.locator(f"#album-cards .album-bar[data-ticked='{count}']")).to_be_visible()


def press(page: Page, name: str) -> None:
    page.locator(f"#album-cards .album-bar button[data-action={name}]").click()


def test_ticked_pictures_and_what_is_done_to_them(
    shared: Studio,
    visit: Callable[..., Page],
    folder: Path,
) -> None:
    page = visit(shared)
    opened(page, "dots")
    bar = page.locator("#album-cards .album-bar")
    expect(bar).to_contain_text(f"Nothing selected: actions apply to all {COUNT} images")

    # one, a range, a range back; by keyboard
    box(page, "02").click()
    box(page, "05").click(modifiers=["Shift"])
    ticked(page, 4)
    expect(box(page, "04")).to_be_checked()
    box(page, "04").click()
    ticked(page, 3)
    box(page, "04").press("ArrowDown")
    expect(box(page, "05")).to_be_focused()
    box(page, "05").press("ArrowDown")
    page.keyboard.press("Space")
    expect(box(page, "06")).to_be_checked()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+Space")
    ticked(page, 7)  # 02, 03, 05, 06, 07, 08, 09

    # they stay while pages are turned, the filter changes, a caption is typed and kept
    page.locator("#album-next").click()
    expect(page.locator("#album-cards .album-card")).to_have_count(COUNT - 24)
    ticked(page, 7)
    box(page, "29").click()
    first = page.locator("#album-cards textarea").first
    first.fill("dot, typed")
    first.press("Enter")
    expect(page.locator("#album-cards .album-about").first).to_contain_text("by hand")
    assert (folder / "24.txt").read_text().strip() == "dot, typed"
    ticked(page, 8)
    fill(page, "album-filter", "tag:odd")
    expect(page.locator("#album-count [data-total='15']")).to_be_visible()
    ticked(page, 8)
    expect(box(page, "03")).to_be_checked()
    expect(box(page, "01")).not_to_be_checked()
    for far in (4000, -4000):
        page.mouse.wheel(0, far)
        expect(bar.locator(".album-ticked")).to_be_in_viewport()
    shot(page, "captions-ticked")

    # what is done is done to them, shown or not
    page.locator("#tool-replace > button").click()
    fill(page, "tool-find", "dot")
    fill(page, "tool-to", "spot")
    page.locator("#tool-preview").click()
    expect(page.locator("#tool-before .album-preview[data-count='8']")).to_be_visible()
    page.locator("#tool-apply").click()
    expect(page.locator("#album-note")).to_contain_text("8 changes")
    spots = {file.stem for file in folder.glob("*.txt") if "spot" in file.read_text()}
    assert spots == {"02", "03", "05", "06", "07", "08", "09", "29"}
    page.locator("#album-cards .album-card img").first.click()  # out of the boxes
    page.keyboard.press("Control+z")
    expect(page.locator("#album-note")).to_contain_text("Undone")
    assert not any("spot" in file.read_text() for file in folder.glob("*.txt"))
    ticked(page, 8)

    # all that are shown, by button and by keys, besides those ticked before; none
    press(page, "all")
    ticked(page, 18)  # 15 odd ones, and 02, 06, 08
    press(page, "none")
    ticked(page, 0)
    expect(bar).to_contain_text("the 15 images shown")
    page.locator("#album-cards .album-card img").first.click()
    page.keyboard.press("Control+a")
    ticked(page, 15)
    first.focus()
    page.keyboard.press("Control+a")  # in a box that is the text's own
    assert (
        page.evaluate("getSelection().toString()")
        or first.evaluate("box => box.selectionEnd - box.selectionStart") > 0
    )

    # set aside, and back
    fill(page, "album-filter", "")
    press(page, "aside")
    expect(page.locator("#album-note")).to_contain_text("15 images excluded")
    expect(page.locator("#album-count [data-total='15']")).to_be_visible()
    ticked(page, 0)
    assert len(list(folder.glob("*.png"))) == 15
    page.locator("#album-undo").click()
    expect(page.locator(f"#album-count [data-total='{COUNT}']")).to_be_visible()
    assert len(list(folder.glob("*.png"))) == COUNT == len(list(folder.glob("*.txt")))

    # captioned: only the ticked one
    box(page, "00").click()
    page.locator("#caption-mode input").click()
    page.get_by_role("option", name="Append", exact=True).click()
    page.locator("#caption-start").click()
    expect(page.locator("#caption-doing")).to_contain_text("1 image captioned", timeout=120_000)
    assert [file.stem for file in sorted(folder.glob("*.txt")) if len(file.read_text()) > 12] == [
        "00"
    ]


def test_ticking_on_a_phone(shared: Studio, visit: Callable[..., Page], folder: Path) -> None:
    page = visit(shared, width=390)
    opened(page, "dots")
    for key in ("00", "04"):
        box(page, key).click()
    ticked(page, 2)
    for far in (9000, -9000):
        page.mouse.wheel(0, far)
        expect(page.locator("#album-cards .album-ticked")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    size = page.locator("#album-cards .album-tick").first.bounding_box()
    assert size
    assert min(size["width"], size["height"]) >= 32
    shot(page, "phone-captions-ticked")


def test_repeats_and_near_duplicates(shared: Studio, visit: Callable[..., Page]) -> None:
    folder = shared.home / "datasets" / "sky"
    for name in ("10_moon", "2_bear"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        shutil.copy(DATASETS / "moon" / f"{number:03}.png", folder / "10_moon")
        shutil.copy(DATASETS / "mysks" / f"{number:03}.png", folder / "2_bear")
    for name in ("10_moon/001", "2_bear/002"):
        Image.open(folder / f"{name}.png").convert("RGB").resize((112, 112)).save(
            folder / f"{name}-small.png"
        )
    page = visit(shared)
    opened(page, "sky")

    # how often each counts: typed, refused, undone
    number = page.get_by_label("Repeats of 10_moon", exact=True)
    number.fill("4")
    number.press("Enter")
    expect(page.get_by_label("Repeats of 4_moon", exact=True)).to_have_value("4")
    assert (folder / "4_moon" / "000.png").is_file()
    assert not (folder / "10_moon").exists()
    number = page.get_by_label("Repeats of 4_moon", exact=True)
    number.fill("0")
    number.press("Enter")
    expect(page.locator(".toast-body")).to_contain_text("Repeats: must be 1 or more")
    page.locator(".toast-close").first.click()
    expect(number).to_have_value("4")
    shot(page, "captions-repeats")
    page.locator("#album-undo").click()
    expect(page.get_by_label("Repeats of 10_moon", exact=True)).to_have_value("10")

    # of near-duplicates the best stays: of one group, then of every
    page.locator("#find > button").click()
    page.locator("#find-twins").click()
    expect(page.locator("#album-cards .album-card")).to_have_count(4, timeout=120_000)
    expect(page.locator("#album-cards .album-about").first).to_contain_text("best of 2")
    shot(page, "captions-twins")
    page.get_by_role("button", name="exclude the other").first.click()
    expect(page.locator("#album-cards .album-card")).to_have_count(3)
    page.locator("#album-undo").click()
    expect(page.locator("#album-cards .album-card")).to_have_count(4)
    page.locator("#find-thin").click()
    expect(page.locator("#album-note")).to_contain_text("2 images excluded")
    assert not list(folder.glob("*/*-small.png"))
    assert len(list(folder.glob("*/*.png"))) == 6
