"""What a waiting job waits for is said in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.core.jobs import BACKGROUND_KINDS
from studio.services.waiting import describe_wait
from studio.storage.jobs import Job, Jobs, Progress
from support.visitors import ANN, OWNER

TRAINING = {"name": "my toy", "steps": 250, "run": "x"}


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    table = Jobs(tmp_path / "jobs.sqlite")
    yield table
    table.close()


def submit(jobs: Jobs, kind: str, **spec: object) -> Job:
    job = jobs.get(jobs.submit(kind, spec, OWNER.id))
    assert job
    return job


def start_training(jobs: Jobs, eta_seconds: float | None) -> None:
    submit(jobs, "train", **TRAINING)
    job = jobs.claim("cpu", other_than=BACKGROUND_KINDS)
    assert job
    jobs.report_progress(job.id, Progress(1, 250, "Training", eta_seconds=eta_seconds))


def test_the_first_in_line_is_starting(jobs: Jobs) -> None:
    assert describe_wait(jobs, submit(jobs, "train", **TRAINING), OWNER) == "Starting"


@pytest.mark.parametrize(
    ("eta_seconds", "rest"),
    [
        (None, ""),
        (0.2, " (about 1 s left)"),
        (45, " (about 45 s left)"),
        (190, " (about 3 min left)"),
        (8000, " (about 2.2 h left)"),
    ],
)
def test_it_names_what_runs_and_for_how_long(
    jobs: Jobs, eta_seconds: float | None, rest: str
) -> None:
    start_training(jobs, eta_seconds)
    text = describe_wait(jobs, submit(jobs, "sweep", title="weights", cells=4), OWNER)
    assert text == f"Waiting for “training of my toy: 250 steps”{rest}"


def test_what_may_be_let_in_is_told_so(jobs: Jobs) -> None:
    start_training(jobs, 190)
    text = describe_wait(jobs, submit(jobs, "caption", dataset="bears"), OWNER)
    assert text.endswith("left). It runs sooner if it is short and fits into memory")


def test_others_ahead_are_counted_and_downloads_are_not(jobs: Jobs) -> None:
    submit(jobs, "download", name="a model")
    submit(jobs, "sweep", title="weights", cells=4)
    assert (
        describe_wait(jobs, submit(jobs, "train", **TRAINING), OWNER) == "Waiting for 1 other job"
    )
    start_training(jobs, None)  # the sweep is claimed first
    text = describe_wait(jobs, submit(jobs, "sweep", title="more", cells=4), OWNER)
    assert text.startswith("Waiting for “")
    assert text.endswith(" and 2 other jobs")


def test_a_guest_does_not_hear_what_others_do(jobs: Jobs) -> None:
    start_training(jobs, 190)
    text = describe_wait(jobs, submit(jobs, "sweep", title="weights", cells=4), ANN)
    assert text == "Waiting for another job (about 3 min left)"
