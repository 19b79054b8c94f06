"""What a button does is seen: errors beside fields, the result in view with the focus, the job in the header, what Stop leaves."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from support.browser import Studio, go, place, put, shot, state

LAPTOP, PHONE = (1280, 800), (390, 844)
pytestmark = pytest.mark.slow
PROMPT = "a photo of a red ball on a beach"
LONG = {"prompt": PROMPT, "steps": 150, "width": 256, "height": 256, "num_images": 4}


def focused(page: Page) -> str:
    """Return the focused element's class and id, and the ids of all that it lies in."""
    return str(
        page.evaluate(
            "() => { let held = document.activeElement; const ids = [held.className];"
            " for (; held; held = held.parentElement) ids.push(`#${held.id}`);"
            " return ids.join(' ') }"
        )
    )


def wait_for_focus(page: Page, part: str) -> None:
    for _ in range(300):
        if part in focused(page):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"the focus is in {focused(page)}, not in {part}")


def assert_in_view(page: Page, selector: str) -> None:
    box = page.locator(selector).first.bounding_box()
    assert box
    size = page.viewport_size
    assert size
    assert box["y"] >= 0, box
    assert box["y"] + min(box["height"], 200) <= size["height"], box
    assert box["x"] >= 0, box
    assert box["x"] + box["width"] <= size["width"] + 1, box


def stop(page: Page) -> None:
    page.locator("#stop").click()
    state(page, "cancelled")


def test_an_error_stands_beside_its_field_until_it_is_mended(
    shared: Studio, visit: Callable[..., Page]
) -> None:
    page = visit(shared)
    page.set_viewport_size({"width": LAPTOP[0], "height": LAPTOP[1]})
    put(page, prompt=PROMPT, width=505, seed=2**40)
    width = page.locator("#txt2img-width input")
    fault = page.locator("#txt2img-width-fault")
    expect(fault).to_contain_text("multiple of 8")
    expect(page.locator("#txt2img-seed-fault")).to_contain_text("below 4294967296")
    expect(page.locator("#estimate")).to_contain_text("And 1 more.")
    expect(width).to_have_attribute("aria-invalid", "true")
    assert "txt2img-width-fault" in str(width.get_attribute("aria-describedby")).split()
    box, below = width.bounding_box(), fault.bounding_box()
    assert box
    assert below
    assert 0 <= below["y"] - box["y"] - box["height"] < 12
    shot(page, "seen-faults")
    # Generate goes to the first of them, and no toast says it again.
    page.locator("#generate").click()
    wait_for_focus(page, "txt2img-width")
    expect(page.locator(".toast-body")).to_have_count(0)
    put(page, width=64)
    expect(fault).to_have_count(0)
    expect(width).not_to_have_attribute("aria-invalid", "true")
    assert "txt2img-width-fault" not in str(width.get_attribute("aria-describedby"))
    expect(page.locator("#txt2img-seed-fault")).to_be_visible()
    put(page, seed=1)
    expect(page.locator(".field-fault")).to_have_count(0)
    expect(page.locator("#estimate")).to_contain_text("20 steps")


def test_a_prompt_is_checked_and_counted_while_it_is_typed(
    shared: Studio, visit: Callable[..., Page]
) -> None:
    page = visit(shared)
    box = page.locator("#txt2img-prompt textarea")
    count = page.locator("#txt2img-prompt .token-count")
    box.press_sequentially(PROMPT)  # and the field is not left
    expect(count).to_have_text("9 / 75")
    expect(page.locator("#txt2img-negative-prompt .token-count")).to_have_text("0 / 75")
    box.fill(f"{PROMPT} BREAK {PROMPT} <lora:nothere:0.5>")
    expect(page.locator("#estimate")).to_contain_text("nothere")
    box.fill(f"{PROMPT} BREAK {PROMPT}")
    expect(count).to_have_text("84 / 150")
    expect(page.locator("#estimate")).to_contain_text("20 steps")


def test_a_folded_field_is_unfolded_for_its_error(
    shared: Studio, visit: Callable[..., Page]
) -> None:
    page = visit(shared)
    label = page.locator("#txt2img-hires > button, #txt2img-hires .label-wrap").first
    label.click()
    box = page.locator("#txt2img-hires-steps input[type=number]").first
    tile = page.locator("#txt2img-hires-tile input").first
    tile.fill("7")
    tile.blur()
    expect(page.locator("#txt2img-hires-tile-fault")).to_be_visible()
    label.click()
    expect(box).not_to_be_visible()
    page.locator("#generate").click()
    wait_for_focus(page, "txt2img-hires-tile")
    assert_in_view(page, "#txt2img-hires-tile")


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_what_generate_makes_is_in_view_and_stop_leaves_it(
    studio: Studio, visit: Callable[..., Page], size: tuple[int, int]
) -> None:
    page = visit(studio)
    page.set_viewport_size({"width": size[0], "height": size[1]})
    put(page, **LONG)
    page.locator("#txt2img-num-images").scroll_into_view_if_needed()
    page.locator("#generate").click()
    wait_for_focus(page, "view")
    assert_in_view(page, "#live .canvas")
    line = page.locator("#job-line .job-line")
    expect(line).to_contain_text("%")
    for tab in ("Gallery", "Training"):
        go(page, tab)
        expect(line).to_be_visible()
        assert_in_view(page, "#job-line .job-line")
    shot(page, f"seen-line-{size[0]}")
    line.click()
    expect(page.locator("#live .canvas")).to_be_visible()
    assert_in_view(page, "#live .canvas")
    expect(page.locator("#live [data-state=running]")).to_contain_text("step")
    expect(page.locator("#live")).to_contain_text(re.compile(r"step (9|\d\d+) of"))
    stop(page)
    expect(page.locator("#live")).to_contain_text("Stopped at step")
    image = page.locator("#result img").first
    expect(image).to_be_visible()
    assert_in_view(page, "#result img")
    expect(page.locator("#about")).to_contain_text("Stopped")
    assert Image.open(Path(place(image))).size == (256, 256)
    expect(line).to_have_count(0)
    shot(page, f"seen-stopped-{size[0]}")


def test_whoever_asks_from_the_prompt_goes_on_typing(
    studio: Studio, visit: Callable[..., Page]
) -> None:
    page = visit(studio)
    put(page, **LONG)
    box = page.locator("#txt2img-prompt textarea")
    box.focus()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#live .canvas")).to_be_visible()
    page.wait_for_timeout(500)
    assert "txt2img-prompt" in focused(page)
    stop(page)


@pytest.mark.slow
def test_toasts_leave_and_cover_no_button(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared)
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    go(page, "img2img")
    page.locator("#img2img-generate").click()  # without an image, which is no field
    toast = page.locator(".toast-body")
    expect(toast).to_be_visible()
    box = toast.bounding_box()
    assert box
    covered = page.evaluate(
        "({x, y, width, height}) => Boolean(document.elementFromPoint(x + width / 2, y + height / 2)"
        "?.closest('.toast-body'))",
        box,
    )
    assert not covered  # a click goes through it
    button = page.locator("#img2img-generate").bounding_box()
    assert button
    assert box["y"] + box["height"] <= button["y"]
    expect(toast).to_have_count(0, timeout=25_000)
