"""The estimate of what is left, by a clock that is set by hand."""

from __future__ import annotations

import pytest

from studio.engine import progress
from studio.engine.progress import ProgressTracker
from studio.storage.jobs import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    now = {"now": 100.0}
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now["now"])
    return now


def test_nothing_is_estimated_before_anything_was_timed(clock: dict[str, float]) -> None:
    tracker = ProgressTracker(lambda report: None, 10)
    assert tracker.estimate_eta(5) is None
    tracker.start()
    assert tracker.estimate_eta(0) is None


def test_it_is_the_mean_of_the_steps_so_far(clock: dict[str, float]) -> None:
    tracker = ProgressTracker(lambda report: None, 10)
    tracker.start()
    clock["now"] += 8
    assert tracker.estimate_eta(4) == 12.0
    assert tracker.estimate_eta(10) == 0.0


def test_what_took_no_time_and_what_was_something_else_do_not_count(
    clock: dict[str, float],
) -> None:
    tracker = ProgressTracker(lambda report: None, 10)
    tracker.start(2)
    tracker.skip(2)
    clock["now"] += 9
    tracker.exclude(3)
    assert tracker.estimate_eta(6) == 12.0


def test_a_report_carries_it(clock: dict[str, float]) -> None:
    reports: list[Progress] = []
    tracker = ProgressTracker(reports.append, 4)
    tracker.start()
    clock["now"] += 1
    tracker.report(1, "Generating", metrics={"loss": 0.5})
    assert reports == [Progress(1, 4, "Generating", 3.0, (), None, {"loss": 0.5})]
