"""The viewer in a real browser: no network, no markup from data, and all that it promises to a hand on the keyboard."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from studio.engine.sweeps.results import Table, TableAxis, TableCell, Verdict
from studio.engine.sweeps.viewer import write_viewer
from studio.storage.verdicts import parse_exported_verdicts

HOSTILE = "</script><img src=x onerror=\"document.title='pwned'\"><!-- <script> &amp; \u2028 \ud800"


@pytest.fixture
def show(chromium: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """`show(table)` writes the viewer and opens it. What it logs as an error or asks of anybody fails the test."""
    faults: list[str] = []
    contexts = []

    def show(table: Table, width: int = 1280, linked: bool = False, watched: bool = True) -> Page:
        file = tmp_path / "a sweep.html"
        write_viewer(table, file, embed_images=not linked)
        contexts.append(
            context := chromium.new_context(
                viewport={"width": width, "height": 800}, offline=not linked
            )
        )
        page = context.new_page()
        own = (file.as_uri(), "data:", "blob:", *([tmp_path.as_uri()] if linked else []))
        if watched:
            page.on("pageerror", lambda error: faults.append(f"error: {error}"))
            page.on(
                "console", lambda told: faults.append(told.text) if told.type == "error" else None
            )
            page.on(
                "request",
                lambda asked: (
                    None if asked.url.startswith(own) else faults.append(f"asked {asked.url}")
                ),
            )
        page.goto(file.as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert not faults


def table(folder: Path, *counts: int, size: int = 48) -> Table:
    """Pictures of one colour each; where there are many, the last one failed."""
    cells = {}
    for number, at in enumerate(product(*map(range, counts))):
        path = folder / f"cell # {number}.png"
        Image.fromarray(np.full((size, size, 3), (number % 250, number // 250, 77), np.uint8)).save(
            path
        )
        cells[at] = TableCell(
            path,
            seed=number,
            settings=f"a boat\nSteps: {number}",
            metrics={"seconds": 1.0 + number},
        )
    if len(cells) > 8:
        cells[tuple(count - 1 for count in counts)] = TableCell(
            error="Out of memory: lower the size."
        )
    axes = tuple(
        TableAxis(f"axis {x}", tuple(f"{x}{n}".lower() for n in range(count)))
        for x, count in zip("XYZ", counts)
    )
    return Table("one", "A sweep", axes, cells, (("Steps", "20"),), "exact")


def heads(page: Page) -> tuple[list[str], list[str]]:
    return page.locator("#heads .h").all_text_contents(), page.locator(
        ".line .name"
    ).all_text_contents()


def at(page: Page, *coordinates: int) -> Locator:
    return page.locator(f".cell[data-at='{','.join(map(str, coordinates))}']")


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.locator("dialog[open], #stage").last.press(key)


@pytest.mark.slow
def test_axes_change_places_and_values_are_hidden(
    show: Callable[..., Page], tmp_path: Path
) -> None:
    page = show(table(tmp_path, 4, 3, 2))
    x, y = [f"x{k}" for k in range(4)], ["y0", "y1", "y2"]
    assert heads(page) == (x, y)
    assert page.locator("#mode, #fixed").all_text_contents() == ["exact", "Steps 20"]
    page.keyboard.press("s")
    assert heads(page) == (y, x)
    page.locator("#across").select_option(label="axis Z")
    assert heads(page) == (["z0", "z1"], x)
    page.locator("#down").select_option(label="axis Z")  # taken: they change places
    assert heads(page) == (x, ["z0", "z1"])
    page.locator(".pager[data-axis='1'] select").select_option(label="y2")
    expect(at(page, 3, 2, 1)).to_contain_text("Failed: Out of memory: lower the size.")
    press(page, "]")
    expect(page.locator(".pager[data-axis='1'] select")).to_have_value("0")
    page.locator("#hide").click()
    page.locator("#chips").get_by_role("button", name="x1", exact=True).click()
    page.keyboard.press("Escape")
    assert heads(page) == (["x0", "x2", "x3"], ["z0", "z1"])
    assert not at(page, 1, 0, 0).count()
    expect(page.locator("#hide")).to_have_text("Values (1 hidden)")
    page.locator("#down").select_option(label="nothing")  # flows like text
    assert heads(page)[1] == []
    assert page.locator(".cell").count() == 3


@pytest.mark.slow
def test_two_cells_are_pinned_and_compared(show: Callable[..., Page], tmp_path: Path) -> None:
    page = show(whole := table(tmp_path, 4, 3))
    press(page, "p", "ArrowRight", "ArrowDown", "p", "c")
    pictures = page.locator("#plates img")
    sources = [str(pictures.nth(k).get_attribute("src")) for k in range(2)]
    chosen = [whole.cells[0, 0].image_path, whole.cells[1, 1].image_path]
    assert [base64.b64decode(source.split(",")[1]) for source in sources] == [
        path.read_bytes() for path in chosen if path
    ]
    assert page.locator("#plates figcaption").all_text_contents() == [
        "axis X x0axis Y y0",
        "axis X x1axis Y y1",
    ]
    page.locator("#slider").click()
    page.locator("#split").fill("25")
    cut = page.locator(".plate .front").evaluate("node => getComputedStyle(node).clipPath")
    assert cut == "inset(0px 0px 0px 25%)"
    assert page.locator(".plate .front img").get_attribute("src") == sources[1]


def test_a_verdict_survives_a_reload_and_is_exported(
    show: Callable[..., Page], tmp_path: Path
) -> None:
    whole = table(tmp_path, 4, 3, 3)
    cells = {at: cell for at, cell in whole.cells.items() if at[0] == at[2]}
    cells[2, 0, 2] = TableCell(
        whole.cells[2, 0, 2].image_path, verdict=Verdict(2, "from the table")
    )
    cells = {at: replace(cell, key="".join(map(str, at))) for at, cell in cells.items()}
    whole = Table(
        "it",
        "Hand in hand",
        (TableAxis("X", ("a", "b", "c")), *whole.axes[1:]),
        cells,
        axis_groups=((0, 2),),
    )
    page = show(whole)
    expect(at(page, 2, 0).locator(".marks")).to_have_text("★★ ✎")
    press(page, "ArrowDown", "4", "b", "Enter")
    expect(page.locator("#settings")).to_contain_text("Steps: 3")
    page.locator("#note").fill("sharp, 5 of 5 <b>")
    page.keyboard.press("Escape")
    page.reload()
    expect(at(page, 0, 1).locator(".marks")).to_have_text("best ★★★★ ✎")
    with page.expect_download() as got:
        page.locator("#export").click()
    exported = got.value.path().read_text("utf-8")
    assert parse_exported_verdicts(exported, "it") == {
        "010": Verdict(4, "sharp, 5 of 5 <b>", True),
        "202": Verdict(2, "from the table"),
    }
    assert json.loads(exported)["verdicts"][0]["labels"] == [
        ["X + axis Z", "a · z0"],
        ["axis Y", "y1"],
    ]
    page.locator("#stage").press(
        "0"
    )  # the first cell has nothing to take back, and is not judged by it
    expect(at(page, 0, 0).locator(".marks")).to_be_hidden()


def test_what_a_table_says_is_text(show: Callable[..., Page], tmp_path: Path) -> None:
    plain = table(tmp_path, 2, 2)
    cell = TableCell(
        plain.cells[0, 0].image_path,
        seed=1,
        settings=HOSTILE,
        metrics={HOSTILE: 1.0},
        verdict=Verdict(1, HOSTILE),
    )
    page = show(
        Table(
            HOSTILE,
            HOSTILE,
            (TableAxis(HOSTILE, (HOSTILE, "__proto__")), TableAxis("constructor", (HOSTILE, "b"))),
            {(0, 0): cell, (1, 0): TableCell(error=HOSTILE), (1, 1): plain.cells[0, 0]},
            ((HOSTILE, HOSTILE),),
            HOSTILE,
        )
    )
    page.locator("#under").select_option(index=1)
    press(page, "p", "5", "Enter", "Escape", "ArrowRight", "p", "c", "Escape", "?", "Escape")
    page.locator("#hide").click()
    assert page.locator("img:not([src^='data:image/'])").count() == 0
    assert "pwned" in page.title()
    assert page.title() != "pwned"
    assert page.locator("script").count() == 2
    assert HOSTILE[:60] in page.locator("#title").inner_text()
    expect(at(page, 0, 1)).to_contain_text("not run yet")
    assert HOSTILE[:60] in at(page, 1, 0).inner_text()


def test_the_page_could_not_ask_anybody_if_it_wanted(
    show: Callable[..., Page], tmp_path: Path
) -> None:
    page = show(table(tmp_path, 2, 2), watched=False)
    assert not re.search(
        r"(src|href)=[\"']?(https?:)?//", (tmp_path / "a sweep.html").read_text("utf-8")
    )
    barred = page.evaluate("""async () => {
        const seen = [], image = new Image(), script = document.createElement("script");
        document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
        await fetch("data:,x").catch(() => 0);
        image.src = "cell.png"; script.textContent = "document.title = 'pwned'"; document.body.append(script);
        await new Promise((done) => setTimeout(done, 200));
        return seen.sort();
    }""")
    assert barred == ["connect-src", "img-src", "script-src-elem"]
    assert page.title() == "A sweep"


@pytest.mark.slow
def test_a_thousand_cells_cost_no_more_than_those_in_sight(
    show: Callable[..., Page], tmp_path: Path
) -> None:
    small = table(tmp_path, 8, 8, size=16)
    axes = (
        TableAxis("X", tuple(f"x{k}" for k in range(40))),
        TableAxis("Y", tuple(f"y{k}" for k in range(25))),
    )
    page = show(
        Table(
            "many",
            "Many",
            axes,
            {(x, y): small.cells[x % 8, y % 8] for x in range(40) for y in range(25)},
        )
    )
    page.evaluate("""() => { window.most = 0;
        new MutationObserver(() => { window.most = Math.max(window.most, document.querySelectorAll(".cell").length); })
            .observe(document.body, {childList: true, subtree: true}); }""")
    for k in range(1, 9):
        page.locator("#stage").evaluate(
            f"node => node.scrollTo(node.scrollWidth * {k} / 8, node.scrollHeight * {k} / 8)"
        )
        page.wait_for_timeout(40)
    expect(at(page, 39, 24)).to_be_in_viewport()
    assert "x39" in heads(page)[0]
    assert "y24" in heads(page)[1]
    assert not at(page, 0, 0).count()
    assert 0 < page.evaluate("window.most") < 130
    assert page.evaluate("document.querySelectorAll('*').length") < 1500
    page.locator("#stage").press("ArrowRight")  # the chosen cell comes into sight again
    expect(at(page, 1, 0)).to_be_in_viewport()


@pytest.mark.slow
def test_whole_pictures_may_be_linked_and_a_phone_sees_all(
    show: Callable[..., Page], tmp_path: Path
) -> None:
    page = show(table(tmp_path, 4, 3, size=600), width=390, linked=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    expect(page.locator(".cell img").first).to_have_attribute("src", re.compile("^data:image/webp"))
    at(page, 1, 0).click()
    expect(page.locator("#big img")).to_have_attribute("src", "cell%20%23%203.png")
    page.wait_for_function("document.querySelector('#big img').naturalWidth === 600")
    page.locator("#go button").nth(3).click()
    expect(page.locator("#where")).to_have_text("x1 · y1")
