"""The page in a real browser: typed into, clicked, watched, dropped on, closed, killed under."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from studio.settings import shipped
from studio.storage.gallery import read_image_settings
from support.browser import Studio, ask, put, shot, shown, state


def seen(data: bytes) -> tuple[str, ...]:
    """What the judge, which never learned from generated pictures, sees in it: colour, thing, place, style."""
    from studio.pocket.data import to_tensor
    from studio.pocket.judge import Judge

    judge = Judge.load(shipped("assets") / "pocket" / "judge")
    found = judge.predict_labels(
        to_tensor(np.array(Image.open(BytesIO(data)).convert("RGB"))[None])
    )
    return tuple(found[head][0] for head in ("colour", "thing", "place", "style"))


@pytest.mark.slow
def test_a_prompt_goes_in_and_a_picture_that_follows_it_comes_out(
    shared: Studio, visit: Callable[..., Page]
) -> None:
    page = visit(shared)
    shot(page, "empty")
    put(page, seed=3, guidance=5)
    page.locator("#txt2img-prompt textarea").fill("a photo of a red ball on a beach")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#live .making")).to_be_visible()
    state(page, "done")
    red = shown(page)
    expect(page.locator("#estimate")).to_contain_text("20 steps · about")  # measured by now
    shot(page, "done")
    files = list((shared.home / "outputs").rglob("*.png"))
    assert [file.read_bytes() for file in files] == [red]  # the very file, not one encoded again
    request = read_image_settings(files[0]).values
    assert (request["prompt"], request["seed"], request["steps"]) == (
        "a photo of a red ball on a beach",
        3,
        20,
    )
    expect(page.locator("#about")).to_contain_text("a red ball on a beach")
    ask(page, prompt="a cartoon of a blue house in a desert", seed=3, guidance=5)
    expect(page.locator("#about")).to_contain_text("blue")
    assert seen(red) == ("red", "ball", "on a beach", "photo")
    assert seen(shown(page)) == (
        "blue",
        "house",
        "in a desert",
        "cartoon",
    )  # no constant picture is both
    page.locator("#reuse-seed").click()
    expect(page.locator("#txt2img-seed input")).to_have_value("3")


@pytest.mark.slow
def test_watch_reload_and_stop(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared)
    ask(page, prompt="a green boat by a lake", steps=150, num_images=20, seed=5)
    expect(page.locator("#live .making img")).to_be_visible()  # the picture so far
    expect(page.locator("#live")).to_contain_text(re.compile(r"step \d+ of 3000.*left"))
    before = page.locator("#live .making img").get_attribute("src")
    expect(page.locator("#live .making img")).not_to_have_attribute("src", str(before))
    shot(page, "making")
    page.reload()  # closed and opened again: it takes up what it left
    expect(page.locator("#live .making img")).to_be_visible()
    expect(page.locator("#txt2img-prompt textarea")).to_have_value("a green boat by a lake")
    expect(page.locator("#txt2img-num-images input").first).to_have_value("20")
    page.locator("#stop").click()
    state(page, "cancelled")
    expect(page.locator("#stop")).to_be_disabled()


@pytest.mark.slow
def test_a_picture_dropped_back_gives_its_settings(
    shared: Studio, visit: Callable[..., Page], tmp_path: Path
) -> None:
    page = visit(shared)
    ask(
        page,
        prompt='a "small", yellow car: on a road\nSteps: 3',
        negative_prompt="fog",
        steps=4,
        guidance=3.5,
        seed=11,
    )
    state(page, "done")
    file = tmp_path / "mine.png"
    file.write_bytes(shown(page))
    page.locator("#reuse-seed").wait_for()
    other = visit(shared)
    other.locator("#from-picture button").first.click()
    other.locator("#drop input[type=file]").set_input_files(file)
    expect(other.locator("#txt2img-prompt textarea")).to_have_value(
        'a "small", yellow car: on a road\nSteps: 3'
    )
    expect(other.locator("#txt2img-negative-prompt textarea")).to_have_value("fog")
    for name, value in (("steps", "4"), ("guidance", "3.5"), ("seed", "11")):
        expect(other.locator(f"#txt2img-{name} input").first).to_have_value(value)
    (tmp_path / "none.png").write_bytes(b"<svg onload=alert(1)>")
    other.locator("#drop input[type=file]").set_input_files(tmp_path / "none.png")
    expect(other.locator(".toast-body")).to_contain_text("none.png")


@pytest.mark.slow
def test_nonsense_is_refused_in_plain_words(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared)
    ask(page, prompt="a (b:2000)", width=257, seed=-7)
    for field, word in (("prompt", "2000"), ("width", "257"), ("seed", "-7")):
        expect(page.locator(f"#txt2img-{field}-fault")).to_contain_text(word)
    assert "Traceback" not in page.locator("body").inner_text()
    shot(page, "refused")
    expect(page.locator("#live .making")).to_have_count(0)
    ask(
        page, prompt="<img src=x onerror=document.title='pwned'> a ball", width=128, seed=1, steps=2
    )
    state(page, "done")
    expect(page.locator("#about")).to_contain_text("<img src=x")
    assert page.title() == "Studio"


@pytest.mark.slow
def test_what_is_typed_is_what_counts(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared)
    steps, estimate = page.locator("#txt2img-steps input[type=number]"), page.locator("#estimate")
    put(page, steps=12)
    expect(estimate).to_contain_text("12 steps")
    put(page, steps="")  # gradio itself would make that the least there is
    expect(steps).to_have_value("12")
    expect(estimate).to_contain_text("12 steps")
    put(page, steps=999)
    fault = page.locator("#txt2img-steps").locator(".cut, .field-fault")
    expect(fault.first).to_contain_text("150 or less")
    expect(fault).to_have_count(1)
    expect(steps).to_have_value("999")
    put(page, steps=3)
    expect(fault).to_have_count(0)
    page.locator("#txt2img-prompt textarea").fill("a green fish")
    page.evaluate(
        "document.querySelector('#generate').click()"
    )  # at once, and without leaving the field
    state(page, "done")
    expect(page.locator("#about")).to_contain_text("a green fish")


@pytest.mark.slow
def test_two_browsers_never_block_each_other(shared: Studio, visit: Callable[..., Page]) -> None:
    ann, bob = visit(shared), visit(shared)
    ask(ann, prompt="a red ball", steps=150, num_images=50, seed=1)
    expect(ann.locator("#live .making")).to_be_visible()
    ask(bob, prompt="a blue house", steps=3, seed=2)
    expect(bob.locator("#live")).to_contain_text("waiting in the queue")
    for page in (ann, bob):
        page.get_by_role("tab", name="Queue", exact=True).click()
        expect(page.locator("#queue-list .job[data-state=running]")).to_contain_text("a red ball")
        expect(page.locator("#queue-list .job[data-state=queued]")).to_contain_text("a blue house")
    shot(bob, "queue")
    ann.locator("#queue-list .job[data-state=running] [data-action=cancel]").click()
    expect(bob.locator("#queue-list .job").first).to_have_attribute("data-state", "done")
    bob.get_by_role("tab", name="txt2img", exact=True).click()
    state(bob, "done")
    expect(bob.locator("#about")).to_contain_text("a blue house")  # each sees their own
    ann.get_by_role("tab", name="txt2img", exact=True).click()
    state(ann, "cancelled")


@pytest.mark.slow
def test_gallery_presets_models(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared)
    ask(page, prompt="a red ball", steps=2, seed=76)
    state(page, "done")
    ask(page, prompt="a teal lantern", steps=3, seed=77)
    expect(page.locator("#about")).to_contain_text("a teal lantern")
    state(page, "done")
    page.get_by_role("tab", name="Gallery", exact=True).click()
    page.locator("#gallery-search input").fill("teal lantern")
    expect(page.locator("#gallery-count")).to_contain_text("1–1 of 1")
    page.locator("#gallery-grid .images-tile").first.click()
    expect(page.locator("#gallery-about")).to_contain_text("teal lantern")
    shot(page, "gallery")
    page.locator("#gallery-bin").click()
    expect(page.locator("#gallery-count")).to_contain_text("No images match")
    page.locator("#gallery-search input").fill("")
    page.locator("#gallery-grid .images-tile").first.click()
    page.locator("#send-gallery-txt2img").click()
    expect(page.locator("#txt2img-prompt textarea")).to_be_visible()
    expect(page.locator("#txt2img-prompt textarea")).not_to_have_value("a teal lantern")
    page.get_by_role("tab", name="Models", exact=True).click()
    card = page.locator(".card[data-kind=model][data-name=pocket]")
    expect(card).to_contain_text("in memory")
    shot(page, "models")
    card.locator("[data-action=unload]").click()
    expect(card).not_to_contain_text("in memory")
    page.get_by_role("tab", name="txt2img", exact=True).click()
    page.locator("#presets button").first.click()
    put(page, steps=33)
    page.get_by_label("Save as preset").fill("mine")
    page.locator("#presets").get_by_role("button", name="Save").click()
    expect(page.locator("#preset input")).to_have_value("mine")
    put(page, steps=5)
    page.locator("#preset input").click()
    page.get_by_role("option", name="mine").click()
    expect(page.locator("#txt2img-steps input").first).to_have_value("33")


@pytest.mark.slow
def test_a_phone_sees_all_of_it(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared, width=390)
    for name in ("txt2img", "Gallery", "Models", "Queue"):
        if not page.get_by_role("tab", name=name, exact=True).is_visible():
            page.locator("#tabs .overflow-menu button").first.click()
            page.locator("#tabs .overflow-dropdown").get_by_text(name, exact=True).click()
        else:
            page.get_by_role("tab", name=name, exact=True).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        shot(page, f"phone-{name.lower()}")


@pytest.mark.slow
def test_a_killed_worker_is_said_and_replaced(studio: Studio, visit: Callable[..., Page]) -> None:
    page = visit(studio)
    ask(page, prompt="a red ball", steps=60, num_images=3, seed=1)
    expect(page.locator("#live")).to_contain_text(
        re.compile(r"step (6[5-9]|[7-9]\d|1\d\d) of 180")
    )  # the first picture is done
    studio.workers()[0].kill()
    state(page, "interrupted")
    expect(page.locator("#live")).to_contain_text("killed")
    shown(page)  # what was finished is there
    page.get_by_role("tab", name="Queue", exact=True).click()
    page.locator(".job[data-state=interrupted] [data-action=retry]").click()
    expect(page.locator(".job").first).to_have_attribute("data-state", "done", timeout=90_000)
    assert len(list((studio.home / "outputs").rglob("*.png"))) == 4


@pytest.mark.slow
def test_a_killed_page_comes_back_to_its_running_job(
    studio: Studio, visit: Callable[..., Page]
) -> None:
    page = visit(studio)
    ask(page, prompt="a red ball", steps=150, num_images=6, seed=1)
    expect(page.locator("#live .making img")).to_be_visible()
    (worker,) = studio.workers()
    os.kill(studio.process.pid, signal.SIGKILL)
    studio.process.wait()
    time.sleep(0.5)
    assert worker.is_running()
    studio.start()
    page.goto(studio.url)
    expect(page.locator("#live")).to_contain_text(re.compile(r"step \d+ of 900"))
    assert studio.workers() == [worker]  # adopted
    page.locator("#stop").click()
    state(page, "cancelled")
