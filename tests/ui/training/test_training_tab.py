"""The Training tab without a browser: every setting has its place, what is said before a run, whose a run is, its HTML."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from studio.core.jobs import describe_job
from studio.core.training.config import BASIC_FIELDS, TrainingConfig
from studio.errors import BadFile, Busy, DatasetError, InvalidSpec
from studio.services.submission import Services
from studio.services.urls import file_url
from studio.storage.training.runs import Run, Sample
from studio.ui.tabs.training import plan
from studio.ui.tabs.training.advanced import FIELD_GROUPS
from studio.ui.tabs.training.tab import TrainingTab
from studio.ui.views import training
from support.models import make_toy
from support.sentences import refused
from support.training_tab import config
from support.unopened_page import unopened_page
from support.visitors import ANN, BOB, HOSTILE, OWNER, pressed


@pytest.mark.smoke
def test_every_setting_stands_on_the_page_once(tab: TrainingTab) -> None:
    placed = [*BASIC_FIELDS, *(name for _, names in FIELD_GROUPS for name in names)]
    assert sorted(placed) == sorted(TrainingConfig.model_fields)
    assert tab.form.inputs == {tab.form[name] for name in TrainingConfig.model_fields}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"scale_parameter": False, "optimizer": "Adafactor"},
        {"steps": None, "epochs": 3},
        {"scale_parameter": True, "optimizer": "Adafactor"},
    ],
    ids=str,
)
def test_settings_survive_the_page(values: dict[str, Any], tab: TrainingTab) -> None:
    wanted = config(**values)
    assert tab.form.read(tab.form.fill(wanted)) == wanted


def test_the_plan_is_a_sum_and_knows_what_was_tried(tab: TrainingTab, desk: Services) -> None:
    told = plan.render_plan(desk, config(steps=None, epochs=10, repeats=2), OWNER)
    assert "24 images × 2 repeats ÷ batch 2 × 10 epochs = <b>240 steps" in told
    assert "not known yet" in told
    job = desk.submit_training_dry_run(config(), OWNER)
    desk.home.jobs.claim("cpu")
    desk.home.jobs.finish(job, "done", {"cost": {"seconds": 0.5, "working": 2**30, "room": 2**33}})
    assert "About 20 s (0.5 s per step) · needs 1.0 GiB of 8.0 GiB free" in plan.render_plan(
        desk, config(learning_rate=1.0), OWNER
    )
    assert "not known yet" in plan.render_plan(desk, config(rank=32), OWNER)
    assert "not known yet" in plan.render_plan(desk, config(), ANN)  # somebody else's try


def test_the_plan_says_layers_numbers_and_the_files_size_of_each_kind(desk: Services) -> None:
    sizes = {}
    for network_type in ("LoRA", "LoHa", "LoKr"):
        for use_dora in (False, True):
            told = plan.describe_layers(desk, config(network_type=network_type, use_dora=use_dora))
            kind, _, rest = told.partition(" on ")
            assert kind == network_type + " with DoRA" * use_dora
            assert re.fullmatch(
                r"\d+ layers · [\d,]+ parameters · file size about [\d.]+ [KM]iB", rest
            )
            sizes[kind] = int(rest.partition("· ")[2].partition(" ")[0].replace(",", ""))
    assert sizes["LoHa"] == 2 * sizes["LoRA"]
    assert sizes["LoKr"] < sizes["LoRA"] < sizes["LoRA with DoRA"]
    shown = plan.render_plan(desk, config(network_type="LoKr"), OWNER)
    assert "LoKr on " in shown
    with refused(InvalidSpec):
        plan.render_plan(desk, config(targets="patterns", target_modules="unet.none"), OWNER)


def test_what_cannot_begin_is_refused_in_words(desk: Services) -> None:
    with refused(DatasetError) as caught:
        desk.submit_training(config(dataset="mon"), OWNER)
    assert "moon" in str(caught.value)
    with refused(InvalidSpec, "Rank") as caught:
        desk.submit_training(config(rank=65), ANN)
    assert "64" in str(caught.value)
    own = desk.home.settings.home / "datasets" / "family"
    own.mkdir(parents=True)
    (own / "a.png").write_bytes(
        (desk.home.training_sets.find_folder("moon") / "000.png").read_bytes()
    )
    assert desk.check_training(config(dataset="family"), OWNER).images_per_epoch == 1
    with refused(DatasetError):
        desk.submit_training(config(dataset="family"), ANN)
    assert "guests may train on" in plan.render_dataset(desk, "family", ANN)
    assert desk.list_datasets(ANN) == [
        "moon",
        "mysks",
    ]


def test_a_model_made_for_inpainting_is_not_offered_and_refused_in_words(desk: Services) -> None:
    make_toy(
        desk.home.settings.models / "nine",
        "StableDiffusionInpaintPipeline",
        32,
        "epsilon",
        channels=9,
    )
    with unopened_page():
        tab = TrainingTab(desk)
    assert [name for name, _ in tab.form["model"].choices] == ["pocket"]
    typed = {**tab.form.fill(config()), tab.form["model"]: "nine"}
    assert "the inpainting model nine" in tab._render_plan(typed, OWNER)


def test_a_guest_sees_and_changes_only_own_runs(tab: TrainingTab, desk: Services, by: Any) -> None:
    id, job = desk.submit_training(config(), ANN)
    for visitor, may in ((ANN, True), (BOB, False), (OWNER, True)):
        assert (tab.view.find_run(id, visitor) is not None) is may
        assert (id in tab._render_run_list(visitor, "")) is may
    with pytest.raises(Busy):
        desk.submit_training(None, ANN, id)
    tab.view.cancel_jobs(id, by(BOB))
    assert [one.state for one in desk.home.jobs.list_open()] == ["queued"]
    with refused(gr.Error):
        tab.handle_run_action("", pressed("delete", id), by(ANN))
    tab.view.cancel_jobs(id, by(ANN))
    for attempt in (
        lambda: desk.submit_training(None, BOB, id),
        lambda: desk.submit_checkpoint_export(id, 1, BOB),
    ):
        with refused(BadFile):
            attempt()
    assert describe_job("train", desk.home.jobs.get(job).spec) == "training of moon: 40 steps"  # type: ignore[union-attr]
    assert (
        desk.home.jobs.get(desk.submit_training(None, ANN, id, restart=True)[1]).spec["resume"]
        is False
    )  # type: ignore[union-attr]


def test_nothing_of_a_users_is_taken_for_html(tmp_path: Path) -> None:
    run = Run("0" * 12, "ann", time.time(), config(trigger="m"), tmp_path, {}, {})
    rows = [{"step": k, "loss": 1 / k, "smoothed": 1 / k} for k in range(1, 900)] + [
        {"step": 9, "validation": 0.2}
    ]
    texts = [
        training.render_header(run, HOSTILE, 0.5, HOSTILE, [(HOSTILE, HOSTILE)]),
        training.render_run_list([(run, HOSTILE, 1, True)]),
        training.render_samples(
            [Sample(0, 0, 1, HOSTILE, tmp_path / HOSTILE.replace("/", ""))], file_url, ""
        ),
        training.render_files([(HOSTILE, HOSTILE, 5, 1)], [], []),
        training.render_notes([HOSTILE], HOSTILE),
        training.render_loss_curve(rows, 900),
        training.render_import_notices(HOSTILE, [], [HOSTILE]),
        training.render_plan(
            run.config,
            24,
            num_validation=0,
            total_steps=40,
            layers=HOSTILE,
            cost=HOSTILE,
            is_estimate=True,
        ),
    ]
    for text in texts:
        assert "<script" not in text
        assert "<img src=x" not in text
        assert 'onerror="' not in text
    assert len(training.downsample([(float(k), float(k % 7)) for k in range(5000)])) <= 400
    assert training.render_loss_curve([], 10) == ""
    assert "polyline" in training.render_loss_curve([{"step": 1, "loss": 0.0}], 10)
