"""The Models tab in a real browser: files moved, folders used, searched, starred, put to use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from support.browser import HOSTILE, Studio, go, shot
from support.weights import CROSS, SDXL, VAE_FILE, WHOLE, kohya_lora, write_gguf, write_weights

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture
def mixed_up(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio whose owner put everything anywhere."""
    studio = Studio(tmp_path_factory.mktemp("mixed") / "home")
    home = studio.home
    write_weights(home / "models" / "moon.safetensors", kohya_lora(CROSS))
    write_weights(home / "models" / f"{HOSTILE.replace('/', '')}.safetensors", kohya_lora(CROSS))
    write_weights(home / "models" / "vae-ft-mse.safetensors", VAE_FILE)
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


def search(page: Page, words: str) -> None:
    page.locator("#models-search textarea, #models-search input").first.fill(words)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (1280, "dark")])
def test_a_click_moves_a_file(
    mixed_up: Studio, visit: Callable[..., Page], width: int, scheme: str
) -> None:
    page = visit(mixed_up, width=width)
    if scheme == "dark":
        page.goto(f"{mixed_up.url}?__theme=dark")
    page.set_viewport_size({"width": width, "height": 1500})
    go(page, "Models")
    library = page.locator("#models-list")
    vae = library.locator(".card[data-name=vae-ft-mse]")
    expect(vae).to_contain_text("It works here, but belongs in vae/.")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shot(page, f"models-mixed-{width}-{scheme}")
    vae.get_by_role("button", name="Move to vae/").click()
    outcome = page.locator("#models-outcome")
    expect(outcome).to_contain_text("vae-ft-mse.safetensors is now in vae/")
    assert page.locator(".toast-body").count() == 0
    expect(vae.get_by_role("button", name="Move to vae/")).to_have_count(0)
    assert (mixed_up.home / "vae" / "vae-ft-mse.safetensors").is_file()
    assert not (mixed_up.home / "models" / "vae-ft-mse.safetensors").exists()
    taken = library.locator(".card[data-name='models/taken']")
    taken.get_by_role("button", name="Move to loras/").click()
    expect(page.locator(".toast-body").last).to_contain_text(
        "There is already a file taken.safetensors in loras/"
    )
    expect(taken).to_be_visible()
    expect(library.locator(".card.bad", has_text="web page")).to_be_visible()
    assert page.title() == "Studio"
    shot(page, f"models-moved-{width}-{scheme}")


def test_a_folder_of_another_program(
    studio: Studio, visit: Callable[..., Page], tmp_path: Path
) -> None:
    """Its path pasted, its LoRAs searched for, one starred, and put into the form by its card."""
    webui = tmp_path / "webui"
    for number in range(70):
        file = write_weights(webui / f"models/Lora/ink-{number:02}.safetensors", kohya_lora(CROSS))
    Image.new("RGB", (400, 300), "navy").save(file.with_name("ink-69.preview.png"))
    file.with_name("ink-69.civitai.info").write_text(json.dumps({"trainedWords": ["brush"]}))
    file.with_name("ink-69.json").write_text(json.dumps({"preferred weight": 0.7}))
    page = visit(studio)
    go(page, "Models")
    library = page.locator("#models-list")
    page.locator("#models-add button").first.click()
    box = page.locator("#models-path").locator("textarea, input").first
    box.fill(str(webui))
    page.locator("#models-path-add").click()
    expect(page.locator("#models-outcome")).to_contain_text("was added as A1111 or Forge")
    expect(library).to_contain_text("Page 1 of 2")
    library.get_by_role("button", name="Next →").click()
    card = library.locator(".card[data-name='a1111/ink-69']")
    expect(card).to_contain_text("brush")
    expect(card.locator("img.preview")).to_be_visible()
    shown = page.request.get(f"{studio.url}{card.locator('img.preview').get_attribute('src')}")
    assert shown.headers["content-type"] == "image/webp"
    search(page, "brush")
    expect(library).to_contain_text("1 item")
    card.locator(".star").click()
    expect(card.locator(".star")).to_have_attribute("aria-pressed", "true")
    search(page, "")
    expect(library.locator(".card").first).to_have_attribute("data-name", "a1111/ink-69")
    shot(page, "models-folder")
    card.get_by_role("button", name="Use in txt2img").click()
    row = page.locator("#txt2img-loras [data-lora='a1111/ink-69']")
    expect(row).to_contain_text("rank 4")
    expect(row).to_contain_text("brush")
    expect(row.locator("input[type=number]")).to_have_value("0.7")
    go(page, "Models")
    library.locator("[data-folder=a1111]").get_by_role("button").click()
    expect(library.locator("[data-folder]")).to_have_count(0)
    expect(card).to_have_count(0)
    assert len(list(webui.rglob("*.safetensors"))) == 70


@pytest.fixture(scope="module")
def inks(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio with more LoRAs than a page carries names."""
    studio = Studio(tmp_path_factory.mktemp("inks") / "home")
    for number in range(300):
        write_weights(studio.home / f"loras/ink-{number:03}.safetensors", kohya_lora(CROSS))
    yield studio
    studio.end()


def hold_answers(page: Page) -> Callable[[], None]:
    """Keep what the page asks from the server; the result lets all of it go."""
    held: list[Route] = []
    page.route("**/queue/join*", lambda route: held.append(route))

    def release() -> None:
        for route in held:
            route.continue_()
        page.unroute("**/queue/join*")

    return release


def test_names_are_found_by_typing(inks: Studio, visit: Callable[..., Page]) -> None:
    """Of more names than the page carries: the list comes when it is opened."""
    page = visit(inks)
    box = page.locator("#txt2img-lora-choose input")
    box.click()
    box.press_sequentially("k-27")
    options = page.get_by_role("option")
    expect(options).to_have_count(10)
    options.filter(has_text="ink-277").click()
    page.locator("#txt2img-lora-add").click()
    expect(page.locator("#txt2img-loras [data-lora=ink-277]")).to_contain_text("rank 4")


@pytest.mark.parametrize("num_early", [0, 2, 4])
def test_names_that_come_while_somebody_types(
    inks: Studio, visit: Callable[..., Page], num_early: int
) -> None:
    """Whenever the list comes, it shows what is typed."""
    page = visit(inks)
    release = hold_answers(page)
    box = page.locator("#txt2img-lora-choose input")
    options = page.get_by_role("option")
    box.click()
    box.press_sequentially("k-27"[:num_early])
    page.wait_for_timeout(300)
    expect(options.filter(has_text="ink-277")).to_have_count(0)
    release()
    box.press_sequentially("k-27"[num_early:])
    expect(options).to_have_count(10)
    page.wait_for_timeout(1000)  # nothing that comes later shows the whole list again
    assert options.count() == 10
    box.press("Enter")
    expect(box).to_have_value("ink-270")


def test_a_list_that_comes_late_moves_nothing(inks: Studio, visit: Callable[..., Page]) -> None:
    """What somebody went to with the arrows stays; a list that they went on to shows all of its."""
    page = visit(inks)
    release = hold_answers(page)
    box = page.locator("#txt2img-lora-choose input")
    options = page.get_by_role("option")
    box.click()
    box.press_sequentially("-05")
    for _ in range(3):
        box.press("ArrowDown")
    release()
    page.wait_for_timeout(1500)
    expect(options).to_have_count(10)
    box.press("Enter")
    expect(box).to_have_value("ink-053")
    release = hold_answers(page)
    page.locator("#txt2img-model input").click()
    page.locator("#txt2img-scheduler input").click()
    schedulers = page.locator("#txt2img-scheduler").get_by_role("option")
    expect(schedulers).not_to_have_count(0)
    num_schedulers = schedulers.count()
    assert num_schedulers > 5
    release()
    page.wait_for_timeout(1500)
    assert schedulers.count() == num_schedulers


def test_pasted_text_finds_names(inks: Studio, visit: Callable[..., Page]) -> None:
    """No key goes down for it."""
    page = visit(inks)
    box = page.locator("#txt2img-lora-choose input")
    box.click()
    page.keyboard.insert_text("k-27")
    expect(page.get_by_role("option")).to_have_count(10)


def test_a_model_from_its_card(studio: Studio, visit: Callable[..., Page]) -> None:
    page = visit(studio)
    go(page, "Models")
    width = page.locator("#txt2img-width input")
    page.locator(".card[data-kind=model][data-name=pocket] [data-action=use]").click()
    expect(page.locator("#txt2img-model input")).to_have_value("pocket")
    width.fill("64")
    go(page, "Models")
    page.locator(".card[data-kind=model][data-name=pocket] [data-action=use]").click()
    expect(width).to_have_value("128")  # what goes with the model follows


@pytest.mark.parametrize("width", [1280, 390])
def test_cards_begin_in_view_and_no_field_touches_another(
    studio: Studio, visit: Callable[..., Page], width: int
) -> None:
    page = visit(studio, width=width)
    page.set_viewport_size({"width": width, "height": 844 if width < 640 else 800})
    go(page, "Models")

    def measure(selector: str) -> dict[str, float]:
        place = page.locator(selector).first
        expect(place).to_be_visible()
        return dict(place.bounding_box() or {})

    assert measure("#models-list .card")["y"] < (500 if width == 1280 else 750)
    tops = [measure(name)["y"] for name in ("#first-steps", "#models-add", "#model-options")]
    assert tops == sorted(tops)
    page.locator("#models-add > button").click()
    label, text = measure("#models-drop label"), measure("#models-drop .wrap span.or")
    assert label["y"] + label["height"] <= text["y"]
    page.locator("#model-options > button").click()
    for left, right in (
        ("#model-options-prediction", "#model-options-zero-snr"),
        ("#model-options-vae", "#model-options-text-encoder"),
    ):
        first, second = measure(left), measure(right)
        beside = second["x"] - (first["x"] + first["width"])
        below = second["y"] - (first["y"] + first["height"])
        assert max(beside, below) >= 8, (left, right)
