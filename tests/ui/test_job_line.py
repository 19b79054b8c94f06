"""The job in the header: which one, its place in line, what it waits for, and who may read what."""

from __future__ import annotations

import re
from typing import Any

import gradio as gr
import pytest

from studio.core.generation.request import GenerationRequest
from studio.core.jobs import DOWNLOAD, GENERATE, SWEEP, TRAIN, UPSCALE
from studio.services.job_in_view import find_job_in_view
from studio.services.submission import Services
from studio.services.visitor import Visitor
from studio.storage.jobs import Progress
from studio.ui.components.job_line import JobLine
from studio.ui.components.notice import Notice
from studio.ui.views.job_line import describe_place, find_tab, format_ordinal
from support.unopened_page import unopened_page
from support.visitors import ANN, BOB, HOSTILE, OWNER

TRAINING = {"run": "x", "name": "secret plush", "steps": 100}
TITLES = {"txt2img": "txt2img", "queue": "Queue"}
REQUEST = GenerationRequest(prompt="a boat", width=64, height=64).model_dump(mode="json")


@pytest.fixture
def line(desk: Services) -> JobLine:
    with unopened_page():
        return JobLine(desk.home, TITLES)


def submit(desk: Services, kind: str, spec: dict[str, Any], visitor: Visitor = OWNER) -> int:
    return desk.home.jobs.submit(kind, spec, visitor.id, tab=visitor.tab)


def start(desk: Services, job_id: int, **progress: Any) -> None:
    desk.home.jobs.claim("cpu", job_id)
    desk.home.jobs.report_progress(job_id, Progress(**progress))


def place(desk: Services, visitor: Visitor = OWNER) -> str:
    shown = find_job_in_view(desk.home, visitor)
    assert shown
    return describe_place(shown)


def test_nothing_is_there_while_nothing_runs(desk: Services, line: JobLine) -> None:
    assert line.render(OWNER) == ""
    job_id = submit(desk, GENERATE.name, REQUEST)
    assert line.render(OWNER)
    desk.home.jobs.cancel(job_id)
    assert line.render(OWNER) == ""


def test_a_running_job_says_how_far_it_is(desk: Services, line: JobLine) -> None:
    start(desk, submit(desk, GENERATE.name, REQUEST), step=5, total=20, eta_seconds=30)
    assert place(desk) == "25% · about 30 s left"
    html = line.render(OWNER)
    assert "A boat" in html
    assert 'data-tab="txt2img"' in html
    assert "--done:25%" in html


def test_a_waiting_job_says_its_place_and_what_it_waits_for(desk: Services) -> None:
    start(desk, submit(desk, TRAIN.name, TRAINING), step=1, total=100, eta_seconds=180)
    elsewhere = Visitor(OWNER.id, is_guest=False, tab="other")
    first = submit(desk, SWEEP.name, {"sweep": "s", "cells": 4})
    submit(desk, UPSCALE.name, {"scale": 2}, elsewhere)
    assert place(desk, elsewhere) == "2nd in line, waits for a training"  # who knows a sweep's time
    desk.home.jobs.cancel(first)
    assert place(desk, elsewhere) == "Next in line, waits for a training, about 3 min"


def test_images_ahead_are_counted_as_they_were_measured(
    desk: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(desk, submit(desk, SWEEP.name, {"sweep": "s"}, BOB), step=1, total=4, eta_seconds=10)
    submit(desk, GENERATE.name, REQUEST | {"num_images": 3}, BOB)
    submit(desk, GENERATE.name, REQUEST, ANN)
    monkeypatch.setattr(type(desk.home.gallery), "get_seconds_per_megapixel", lambda *_: 100.0)
    monkeypatch.setattr("studio.services.job_in_view.estimate_unet_work", lambda _request: 0.1)
    assert place(desk, ANN) == "2nd in line, waits for another job, about 40 s"


def test_guests_read_of_their_own_jobs_alone(desk: Services, line: JobLine) -> None:
    start(desk, submit(desk, TRAIN.name, TRAINING), step=1, total=100)
    assert line.render(ANN) == ""
    submit(desk, GENERATE.name, REQUEST | {"prompt": "bob's boat"}, BOB)
    assert line.render(ANN) == ""
    submit(desk, GENERATE.name, REQUEST, ANN)
    html = line.render(ANN)
    assert "A boat" in html
    assert "2nd in line, waits for another job" in html
    for secret in ("plush", "training", "bob", "more"):
        assert secret not in html
    # The owner is told of all, in the Queue.
    assert "Training of secret plush" in line.render(OWNER)


def test_the_own_tabs_job_comes_first_and_leads_to_its_tab(desk: Services) -> None:
    here, there = (Visitor("me", is_guest=False, tab=tab) for tab in ("a", "b"))
    start(desk, submit(desk, TRAIN.name, TRAINING, there), step=1, total=100)
    start(desk, submit(desk, GENERATE.name, REQUEST, here), step=1, total=20)
    shown = {visitor.tab: find_job_in_view(desk.home, visitor) for visitor in (here, there)}
    assert [shown[tab].job.kind for tab in ("a", "b")] == [GENERATE.name, TRAIN.name]  # type: ignore[union-attr]
    assert [find_tab(shown[tab]) for tab in ("a", "b")] == ["txt2img", "training"]  # type: ignore[arg-type]
    assert shown["a"].num_others == 1  # type: ignore[union-attr]
    stranger = find_job_in_view(desk.home, Visitor("you", is_guest=False, tab="a"))
    assert stranger
    assert find_tab(stranger) == "queue"


def test_a_download_does_not_stand_in_the_line_of_the_device(desk: Services) -> None:
    start(desk, submit(desk, DOWNLOAD.name, {"name": "x"}, BOB), step=1, total=2)
    submit(desk, GENERATE.name, REQUEST, ANN)
    assert place(desk, ANN) == "Next in line"


def test_a_hostile_prompt_is_text(desk: Services, line: JobLine) -> None:
    submit(desk, GENERATE.name, REQUEST | {"prompt": HOSTILE})
    assert re.findall(r"<(\w+)", line.render(OWNER)) == ["button", "span", "span", "span"]


def test_the_pages_poll_sends_the_line_once(desk: Services, by: Any) -> None:
    with unopened_page():
        line = JobLine(desk.home, TITLES)
        notice = Notice(str, list, line)
    values: dict[Any, Any] = {notice.block: "", line.block: ""}
    assert notice.poll_page(values, by(OWNER)) == {notice.block: gr.skip(), line.block: gr.skip()}
    submit(desk, GENERATE.name, REQUEST)
    values[line.block] = notice.poll_page(values, by(OWNER))[line.block]
    assert "Next in line" in values[line.block]
    assert notice.poll_page(values, by(OWNER))[line.block] == gr.skip()


def test_ordinals() -> None:
    numbers = {
        1: "1st",
        2: "2nd",
        3: "3rd",
        4: "4th",
        11: "11th",
        12: "12th",
        22: "22nd",
        113: "113th",
    }
    assert {number: format_ordinal(number) for number in numbers} == numbers
