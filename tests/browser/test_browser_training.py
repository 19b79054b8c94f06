"""The Training tab in a real browser: pictures chosen, planned, trained, stopped, resumed, tried, taken up again."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from safetensors import safe_open

from support.browser import HOSTILE, Studio, fill_training, go, put, run_is, shot, shown, state

pytestmark = pytest.mark.slow  # each trains for a minute or two


def choose(page: Page, name: str, value: str) -> None:
    page.locator(f"#training-{name} input").click()
    page.get_by_role("option", name=value, exact=True).click()


def begin(page: Page, name: str, **fields: object) -> None:
    """The Moon, made short."""
    go(page, "Training")
    choose(page, "dataset", "moon")
    fill_training(
        page,
        name=name,
        trigger="moon",
        steps=40,
        resolution=64,
        rank=4,
        train_batch_size=2,
        learning_rate="0.001",
        **fields,
    )
    expect(page.locator("#train-plan .sum[data-steps='40']")).to_be_visible()


def test_the_moon_from_the_first_click_to_a_picture(
    shared: Studio,
    visit: Callable[..., Page],
    tmp_path: Path,
) -> None:
    page = visit(shared)
    go(page, "Training")
    expect(page.locator(".training-empty")).to_contain_text("Teach a model something new")
    shot(page, "training-empty")

    # a preset fills in everything, nothing runs
    page.get_by_role("button", name="The Moon, in a few minutes").click()
    expect(page.locator("#train-pictures .dataset")).to_contain_text("24 images")
    expect(page.locator("#train-pictures")).to_contain_text("all captioned")
    expect(page.locator("#train-pictures img")).to_have_count(8)
    expect(page.locator("#train-plan .sum")).to_contain_text(
        "24 images × 1 repeat ÷ batch 4 × 41.7 epochs = 250 steps"
    )
    expect(page.locator("#training-name input, #training-name textarea").first).to_have_value(
        "moon"
    )

    # the rest can be searched
    page.locator("#train-rest > button").click()
    page.locator("#train-find input").fill("min-snr")
    expect(page.locator(".training-group [id^=training-]:visible")).to_have_count(1)
    page.locator("#train-find input").fill("every samples")
    expect(page.locator("#training-sample-every")).to_be_visible()
    expect(page.locator("#training-rank")).to_be_visible()
    expect(page.locator("#training-lr-warmup")).not_to_be_visible()
    shot(page, "training-search")
    page.locator("#train-find input").fill("")
    expect(page.locator("#training-lr-warmup")).to_be_visible()
    shot(page, "training-settings")

    # short, and tried before it begins
    fill_training(
        page,
        steps=300,
        rank=4,
        train_batch_size=2,
        name="little moon",
        sample_every=100,
        checkpoint_every=100,
        validation_split=0.1,
        sample_prompts=f"a photo of a moon in the night sky\na moon {HOSTILE}",
        validate_every=50,
    )
    page.locator("#train-rest > button").click()
    expect(page.locator("#train-plan .sum")).to_contain_text("= 300 steps")
    page.locator("#train-try").click()
    expect(page.locator("#train-plan .cost")).to_contain_text(
        re.compile(r"About .* per step\) · .*iB of .*iB free"), timeout=90_000
    )
    shot(page, "training-planned")

    # watched, and stopped
    page.locator("#training-name").locator("input, textarea").first.focus()
    page.keyboard.press("Control+Enter")
    run_is(page, "running")
    expect(page.locator("#run-head .plan")).to_contain_text("of 300")
    expect(page.locator("#run-samples img").first).to_be_visible(timeout=60_000)
    expect(page.locator("#run-curve polyline.smooth")).to_have_count(1, timeout=60_000)
    expect(page.locator("#run-files li[data-step='100']")).to_be_visible(timeout=90_000)
    shot(page, "training-running")
    page.locator("#train-stop").click()
    run_is(page, "cancelled")
    expect(page.locator("#run-head")).to_contain_text("Resume goes on from there")
    expect(page.locator("#train-stop")).to_be_disabled()
    shot(page, "training-stopped")
    assert not (shared.home / "loras" / "little moon.safetensors").exists()

    # a page opened later finds it, and it goes on
    page.reload()
    go(page, "Training")
    run_is(page, "cancelled")
    expect(page.locator("#training-name").locator("input, textarea").first).to_have_value(
        "little moon"
    )
    page.locator("#run-resume").click()
    run_is(page, "queued", "running")
    page.reload()
    go(page, "Training")
    run_is(page, "running", "done")
    run_is(page, "done")
    expect(page.locator("#run-samples .film").first.locator("img")).to_have_count(4)
    expect(page.locator("#run-samples .film")).to_have_count(2)
    for image in page.locator("#run-samples .film").first.locator("img").all():
        assert page.request.get(str(image.evaluate("image => image.src"))).body()[:4] == b"\x89PNG"
    expect(page.locator("#run-curve polyline.held")).to_have_count(1)
    assert page.title() == "Studio"
    shot(page, "training-done")

    # its file, and that of a checkpoint
    file = shared.home / "loras" / "little moon.safetensors"
    assert file.is_file()
    with page.expect_download() as download:
        page.locator("#run-files li[data-lora='little moon'] a").click()
    download.value.save_as(tmp_path / "it.safetensors")
    assert (tmp_path / "it.safetensors").read_bytes() == file.read_bytes()
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["ss_network_dim"] == "4"
    page.locator("#run-files li[data-step='100'] button").click()
    expect(page.locator("#run-files li[data-lora='little moon-step000100']")).to_be_visible(
        timeout=60_000
    )
    shot(page, "training-exported")

    # tried where pictures are made
    page.locator("#run-files li[data-lora='little moon'] button[data-action=try]").click()
    expect(page.locator("#txt2img-prompt textarea")).to_have_value(
        "a photo of a moon in the night sky"
    )
    row = page.locator('#txt2img-loras .lora[data-lora="little moon"]')
    expect(row).to_contain_text("rank 4")
    expect(row.locator(".lora-problem")).to_have_count(0)
    put(page, steps=3)
    page.locator("#generate").click()
    state(page, "done")
    expect(page.locator("#about")).to_contain_text("LoRA little moon")
    shown(page)
    page.locator("#txt2img-lora-choose input").click()
    expect(page.get_by_role("option", name="little moon", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    go(page, "Queue")
    expect(page.locator("#queue-list")).to_contain_text("training of little moon: 300 steps")


def test_nonsense_is_refused_in_words(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared)
    go(page, "Training")
    choose(page, "dataset", "moon")
    expect(page.locator("#training-name").locator("input, textarea")).to_have_value("moon")
    fill_training(page, name="../moon", learning_rate=-1, rank=0, epochs=3)
    for said in ("Name", "Learning rate", "Rank"):
        expect(page.locator("#train-plan .faults")).to_contain_text(said)
    page.locator("#train-start").click()
    for field in ("name", "learning-rate", "rank"):
        expect(page.locator(f"#training-{field}-fault")).to_be_visible()
    expect(page.locator("#training-name").locator("input, textarea").first).to_be_focused()
    expect(page.locator(".toast-body")).to_have_count(0)
    shot(page, "training-refused")
    fill_training(page, name="moon", learning_rate="0.001", rank=4)
    expect(page.locator("#train-plan .faults")).to_contain_text("are both set")
    fill_training(page, steps="")
    expect(page.locator("#train-plan .sum")).to_contain_text(
        "24 images × 1 repeat ÷ batch 1 × 3 epochs = 72 steps"
    )
    fill_training(page, model=HOSTILE)
    expect(page.locator("#train-plan .faults")).to_contain_text("<img src=x")
    assert page.title() == "Studio"


def test_a_kohya_file_is_taken_and_every_key_said(
    shared: Studio,
    visit: Callable[..., Page],
    tmp_path: Path,
) -> None:
    file = tmp_path / "moon <b>.toml"
    file.write_text(f"""pretrained_model_name_or_path = "pocket"
train_data_dir = "{tmp_path}/moon"
output_name = "from kohya"
epoch = 20
max_train_steps = 160
network_dim = 8
network_alpha = 4
learning_rate = 0.0002
train_batch_size = 2
resolution = "64,64"
nonsense_key = "<script>"
network_module = "networks.lora"
""")
    page = visit(shared)
    go(page, "Training")
    choose(page, "dataset", "moon")
    page.locator("#train-kohya > button").click()
    with page.expect_file_chooser() as chooser:
        page.locator("#train-upload").click()
    chooser.value.set_files(file)
    expect(page.locator("#train-notices tr.conflicting")).to_contain_text("epoch")
    expect(page.locator("#train-notices tr.unsupported")).to_contain_text("nonsense_key")
    expect(page.locator("#training-rank input").first).to_have_value("8")
    expect(page.locator("#train-plan .sum")).to_contain_text("= 160 steps")
    shot(page, "training-kohya")
    page.locator("#train-meant input").check()
    expect(page.locator("#train-plan .sum")).to_contain_text("× 20 epochs = 240 steps")


def test_earlier_trainings_are_opened_and_deleted(
    shared: Studio,
    visit: Callable[..., Page],
) -> None:
    page = visit(shared)
    begin(page, "brief")
    page.locator("#train-start").click()
    run_is(page, "done")
    page.locator("#train-shelf > button").click()
    row = page.locator("#train-list .shelved", has_text="brief")
    expect(row).to_contain_text("done")
    shot(page, "training-shelf")
    row.get_by_role("button", name="Delete").click()
    expect(row).to_contain_text("Its LoRA files are kept")
    row.get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)
    assert (shared.home / "loras" / "brief.safetensors").is_file()


def test_a_phone_sees_all_of_it(shared: Studio, visit: Callable[..., Page]) -> None:
    page = visit(shared, width=390)
    begin(
        page,
        "pocket moon",
        sample_prompts="a photo of a moon",
        sample_every=10,
        checkpoint_every=20,
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shot(page, "phone-training-settings")
    page.locator("#train-rest > button").click()
    shot(page, "phone-training")
    page.locator("#train-start").click()
    run_is(page, "done")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#run-head").scroll_into_view_if_needed()
    shot(page, "phone-training-done")
