"""Quick hands in a real browser: decimal commas, what was typed after a reload, prompts' keys, the palette, menus."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from support.browser import Studio, ask, go, put, shot, state

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def typed(box: Locator, text: str) -> None:
    """Type as a hand does, and leave the field."""
    box.click()
    box.press("Control+a")
    box.page.keyboard.type(text)
    box.press("Tab")


def number(page: Page, name: str) -> Locator:
    return page.locator(f"#txt2img-{name} input[type=number]")


def prompt_of(page: Page) -> Locator:
    return page.locator("#txt2img-prompt textarea")


def select(box: Locator, begin: int, end: int) -> None:
    box.evaluate("(box, [begin, end]) => box.setSelectionRange(begin, end)", [begin, end])


@pytest.mark.slow
def test_numbers_and_prompts_are_typed_kept_and_weighed(
    shared: Studio, visit: Callable[..., Page]
) -> None:
    page = visit(shared)
    guidance, steps, estimate = number(page, "guidance"), number(page, "steps"), "#estimate"
    typed(guidance, "7,5")
    expect(guidance).to_have_value("7.5")
    typed(steps, "999")
    fault = page.locator("#txt2img-steps").locator(".cut, .field-fault")
    expect(fault).to_contain_text("150 or less")
    expect(fault).to_contain_text("999")
    expect(steps).to_have_value("999")  # nothing is changed in silence
    expect(steps).to_have_attribute("aria-invalid", "true")
    expect(page.locator(estimate)).to_contain_text("999")
    shot(page, "number-fault")
    typed(steps, "12,5")
    expect(fault).to_contain_text("whole number")
    expect(fault).to_contain_text("12.5")
    typed(steps, "")
    expect(steps).to_have_value("12.5")
    typed(steps, "12")
    expect(fault).to_have_count(0)
    expect(page.locator(estimate)).to_contain_text("12 steps")

    prompt = prompt_of(page)
    prompt.fill("a red ball on a beach")
    select(prompt, 3, 3)  # in "red"
    prompt.press("Control+ArrowUp")
    expect(prompt).to_have_value("a (red:1.1) ball on a beach")
    prompt.press("Control+ArrowUp")
    expect(prompt).to_have_value("a (red:1.2) ball on a beach")
    for _ in range(2):
        prompt.press("Control+ArrowDown")
    expect(prompt).to_have_value("a red ball on a beach")
    prompt.press("Control+ArrowDown")
    expect(prompt).to_have_value("a (red:0.9) ball on a beach")
    prompt.press("Control+z")
    expect(prompt).to_have_value("a red ball on a beach")
    prompt.fill("a moon <lora:moon:0.8>")
    select(prompt, 12, 12)
    prompt.press("Control+ArrowDown")
    expect(prompt).to_have_value("a moon <lora:moon:0.7>")
    prompt.fill("")
    prompt.press_sequentially("a (blue:1,3) boat")
    expect(prompt).to_have_value("a (blue:1.3) boat")
    prompt.press("Escape")
    prompt.blur()

    # A reload gives all of it back: also what is folded away, and what was typed a moment ago.
    page.wait_for_timeout(1500)
    put(page, seed=4711)
    page.reload()
    expect(page.locator(estimate)).to_contain_text("12 steps")
    expect(prompt_of(page)).to_have_value("a (blue:1.3) boat")
    expect(number(page, "guidance")).to_have_value("7.5")
    expect(number(page, "seed")).to_have_value("4711")


@pytest.mark.slow
def test_palette_keys_presets_reset(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared)
    prompt_of(page).fill("mine")
    page.keyboard.press("Control+k")
    palette, field = page.locator("#palette"), page.locator("#palette input")
    expect(field).to_be_focused()
    expect(page.locator("#palette li").first).to_contain_text("Generate")
    shot(page, "palette")
    field.press_sequentially("quick dr")
    expect(page.locator("#palette li")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(palette).to_be_hidden()
    title = page.locator("#presets button.label-wrap")
    expect(title).to_have_attribute("data-preset", "Quick draft")
    put(page, steps=33)
    expect(title).to_have_attribute("data-preset", "Quick draft, changed")
    page.locator("#txt2img-undo-load").click()
    expect(prompt_of(page)).to_have_value("mine")
    expect(page.locator("#txt2img-undo-load")).to_be_hidden()
    page.keyboard.press("Control+k")
    field.press_sequentially("reset")
    page.keyboard.press("Enter")
    expect(prompt_of(page)).to_have_value("")
    page.keyboard.press("Control+k")
    field.press_sequentially("gall")
    page.keyboard.press("Enter")
    expect(page.locator("#gallery-grid")).to_be_visible()
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    expect(page.locator("#keys")).to_contain_text("Ctrl + K")
    shot(page, "keys")
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    go(page, "txt2img")
    prompt_of(page).fill("")
    prompt_of(page).press_sequentially("why?")
    expect(page.locator("#keys")).to_be_hidden()


@pytest.mark.slow
def test_menu_of_an_image_last_prompts_and_forever(
    shared: Studio, visit: Callable[..., Page]
) -> None:
    page = visit(shared)
    ask(page, prompt="a red ball", steps=2, seed=31)
    state(page, "done")
    put(page, prompt="something else", seed=-1)
    page.locator("#result img").first.click(button="right")
    menu = page.locator("#image-menu")
    expect(menu).to_be_visible()
    expect(menu).to_contain_text("Send to img2img")
    shot(page, "image-menu")
    menu.get_by_text("Reuse seed", exact=True).click()
    expect(number(page, "seed")).to_have_value("31")
    page.locator("#image-more").click()
    menu.get_by_text("Reuse prompt", exact=True).click()
    expect(prompt_of(page)).to_have_value("a red ball")
    page.locator("#forever").click()
    expect(page.locator(".forever-note")).to_contain_text("The seed is fixed")
    put(page, prompt="a blue house", steps=2, seed=-1)
    page.locator("#forever").click()
    before = len(list((shared.home / "outputs").rglob("*.png")))
    expect(page.locator("#forever")).to_have_attribute("aria-pressed", "true")
    while len(list((shared.home / "outputs").rglob("*.png"))) < before + 3:
        page.wait_for_timeout(200)
    put(page, steps=150)
    page.wait_for_timeout(1500)
    page.locator("#stop").click()
    expect(page.locator("#forever")).to_have_attribute("aria-pressed", "false")

    prompt = prompt_of(page)
    prompt.fill("")
    prompt.press("ArrowUp")
    expect(prompt).to_have_value("a blue house")
    prompt.press("Alt+ArrowUp")
    expect(prompt).to_have_value("a red ball")
    prompt.press("Alt+ArrowDown")
    prompt.press("Alt+ArrowDown")
    expect(prompt).to_have_value("")

    go(page, "Gallery")
    tile = page.locator("#gallery-grid .images-entry").first
    tile.hover()
    tile.locator(".images-more").click()
    shot(page, "tile-menu")
    menu.get_by_text("Favourite", exact=True).click()
    expect(tile.locator(".images-marks")).to_contain_text("♥")
    tile.click(button="right")
    menu.get_by_text("Send to txt2img", exact=True).click()
    expect(prompt).to_have_value("a blue house")
