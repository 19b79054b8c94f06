"""The Sweep tab in a real browser: a grid built by clicking, watched, judged, compared, exported, taken up again."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from studio.core.base import validate
from studio.core.generation.request import ResolvedRequest
from studio.core.sweeps.spec import SweepSpec, plan_sweep
from studio.settings import Settings, load
from studio.storage.gallery import Gallery, read_image_settings
from studio.storage.home import Home
from studio.storage.sweeps import CellResult, Sweeps
from studio.storage.verdicts import Verdict
from studio.ui.app import TABS
from support.browser import Studio, Traffic, ask, body, done, go, place, shot, state

pytestmark = pytest.mark.slow
SCHEDULERS = ("Euler", "DDIM", "DPM++ 2M")
QUICK = {"prompt": "a photo of a red house by a lake", "width": 64, "height": 64, "seed": 7}


def say(page: Page, **fields: object) -> None:
    """Fill fields of the base."""
    for name, value in fields.items():
        box = page.locator(f"#sweep-{name.replace('_', '-')}").locator("textarea, input").first
        box.fill(str(value))
        box.blur()


def vary(page: Page, number: int, title: str, values: str) -> None:
    """The axis in that row, with values to type."""
    if number > 1 and not page.locator(f"#axis-{number}-field").first.is_visible():
        page.locator("#axis-add").click()
    field, box = (
        page.locator(f"#axis-{number}-field input"),
        page.locator(f"#axis-{number}-text").locator("textarea, input").first,
    )
    if field.input_value() != title:
        field.click()
        page.get_by_role("option", name=title, exact=True).click()
        expect(box).to_have_value("")  # the values of what varied before are gone
    box.fill(values)


def tick(page: Page, *names: str) -> None:
    for name in names:
        page.locator("#axis-1-ticks").get_by_label(name, exact=True).check()


def plan_says(page: Page, cells: int) -> None:
    expect(page.locator(f"#sweep-plan .plan[data-cells='{cells}']")).to_be_visible()


def run(page: Page) -> None:
    page.locator("#sweep-run").click()


def tile(page: Page, label: str) -> Locator:
    """The cell with that label, stars or not."""
    return page.get_by_role("button", name=re.compile(rf"^{re.escape(label)}(,|$)")).and_(
        page.locator(".tile")
    )


def test_a_grid_from_the_first_click_to_the_viewer(
    shared: Studio,
    visit: Callable[..., Page],
    chromium: Browser,
    tmp_path: Path,
) -> None:
    page = visit(shared)
    go(page)
    shot(page, "sweep-empty")
    say(page, **QUICK)
    tick(page, *SCHEDULERS)
    expect(page.locator("#axis-1-echo")).to_contain_text("3 values")
    vary(page, 2, "Steps", "2-4, 40")
    expect(page.locator("#axis-2-echo")).to_contain_text("4 values 2, 3, 4, 40")
    plan_says(page, 12)
    expect(page.locator("#sweep-plan")).to_contain_text("3 × 4 = 12")
    shot(page, "sweep-plan")
    run(page)

    # it fills while it runs
    expect(page.locator(".sweep-head[data-state=running]")).to_contain_text(
        re.compile(r"\b([1-9]|1[01]) of 12 cells")
    )
    assert 0 < page.locator(".tile[data-state=done]").count() < 12
    shot(page, "sweep-running")
    done(page, 12)
    expect(page.locator("#sweep-stop")).to_be_disabled()

    # a cell is the file that was made with what its label says
    files = {
        (found["scheduler"], found["steps"]): file
        for file in (shared.home / "outputs").rglob("*.png")
        if (found := read_image_settings(file).values)["prompt"] == QUICK["prompt"]
    }
    for scheduler, steps in (("DDIM", 3), ("DPM++ 2M", 40), ("Euler", 2)):
        tile(page, f"{scheduler} · Steps {steps}").click()
        expect(page.locator("#sweep-about .cell-label")).to_have_text(
            f"{scheduler} · Steps {steps}"
        )
        assert body(page, page.locator("#sweep-view img")) == files[scheduler, steps].read_bytes()
        expect(page.locator("#sweep-about")).to_contain_text("64 × 64")
    assert len({file.read_bytes() for file in files.values()}) == 12  # no constant picture

    # a verdict, kept at once
    page.locator("#sweep-judging .star").nth(3).click()
    page.locator("#sweep-judging .note").fill("soft <b>edges</b>")
    page.locator("#sweep-judging .best").click()
    expect(tile(page, "Euler · Steps 2").locator(".marks")).to_have_text("★★★★ ♥ ✎")
    store = Home(load(home=shared.home)).sweeps
    (sweep,) = store.list_sweeps()
    (verdict,) = [
        kept.verdict for kept in store.load_cell_results(sweep.id).values() if kept.verdict
    ]
    assert verdict == Verdict(4, "soft <b>edges</b>", True)

    # two cells are compared
    page.locator("#sweep-pin").click()
    expect(tile(page, "Euler · Steps 2")).to_have_class(re.compile("pinned"))
    tile(page, "Euler · Steps 40").click()
    expect(page.locator("#sweep-captions")).to_contain_text("pinned: Euler · Steps 2")
    expect(page.locator("#sweep-judging .note")).to_have_value(
        ""
    )  # the other cell's note stays with the other cell
    expect(page.locator("#sweep-slider img")).to_have_count(2)
    both = {place(image) for image in page.locator("#sweep-slider img").all()}
    assert both == {files["Euler", 2], files["Euler", 40]}
    shot(page, "sweep-compare")
    page.locator("#sweep-how").get_by_label("Side by side").check()
    expect(page.locator("#sweep-sides img")).to_have_count(2)
    assert [place(image) for image in page.locator("#sweep-sides img").all()] == [
        files["Euler", 2],
        files["Euler", 40],
    ]

    # axes change places, cells go with them
    heads, rows = page.locator("#sweep-grid thead th"), page.locator("#sweep-grid tbody th")
    expect(heads).to_have_text(list(SCHEDULERS))
    page.locator("#sweep-swap").click()
    expect(rows).to_have_text(list(SCHEDULERS))
    expect(heads).to_have_text(["Steps 2", "Steps 3", "Steps 4", "Steps 40"])
    second = page.locator("#sweep-grid tbody tr").nth(1).locator(".tile")
    assert [str(one.get_attribute("aria-label")) for one in second.all()] == [
        f"DDIM · Steps {steps}" for steps in (2, 3, 4, 40)
    ]

    # sheet, viewer and index are taken along
    page.locator("#sweep-export button").first.click()
    page.locator("#sweep-numbers").get_by_label("difference from the pinned cell").check()
    page.locator("#sweep-do-export").click()
    expect(tile(page, "Euler · Steps 2").locator("xpath=..")).to_contain_text("Δ 0", timeout=60_000)
    expect(page.locator("#sweep-files img")).to_be_visible()
    shot(page, "sweep-export")
    for name in ("sheet.png", "index.json", "index.csv", "viewer.html"):
        with page.expect_download() as download:
            page.locator(f"#sweep-files a[download='{name}']").click()
        download.value.save_as(tmp_path / name)
    assert Image.open(tmp_path / "sheet.png").width > 3 * 64
    assert "soft <b>edges</b>" in (tmp_path / "index.csv").read_text("utf-8-sig")
    alone = chromium.new_context(offline=True)
    viewer = alone.new_page()
    viewer.goto((tmp_path / "viewer.html").as_uri())
    expect(viewer.locator(".frame img")).to_have_count(12)
    shot(viewer, "sweep-viewer")

    # and what is said there comes back
    for key in ("ArrowRight", "5"):
        viewer.keyboard.press(key)
    with viewer.expect_download() as download:
        viewer.locator("#export").click()
    download.value.save_as(tmp_path / "verdicts.json")
    alone.close()
    with page.expect_file_chooser() as chooser:
        page.locator("#sweep-verdicts").click()
    chooser.value.set_files(tmp_path / "verdicts.json")
    expect(page.locator("#sweep-grid .tile").filter(has_text="★★★★★")).to_have_count(1)
    assert sorted(kept.verdict.stars for kept in store.load_cell_results(sweep.id).values())[
        -2:
    ] == [4, 5]
    store.close()


def test_nonsense_is_refused_in_words(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared)
    go(page)
    say(page, prompt="a <hypernet:old:1> house", width=63)
    vary(page, 1, "Steps", "10-5 (+0), many")
    expect(page.locator("#axis-1-echo")).to_contain_text("has a step of 0")
    for said in ("Prompt", "Width", "step of 0", "'many'"):
        expect(page.locator("#sweep-plan .faults")).to_contain_text(said)
    run(page)
    toast = page.locator(".toast-body")
    for said in ("Prompt", "Width", "63", "step of 0", "'many', is neither a number"):
        expect(toast).to_contain_text(said)
    assert "Traceback" not in toast.inner_text()
    shot(page, "sweep-refused")
    page.locator(".toast-close").first.click()
    say(page, prompt="a house", width=64, noise_schedule="Karras")
    page.keyboard.press("Escape")
    vary(
        page,
        1,
        "Words in the prompt (prompt S/R)",
        "house, <img src=x onerror=document.title='pwned'>",
    )
    page.locator("#axis-1-find").locator("textarea, input").first.fill("boat")
    expect(page.locator("#sweep-plan .faults")).to_contain_text("'boat' is not in the prompts")
    page.locator("#axis-1-find").locator("textarea, input").first.fill("house")
    plan_says(page, 2)
    assert page.title() == "Studio"
    page.locator("#axis-add").click()
    expect(page.locator("#sweep-plan .faults")).to_contain_text("Axis 2: choose a setting")
    page.locator("#axis-2-remove").click()
    plan_says(page, 2)


def test_a_reload_takes_the_sweep_up_and_it_goes_on(
    shared: Studio,
    visit: Callable[..., Page],
) -> None:
    page = visit(shared)
    go(page)
    say(page, **QUICK | {"prompt": "a green boat", "steps": 40})
    vary(page, 1, "Seed", "1-40")
    plan_says(page, 40)
    run(page)
    expect(page.locator(".sweep-head[data-state=running]")).to_contain_text(
        re.compile(r"\b([1-9]|1\d) of 40 cells")
    )
    page.reload()
    go(page)
    expect(page.locator(".sweep-head[data-state=running]")).to_contain_text(
        re.compile(r"\b\d+ of 40 cells")
    )
    expect(page.locator("#sweep-prompt textarea")).to_have_value("a green boat")
    expect(page.locator("#axis-1-text").locator("textarea, input").first).to_have_value("1-40")
    before = page.locator(".tile[data-state=done]").count()
    expect(page.locator(".tile[data-state=done]")).not_to_have_count(before)  # still filling
    page.locator("#sweep-stop").click()
    expect(page.locator(".sweep-head[data-state=cancelled]")).to_contain_text(
        "stopped; finished cells are kept"
    )
    kept = page.locator(".tile[data-state=done]").count()
    assert 0 < kept < 40
    shot(page, "sweep-stopped")

    # fewer values of the same sweep: what is there is kept
    vary(page, 1, "Seed", f"1-{kept + 2}")
    plan_says(page, kept + 2)
    expect(page.locator("#sweep-plan")).to_contain_text(f"2 new, {kept} already")
    made = len(list((shared.home / "outputs").rglob("*.png")))
    page.locator("#sweep-extend").click()
    done(page, kept + 2)
    assert len(list((shared.home / "outputs").rglob("*.png"))) == made + 2
    go(page, "Queue")
    expect(page.locator("#queue-list .job").first).to_contain_text(
        f"sweep of {kept + 2} cells: Seed"
    )


def test_by_keyboard_with_presets_sent_on_and_put_away(
    shared: Studio,
    visit: Callable[..., Page],
) -> None:
    page = visit(shared)
    ask(page, prompt="a teal lantern", steps=2, seed=77, width=64, height=64)
    state(page, "done")
    page.locator("#send-txt2img-sweep").click()
    expect(page.locator("#sweep-prompt textarea")).to_have_value("a teal lantern")
    expect(page.locator("#sweep-seed input").first).to_have_value("77")
    page.get_by_role("button", name="Samplers and steps").click()
    plan_says(page, 24)
    expect(page.locator("#axis-1-echo")).to_contain_text("6 values")
    page.locator("#axis-2-remove").click()
    vary(page, 1, "CFG scale", "1-3")
    say(page, **QUICK | {"steps": 2, "title": "Three <guidances>"})
    plan_says(page, 3)
    page.locator("#sweep-prompt textarea").focus()
    page.keyboard.press("Control+Enter")
    done(page, 3)

    first = page.locator(".tile").first
    first.focus()
    page.keyboard.press("ArrowRight")
    expect(tile(page, "CFG scale 2")).to_be_focused()
    page.keyboard.press("3")
    expect(tile(page, "CFG scale 2").locator(".marks")).to_have_text("★★★")
    page.keyboard.press("Enter")
    expect(page.locator("#sweep-about .cell-label")).to_have_text("CFG scale 2")
    page.locator("#send-sweep-txt2img").click()
    expect(page.locator("#txt2img-guidance input").first).to_have_value("2")
    expect(page.locator("#txt2img-prompt textarea")).to_have_value(QUICK["prompt"])

    go(page)
    page.locator("#sweep-presets button").first.click()
    say(page, preset_name="three guidances")
    page.locator("#sweep-preset-save").click()
    expect(page.locator("#sweep-preset input")).to_have_value("three guidances")
    assert (shared.home / "presets" / "sweeps" / "three guidances.toml").is_file()
    page.locator("#sweep-shelf button").first.click()
    row = page.locator(".shelved", has_text="Three <guidances>")
    row.get_by_role("button", name="Delete").click()
    expect(row).to_contain_text("Its images stay in the gallery")
    shot(page, "sweep-shelf")
    pictures = len(list((shared.home / "outputs").rglob("*.png")))
    row.get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)
    expect(page.locator(".sweep-empty")).to_be_visible()
    assert len(list((shared.home / "outputs").rglob("*.png"))) == pictures


@pytest.fixture
def large(shared: Studio) -> str:
    """A sweep of 400 cells that is done, as somebody else's; its title."""
    settings = Settings(home=shared.home)
    gallery = Gallery(settings)
    sweeps = Sweeps(settings, gallery)
    spec = validate(
        SweepSpec,
        {
            "title": "Four <hundred>",
            "base": QUICK,
            "axes": [{"field": "steps", "values": "1-20"}, {"field": "guidance", "values": "1-20"}],
        },
    )
    id = sweeps.save(spec, "somebody")
    for cell in plan_sweep(spec).cells:
        at = cell.coordinates
        image = Image.new("RGB", (64, 64), (at[0] * 12, at[1] * 12, 90))
        request = ResolvedRequest(**cell.request.model_dump())
        picture = gallery.save(
            image, request, digest=cell.key, content_hashes={}, seconds=0.1, owner="somebody"
        )
        sweeps.save_cell_result(id, cell.key, CellResult(picture.path, picture.digest, 0.1))
    gallery.close()
    sweeps.close()
    return spec.title


def test_four_hundred_cells_take_few_bytes(
    shared: Studio,
    large: str,
    visit: Callable[..., Page],
) -> None:
    page = visit(shared)
    go(page)
    page.locator("#sweep-shelf button").first.click()
    traffic = Traffic(page)
    page.locator(".shelved", has_text=large).get_by_role("button", name="Open").click()
    expect(page.locator(".tile[data-state=done]")).to_have_count(400)
    page.wait_for_timeout(1000)  # the pictures in sight
    opened = traffic.take()
    box = page.locator("#sweep-grid .grid")
    box.evaluate("box => box.scrollTo(300, 500)")
    tile(page, "Steps 8 · CFG scale 8").click()  # the first brings the scripts that show a cell
    expect(page.locator("#sweep-about .cell-label")).to_have_text("Steps 8 · CFG scale 8")
    page.wait_for_timeout(1000)
    traffic.take()
    tile(page, "Steps 9 · CFG scale 8").click()
    expect(page.locator("#sweep-about .cell-label")).to_have_text("Steps 9 · CFG scale 8")
    picked = traffic.take()
    page.locator("#sweep-judging .star").nth(4).click()
    expect(tile(page, "Steps 9 · CFG scale 8").locator(".marks")).to_have_text("★★★★★")
    assert box.evaluate("box => box.scrollTop") > 0  # redrawn where it was, not from the top
    shot(page, "sweep-large")
    head = page.locator("#sweep-grid thead th").first.bounding_box()
    grid = box.bounding_box()
    assert head
    assert grid
    assert abs(head["y"] - grid["y"]) < 3  # heads stay in sight
    print(f"400 cells: opened with {opened:,} bytes, a cell with {picked:,}")
    assert opened < 400 * 1500  # a tile and its thumbnail each
    assert picked < opened / 4  # not all of it again


def test_a_phone_sees_all_of_it(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared, width=390)
    go(page)
    say(page, **QUICK)
    tick(page, *SCHEDULERS)
    vary(page, 2, "Steps", "2-4")
    plan_says(page, 9)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shot(page, "phone-sweep")
    run(page)
    done(page, 9)
    tile(page, "DDIM · Steps 3").click()
    expect(page.locator("#sweep-cell")).to_be_visible()
    page.locator("#sweep-pin").click()
    tile(page, "Euler · Steps 4").click()
    expect(page.locator("#sweep-compare")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    if page.locator("#sweep-grid").bounding_box():
        page.locator("#sweep-head").scroll_into_view_if_needed()
    shot(page, "phone-sweep-done")


def test_every_tab_keeps_its_title(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared)
    titles = [title for title, _ in TABS.values()]
    for title in [*titles, titles[0]]:
        go(page, title)
        page.wait_for_timeout(300)  # what is wrong comes after the tab has been drawn
        assert page.get_by_role("tab").all_inner_texts()[: len(titles)] == titles
