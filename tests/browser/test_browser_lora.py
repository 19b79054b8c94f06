"""LoRAs in a real browser: chosen, weighed, refused, sent to and fro, shown as cards."""

from __future__ import annotations

import json
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
from studio.ui.views.common import format_bytes
from support import lora_makers as makers
from support.browser import HOSTILE, Studio, ask, put, shot, shown, state
from support.models import POCKET

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
PROMPT, QUICK = "a red ball on a beach", {"steps": 3, "seed": 4, "guidance": 5}


@pytest.fixture(scope="module")
def shelf(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio with LoRAs for the embedded model, one for another family, and two that are none."""
    studio = Studio(tmp_path_factory.mktemp("shelf") / "home")
    loras, pipe = studio.home / "loras", makers.stock(POCKET)
    made = makers.add(pipe, rank=4, seed=3)
    said = {
        "ss_base_model_version": "sd_v1",
        "ss_sd_model_name": "pocket",
        "modelspec.title": HOSTILE,
        "modelspec.trigger_phrase": f"cratered, moon (near), {HOSTILE}",
        "ss_tag_frequency": json.dumps({"4_moon": {"moon": 20, "night": 7, HOSTILE: 3}}),
    }
    makers.kohya(loras / "moon.safetensors", made, 2, **said)
    makers.kohya(loras / "art" / "ink wash.safetensors", {"unet": made["unet"]}, 2)
    (loras / "cut.safetensors").write_bytes((loras / "moon.safetensors").read_bytes()[:200])
    (loras / "old.pt").write_bytes(b"\x80\x04")
    stem = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    save_file(
        {
            f"{stem}.lora_down.weight": torch.ones(4, 2048),
            f"{stem}.lora_up.weight": torch.ones(640, 4),
        },
        loras / "large.safetensors",
    )
    yield studio
    studio.end()


def choose(page: Page, name: str) -> list[str]:
    """Open the list, take the one of that name, press Add; all that the list has."""
    page.locator("#txt2img-lora-choose input").click()
    names = page.get_by_role("option").all_inner_texts()
    page.get_by_role("option", name=name).first.click()
    page.locator("#txt2img-lora-add").click()
    expect(row(page, name)).to_be_visible()
    return [name.strip("✓ \n") for name in names]


def row(page: Page, name: str) -> Any:
    return page.locator(f'#txt2img-loras .lora[data-lora="{name}"]')


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)))


def settings(tmp_path: Path, data: bytes) -> dict[str, Any]:
    (tmp_path / "it.png").write_bytes(data)
    return dict(read_image_settings(tmp_path / "it.png").values)


def test_added_by_clicking_weighed_and_in_the_picture(
    shelf: Studio, visit: Callable[..., Page], tmp_path: Path
) -> None:
    page = visit(shelf)
    ask(page, prompt=PROMPT, **QUICK)
    state(page, "done")
    base = shown(page)
    assert choose(page, "moon") == [
        "ink wash",
        "moon",
        "mysks",
        "large — for Stable Diffusion XL",
    ]
    expect(row(page, "moon")).to_contain_text("Stable Diffusion 1.x · LoRA · rank 4")
    expect(row(page, "moon").get_by_role("spinbutton")).to_have_value("1")  # one number sets both
    pictures = {}
    for weight in ("1", "0.5", "0"):
        row(page, "moon").get_by_role("spinbutton").fill(weight)
        with page.expect_response("**/queue/join**"):
            page.locator("#generate").click()
        expect(page.locator("#about")).to_contain_text("LoRA moon")
        state(page, "done")
        expect(page.locator("#about dl > div", has_text="LoRA moon").locator("dd")).to_have_text(
            weight
        )
        pictures[weight] = shown(page)
        (use,) = settings(tmp_path, pictures[weight])["loras"]
        assert (use["name"], use["unet"], use["text_encoder"]) == (
            "moon",
            float(weight),
            float(weight),
        )
    shot(page, "lora-made")
    assert np.array_equal(pixels(pictures["0"]), pixels(base))  # off is the base bit for bit
    assert len({pixels(data).tobytes() for data in pictures.values()}) == 3
    row(page, "moon").get_by_role("button", name="Remove moon").click()
    expect(row(page, "moon")).to_have_count(0)


def test_weights_apart_trigger_words_and_a_way_back(
    shelf: Studio, visit: Callable[..., Page], tmp_path: Path
) -> None:
    page = visit(shelf)
    put(page, prompt="a boat", **QUICK)
    choose(page, "moon")
    choose(page, "ink wash")
    expect(row(page, "ink wash").locator(".lora-link")).to_have_count(
        0
    )  # it has nothing to say to the text encoder
    expect(row(page, "moon").locator(".chip")).to_have_text(["cratered", "moon (near)", HOSTILE])
    row(page, "moon").get_by_role("button", name="cratered").click()
    expect(page.locator("#txt2img-prompt textarea")).to_have_value("a boat, cratered")
    row(page, "moon").get_by_role("button", name="moon (near)").click()
    expect(page.locator("#txt2img-prompt textarea")).to_have_value(
        r"a boat, cratered, moon \(near\)"
    )
    row(page, "moon").get_by_role("button", name="separate weights").click()
    row(page, "moon").get_by_label("Image of moon", exact=True).fill("0.5")
    row(page, "moon").get_by_label("Text of moon", exact=True).fill("-0.25")
    row(page, "ink wash").get_by_label("Weight of ink wash, slider").fill("0.75")
    expect(row(page, "ink wash").get_by_role("spinbutton")).to_have_value("0.75")
    page.set_viewport_size({"width": 1280, "height": 1500})
    shot(page, "lora-rows")
    page.locator("#generate").click()
    state(page, "done")
    made = shown(page)
    told = [
        {"name": "moon", "unet": 0.5, "text_encoder": -0.25},
        {"name": "ink wash", "unet": 0.75, "text_encoder": 0.75},
    ]
    assert settings(tmp_path, made)["loras"] == told
    expect(page.locator("#about")).to_contain_text("0.5 image, -0.25 text")
    shot(page, "lora-two")
    page.reload()  # taken up again
    expect(row(page, "moon").get_by_label("Text of moon", exact=True)).to_have_value("-0.25")
    expect(row(page, "ink wash")).to_contain_text("rank 4")
    other = visit(shelf)
    other.locator("#from-picture button").first.click()
    other.locator("#drop input[type=file]").set_input_files(tmp_path / "it.png")
    expect(row(other, "moon").get_by_label("Image of moon", exact=True)).to_have_value("0.5")
    row(other, "moon").get_by_role("button", name="one weight").click()
    expect(row(other, "moon").get_by_role("spinbutton")).to_have_value("0.5")
    row(other, "ink wash").get_by_role("button", name="Remove ink wash").click()
    put(other, prompt="a boat <lora:ink wash:0.75>", **QUICK)
    other.locator("#generate").click()
    state(other, "done")
    uses = settings(tmp_path, shown(other))["loras"]
    assert [(use["name"], use["unet"], use["text_encoder"]) for use in uses] == [
        ("moon", 0.5, 0.5),
        ("ink wash", 0.75, 0.75),
    ]
    assert page.title() == other.title() == "Studio"


def expect_said(page: Page, sentence: str) -> None:
    """Wait for a refusal beside a field or, if it is none's, in a notice, and close that."""
    told = page.locator(".toast-body, .field-fault").filter(has_text=sentence).first
    expect(told).to_be_visible()
    close = page.locator(".toast-close").first
    if close.is_visible():
        close.click()


def test_what_cannot_be_is_said(shelf: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shelf)
    put(page, prompt=PROMPT, **QUICK)
    choose(page, "large")
    expect(row(page, "large")).to_contain_text(
        "It is made for Stable Diffusion XL, but pocket is not."
    )
    for prompt, said in (
        (PROMPT, "large is for Stable Diffusion XL"),
        (f"{PROMPT} <lora:large:1>", "large is listed twice"),
    ):
        put(page, prompt=prompt)
        page.locator("#generate").click()
        expect_said(page, said)
    page.get_by_role("button", name="Remove large").click()
    put(page, prompt=f"{PROMPT} <lora:mooon:1>")
    page.locator("#generate").click()
    expect_said(page, "There is no LoRA 'mooon' in the library; available: moon.")
    put(page, prompt=PROMPT)
    choose(page, "ink wash")
    row(page, "ink wash").get_by_role("spinbutton").fill("")
    page.locator("#generate").click()
    expect_said(page, "number 1: Weight in the U-Net: required")
    shot(page, "lora-refused")
    row(page, "ink wash").get_by_role("spinbutton").fill("1")
    (shelf.home / "loras" / "art").rename(shelf.home / "away")
    try:
        page.get_by_role("tab", name="Queue", exact=True).click()
        page.get_by_role("tab", name="txt2img", exact=True).click()
        page.locator("#txt2img-lora-choose input").click()
        expect(row(page, "ink wash")).to_contain_text("It is not in the library")
        page.locator("#generate").click()
        expect_said(page, "There is no LoRA 'ink wash' in the library")
    finally:
        (shelf.home / "away").rename(shelf.home / "loras" / "art")


@pytest.mark.parametrize("width", [1280, 390])
def test_cards(shelf: Studio, visit: Callable[..., Page], width: int) -> None:
    page = visit(shelf, width=width)
    page.set_viewport_size({"width": width, "height": 1500})
    if not (tab := page.get_by_role("tab", name="Models", exact=True)).is_visible():
        page.locator("#tabs .overflow-menu button").first.click()
        tab = page.locator("#tabs .overflow-dropdown").get_by_text("Models", exact=True)
    tab.click()
    card = page.locator("#models-list .card[data-name=moon]")
    size = format_bytes((shelf.home / "loras" / "moon.safetensors").stat().st_size)
    for words in (
        f"Stable Diffusion 1.x · LoRA · rank 4 · alpha 2 · picture and text · {size}",
        "cratered",
        "moon (near)",
        HOSTILE,
        "trained on pocket",
        "night",
    ):
        expect(card).to_contain_text(words)
    expect(page.locator("#models-list .card.bad[data-name=old]")).to_contain_text(
        "can contain programs"
    )
    expect(page.locator("#models-list .card.bad[data-name=cut]")).to_contain_text("cut off")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shot(page, f"lora-cards-{width}")
    card.get_by_role("button", name="Use in txt2img").click()
    expect(row(page, "moon")).to_be_visible()
    expect(row(page, "moon")).to_contain_text("rank 4")
    row(page, "moon").get_by_role("button", name="separate weights").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shot(page, f"lora-used-{width}")
    assert page.title() == "Studio"


def test_the_owner_adds_a_file_and_a_preset_keeps_it(
    shelf: Studio, visit: Callable[..., Page], tmp_path: Path
) -> None:
    page = visit(shelf)
    page.get_by_role("tab", name="Models", exact=True).click()
    (tmp_path / "fresh.safetensors").write_bytes(
        (shelf.home / "loras" / "moon.safetensors").read_bytes()
    )
    (tmp_path / "not.safetensors").write_bytes(b"hello")
    page.locator("#models-add button").first.click()
    field = page.locator("#models-drop input[type=file]")
    field.set_input_files(tmp_path / "not.safetensors")
    expect(page.locator(".toast-body").first).to_contain_text(
        "not.safetensors is not a safetensors file"
    )
    page.locator(".toast-close").first.click()
    field.set_input_files(tmp_path / "fresh.safetensors")
    expect(page.locator("#models-list .card[data-name=fresh]")).to_contain_text("rank 4")
    assert (shelf.home / "loras" / "fresh.safetensors").read_bytes() == (
        tmp_path / "fresh.safetensors"
    ).read_bytes()
    page.locator("#models-list .card[data-name=fresh] [data-action=use]").click()
    row(page, "fresh").get_by_role("spinbutton").fill("0.6")
    page.locator("#presets button").first.click()
    page.get_by_label("Save as preset").fill("fresh look")
    page.locator("#presets").get_by_role("button", name="Save").click()
    expect(page.locator("#preset input")).to_have_value("fresh look")
    other = visit(shelf)
    other.locator("#presets button").first.click()
    other.locator("#preset input").click()
    other.get_by_role("option", name="fresh look").click()
    expect(row(other, "fresh").get_by_role("spinbutton")).to_have_value("0.6")


def test_nothing_there_says_where_to_put_them(studio: Studio, visit: Callable[..., Page]) -> None:
    page = visit(studio)
    expect(page.locator(".loras")).to_contain_text(f"Put LoRA files into {studio.home / 'loras'}")
    page.set_viewport_size({"width": 1280, "height": 1300})
    shot(page, "lora-none")
    makers.kohya(
        studio.home / "loras" / "late.safetensors", makers.add(makers.stock(POCKET), only="unet"), 2
    )
    page.locator("#txt2img-prompt textarea").click()
    page.locator("#txt2img-lora-choose input").click()  # looked for again by opening the list
    expect(page.get_by_role("option", name="late")).to_be_visible()
    expect(page.locator(".loras .nothing")).to_have_count(0)


def test_a_guest_chooses_but_adds_no_file(studio: Studio, visit: Callable[..., Page]) -> None:
    page = visit(studio)
    page.set_extra_http_headers({"X-Forwarded-For": "192.168.7.7"})
    page.reload()
    expect(page.locator(".loras")).to_contain_text("The LoRAs here came with the studio.")
    assert str(studio.home) not in page.locator("body").inner_text()
    page.get_by_role("tab", name="Models", exact=True).click()
    expect(page.locator("#models-refresh")).to_be_visible()
    expect(page.locator("#models-add")).to_have_count(0)
    config = page.request.get(f"{studio.url}config").json()
    (upload,) = [
        part["id"] for part in config["components"] if part["props"].get("elem_id") == "models-drop"
    ]
    (taken,) = [
        event["id"] for event in config["dependencies"] if [upload, "upload"] in event["targets"]
    ]
    answer = page.request.post(
        f"{studio.url}gradio_api/run/predict",
        headers={"X-Forwarded-For": "192.168.7.7"},
        data={"fn_index": taken, "data": ["", "", "", False, None, 0], "session_hash": "guest"},
    )
    assert answer.status == 500
    assert "only possible for the owner of this studio" in answer.json()["error"]
