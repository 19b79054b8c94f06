"""Who sees little, uses keys alone or has the page read aloud: axe-core finds nothing of level A or AA, in any tab and theme."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from studio.ui.app import TABS
from support.browser import Studio, go, put, state

RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
    "resultTypes": ["violations"],
}
MAX_LISTED_NODES = 4


def list_violations(page: Page) -> list[str]:
    """Return what axe-core finds, each with the first elements that have it."""
    return [
        f"{found['id']} ({found['impact']}): {node['html'][:160]} | {node['target']}"
        for found in Axe().run(page, options=RULES).response["violations"]
        for node in found["nodes"][:MAX_LISTED_NODES]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_tab_shuts_anybody_out(shared: Studio, visit: Callable[..., Page], scheme: str) -> None:
    page = visit(shared)
    page.goto(f"{shared.url}?__theme={scheme}")
    expect(page.locator("#estimate")).to_contain_text("steps")
    put(page, prompt="a red ball", steps=2, width=64, height=64, seed=1)
    page.locator("#generate").click()
    state(page, "done")
    violations = {}
    for tab, _build in TABS.values():
        go(page, tab)
        page.wait_for_timeout(1500)  # what a tab shows may come a moment later
        if found := list_violations(page):
            violations[tab] = found
    assert violations == {}, "\n".join(
        f"{tab}: {line}" for tab, lines in violations.items() for line in lines
    )
