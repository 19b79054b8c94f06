"""Several tabs of one browser: each follows and stops its own jobs, and comes back as itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from studio.storage.jobs import Jobs
from support.browser import Studio, put, state

pytestmark = pytest.mark.slow
LONG = {"steps": 150, "num_images": 8}


def open_tab(page: Page, studio: Studio) -> Page:
    tab = page.context.new_page()
    tab.goto(studio.url)
    expect(tab.locator("#generate")).to_be_visible(timeout=120_000)
    expect(tab.locator("#estimate")).to_contain_text("steps")
    return tab


def start(page: Page, prompt: str, **settings: float) -> None:
    put(page, **settings)
    page.locator("#txt2img-prompt textarea").fill(prompt)
    page.keyboard.press("Control+Enter")


def prompt_of(page: Page) -> str:
    return page.locator("#txt2img-prompt textarea").input_value()


def test_two_tabs_of_one_browser_are_two(studio: Studio, visit: Callable[..., Page]) -> None:
    first = visit(studio)
    start(first, "a red ball on a beach", **LONG)
    expect(first.locator("#live .making")).to_be_visible()
    second = open_tab(first, studio)
    expect(second.locator("#live .making")).to_have_count(0)  # it is the first tab's job
    start(second, "a blue boat by a lake", steps=4, num_images=1)
    expect(second.locator("#live .making")).to_be_visible()
    jobs = Jobs(studio.home / "jobs.sqlite")
    running, waiting = jobs.list_open()
    assert (running.spec["prompt"], waiting.spec["prompt"]) == (
        "a red ball on a beach",
        "a blue boat by a lake",
    )
    assert running.tab != waiting.tab

    # Stop stops one's own, though the other's runs.
    second.locator("#stop").click()
    expect(second.locator("#live [data-state=cancelled]")).to_be_visible()
    assert [job.id for job in jobs.list_open()] == [running.id]

    # A reload brings back the tab's own prompt and job, whatever the other did last.
    first.reload()
    expect(first.locator("#live .making")).to_be_visible()
    assert prompt_of(first) == "a red ball on a beach"
    second.reload()
    expect(second.locator("#live [data-state=cancelled]")).to_be_visible()
    assert prompt_of(second) == "a blue boat by a lake"

    # A new tab takes up what the tab had that was closed, and not what is open elsewhere.
    second.close()
    third = open_tab(first, studio)
    expect(third.locator("#live [data-state=cancelled]")).to_be_visible()
    assert prompt_of(third) == "a blue boat by a lake"
    fourth = open_tab(first, studio)
    assert prompt_of(fourth) == ""

    first.locator("#stop").click()
    state(first, "cancelled")
    jobs.close()


def test_a_tab_takes_up_what_was_made_before_tabs_had_names(
    studio: Studio, visit: Callable[..., Page]
) -> None:
    page = visit(studio)
    start(page, "a red ball on a beach", steps=2, num_images=1)
    state(page, "done")
    jobs = Jobs(studio.home / "jobs.sqlite")
    assert [job.tab for job in jobs.list_recent()] == [""]
    jobs.close()
    page.close()
    page = open_tab(page, studio)
    state(page, "done")
    assert prompt_of(page) == "a red ball on a beach"
