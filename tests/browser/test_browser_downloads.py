"""A link pasted in a real browser: read, fetched, watched, cut, gone on with, used; models to begin with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from studio.services.downloads import STARTING_POINTS
from support.browser import Studio, go, shot
from support.sites import (
    HUB,
    OTHER,
    Gate,
    Sites,
    add_repository,
    lead_processes_here,
    make_large_lora,
    make_weights,
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
LORA = f"https://{OTHER}/files/moon.safetensors"
INDEX = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}


@pytest.fixture
def online(
    chromium: Browser, sites: Sites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Studio]:
    """A studio whose network are the sites of this test."""
    lead_processes_here(sites, monkeypatch)
    studio = Studio(tmp_path / "home")
    yield studio
    studio.end()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_download_is_watched_cut_and_gone_on_with(
    online: Studio, visit: Callable[..., Page], sites: Sites, tmp_path: Path, width: int
) -> None:
    lora = make_large_lora(tmp_path)
    gate = Gate(sites, LORA, lora)
    page = visit(online, width=width)
    go(page, "Models")
    page.locator("#models-add > button").click()
    page.locator("#download-link input, #download-link textarea").fill(LORA)
    page.locator("#download-look").click()
    expect(page.locator("#download-found")).to_contain_text("does not know")
    expect(page.locator("#download-name input, #download-name textarea")).to_have_value("moon")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shot(page, f"download-found-{width}")
    link = page.locator("#download-link input, #download-link textarea")
    link.fill(f"https://{OTHER}/moon.zip")
    page.locator("#download-look").click()
    expect(page.locator(".toast-body").last).to_contain_text("is not a weights file")
    expect(page.locator("#download-start")).to_be_hidden()
    expect(page.locator("#download-found .card")).to_have_count(0)
    link.fill(LORA)
    page.locator("#download-look").click()
    expect(page.locator("#download-name input, #download-name textarea")).to_have_value("moon")
    page.locator("#download-start").click()
    expect(page.locator(".toast-body").last).to_contain_text("“I trust this site” if you do")
    rows = page.locator("#download-list [data-download]")
    expect(rows).to_have_count(0)
    page.locator("#download-trust input").check()
    page.locator("#download-start").click()
    row = page.locator("#download-list [data-download][data-state=running]")
    expect(row).to_contain_text("MB of 2.2 MB")
    shot(page, f"download-running-{width}")
    row.get_by_role("button", name="Cancel").click()
    expect(rows.first).to_contain_text("The part already downloaded is kept")
    gate.open()
    rows.first.get_by_role("button", name="Resume").click()
    expect(rows.first).to_contain_text("moon in loras/ is ready to use.")
    expect(page.locator("#models-list .card[data-name=moon]")).to_contain_text("rank 1024")
    assert (online.home / "loras" / "moon.safetensors").read_bytes() == lora
    assert "Range" in sites.log[-1].headers
    assert not list((online.home).glob("downloads/*"))
    shot(page, f"download-done-{width}")
    rows.first.get_by_role("button", name="Remove from list").click()
    expect(rows).to_have_count(0)
    assert (online.home / "loras" / "moon.safetensors").is_file()


def test_first_steps_ask_only_when_they_are_opened(
    online: Studio, visit: Callable[..., Page], sites: Sites, tmp_path: Path
) -> None:
    few = make_weights(tmp_path)
    for point in STARTING_POINTS[:2]:
        files = {
            "model_index.json": json.dumps(INDEX).encode(),
            "unet/config.json": b"{}",
            "unet/diffusion_pytorch_model.safetensors": few,
        }
        add_repository(sites, point.link, files, licence="creativeml-openrail-m")
    page = visit(online)
    go(page, "Models")
    page.wait_for_timeout(1500)
    assert sites.log == []
    page.locator("#first-steps > button").click()
    cards = page.locator("#first-steps-cards .card")
    expect(cards).to_have_count(len(STARTING_POINTS))
    expect(cards.first).to_contain_text("creativeml-openrail-m")
    expect(cards.last).to_contain_text("The hub shows no")
    assert {call.host for call in sites.log} == {HUB}
    shot(page, "first-steps")
    cards.first.get_by_role("button", name="Download").click()
    expect(page.locator("#download-list [data-download]").first).to_contain_text(
        STARTING_POINTS[0].link
    )
