"""The whole loop by keyboard alone: an image, sent on, repainted, sent on, compared, rated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from support.browser import Studio, done, state

MOST_TABS = 150  # from one end of a tab to the other


def tab_to(page: Page, selector: str, key: str = "Tab") -> None:
    """Press Tab until what has the focus is such an element."""
    for _ in range(MOST_TABS):
        if page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
            return
        page.keyboard.press(key)
    raise AssertionError(f"no Tab leads to {selector}")


def type_over(page: Page, text: str) -> None:
    page.keyboard.press("Control+a")
    page.keyboard.type(text)


@pytest.mark.slow
def test_from_a_prompt_to_a_rated_cell(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared)
    expect(page.locator("#estimate")).to_contain_text("steps")
    tab_to(page, "#txt2img-prompt textarea")
    page.keyboard.type("a photo of a red ball on a beach")
    tab_to(page, "#txt2img-steps input[type=number]")
    type_over(page, "4")
    page.keyboard.press("Control+Enter")
    state(page, "done")
    expect(page.locator("#result img").first).to_be_visible()

    tab_to(page, "#send-txt2img-inpaint")
    page.keyboard.press("Enter")
    expect(page.locator("#inpaint-easel .easel[data-state=there]")).to_be_visible()
    tab_to(page, "#inpaint-easel [data-act=invert]")
    page.keyboard.press("Enter")  # nothing was painted over, now all is
    expect(page.locator("#inpaint-easel .easel")).not_to_have_attribute("data-painted", "0")
    tab_to(page, "#inpaint-prompt textarea", "Shift+Tab")
    type_over(page, "a photo of a blue ball on a beach")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#inpaint-live [data-state=done]")).to_be_visible(timeout=60_000)

    tab_to(page, "#send-inpaint-sweep")
    page.keyboard.press("Enter")
    expect(page.locator("#sweep-prompt textarea")).to_have_value(
        "a photo of a blue ball on a beach"
    )
    for name in ("Euler", "DDIM"):
        tab_to(page, f"#axis-1-ticks input[name='{name}']")
        page.keyboard.press("Space")
    expect(page.locator("#sweep-plan .plan[data-cells='2']")).to_be_visible()
    page.keyboard.press("Control+Enter")
    done(page, 2)

    tab_to(page, "#sweep-grid .tile")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("4")
    expect(page.locator("#sweep-grid .tile .marks", has_text="★★★★")).to_have_count(1)
