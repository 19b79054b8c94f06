"""A template, a style and a list of prompts in a real browser: typed, painted, read back from the files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from studio.storage.gallery import read_image_settings
from support.browser import Studio, put, shown, state

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
QUICK = {"steps": 3, "guidance": 5}


@pytest.fixture(scope="module")
def words(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio with one list and one style."""
    home = tmp_path_factory.mktemp("words") / "home"
    (home / "wildcards").mkdir(parents=True)
    (home / "wildcards" / "thing.txt").write_text("ball\nboat\n")
    (home / "styles.csv").write_text(
        'name,prompt,negative_prompt\nBeach,"{prompt} on a beach",fog\n'
    )
    studio = Studio(home)
    yield studio
    studio.end()


def test_template_style_and_list(words: Studio, visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit(words)
    put(page, prompt="a {red|blue} __thin__", negative_prompt="", seed=4, **QUICK)
    page.locator("#txt2img-negative-prompt textarea").click()
    expect(page.locator("#estimate")).to_contain_text("available: thing")

    put(page, prompt="a {red|blue} __thing__")
    page.locator("#txt2img-styles-block").get_by_text("Styles").first.click()
    page.locator("#txt2img-styles input").click()
    page.get_by_role("option", name="Beach").click()
    page.locator("#generate").click()
    state(page, "done")
    file = tmp_path / "styled.png"
    file.write_bytes(shown(page))
    values = read_image_settings(file).values
    assert re.fullmatch("a (red|blue) (ball|boat) on a beach", values["prompt"])
    assert values["negative_prompt"] == "fog"

    page.locator("#txt2img-write-styles").click()
    prompt = page.locator("#txt2img-prompt textarea")
    expect(prompt).to_have_value("a {red|blue} __thing__ on a beach")

    page.locator("#txt2img-prompt-list-block").get_by_text("Prompt list").first.click()
    box = page.locator("#txt2img-prompt-list textarea")
    box.fill("a red ball\n--foo 1")
    expect(page.locator("#txt2img-prompt-list-summary")).to_contain_text("Line 2")
    box.fill("a red ball\n--prompt 'a blue boat' --steps 2")
    expect(page.locator("#txt2img-prompt-list-summary")).to_contain_text("2 jobs, 2 images")
    page.locator("#txt2img-queue-list").click()
    expect(box).to_have_value("")
    state(page, "done")
