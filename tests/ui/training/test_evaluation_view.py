"""Was it worth it, on the page: what stands there before, meanwhile and afterwards; where its buttons lead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.core.generation.request import GenerationRequest
from studio.core.sweeps.spec import SweepSpec, plan_sweep
from studio.errors import BadFile
from studio.services.submission import Services
from studio.storage.training import checkpoints
from studio.storage.training.runs import Run
from studio.ui.tabs.training.tab import TrainingTab
from studio.ui.views import evaluation
from support.training_tab import config
from support.visitors import ANN, BOB, HOSTILE, Asked


class Pressed:
    """A click on a button of a block."""

    def __init__(self, what: str, subject: str) -> None:
        self._data = {"action": what, "target": subject}


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
def run(desk: Services, monkeypatch: pytest.MonkeyPatch) -> Run:
    id = desk.home.runs.add(config(trigger="moon", class_word="stone"), ANN.id)
    kept = desk.home.runs.get(id)
    assert kept
    checkpoints.save(kept.folder / "checkpoints", 100, {"state": b"x"})
    desk.home.runs.update_record(id, "result", lora={"what": "lora", "lora": "moon", "step": 100})
    kept = desk.home.runs.get(id)
    assert kept
    return kept


def files(tab: TrainingTab, run: Run) -> str:
    return str(
        tab.view._render_files(
            run,
            tab.view.open_jobs(ANN, run.id),
            tab.services.home.runs.list_checkpoints(run.id),
            ANN,
        )
    )


def test_it_is_asked_for_watched_and_read(
    tab: TrainingTab, desk: Services, run: Run, by: Any
) -> None:
    assert 'data-action="report"' in files(tab, run)
    assert "Evaluate" in files(tab, run)
    tab.view.handle_action(run.id, Pressed("report", run.id), Asked(ANN))  # type: ignore[arg-type]
    (job,) = desk.home.jobs.list_open(ANN.id, "training_evaluation")
    assert job.spec["run"] == run.id
    assert "Starting" in files(tab, run)  # nothing is before it
    assert "Evaluate" not in files(tab, run)
    desk.home.jobs.claim("cpu", job.id)
    desk.home.jobs.finish(job.id, "failed", error="There is no <dataset> any more.")
    assert "There is no &lt;dataset&gt; any more." in files(tab, run)
    assert "Evaluate" in files(tab, run)
    (run.folder / "report.json").write_text(json.dumps(found()))
    said = files(tab, run)
    assert "Recommended: moon." in said
    assert 'data-action="compare"' in said
    assert "deleted" in said  # its pictures are not in the gallery
    with pytest.raises(BadFile):
        desk.submit_training_evaluation(run.id, BOB)


def test_its_buttons_lead_to_other_tabs(
    tab: TrainingTab,
    desk: Services,
    run: Run,
    by: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        type(desk.home.library), "get_lora", lambda self, name: type("Lora", (), {"name": name})
    )
    (run.folder / "report.json").write_text(json.dumps(found()))
    place, asked = tab.view.build_handoff(Pressed("try", "moon"), ANN) or ("", None)  # type: ignore[arg-type]
    assert place == "txt2img"
    assert isinstance(asked, GenerationRequest)
    assert asked.prompt == "a photo of a white moon in the night sky"  # a caption, with the trigger
    assert [(use.name, use.unet, use.text_encoder) for use in asked.loras] == [
        ("moon", 0.7, 0.7)
    ]  # as the report recommends
    place, sweep = tab.view.build_handoff(Pressed("sweep", "moon"), ANN) or ("", None)  # type: ignore[arg-type]
    assert place == "sweep"
    assert isinstance(sweep, SweepSpec)
    requests = [cell.request for cell in plan_sweep(sweep).cells]
    assert {use.unet for one in requests for use in one.loras} == {0.0, 0.4, 0.7, 1.0}
    assert {one.scheduler for one in requests} == {"DPM++ 2M", "Euler a", "DDIM"}
    assert tab.view.build_handoff(Pressed("compare", "a" * 12), ANN) == ("sweep", "a" * 12)  # type: ignore[arg-type]
    assert tab.view.build_handoff(Pressed("export", "100"), ANN) is None  # type: ignore[arg-type]


def test_what_people_wrote_is_escaped() -> None:
    bad = found(
        sentences=[HOSTILE, HOSTILE],
        pairs=[{"prompt": HOSTILE, "before": HOSTILE, "after": "/x/2.png"}],
        best=point(100, 0.7, lora=HOSTILE),
        points=[point(100, 0.7, lora=HOSTILE)],
    )
    said = evaluation.render_report(
        HOSTILE, bad, {HOSTILE: (HOSTILE, HOSTILE)}, [(HOSTILE, HOSTILE)]
    )
    for text in (
        said,
        evaluation.render_placeholder(HOSTILE, HOSTILE),
        evaluation.render_progress(HOSTILE, 1, 2),
    ):
        assert "<script" not in text
        assert "<img src=x" not in text
        assert HOSTILE not in text


def test_one_without_a_recommendation_shows_what_has_most() -> None:
    said = evaluation.render_report(
        "x", found(best=None, points=[point(100, 0.7), point(100, 1, concept=0.9)]), {}, []
    )
    assert said.count('class="best"') == 1
    assert "at weight 1," in said


def test_a_card_is_offered_where_it_lies(
    tab: TrainingTab,
    desk: Services,
    run: Run,
    tmp_path: Path,
) -> None:
    (run.folder / "report.json").write_text(json.dumps(found()))
    assert "moon.md" not in files(tab, run)
    desk.home.settings.loras.mkdir(exist_ok=True)
    (desk.home.settings.loras / "moon.md").write_text("# moon")
    assert 'download="moon.md"' in files(tab, run)
