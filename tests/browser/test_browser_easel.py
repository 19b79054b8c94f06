"""img2img and Inpaint in a real browser: painted on with brush and eraser, undone, mended, compared, sent on, many at once."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from studio.core.generation.request import GenerationRequest
from studio.settings import load
from studio.storage.gallery import read_image_settings
from studio.storage.inputs import Inputs
from support.browser import Studio, ask, body, go, place, shot, state


def easel(page: Page, tab: str) -> Locator:
    return page.locator(f"#{tab}-easel .easel")


def there(page: Page, tab: str) -> None:
    expect(easel(page, tab)).to_have_attribute("data-state", "there")
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(200)


def painted(page: Page, tab: str) -> int:
    return int(easel(page, tab).get_attribute("data-painted") or 0)


def stroke(
    page: Page, tab: str, start: tuple[float, float], end: tuple[float, float], size: int = 0
) -> None:
    """From one place of the pad to another, in its widths and heights; the picture is in its middle."""
    if size:
        easel(page, tab).locator(".easel-size").fill(str(size))
    box = easel(page, tab).locator("canvas").bounding_box()
    assert box
    (x, y), (a, b) = (
        (box["x"] + at[0] * box["width"], box["y"] + at[1] * box["height"]) for at in (start, end)
    )
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(a, b, steps=6)
    page.mouse.up()


def say(page: Page, tab: str, **fields: object) -> None:
    for name, value in fields.items():
        box = page.locator(f"#{tab}-{name.replace('_', '-')}").locator("textarea, input").first
        box.fill(str(value))
        box.blur()


def generate(page: Page, tab: str) -> Path:
    """Press Generate; the file that the page then shows."""
    before = page.locator(f"#{tab}-result img").first
    old = before.get_attribute("src") if before.is_visible() else ""
    page.locator(f"#{tab}-generate").click()
    expect(page.locator(f"#{tab}-live [data-state=done]")).to_be_visible(timeout=90_000)
    image = page.locator(f"#{tab}-result img").first
    if old:
        expect(image).not_to_have_attribute("src", old)
    expect(image).to_be_visible()
    return place(image)


def pixels(source: Any) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(source).convert("RGB")).astype(int)


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def choose(page: Page, tab: str, name: str, data: bytes) -> None:
    with page.expect_file_chooser() as chooser:
        easel(page, tab).locator("[data-act=choose]:visible").first.click()
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": data})


@pytest.mark.slow
def test_brush_eraser_undo_and_all_else_stays_to_the_last_bit(
    shared: Studio,
    visit: Callable[..., Page],
) -> None:
    page = visit(shared)
    go(page, "Inpaint")
    expect(page.locator("#inpaint-easel .easel-empty")).to_be_visible()
    shot(page, "inpaint-empty")
    page.locator("#inpaint-generate").click()
    expect(page.locator(".toast-body")).to_contain_text("Image: required")
    page.locator(".toast-close").first.click()
    go(page, "txt2img")
    ask(page, prompt="a photo of a red house by a lake", steps=12, seed=7)
    state(page, "done")
    source = place(page.locator("#result img").first)
    page.locator("#send-txt2img-inpaint").click()
    there(page, "inpaint")
    expect(page.locator("#inpaint-prompt textarea")).to_have_value(
        "a photo of a red house by a lake"
    )
    expect(page.locator("#inpaint-runs [data-runs]")).to_have_text(
        "Runs 9 of 12 steps at this strength."
    )
    assert painted(page, "inpaint") == 0

    stroke(page, "inpaint", (0.4, 0.6), (0.6, 0.6), 30)
    whole = painted(page, "inpaint")
    assert 1000 < whole < 5000
    page.keyboard.press("e")
    expect(easel(page, "inpaint").locator("[data-act=eraser]")).to_have_attribute(
        "aria-pressed", "true"
    )
    for _ in range(3):
        page.keyboard.press("[")
    assert int(easel(page, "inpaint").locator(".easel-size").input_value()) < 20
    stroke(page, "inpaint", (0.5, 0.6), (0.6, 0.6))
    less = painted(page, "inpaint")
    assert 0 < less < whole
    page.keyboard.press("Control+z")
    assert painted(page, "inpaint") == whole
    page.keyboard.press("Control+Shift+z")
    assert painted(page, "inpaint") == less
    page.keyboard.press("i")
    assert painted(page, "inpaint") == 128 * 128 - less
    page.keyboard.press("i")
    easel(page, "inpaint").locator("[data-act=clear]").click()
    assert painted(page, "inpaint") == 0
    easel(page, "inpaint").locator("[data-act=undo]").click()
    page.keyboard.press("Control+z")
    assert painted(page, "inpaint") == whole
    for act in ("nearer", "nearer", "fit"):
        easel(page, "inpaint").locator(f"[data-act={act}]").click()
    page.keyboard.press("b")
    easel(page, "inpaint").locator(
        "[data-act=nearer]"
    ).click()  # a stroke over a zoomed picture lies where it is seen
    stroke(page, "inpaint", (0.5, 0.5), (0.5, 0.5))
    assert whole < painted(page, "inpaint") < whole + 2000
    page.keyboard.press("Control+z")

    assert [tab.inner_text() for tab in page.get_by_role("tab").all()][:4] == [
        "txt2img",
        "img2img",
        "Inpaint",
        "Upscale",
    ]
    say(page, "inpaint", prompt="a photo of a blue house by a lake", strength=1, mask_blur=2)
    shot(page, "inpaint-painted")
    made = generate(page, "inpaint")
    request = GenerationRequest(**read_image_settings(made).values)
    inputs = Inputs(load(home=shared.home))
    mask = np.asarray(inputs.load_mask(request.mask)).astype(int)
    assert (mask == 255).sum() == whole
    assert set(np.unique(mask)) == {0, 255}
    assert (pixels(inputs.get_path(request.image)) == pixels(source)).all()
    near = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((128, 128)))
    reach = np.pad(near, 16)
    close = (
        np.max(
            [
                reach[16 + y : 144 + y, 16 + x : 144 + x]
                for y in range(-12, 13, 4)
                for x in range(-12, 13, 4)
            ],
            axis=0,
        )
        > 0
    )
    changed = (pixels(made) != pixels(source)).any(axis=2)
    assert changed[mask == 255].mean() > 0.9
    assert not changed[~close].any()

    page.locator("#inpaint-beside").click()
    expect(page.locator("#inpaint-compare-slider img")).to_have_count(2)
    assert {place(image) for image in page.locator("#inpaint-compare-slider img").all()} == {
        made,
        inputs.get_path(request.image),
    }
    page.wait_for_timeout(300)
    shot(page, "inpaint-slider")
    page.locator("#inpaint-beside").click()
    expect(page.locator("#inpaint-result img").first).to_be_visible()

    page.locator("#send-inpaint-inpaint").click()  # work on the result
    expect(easel(page, "inpaint")).to_have_attribute("data-painted", "0")
    page.locator("#send-inpaint-img2img").click()
    there(page, "img2img")
    expect(page.locator("#img2img-prompt textarea")).to_have_value(
        "a photo of a blue house by a lake"
    )
    page.reload()  # what was asked for last comes back, its mask too
    expect(page.locator("#estimate")).to_contain_text("steps")
    go(page, "Inpaint")
    expect(easel(page, "inpaint")).to_have_attribute("data-painted", str(whole))


@pytest.mark.slow
def test_the_part_that_will_be_painted_is_drawn_around(
    shared: Studio,
    visit: Callable[..., Page],
) -> None:
    page = visit(shared)
    go(page, "Inpaint")
    if easel(page, "inpaint").get_attribute("data-state") != "empty":
        easel(page, "inpaint").locator("[data-act=remove]").click()
    choose(page, "inpaint", "grey.png", png(Image.new("RGB", (256, 128), "grey")))
    there(page, "inpaint")
    stroke(page, "inpaint", (0.5, 0.5), (0.5, 0.5), 20)
    assert painted(page, "inpaint")
    assert not easel(page, "inpaint").get_attribute("data-box")  # the whole picture is painted
    page.locator("#inpaint-inpaint-area input").click()
    page.get_by_role("option", name="only masked").click()

    def box(fits: Callable[[list[int]], bool]) -> list[int]:
        end, found = time.monotonic() + 20, list[int]()
        while not (found and fits(found)):
            assert time.monotonic() < end, found
            page.wait_for_timeout(50)
            found = [
                int(part)
                for part in (easel(page, "inpaint").get_attribute("data-box") or "").split(",")
                if part
            ]
        return found

    first = box(lambda one: one[2] - one[0] == one[3] - one[1])  # as square as what is painted
    assert 64 < first[0] < 128 - 32
    assert 128 + 32 < first[2] < 192
    assert (first[0] + first[2]) // 2 in (127, 128)
    shot(page, "inpaint-framed")
    say(page, "inpaint", mask_padding=0)
    close = box(lambda one: one[2] < first[2])
    assert close[0] > first[0]
    stroke(page, "inpaint", (0.7, 0.5), (0.7, 0.5), 20)
    wide = box(lambda one: one[2] > close[2] + 30)
    say(page, "inpaint", prompt="a red ball", steps=3, seed=3)
    made = generate(page, "inpaint")
    changed = (pixels(made) != 128).any(axis=2)
    rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
    assert wide[0] <= columns[0]
    assert columns[-1] < wide[2]
    assert wide[1] <= rows[0]
    assert rows[-1] < wide[3]
    page.keyboard.press("Control+z")
    page.locator("#inpaint-inpaint-area input").click()
    page.get_by_role("option", name="whole image").click()
    expect(easel(page, "inpaint")).to_have_attribute("data-box", "")


@pytest.mark.slow
def test_a_drawing_becomes_a_picture_and_a_larger_one(
    shared: Studio,
    visit: Callable[..., Page],
) -> None:
    page = visit(shared)
    go(page, "img2img")
    if easel(page, "img2img").get_attribute("data-state") != "empty":
        easel(page, "img2img").locator("[data-act=remove]").click()
    shot(page, "img2img-empty")
    easel(page, "img2img").locator("[data-act=blank]").click()
    there(page, "img2img")
    easel(page, "img2img").locator(".easel-colour").fill("#1d4ed8")
    stroke(page, "img2img", (0.46, 0.6), (0.54, 0.6), 40)
    say(page, "img2img", prompt="a photo of a blue ball on a beach", steps=12, strength=0.8, seed=3)
    expect(page.locator("#img2img-runs [data-runs]")).to_have_text(
        "Runs 9 of 12 steps at this strength."
    )
    shot(page, "img2img-sketch")
    made = generate(page, "img2img")
    shot(page, "img2img-done")
    request = GenerationRequest(**read_image_settings(made).values)
    drawn = pixels(Inputs(load(home=shared.home)).get_path(request.image))
    assert request.task == "img2img"
    assert request.strength == 0.8
    assert (drawn == [0x1D, 0x4E, 0xD8]).all(axis=2).sum() > 1000
    assert (drawn == 255).all(axis=2).sum() > 5000
    assert np.abs(pixels(made) - drawn).mean() > 20  # not the drawing

    page.locator("#img2img-resize > button").click()
    page.locator("#img2img-by input").first.fill("1.5")
    page.locator("#img2img-by input").first.blur()
    expect(page.locator("#img2img-width input")).to_have_value("192")
    page.locator("#redraw-img2img").click()
    expect(page.locator("#img2img-runs [data-runs]")).to_contain_text("only enlarged")
    expect(page.locator("#img2img-estimate")).to_contain_text("256 × 256")
    large = generate(page, "img2img")
    assert Image.open(large).size == (256, 256)
    small = Image.open(made).convert("RGB").resize((256, 256), Image.Resampling.LANCZOS)
    assert (
        np.abs(pixels(large) - np.asarray(small).astype(int)).mean() < 25
    )  # the same picture, larger

    page.locator("#img2img-strip button").first.click()
    page.locator("#send-img2img-txt2img").click()
    expect(page.locator("#txt2img-prompt textarea")).to_have_value(
        "a photo of a blue ball on a beach"
    )


@pytest.mark.slow
def test_more_around_a_picture(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared)
    go(page, "Inpaint")
    picture = (
        Image.open(next(Path("assets/datasets/moon").glob("*.png")))
        .convert("RGB")
        .resize((128, 128))
    )
    choose(page, "inpaint", "moon.png", png(picture))
    there(page, "inpaint")
    page.locator("#inpaint-way").get_by_label("Outpaint", exact=True).check()
    say(page, "inpaint", extend_left=32, extend_bottom=64, prompt="a photo of a moon", seam_blur=0)
    expect(page.locator("#inpaint-easel .easel-foot")).to_contain_text("128 × 128 → 160 × 192")
    expect(page.locator("#inpaint-width input")).to_have_value("160")
    expect(page.locator("#inpaint-height input")).to_have_value("192")
    expect(easel(page, "inpaint").locator("[data-act=brush]")).to_be_hidden()
    shot(page, "outpaint")
    made = generate(page, "inpaint")
    assert Image.open(made).size == (160, 192)
    assert (pixels(made)[:128, 32:] == pixels(io.BytesIO(png(picture)))).all()
    page.locator("#inpaint-beside").click()
    expect(page.locator("#inpaint-compare-slider img")).to_have_count(2)
    shot(page, "outpaint-slider")
    page.locator("#inpaint-way").get_by_label("Inpaint", exact=True).check()
    expect(easel(page, "inpaint").locator("[data-act=brush]")).to_be_visible()
    expect(page.locator("#inpaint-easel .easel-foot")).to_contain_text("128 × 128 · paint over")


@pytest.mark.slow
def test_hostile_pictures_are_refused_in_words_and_good_ones_follow(
    shared: Studio,
    visit: Callable[..., Page],
) -> None:
    name = "\"><img src=x onerror=document.title='pwned'>.png"
    half = png(Image.effect_noise((64, 64), 90).convert("RGB"))[:900]
    for tab, title in (("img2img", "img2img"), ("inpaint", "Inpaint")):
        page = visit(shared)
        go(page, title)
        for data, why in (
            (b"<script>alert(1)</script>", "not a readable image"),
            (half, "damaged or cut off"),
            (png(Image.new("1", (13000, 13000))), "million"),
            (png(Image.new("RGB", (3, 3))), "only 3 x 3"),
        ):
            choose(page, tab, name, data)
            toast = page.locator(".toast-body").filter(has_text=re.compile(why)).first
            expect(toast).to_be_visible()
            assert "Traceback" not in toast.inner_text()
        cut = Image.new("RGBA", (96, 64), (200, 30, 30, 255))
        cut.paste((0, 0, 0, 0), (0, 0, 48, 64))
        choose(page, tab, name, png(cut))
        there(page, tab)
        expect(page.locator(f"#{tab}-easel .easel-foot")).to_contain_text("96 × 64")
        assert page.title() == "Studio"
    easel(page, "inpaint").locator("[data-act=alpha]").click()
    expect(easel(page, "inpaint")).to_have_attribute("data-painted", str(48 * 64))
    with page.expect_file_chooser() as chooser:
        easel(page, "inpaint").locator("[data-act=mask]").click()
    chooser.value.set_files(
        {"name": "mask.png", "mimeType": "image/png", "buffer": png(Image.new("L", (32, 32), 255))}
    )
    expect(page.locator(".toast-body").filter(has_text="mask.png is 32 × 32")).to_be_visible()
    expect(easel(page, "inpaint")).to_have_attribute(
        "data-painted", str(48 * 64)
    )  # the mask that was there is still there


@pytest.mark.slow
def test_many_pictures_and_any_two_compared(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared)
    go(page, "img2img")
    page.locator("#img2img-many button").first.click()
    say(page, "img2img", prompt="a cartoon of a moon", steps=4, strength=0.5)
    files = sorted(Path("assets/datasets/mysks").glob("*.png"))[:4]
    page.locator("#img2img-files input[type=file]").set_input_files([*files, Path("README.md")])
    expect(page.locator("#img2img-files")).to_contain_text("README")
    page.locator("#img2img-start").click()
    expect(page.locator("#img2img-list [data-done='4'][data-failed='1']")).to_be_visible(
        timeout=90_000
    )
    expect(page.locator("#img2img-list .one[data-state=failed]")).to_contain_text(
        "README.md is not a readable image"
    )
    page.locator("#img2img-list").scroll_into_view_if_needed()
    page.reload()
    go(page, "img2img")
    page.locator("#img2img-many button").first.click()
    expect(page.locator("#img2img-list [data-done='4'][data-failed='1']")).to_be_visible()
    go(page, "Gallery")
    tiles = page.locator("#gallery-grid .images-tile")
    tiles.nth(0).click()
    expect(page.locator("#gallery-view img")).to_be_visible()
    one = body(page, page.locator("#gallery-view img"))
    page.locator("#gallery-pin").click()
    expect(page.locator("#gallery-pin")).to_have_text("Unpin")
    tiles.nth(1).click()
    sides = page.locator("#gallery-compare-slider img")
    expect(sides).to_have_count(2)
    assert one in [body(page, side) for side in sides.all()]
    shot(page, "gallery-compare")
    page.locator("#gallery-strip button").first.click()
    page.locator("#gallery-strip-make").click()
    expect(page.locator("#gallery-strip-sheet .strip-sheet img")).to_be_visible(timeout=60_000)


@pytest.mark.slow
def test_a_large_picture_is_fluent_under_the_brush(
    shared: Studio,
    visit: Callable[..., Page],
) -> None:
    page = visit(shared)
    go(page, "Inpaint")
    choose(
        page,
        "inpaint",
        "large.png",
        png(Image.effect_noise((256, 256), 90).convert("RGB").resize((2048, 1536))),
    )
    there(page, "inpaint")
    began = time.monotonic()
    for k in range(4):
        stroke(page, "inpaint", (0.3, 0.3 + k / 10), (0.7, 0.3 + k / 10), 120)
    took = (time.monotonic() - began) / 4
    print(f"a stroke over 2048 × 1536: {took:.2f} s")
    assert painted(page, "inpaint") > 200_000
    assert took < 3


@pytest.mark.slow
def test_a_phone_paints_and_sees_all_of_it(
    shared: Studio,
    visit: Callable[..., Page],
    chromium: Browser,
) -> None:
    page = visit(shared, width=390)
    go(page, "Inpaint")
    choose(page, "inpaint", "p.png", png(Image.new("RGB", (128, 128), (90, 140, 60))))
    there(page, "inpaint")
    stroke(page, "inpaint", (0.3, 0.5), (0.7, 0.5), 30)
    assert painted(page, "inpaint") > 500
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shot(page, "phone-inpaint")
    say(page, "inpaint", prompt="a red ball", steps=2)
    generate(page, "inpaint")
    result, strength = (
        page.locator(f"#inpaint-{name}").bounding_box() for name in ("result", "strength")
    )
    assert result
    assert strength
    assert result["y"] < strength["y"]  # what comes of it stands before the settings
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
