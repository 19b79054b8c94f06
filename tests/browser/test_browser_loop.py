"""The whole loop by clicking: pictures sent, captioned, trained on, tried, swept, judged, downloaded; and the Captions tab."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from safetensors import safe_open

from studio.settings import load, shipped
from studio.storage.home import Home
from support.browser import (
    HOSTILE,
    Studio,
    done,
    fill,
    fill_training,
    go,
    opened,
    put,
    run_is,
    shot,
    shown,
    state,
)

pytestmark = pytest.mark.slow

PLUSH = sorted((shipped("assets") / "datasets" / "mysks").glob("*.png"))


def send(page: Page, name: str, *files: Path) -> None:
    """Pictures into a dataset, as somebody drops them."""
    go(page, "Captions")
    fill(page, "album-into", name)
    page.locator("#album-files input[type=file]").set_input_files(files)


def caption(page: Page, at: int = 0) -> str:
    return page.locator("#album-cards textarea").nth(at).input_value()


def captioned(page: Page) -> None:
    page.locator("#caption-start").click()
    expect(page.locator("#caption-doing .album-doing[data-state=done]")).to_be_visible(
        timeout=120_000
    )
    expect(page.locator("#caption-stop")).to_be_disabled()
    expect(page.locator("#caption-start")).to_be_enabled()


def test_from_a_folder_to_a_compared_grid(
    shared: Studio,
    visit: Callable[..., Page],
    tmp_path: Path,
) -> None:
    page = visit(shared)
    go(page, "Captions")
    expect(page.locator("#album-note")).to_contain_text("Captions decide what a LoRA learns")
    shot(page, "captions-empty")

    # pictures without captions
    send(page, "our plush", *PLUSH)
    expect(page.locator("#album-taken")).to_contain_text(
        f"{len(PLUSH)} images and 0 captions added to our plush"
    )
    expect(
        page.locator(f"#album-found [data-pictures='{len(PLUSH)}'][data-captioned='0']")
    ).to_be_visible()
    expect(page.locator("#album-cards .album-card")).to_have_count(len(PLUSH))

    # first shown, then written; what may stay empty is empty, also where it comes into view late
    page.get_by_role("button", name="Advanced captioning settings").click()
    for name in ("tokens", "batch"):
        expect(page.locator(f"#caption-{name} input")).to_have_value("")
    page.locator("#caption-dry").click()
    expect(
        page.locator(f"#caption-result .album-preview[data-count='{len(PLUSH)}']")
    ).to_be_visible(timeout=120_000)
    folder = shared.home / "datasets" / "our plush"
    assert not list(folder.glob("*.txt"))
    captioned(page)
    expect(page.locator(f"#album-found [data-captioned='{len(PLUSH)}']")).to_be_visible()
    places = [
        picture.with_suffix(".txt").read_text().strip().split(" toy ")[1] for picture in PLUSH
    ]
    told = [(folder / picture.name).with_suffix(".txt").read_text() for picture in PLUSH]
    assert sum(place in caption for place, caption in zip(places, told)) >= 0.8 * len(
        PLUSH
    )  # looked at: the places are right
    shot(page, "captions")

    # the word that calls it
    fill(page, "caption-trigger", "mysks")
    page.locator("#caption-dress").click()
    expect(page.locator("#album-note")).to_contain_text(f"mysks was added to {len(PLUSH)} captions")
    assert all(file.read_text().startswith("mysks, ") for file in folder.glob("*.txt"))

    # trained on
    page.locator("#album-offers").get_by_role("button", name="Train on this").click()
    expect(page.get_by_role("tab", name="Training", exact=True)).to_have_attribute(
        "aria-selected", "true"
    )
    expect(page.locator("#train-pictures")).to_contain_text("all captioned")
    expect(page.locator("#training-dataset input")).to_have_value("our plush")
    expect(page.locator("#training-name").locator("input, textarea").first).to_have_value(
        "our plush"
    )
    expect(page.locator("#training-trigger").locator("input, textarea").first).to_have_value(
        "mysks"
    )
    fill_training(page, steps=40, rank=4, train_batch_size=2, resolution=64, learning_rate="0.001")
    expect(page.locator("#train-plan .sum[data-steps='40']")).to_be_visible()
    page.locator("#train-start").click()
    run_is(page, "running")
    expect(page.locator("#run-curve polyline.smooth")).to_have_count(1, timeout=60_000)
    run_is(page, "done")
    with page.expect_download() as download:
        page.locator("#run-files li[data-lora='our plush'] a").click()
    download.value.save_as(tmp_path / "plush.safetensors")
    with safe_open(tmp_path / "plush.safetensors", "pt") as file:
        assert file.metadata()["ss_network_dim"] == "4"
    shot(page, "loop-trained")

    # tried
    page.locator("#run-files li[data-lora='our plush'] button[data-action=try]").click()
    expect(page.locator("#txt2img-prompt textarea")).to_have_value(re.compile("mysks"))
    expect(page.locator('#txt2img-loras .lora[data-lora="our plush"]')).to_contain_text("rank 4")
    put(page, steps=3)
    page.locator("#generate").click()
    state(page, "done")
    expect(page.locator("#about")).to_contain_text("LoRA our plush")
    assert shown(page)[:4] == b"\x89PNG"

    # swept with and without it, judged, taken along
    go(page, "Training")
    page.locator("#run-files li[data-lora='our plush'] button[data-action=sweep]").click()
    expect(page.get_by_role("tab", name="Sweep", exact=True)).to_have_attribute(
        "aria-selected", "true"
    )
    expect(page.locator("#sweep-plan .plan[data-cells='12']")).to_be_visible()
    fill(page, "sweep-steps", "3")
    page.locator("#sweep-run").click()
    done(page, 12)
    expect(page.locator("#sweep-grid .tile[data-state=done]")).to_have_count(12)
    images = [
        str(image.evaluate("image => image.src"))
        for image in page.locator("#sweep-grid .tile img").all()
    ]
    pictures = {page.request.get(image).body() for image in images}
    assert len(pictures) == 12  # weight and scheduler both change the picture
    page.locator("#sweep-grid .tile").nth(2).click()
    page.locator("#sweep-judging .star").nth(3).click()
    expect(page.locator("#sweep-grid .tile .marks", has_text="★★★★")).to_have_count(1)
    store = Home(load(home=shared.home)).sweeps
    (sweep,) = store.list_sweeps()
    assert [
        kept.verdict.stars
        for kept in store.load_cell_results(sweep.id).values()
        if kept.verdict.stars
    ] == [4]
    shot(page, "loop-swept")
    page.locator("#sweep-export button").first.click()
    page.locator("#sweep-do-export").click()
    expect(page.locator("#sweep-files img")).to_be_visible(timeout=60_000)
    with page.expect_download() as sheet:
        page.locator("#sweep-files a[download='sheet.png']").click()
    sheet.value.save_as(tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").width > 3 * 64


def test_captions_are_edited_kept_and_undone(
    shared: Studio,
    visit: Callable[..., Page],
    tmp_path: Path,
) -> None:
    archive = tmp_path / "bears.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for picture in PLUSH[:6]:
            made.write(picture, picture.name)
            made.write(picture.with_suffix(".txt"), f"{picture.stem}.txt")
        made.writestr("broken.png", b"no picture")
    page = visit(shared)
    send(page, "", archive)
    expect(page.locator("#album-taken")).to_contain_text("6 images and 6 captions added to bears")
    expect(page.locator("#album-taken")).to_contain_text("broken.png")
    folder, box = shared.home / "datasets" / "bears", page.locator("#album-cards textarea").first
    before = caption(page)

    # typed, kept when the box is left; markup stays text
    box.fill(f"a bear {HOSTILE}")
    box.press("Enter")
    expect(page.locator("#album-cards .album-card").first).not_to_have_attribute(
        "data-state", "unsaved"
    )
    expect(page.locator("#album-cards .album-about").first).to_contain_text("by hand")
    assert (folder / "000.txt").read_text().strip() == f"a bear {HOSTILE}"
    # what is being typed elsewhere is not drawn over meanwhile
    second = page.locator("#album-cards textarea").nth(1)
    second.press_sequentially(" and more")
    page.wait_for_timeout(1500)
    assert second.input_value().endswith(" and more")
    second.blur()
    expect(page.locator("#album-cards .album-card[data-state=unsaved]")).to_have_count(0)
    page.reload()
    opened(page, "bears")
    assert caption(page) == f"a bear {HOSTILE}"
    assert caption(page, 1).endswith(" and more")

    # undone and done again, by button and by keyboard
    page.locator("#album-undo").click()
    expect(page.locator("#album-note")).to_contain_text("Undone")
    assert not caption(page, 1).endswith(" and more")
    page.mouse.click(5, 5)  # out of the boxes
    page.keyboard.press("Control+z")
    expect(page.locator("#album-cards textarea").first).to_have_value(before)
    page.keyboard.press("Control+Shift+z")
    expect(page.locator("#album-cards textarea").first).to_have_value(f"a bear {HOSTILE}")

    # filtered, with counts
    fill(page, "album-filter", "bear")
    expect(page.locator("#album-count [data-total='1']")).to_be_visible()
    fill(page, "album-filter", "tokens:>")
    expect(page.locator("#album-note .faults")).to_be_visible()
    fill(page, "album-filter", '"<script>" 日本 -bear')
    expect(page.locator("#album-count")).to_contain_text("No images match")
    fill(page, "album-filter", "")
    expect(page.locator("#album-cards .album-card")).to_have_count(6)

    # set aside, and back
    page.locator("#album-cards .album-card").first.get_by_role("button", name="Exclude").click()
    expect(page.locator("#album-cards .album-card")).to_have_count(5)
    page.locator("#album-undo").click()
    expect(page.locator("#album-cards .album-card")).to_have_count(6)

    # what another program writes is seen
    (folder / "005.txt.new").write_text("written elsewhere")
    shutil.move(folder / "005.txt.new", folder / "005.txt")
    expect(page.locator("#album-cards textarea").last).to_have_value("written elsewhere")
    assert page.title() == "Studio"


def test_a_phone_sees_all_of_the_captions(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared, width=390)
    opened(page, "mysks")
    expect(page.locator("#album-cards img").first).to_be_visible()
    expect(
        page.locator("#album-cards textarea").first
    ).not_to_be_editable()  # it came with the studio
    page.get_by_role("button", name="Copy to edit").click()
    expect(page.locator("#caption-dataset input")).to_have_value("my mysks")
    expect(page.locator("#album-cards textarea").first).to_be_editable()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shot(page, "phone-captions")


def test_many_captions_at_once(shared: Studio, visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit(shared)
    send(page, "many", *PLUSH[:8], *(picture.with_suffix(".txt") for picture in PLUSH[:8]))
    expect(page.locator("#album-taken")).to_contain_text("8 images and 8 captions added to many")
    folder = shared.home / "datasets" / "many"

    # replaced, after a look
    page.locator("#tool-replace > button").click()
    fill(page, "tool-find", "plush toy")
    fill(page, "tool-to", "bear, soft")
    page.locator("#tool-preview").click()
    expect(page.locator("#tool-before .album-preview[data-count='8']")).to_be_visible()
    assert not any("bear" in file.read_text() for file in folder.glob("*.txt"))
    shot(page, "captions-replace")
    page.locator("#tool-apply").click()
    expect(page.locator("#album-note")).to_contain_text("8 changes")
    assert all("bear, soft" in file.read_text() for file in folder.glob("*.txt"))
    page.locator("#tool-how").get_by_label("Regular expression").check()
    fill(page, "tool-find", "(((")
    page.locator("#tool-apply").click()
    expect(page.locator(".toast-body")).to_contain_text("is not a usable regular expression")
    page.locator(".toast-close").first.click()

    # tags
    page.locator("#tool-tags > button").click()
    expect(page.locator("#tool-chips .chip").first).to_be_visible()
    fill(page, "tool-tag", "ours, plush")
    page.locator("#tool-does input").click()
    page.get_by_role("option", name="Add in front", exact=True).click()
    page.locator("#tool-carry").click()
    expect(page.locator("#tool-chips .chip", has_text="plush")).to_contain_text("8")
    assert all(file.read_text().startswith("ours, plush, ") for file in folder.glob("*.txt"))
    shot(page, "captions-tags")

    # what spoils a training, mended one by one and all at once
    (folder / "000.txt").write_text("")
    (folder / "001.txt").write_text("red, red, a bear by a lake")
    shutil.copy(folder / "002.png", folder / "twin.png")
    page.reload()
    opened(page, "many")
    expect(page.locator("#album-found [data-pictures='9']")).to_be_visible()
    fill(page, "caption-trigger", "sks9")
    page.locator("#tool-lint > button").click()
    for kind in ("missing", "twice", "duplicate", "trigger"):
        expect(page.locator(f"#tool-findings [data-kind={kind}]")).to_be_visible()
    shot(page, "captions-lint")
    page.locator("#tool-findings [data-kind=trigger]").get_by_role("button", name="Fix all").click()
    expect(page.locator("#tool-findings [data-kind=duplicate]")).to_be_visible()
    expect(page.locator("#tool-findings [data-kind=trigger]")).to_have_count(0)
    page.locator("#tool-findings [data-kind=twice] li button").click()
    expect(page.locator("#tool-findings [data-kind=twice]")).to_have_count(0)
    page.locator("#tool-findings [data-kind=duplicate] li button").click()
    expect(page.locator("#tool-findings [data-kind=duplicate]")).to_have_count(0)
    assert not (folder / "twin.png").exists()
    page.locator("#tool-findings [data-kind=missing] li button").first.click()
    expect(page.locator("#album-cards .album-card")).to_have_count(1)
    page.locator("#album-everything").click()
    expect(page.locator("#album-cards .album-card")).to_have_count(8)

    # seen
    page.locator("#find > button").click()
    fill(page, "find-words", "a snowy landscape")
    page.locator("#find-search").click()
    expect(page.locator("#album-everything")).to_be_visible(timeout=60_000)
    expect(page.locator("#album-cards .album-card").first).to_have_attribute("data-key", "001.png")
    shot(page, "captions-search")
    page.locator("#album-cards .album-card").nth(3).get_by_role("button", name="Similar").click()
    expect(page.locator("#album-cards .album-card")).to_have_count(7, timeout=60_000)
    page.locator("#find-sent input[type=file]").set_input_files(PLUSH[5])
    expect(page.locator("#album-cards .album-card").first).to_have_attribute(
        "data-key", "005.png", timeout=60_000
    )
    expect(page.locator("#album-cards .album-about").first).to_contain_text("1.000")
    page.locator("#find-fit").click()
    expect(page.locator("#album-note")).to_contain_text("worst match first", timeout=60_000)
    page.locator("#find-twins").click()
    expect(page.locator("#find-doing")).to_contain_text("No images found", timeout=60_000)

    # where from, and out
    page.locator("#tool-card > button").click()
    fill(page, "tool-author", "the studio's painter")
    page.locator("#tool-say").click()
    expect(page.locator("#tool-known")).to_contain_text("8 of 8 images have a source")
    page.locator("#tool-export").click()
    with page.expect_download() as download:
        page.locator("#tool-file a").first.click()
    download.value.save_as(tmp_path / "many.zip")
    with zipfile.ZipFile(tmp_path / "many.zip") as exported:
        names = exported.namelist()
        assert sum(name.endswith(".png") for name in names) == 8
        assert any(
            b"the studio's painter" in exported.read(name)
            for name in names
            if name.endswith((".md", ".json", ".jsonl"))
        )
    assert page.title() == "Studio"
