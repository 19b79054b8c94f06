"""Was it worth it, on the page: what stands there before, meanwhile and afterwards; where its buttons lead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_sweep_tab import ANN, BOB, HOSTILE, Asked
from test_training_tab import by, config, tab  # noqa: F401

from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import SweepSpec, plan
from studio.errors import BadFile
from studio.storage.training import checkpoints
from studio.storage.training.runs import Run
from studio.ui.tabs.training.tab import TrainingTab
from studio.ui.views import evaluation
from studio.ui.widgets import Desk


class Pressed:
    """A click on a button of a block."""

    def __init__(self, what: str, subject: str) -> None:
        self._data = {"what": what, "subject": subject}


def point(step: int, weight: float, **more: Any) -> dict[str, Any]:
    return {
        "lora": "moon",
        "step": step,
        "weight": weight,
        "concept": 0.5,
        "following": 0.75,
        "fit": 0.3,
        "judged": {"concept": 1.0, "place": 0.5},
    } | more


def found(**more: Any) -> dict[str, Any]:
    return {
        "sweep": "a" * 12,
        "prompts": ["a moon"],
        "base": point(0, 0, lora=""),
        "points": [point(100, 0.7), point(100, 1)],
        "best": point(100, 0.7),
        "sentences": ["Recommended: moon.", "None stops."],
        "pairs": [{"prompt": "a moon", "before": "/x/1.png", "after": "/x/2.png"}],
    } | more


@pytest.fixture
def run(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Run:
    id = desk.runs.add(config(trigger="moon", class_word="stone"), ANN.id)
    kept = desk.runs.get(id)
    assert kept
    checkpoints.save(kept.folder / "checkpoints", 100, {"state": b"x"})
    desk.runs.say(id, "result", lora={"what": "lora", "lora": "moon", "step": 100})
    kept = desk.runs.get(id)
    assert kept
    return kept


def files(tab: TrainingTab, run: Run) -> str:
    return str(tab.view._files(run, tab.view.jobs(ANN, run.id), tab.desk.runs.checkpoints(run.id)))


def test_it_is_asked_for_watched_and_read(tab: TrainingTab, desk: Desk, run: Run, by: Any) -> None:
    assert 'data-do="report"' in files(tab, run) and "Find out" in files(tab, run)
    tab.view.act(run.id, Pressed("report", run.id), Asked(ANN))  # type: ignore[arg-type]
    (job,) = desk.jobs.waiting(ANN.id, "report")
    assert (
        job.spec["run"] == run.id
        and "Waiting for its turn" in files(tab, run)
        and "Find out" not in files(tab, run)
    )
    desk.jobs.claim("cpu", job.id)
    desk.jobs.finish(job.id, "failed", error="There is no <dataset> any more.")
    assert "There is no &lt;dataset&gt; any more." in files(tab, run) and "Find out" in files(
        tab, run
    )
    (run.folder / "report.json").write_text(json.dumps(found()))
    said = files(tab, run)
    assert (
        "Recommended: moon." in said and 'data-do="compare"' in said and "deleted" in said
    )  # its pictures are not in the gallery
    with pytest.raises(BadFile):
        desk.submit_report(run.id, BOB)


def test_its_buttons_lead_to_other_tabs(
    tab: TrainingTab,
    desk: Desk,
    run: Run,
    by: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        type(desk.library), "lora", lambda self, name: type("Lora", (), {"name": name})
    )
    (run.folder / "report.json").write_text(json.dumps(found()))
    place, asked = tab.view.wanted(Pressed("try", "moon"), ANN) or ("", None)  # type: ignore[arg-type]
    assert (
        place == "txt2img"
        and isinstance(asked, GenerationRequest)
        and asked.prompt == "a photo of a moon stone"
    )
    assert [(use.name, use.unet, use.text_encoder) for use in asked.loras] == [
        ("moon", 0.7, 0.7)
    ]  # as the report recommends
    place, sweep = tab.view.wanted(Pressed("sweep", "moon"), ANN) or ("", None)  # type: ignore[arg-type]
    assert place == "sweep" and isinstance(sweep, SweepSpec)
    requests = [cell.request for cell in plan(sweep).cells]
    assert {use.unet for one in requests for use in one.loras} == {0.0, 0.4, 0.7, 1.0}
    assert {one.scheduler for one in requests} == {"DPM++ 2M", "Euler a", "DDIM"}
    assert tab.view.wanted(Pressed("compare", "a" * 12), ANN) == ("sweep", "a" * 12)  # type: ignore[arg-type]
    assert tab.view.wanted(Pressed("export", "100"), ANN) is None  # type: ignore[arg-type]


def test_what_people_wrote_is_escaped() -> None:
    bad = found(
        sentences=[HOSTILE, HOSTILE],
        pairs=[{"prompt": HOSTILE, "before": HOSTILE, "after": "/x/2.png"}],
        best=point(100, 0.7, lora=HOSTILE),
        points=[point(100, 0.7, lora=HOSTILE)],
    )
    said = evaluation.told(HOSTILE, bad, {HOSTILE: (HOSTILE, HOSTILE)}, [(HOSTILE, HOSTILE)])
    for text in (said, evaluation.invitation(HOSTILE, HOSTILE), evaluation.going(HOSTILE, 1, 2)):
        assert "<script" not in text and "<img src=x" not in text and HOSTILE not in text


def test_one_without_a_recommendation_shows_what_has_most() -> None:
    said = evaluation.told(
        "x", found(best=None, points=[point(100, 0.7), point(100, 1, concept=0.9)]), {}, []
    )
    assert said.count("class=best") == 1 and "at 1;" in said


def test_a_card_is_offered_where_it_lies(
    tab: TrainingTab,
    desk: Desk,
    run: Run,
    tmp_path: Path,
) -> None:
    (run.folder / "report.json").write_text(json.dumps(found()))
    assert "moon.md" not in files(tab, run)
    desk.settings.loras.mkdir(exist_ok=True)
    (desk.settings.loras / "moon.md").write_text("# moon")
    assert 'download="moon.md"' in files(tab, run)
