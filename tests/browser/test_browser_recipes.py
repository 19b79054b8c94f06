"""Settings from pictures, pictures as other files, and nonsense, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser, Locator, Page, expect

from studio.storage.gallery import read_image_settings
from support.browser import HOSTILE, Studio, ask, put, shot, state
from support.recipe_files import FILES

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
TEXT = (
    "a boat <lora:/home/jane/ink:0.8>\nNegative prompt: fog\nSteps: 12, Sampler: Euler, "
    "CFG scale: 5, Seed: 7, Size: 128x128, Model: C:\\jane\\p.ckpt, Refiner: xl, Version: v1.10.1"
)
NONSENSE = ("🚤" * 50, "\x01\x02", HOSTILE, "__../../etc/passwd__", "{" * 500, "<lora:" * 200)


@pytest.fixture(scope="module")
def recipes(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("recipes") / "home")
    yield studio
    studio.end()


def open_block(page: Page, element: str) -> Locator:
    block = page.locator(f"#{element}")
    block.locator("button").first.click()
    return block


def read_prompts(page: Page) -> list[str]:
    names = ("prompt", "negative-prompt")
    return [page.locator(f"#txt2img-{name} textarea").input_value() for name in names]


def test_settings_of_a_text_and_of_a_file(
    recipes: Studio, visit: Callable[..., Page], tmp_path: Path
) -> None:
    page = visit(recipes)
    put(page, prompt="my words", negative_prompt="mine")
    open_block(page, "from-picture")
    pasted = page.locator("#pasted textarea")
    panel = page.locator("#recipe")

    pasted.fill("words that are no settings of anything")
    page.locator("#take-text").click()
    expect(page.locator(".toast-body").first).to_be_visible()
    assert read_prompts(page) == ["my words", "mine"]

    pasted.fill(TEXT)
    page.locator("#take-text").click()
    expect(panel).to_contain_text("Made with A1111")
    expect(panel).to_contain_text("Steps 12")
    expect(panel).to_contain_text("Refiner")
    expect(panel).not_to_contain_text("jane")
    assert read_prompts(page) == ["a boat", "fog"]

    info = PngInfo()
    for keyword, text in FILES["InvokeAI 5"].metadata.chunks.items():
        info.add_itxt(keyword, text)
    path = tmp_path / "invoke.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    page.locator("#drop input[type=file]").set_input_files(path)
    expect(panel).to_contain_text("Made with InvokeAI")
    expect(panel).to_contain_text("Loaded:")
    assert read_prompts(page)[0] == FILES["InvokeAI 5"].values["prompt"]
    shot(page, "recipe-panel")


def test_a_picture_downloaded_as_a_jpeg(
    recipes: Studio, visit: Callable[..., Page], tmp_path: Path
) -> None:
    page = visit(recipes)
    page.set_viewport_size({"width": 1280, "height": 800})
    ask(page, prompt="a red ball", steps=2, seed=11, width=64, height=64)
    state(page, "done")
    block = page.locator("#export")
    block.scroll_into_view_if_needed()  # below the settings, in the pane's own scroll
    expect(block).to_be_in_viewport(ratio=0.9)
    expect(page.locator("#generate")).to_be_in_viewport()
    shot(page, "export-closed")
    open_block(page, "export")
    page.locator("#export-make").click()
    link = page.locator("#export-file a").first
    expect(link).to_be_visible()
    shot(page, "export-open")
    file = tmp_path / "ball.jpg"
    file.write_bytes(page.request.get(str(link.get_attribute("href"))).body())
    with Image.open(file) as image:
        assert image.format == "JPEG"
    values = read_image_settings(file).values
    assert (values["prompt"], values["seed"], values["steps"]) == ("a red ball", 11, 2)


def test_nonsense_is_answered_in_words(recipes: Studio, visit: Callable[..., Page]) -> None:
    page = visit(recipes)
    open_block(page, "txt2img-prompt-list-block")
    box = page.locator("#txt2img-prompt-list textarea")
    summary = page.locator("#txt2img-prompt-list-summary")
    for text in (*NONSENSE, "a\n" * 200, "--seed 1e99\n--foo"):
        box.fill(text)
        expect(summary).to_contain_text(re.compile(r"\w"))
        assert "Traceback" not in page.locator("body").inner_text()
        box.fill("")
        expect(summary).not_to_contain_text(re.compile(r"\w"))
    open_block(page, "from-picture")
    for text in NONSENSE:
        page.locator("#pasted textarea").fill(text)
        page.locator("#take-text").click()
        page.locator("#picture-link input, #picture-link textarea").first.fill(text)
        page.locator("#fetch-picture").click()
        expect(page.locator(".toast-body").first).to_be_visible()
        assert "Traceback" not in page.locator("body").inner_text()
    assert page.title() != "pwned"
