"""What a person has gets in, by clicking: a checkpoint dropped in, found, painted with; its VAE; an upscaler."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from playwright.sync_api import Page, expect

from support import ldm_files, upscalers
from support.browser import Studio, ask, go, put, shot, shown, state

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def write_toy(folder: Path, seed: int) -> tuple[Path, Path]:
    """Write a checkpoint of SD 1.x in toy size, and an autoencoder of other weights."""
    parts = ldm_files.make_toy_parts("sd1", seed)
    tensors = ldm_files.collect_checkpoint("sd1", parts)
    checkpoint = ldm_files.write_checkpoint(folder / "toy.safetensors", tensors, torch.float32)
    other = ldm_files.collect_checkpoint("sd1", ldm_files.make_toy_parts("sd1", seed + 1))
    vae = {
        name.removeprefix(ldm_files.VAE): tensor
        for name, tensor in other.items()
        if name.startswith(ldm_files.VAE)
    }
    return checkpoint, ldm_files.write_checkpoint(folder / "other.safetensors", vae, torch.float32)


def test_a_checkpoint_a_vae_and_an_upscaler(
    studio: Studio, visit: Callable[..., Page], tmp_path: Path
) -> None:
    checkpoint, vae = write_toy(tmp_path, 3)
    upscaler = tmp_path / "toy-2x.safetensors"
    upscalers.write(upscaler, upscalers.compact(2))
    page = visit(studio)
    go(page, "Models")
    page.locator("#models-add button").first.click()
    library = page.locator("#models-list")
    for file, folder in ((checkpoint, "models"), (vae, "vae"), (upscaler, "upscalers")):
        page.locator("#models-drop input[type=file]").set_input_files(file)
        expect(library.locator(f".card[data-name='{file.stem}']")).to_be_visible()
        assert (studio.home / folder / file.name).read_bytes() == file.read_bytes()
    # Found and chosen.
    page.locator("#models-search textarea, #models-search input").first.fill("toy")
    card = library.locator(".card[data-kind=model][data-name=toy]")
    expect(card).to_contain_text("Stable Diffusion 1.x")
    shot(page, "single-file-card")
    card.get_by_role("button", name="Use in txt2img").click()
    expect(page.locator("#txt2img-model input")).to_have_value("toy")
    # Painted.
    put(page, width=64, height=64, steps=2, seed=3)
    ask(page, prompt="a boat")
    state(page, "done")
    own = shown(page)
    shot(page, "single-file-done")
    # With another autoencoder it is another picture of the same settings.
    page.get_by_role("button", name="Advanced").locator("visible=true").first.click()
    box = page.locator("#txt2img-vae input")
    box.fill("other")
    box.press("Enter")
    page.locator("#generate").click()
    expect(page.locator("#about")).to_contain_text("other")
    expect(page.locator("#live .making")).to_have_count(0)
    assert shown(page) != own
    # Made larger as it is.
    page.locator("#upscale-txt2img").click()
    expect(page.get_by_role("tab", name="Upscale", exact=True)).to_have_attribute(
        "aria-selected", "true"
    )
    name = page.locator("#upscale-upscaler input")
    name.fill("toy-2x")
    name.press("Enter")
    page.locator("#upscale-start").click()
    result = page.locator("#upscale-result img").first
    expect(result).to_be_visible(timeout=60_000)
    shot(page, "single-file-upscaled")
    data = page.request.get(str(result.get_attribute("src"))).body()
    with Image.open(io.BytesIO(data)) as image:
        assert min(image.size) > 64
        assert image.info["studio"]
