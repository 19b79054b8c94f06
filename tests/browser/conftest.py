"""A browser, studios to open in it, and a page that tells its faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from support.browser import CHROMIUM, FLAGS, Studio
from support.served import need_port


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("needs Chromium")
    need_port()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shared(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("browser") / "home")
    yield studio
    studio.end()


@pytest.fixture
def studio(chromium: Browser, tmp_path: Path) -> Iterator[Studio]:
    studio = Studio(tmp_path / "home")
    yield studio
    studio.end()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """`visit(studio)` opens a fresh browser's page. What it logs as an error or asks of another host fails the test."""
    faults: list[str] = []
    contexts = []

    def visit(studio: Studio, width: int = 1280) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on(
            "console",  # where gradio says of a block's script that it cannot be run
            lambda said: faults.append(said.text) if "js_on_load" in said.text else None,
        )
        page.on(
            "request",
            lambda asked: (
                faults.append(f"asked {asked.url}")
                if not asked.url.startswith((studio.url, "data:", "blob:"))
                else None
            ),
        )
        page.goto(studio.url)
        expect(page.locator("#generate")).to_be_visible(timeout=120_000)
        expect(page.locator("#estimate")).to_contain_text("steps")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not faults
