"""Embeddings in a real browser: completed by keys and by a tap, put in by a button, painted, refused in the live line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from safetensors.torch import save_file

from studio.storage.gallery import read_image_settings
from support.browser import HOSTILE, SHOTS, Studio, put, shot, shown, state

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
QUICK = {"steps": 3, "seed": 4, "guidance": 5}


@pytest.fixture(scope="module")
def shelf(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio with three embeddings for the embedded model, a pickle, and one for SDXL."""
    home = tmp_path_factory.mktemp("words") / "home"
    folder = home / "embeddings"
    folder.mkdir(parents=True)
    for number, name in enumerate(("EasyNegative", "easy-style", HOSTILE.replace("/", ""))):
        vectors = torch.randn(2, 128, generator=torch.Generator().manual_seed(number)) * 3
        save_file({"emb_params": vectors}, folder / f"{name}.safetensors")
    pickled = torch.randn(1, 128, generator=torch.Generator().manual_seed(9)) * 3
    torch.save({"string_to_param": {"*": pickled}, "name": "x"}, folder / "old-hands.pt")
    sdxl = {"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)}
    save_file(sdxl, folder / "easy-xl.safetensors")
    studio = Studio(home)
    yield studio
    studio.end()


def box(page: Page, field: str = "prompt") -> Any:
    return page.locator(f"#txt2img-{field} textarea")


def options(page: Page) -> Any:
    return page.locator("#prompt-words [role=option]")


def paint(page: Page) -> bytes:
    """Press Generate, and wait for another picture than the one that is there."""
    image = page.locator("#result img").first
    before = image.get_attribute("src") if image.count() else None
    page.locator("#generate").click()
    if before:
        expect(image).not_to_have_attribute("src", before, timeout=60_000)
    state(page, "done")
    return shown(page)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)))


def test_completed_painted_and_written_down(
    shelf: Studio, visit: Callable[..., Page], tmp_path: Path
) -> None:
    page = visit(shelf)
    put(page, prompt="a red ball, ", negative_prompt="", **QUICK)
    plain = paint(page)

    box(page, "negative-prompt").press_sequentially("fog, eas")
    expect(options(page)).to_have_count(2)  # not the one for SDXL
    assert "2 vectors" in options(page).first.inner_text()
    place = page.locator("#prompt-words").bounding_box()
    assert place
    assert place["y"] + place["height"] <= page.viewport_size["height"]  # type: ignore[index]
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/embedding-completed.png")
    page.keyboard.press("ArrowDown")
    name = options(page).first.inner_text().split("\n")[0]
    page.keyboard.press("Enter")
    expect(box(page, "negative-prompt")).to_have_value(f"fog, {name}")
    expect(page.locator("#prompt-words")).to_be_hidden()
    painted = paint(page)
    assert not np.array_equal(pixels(plain), pixels(painted))
    (tmp_path / "it.png").write_bytes(painted)
    settings = read_image_settings(tmp_path / "it.png")
    assert settings.values["negative_prompt"] == f"fog, {name}"
    assert list(settings.embedding_hashes) == [name]
    assert f'TI hashes: "{name}: ' in settings.text


def test_a_tap_and_a_button_put_words_in(shelf: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shelf)
    put(page, prompt="", negative_prompt="")
    box(page).press_sequentially("a boat, embedding:easyn")
    options(page).first.click()
    expect(box(page)).to_have_value("a boat, embedding:EasyNegative")
    page.keyboard.press("Escape")
    page.locator("#txt2img-words summary").click()
    box(page, "negative-prompt").click()
    page.locator("#txt2img-words [data-word='easy-style']").click()
    expect(box(page, "negative-prompt")).to_have_value("easy-style")
    page.locator("#txt2img-words [data-word='EasyNegative']").click()
    expect(box(page, "negative-prompt")).to_have_value("easy-style, EasyNegative")
    shot(page, "embedding-list")
    assert page.title() != "pwned"
    # A LoRA's tag is offered in the prompt alone.
    put(page, prompt="", negative_prompt="")
    box(page).press_sequentially("a boat mys")
    page.keyboard.press("Tab")
    expect(box(page)).to_have_value("a boat <lora:mysks:1>")
    box(page, "negative-prompt").press_sequentially("mys")
    expect(page.locator("#prompt-words")).to_be_hidden()


def test_keys_type_as_ever_where_nothing_is_chosen(
    shelf: Studio, visit: Callable[..., Page]
) -> None:
    page = visit(shelf)
    put(page, prompt="")
    box(page).press_sequentially("eas")
    expect(options(page).first).to_be_visible()
    page.keyboard.press("Enter")
    expect(box(page)).to_have_value("eas\n")
    box(page).press_sequentially("eas")
    page.keyboard.press("Escape")
    expect(page.locator("#prompt-words")).to_be_hidden()


def test_the_live_line_refuses_what_generate_would(
    shelf: Studio, visit: Callable[..., Page]
) -> None:
    page = visit(shelf)
    put(page, prompt="a boat, embedding:nope")
    expect(page.locator("#estimate")).to_contain_text("there is no embedding 'nope'")
    put(page, prompt="a boat, embedding:easy-xl")
    expect(page.locator("#estimate")).to_contain_text("for Stable Diffusion XL")
    put(page, prompt="a boat")
    expect(page.locator("#estimate")).not_to_contain_text("embedding")


def test_a_pickle_paints(shelf: Studio, visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit(shelf)
    put(page, prompt="a red ball, old-hands", negative_prompt="", **QUICK)
    (tmp_path / "it.png").write_bytes(paint(page))
    digest = hashlib.sha256((shelf.home / "embeddings" / "old-hands.pt").read_bytes()).hexdigest()
    assert read_image_settings(tmp_path / "it.png").embedding_hashes == {"old-hands": digest}
