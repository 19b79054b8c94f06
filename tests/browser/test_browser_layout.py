"""Where things are: what has to be in view is, before and after the main button, at three sizes; nothing covers anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from support.browser import Studio, go, put, shot

LAPTOP, DESKTOP, PHONE = (1280, 800), (1920, 1080), (390, 844)
MAKER_FIELDS = (
    "prompt",
    "negative-prompt",
    "model",
    "lora-choose",
    "scheduler",
    "noise-schedule",
    "steps",
    "guidance",
    "size",
    "width",
    "height",
    "seed",
    "num-images",
)
IMAGE_TABS = {"img2img": "img2img", "Inpaint": "inpaint"}
# Of each other tab: what is to be in view on a laptop without scrolling.
TAB_PARTS = {
    "Upscale": ("#upscale-image", "#upscale-start", "#upscale-upscaler", "#upscale-scale"),
    "Sweep": ("#sweep-prompt", "#axis-1-field", "#sweep-run", "#sweep-stop", "#sweep-grid"),
    "Captions": ("#caption-dataset", "#caption-captioner", "#caption-start", "#album-note"),
    "Training": (
        "#train-preset",
        "#training-dataset",
        "#training-name",
        "#training-steps",
        "#training-rank",
        "#train-start",
        "#train-stop",
    ),
    "Gallery": ("#gallery-search",),
    "Models": ("#models-search", "#models-list"),
    "Queue": ("#queue-list",),
}
# Left, top, right, bottom of each element; and whether what is painted in its middle belongs to it.
LOOK = """selectors => selectors.map(selector => {
  const element = document.querySelector(selector);
  if (!element) return {selector, missing: true};
  const {left, top, right, bottom} = element.getBoundingClientRect();
  const seen = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
  return {selector, left, top, right, bottom, clear: Boolean(seen) && element.contains(seen)};
})"""


def look(page: Page, selectors: list[str]) -> list[dict[str, Any]]:
    return list(page.evaluate(LOOK, selectors))


def list_out_of_view(page: Page, selectors: list[str]) -> list[str]:
    """The elements that are not, or not all of them, in view."""
    size = page.viewport_size or {}
    return [
        f"{part}"
        for part in look(page, selectors)
        if part.get("missing")
        or not part["clear"]
        or min(part["left"], part["top"]) < 0
        or part["right"] > size["width"]
        or part["bottom"] > size["height"]
        or part["right"] - part["left"] < 1
    ]


def list_overlaps(page: Page, selectors: list[str]) -> list[tuple[str, str]]:
    parts = [part for part in look(page, selectors) if not part.get("missing")]
    return [
        (a["selector"], b["selector"])
        for number, a in enumerate(parts)
        for b in parts[:number]
        if min(a["right"], b["right"]) - max(a["left"], b["left"]) > 1
        and min(a["bottom"], b["bottom"]) - max(a["top"], b["top"]) > 1
    ]


def resize(page: Page, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})


def expect_filled(page: Page, part: str) -> None:
    """Wait for a tab that holds a part: while it is filled nothing in it can be reached."""
    expect(page.locator(part)).to_be_visible()
    page.wait_for_timeout(300)
    expect(page.locator("[role=tabpanel][inert]")).to_have_count(0)


def expect_no_sideways_scroll(page: Page) -> None:
    widths = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]


def expect_no_page_scroll(page: Page) -> None:
    """Panes scroll on a wide screen, the page doesn't."""
    heights = page.evaluate("[document.scrollingElement.scrollHeight, innerHeight]")
    assert heights[0] <= heights[1]


def maker_parts(tab: str) -> list[str]:
    begin = "" if tab == "txt2img" else f"{tab}-"
    buttons = [f"#{begin}{name}" for name in ("generate", "stop", "swap", "random-seed")]
    return [*(f"#{tab}-{name}" for name in MAKER_FIELDS), *buttons]


def test_a_laptop_shows_all_of_txt2img_before_and_after_generate(
    shared: Studio, visit: Callable[..., Page]
) -> None:
    page = visit(shared)
    resize(page, LAPTOP)
    parts = maker_parts("txt2img")
    assert list_out_of_view(page, [*parts, "#live"]) == []
    assert list_overlaps(page, [*parts, "#live", "#estimate"]) == []
    expect_no_page_scroll(page)
    put(page, steps=2, seed=1)
    page.locator("#txt2img-prompt textarea").fill("a photo of a red ball on a beach")
    page.locator("#generate").click()
    expect(page.locator("#live [data-state=done]")).to_be_visible(timeout=60_000)
    expect(page.locator("#result img").first).to_be_visible()
    after = ["#live", "#result", "#reuse-seed", "#send-txt2img-inpaint", "#upscale-txt2img"]
    assert list_out_of_view(page, [*parts, *after]) == []
    assert list_overlaps(page, [*parts, *after]) == []
    expect_no_page_scroll(page)
    image = look(page, ["#result"])[0]
    assert image["right"] - image["left"] > 600
    assert image["bottom"] - image["top"] > 450
    # Wherever the form is scrolled to, Generate is in view.
    page.locator("#tab-txt2img .controls").evaluate("pane => pane.scrollTo(0, 9999)")
    assert list_out_of_view(page, ["#generate", "#stop", "#result"]) == []
    shot(page, "layout-done")


@pytest.mark.slow
def test_help_is_a_tip_for_pointer_keys_and_fingers(
    shared: Studio, visit: Callable[..., Page]
) -> None:
    page = visit(shared)
    resize(page, LAPTOP)
    tip, steps = page.locator("#tip"), page.locator("#txt2img-steps")
    name = steps.locator("[data-testid=block-info]")
    words = steps.locator(".info-text").inner_text()
    assert words
    name.hover()
    expect(tip).to_be_visible()
    expect(tip).to_have_text(words)
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.mouse.move(5, 5)

    steps.locator("input[type=number]").focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    expect(tip).to_have_text(words)
    expect(tip).to_be_visible()
    field = steps.locator("input[type=number]")
    described = field.get_attribute("aria-describedby")
    assert page.locator(f"#{described}").text_content() == words
    page.keyboard.press("ArrowUp")
    expect(tip).to_be_hidden()

    # An icon's words are read aloud, and shown like help.
    page.get_by_role("button", name="Swap width and height").first.hover()
    expect(tip).to_have_text("Swap width and height")
    put(page, width=256, height=128)
    page.locator("#swap").click()
    expect(page.locator("#txt2img-width input")).to_have_value("128")
    expect(page.locator("#txt2img-height input")).to_have_value("256")
    expect(page.locator("#estimate")).to_contain_text("steps")


@pytest.mark.slow
@pytest.mark.parametrize("size", [LAPTOP, DESKTOP], ids=lambda size: f"{size[0]}")
def test_wide_screens_show_what_is_needed_in_every_tab(
    size: tuple[int, int], shared: Studio, visit: Callable[..., Page]
) -> None:
    page = visit(shared)
    resize(page, size)
    for title, tab in {"txt2img": "txt2img", **IMAGE_TABS}.items():
        go(page, title)
        parts = maker_parts(tab)
        if tab in IMAGE_TABS.values():
            parts += [f"#{tab}-easel", f"#{tab}-live", f"#{tab}-strength"]
            expect(page.locator(f"#{tab}-easel .easel-empty")).to_be_visible()
        expect_filled(page, parts[0])
        assert list_out_of_view(page, parts) == [], title
        assert list_overlaps(page, parts) == [], title
        shot(page, f"layout-{tab}-{size[0]}")
    for title, selectors in TAB_PARTS.items():
        go(page, title)
        parts = list(selectors)
        expect_filled(page, parts[0])
        assert list_out_of_view(page, [part for part in parts if not part.endswith("list")]) == []
        assert list_overlaps(page, parts) == [], title
        expect_no_page_scroll(page)
        expect_no_sideways_scroll(page)
        shot(page, f"layout-{title.lower()}-{size[0]}")
    # All of the width is used.
    right = page.evaluate("document.querySelector('#queue-list').getBoundingClientRect().right")
    assert size[0] - right < 40


@pytest.mark.slow
def test_a_phone_shows_the_image_first_and_generate_under_the_thumb(
    shared: Studio, visit: Callable[..., Page]
) -> None:
    page = visit(shared)
    resize(page, PHONE)
    put(page, steps=2, seed=2)
    page.locator("#txt2img-prompt textarea").fill("a photo of a blue house by a lake")
    page.evaluate("scrollTo(0, 0)")
    assert list_out_of_view(page, ["#live", "#txt2img-prompt", "#generate", "#stop"]) == []
    page.locator("#generate").click()
    expect(page.locator("#live [data-state=done]")).to_be_visible(timeout=60_000)
    expect(page.locator("#result img").first).to_be_visible()
    image, prompt, generate = look(page, ["#result", "#txt2img-prompt", "#generate"])
    assert image["bottom"] <= prompt["top"]
    assert PHONE[1] - generate["bottom"] < 20  # at the lower edge, wherever the page is scrolled to
    page.evaluate("scrollTo(0, document.scrollingElement.scrollHeight)")
    assert list_out_of_view(page, ["#generate", "#stop"]) == []
    # Nothing stays behind the bar.
    last = "#txt2img-prompt-list-block"
    below, bar = look(page, [last, "#generate"])
    assert below["bottom"] <= bar["top"]
    for title in ("txt2img", *IMAGE_TABS, *TAB_PARTS):
        go(page, title)
        expect_no_sideways_scroll(page)
        shot(page, f"layout-{title.lower()}-phone")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(
    scheme: str, shared: Studio, visit: Callable[..., Page]
) -> None:
    """Names, help marks and notes are read in either theme: 4.5 to 1 at least, as WCAG asks."""
    page = visit(shared)
    page.goto(f"{shared.url}?__theme={scheme}")
    expect(page.locator("#estimate")).to_contain_text("steps")
    faint = page.evaluate(
        CONTRAST, ["[data-testid=block-info]", "#estimate p", ".tab-wrapper button"]
    )
    assert faint == []


CONTRAST = """selectors => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const channel = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = rgb => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] !== 0) return colour;
    }
    return [255, 255, 255];
  };
  return selectors.flatMap(selector => [...document.querySelectorAll(selector)])
    .filter(element => element.offsetParent && element.textContent.trim())
    .map(element => {
      const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
      return [element.textContent.trim(), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    })
    .filter(([, ratio]) => ratio < 4.5);
}"""


@pytest.mark.slow
def test_the_page_asks_for_few_files(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared)
    go(page, "txt2img")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    expect(page.locator("#estimate")).to_contain_text("steps")
    page.wait_for_timeout(2000)
    assert len(asked) <= 60
    # gradio's sheets come as one, and no tab has one that was forgotten.
    for tab in (*IMAGE_TABS, *TAB_PARTS):
        go(page, tab)
        page.wait_for_timeout(500)
    sheets = [url for url in asked if ".css" in url]
    assert [part for url in sheets for part in ("studio-", "theme.css") if part in url] == [
        "studio-",
        "theme.css",
    ]
    assert len(sheets) == 2


@pytest.mark.slow
def test_nothing_shows_through_the_bar_of_a_phone(
    shared: Studio, visit: Callable[..., Page]
) -> None:
    """gradio's labels lie in a layer of their own, above what is simply there."""
    page = visit(shared, 390)
    go(page, "txt2img")
    expect(page.locator("#estimate")).to_contain_text("steps")
    above = page.evaluate("""() => {
      const {left, top, height} = document.querySelector('#generate').getBoundingClientRect();
      const found = new Set();
      for (let y = 0; y < document.documentElement.scrollHeight; y += 23) {
        scrollTo(0, y);
        for (const x of [8, 30, 60, 120]) {
          const element = document.elementFromPoint(left + x, top + height / 2);
          if (!element.closest('.actions')) found.add(element.outerHTML.slice(0, 80));
        }
      }
      return [...found];
    }""")
    assert above == []
