"""What comes from outside the form in a real browser: dropped anywhere, dragged over the page, pasted."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from support.browser import Studio, ask, go, shot, shown, state

pytestmark = pytest.mark.slow

Visit = Callable[..., Page]
File = tuple[str, str, bytes]
# What a system's file manager or clipboard would send; a page cannot be dragged onto from outside.
SEND_JS = """([selector, kind, files]) => {
  const carrier = new DataTransfer();
  for (const [name, type, content] of files) {
    const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
    carrier.items.add(new File([bytes], name, {type}));
  }
  const target = document.querySelector(selector);
  const options = {bubbles: true, cancelable: true};
  if (kind === 'paste')
    target.dispatchEvent(new ClipboardEvent('paste', {...options, clipboardData: carrier}));
  else
    for (const name of ['dragenter', 'dragover', 'drop'])
      target.dispatchEvent(new DragEvent(name, {...options, dataTransfer: carrier}));
}"""


def png(colour: str = "teal") -> File:
    out = io.BytesIO()
    Image.new("RGB", (48, 40), colour).save(out, "PNG")
    return f"{colour}.png", "image/png", out.getvalue()


def send(page: Page, kind: str, *files: File, onto: str = "body") -> None:
    encoded = [(name, type_, base64.b64encode(content).decode()) for name, type_, content in files]
    page.evaluate(SEND_JS, [onto, kind, encoded])


def question(page: Page) -> Any:
    return page.locator("#incoming")


def choose(page: Page, text: str) -> None:
    expect(question(page)).to_be_visible()
    question(page).get_by_text(text, exact=True).click()
    expect(question(page)).not_to_be_visible()


def is_on_easel(page: Page, tab: str) -> None:
    expect(page.locator(f"#{tab}-easel .easel")).to_have_attribute("data-state", "there")


@pytest.mark.parametrize("width", [1280, 390])
def test_a_file_dropped_anywhere_goes_where_the_person_says(
    shared: Studio, visit: Visit, width: int
) -> None:
    page = visit(shared, width)
    go(page, "Queue")
    send(page, "drop", png(), onto="#queue-list")
    expect(question(page)).to_contain_text("What would you like to do with teal.png?")
    shot(page, f"incoming-{width}")
    choose(page, "Start from it")
    is_on_easel(page, "img2img")
    # A second one finds the easel taken, and a mask that was about to be chosen is none.
    send(page, "drop", png("maroon"), onto="#img2img-easel .easel-pad canvas")
    expect(page.locator("#img2img-easel .easel-foot")).to_contain_text("maroon.png")

    go(page, "Upscale")
    for colour in ("teal", "maroon"):
        send(page, "drop", png(colour), onto="#tab-upscale .actions")
        expect(question(page).locator("button").first).to_contain_text("Enlarge it")
        choose(page, "Enlarge it")
        expect(page.locator(f"#upscale-image img[src*={colour}]")).to_be_visible()


def test_an_image_is_dragged_from_the_page_onto_an_input(studio: Studio, visit: Visit) -> None:
    page = visit(studio)
    ask(page, prompt="a red square", steps=2, seed=11, width=64, height=64)
    state(page, "done")
    original = shown(page)

    page.drag_and_drop("#result img", "#txt2img-prompt textarea")
    choose(page, "Repaint a part of it")
    is_on_easel(page, "inpaint")
    stored = [path.read_bytes() for path in (studio.home / "inputs").rglob("*.png")]
    assert stored
    assert Image.open(io.BytesIO(stored[0])).size == Image.open(io.BytesIO(original)).size

    # A thumbnail stands for its image, with the settings that it has.
    go(page, "Gallery")
    page.drag_and_drop("#gallery-grid .images-tile img", "#gallery-grid .images-bar")
    choose(page, "Read its settings")
    expect(page.locator("#txt2img-seed input[type=number]")).to_have_value("11")
    expect(page.locator("#recipe")).to_contain_text("Made here")


def test_an_image_is_pasted_into_the_tab_in_view(shared: Studio, visit: Visit) -> None:
    page = visit(shared)
    go(page, "Inpaint")
    expect(page.locator("#tab-inpaint")).to_have_attribute("data-seen", "")
    send(page, "paste", png())
    is_on_easel(page, "inpaint")
    expect(question(page)).not_to_be_visible()

    # Elsewhere one is asked; text in a field is the field's.
    go(page, "txt2img")
    prompt = "#txt2img-prompt textarea"
    send(page, "paste", png(), onto=prompt)
    expect(question(page)).to_be_visible()
    page.keyboard.press("Escape")
    expect(question(page)).not_to_be_visible()


def test_what_nothing_takes_is_said_and_changes_nothing(
    shared: Studio, visit: Visit, tmp_path: Path
) -> None:
    page = visit(shared)
    go(page, "txt2img")
    url = page.url
    send(page, "drop", ("<img src=x>.xyz", "", b"nothing"))
    expect(question(page)).to_contain_text("but not <img src=x>.xyz.")
    page.keyboard.press("Escape")
    send(page, "drop", ("a.toml", "", b"x = "), png())
    expect(question(page)).to_contain_text("but not these files together.")
    page.keyboard.press("Escape")
    send(page, "drop", png(), png("maroon"), ("Thumbs.db", "", b"x"))
    expect(question(page)).to_contain_text("with 2 files (1 other is left out)?")
    page.keyboard.press("Escape")
    send(page, "drop", ("empty.png", "image/png", b""))
    choose(page, "Start from it")
    expect(page.locator(".toast-body")).to_contain_text("empty.png")
    assert page.url == url


def test_a_model_dropped_on_the_library_needs_no_question(studio: Studio, visit: Visit) -> None:
    page = visit(studio)
    go(page, "Models")
    expect(page.locator("#models-add")).to_be_visible()
    send(page, "drop", ("nonsense.safetensors", "", b"\x00" * 64), onto="#tab-models")
    expect(page.locator(".toast-body")).to_contain_text("nonsense.safetensors")
    expect(question(page)).not_to_be_visible()
