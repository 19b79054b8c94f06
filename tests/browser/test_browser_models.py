"""The Models tab in a real browser: what each file is, and one click that brings it to its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from support.browser import HOSTILE, Studio, go, shot
from support.weights import CROSS, SDXL, VAE, WHOLE, kohya_lora, write_gguf, write_weights

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture
def mixed_up(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio whose owner put everything anywhere."""
    studio = Studio(tmp_path_factory.mktemp("mixed") / "home")
    home = studio.home
    write_weights(home / "models" / "moon.safetensors", kohya_lora(CROSS))
    write_weights(home / "models" / f"{HOSTILE.replace('/', '')}.safetensors", kohya_lora(CROSS))
    write_weights(home / "models" / "vae-ft-mse.safetensors", {VAE: [512, 4, 3, 3]})
    write_weights(home / "dropped.safetensors", SDXL | WHOLE)
    write_weights(home / "loras" / "taken.safetensors", kohya_lora(CROSS))
    write_weights(home / "models" / "taken.safetensors", kohya_lora(CROSS))
    write_weights(
        home / "loras" / "deep" / "sdxl-1.0-base-with-a-long-name-fp16.safetensors", SDXL | WHOLE
    )
    write_gguf(
        home / "models" / "flux1-schnell-Q4_K_S.gguf",
        [("double_blocks.0.img_attn.norm.key_norm.scale", [128], 0), ("x", [32, 32], 12)],
        "flux",
    )
    (home / "models" / "login.safetensors").write_text("<!doctype html><p>Log in first")
    (home / "models" / "old.ckpt").write_bytes(b"PK\3\4")
    yield studio
    studio.end()


def card(page: Page, name: str) -> str:
    return f'.card.bad:has(h4:text-is("{name}"))'


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (1280, "dark")])
def test_a_click_moves_a_file(
    mixed_up: Studio, visit: Callable[..., Page], width: int, scheme: str
) -> None:
    page = visit(mixed_up, width=width)
    if scheme == "dark":
        page.goto(f"{mixed_up.url}?__theme=dark")
    page.set_viewport_size({"width": width, "height": 1500})
    go(page, "Models")
    models, loras = page.locator("#models-list"), page.locator("#loras-list")
    moon = models.locator(card(page, "moon.safetensors"))
    expect(moon).to_contain_text("It is a LoRA for SD 1.x (float16); it belongs in loras/.")
    vae = models.locator(card(page, "vae-ft-mse.safetensors"))
    expect(vae).to_contain_text("cannot use yet")
    expect(vae.get_by_role("button")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shot(page, f"models-mixed-{width}-{scheme}")
    moon.get_by_role("button", name="Move to loras/").click()
    expect(page.locator(".toast-body").last).to_contain_text("moon.safetensors lies in loras/ now.")
    expect(moon).to_have_count(0)
    expect(loras.locator("[data-lora=moon]")).to_contain_text("rank 4")
    assert (mixed_up.home / "loras" / "moon.safetensors").is_file()
    assert not (mixed_up.home / "models" / "moon.safetensors").exists()
    loras.locator(".card.bad").get_by_role("button", name="Move to models/").click()
    expect(models.locator(".card.bad").filter(has_text="with-a-long-name")).to_be_visible()
    taken = models.locator(card(page, "taken.safetensors"))
    taken.get_by_role("button", name="Move to loras/").click()
    expect(page.locator(".toast-body").last).to_contain_text(
        "There is a file taken.safetensors in loras/ already"
    )
    expect(taken).to_be_visible()
    assert page.title() == "Studio"
    shot(page, f"models-moved-{width}-{scheme}")
