"""Was it worth it, on the embedded model: few pictures, real judges."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studio.core.training import evaluation as rule
from studio.engine.context import WorkerContext
from studio.engine.evaluation.job import evaluate_training
from studio.engine.sweeps.job import run_sweep
from studio.engine.training.job import train
from studio.errors import StudioError
from studio.settings import shipped
from support.benches import open_bench
from support.sentences import refused
from support.trainings import add, hasten, make_home, silent

ALL = {
    "model": "pocket",
    "trigger": "moon",
    "checkpoint_every": 2,
    "checkpoints_total_limit": 0,
    "learning_rate": 1e-3,
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        for name, few in (
            ("MAX_SCENES", 2),
            ("MAX_CHECKPOINTS", 2),
            ("MAX_REFERENCES", 3),
            ("LORA_WEIGHTS", (0.0, 1.0)),
        ):
            patch.setattr(rule, name, few)
        patch.setattr(
            rule, "build_sweep", lambda *asked, real=rule.build_sweep: _short(real(*asked))
        )
        patch.setattr(
            rule,
            "select_references",
            lambda *asked, real=rule.select_references: (real(*asked)[0], _short(real(*asked)[1])),
        )
        bench = open_bench(make_home(tmp_path_factory.mktemp("report")))
        yield bench
        bench.home.gallery.close()


def _short(spec: Any) -> Any:
    """The same sweep in two steps."""
    return spec.model_copy(update={"base": spec.base.model_copy(update={"steps": 2})})


@pytest.fixture(scope="module")
def found(desk: WorkerContext) -> dict[str, Any]:
    id = add(desk, **ALL)
    train(desk, {"run": id}, silent)
    return evaluate_training(desk, {"run": id}, silent)


@pytest.mark.slow
def test_base_and_tuned_are_painted_judged_and_weighed(
    desk: WorkerContext, found: dict[str, Any]
) -> None:
    assert [(one["step"], one["weight"]) for one in found["points"]] == [(2, 1.0), (4, 1.0)]
    assert found["base"]["concept"] == 0
    assert set(found["base"]["judged"]) == {
        "concept",
        "place",
        "style",
    }
    assert all(0 <= one["following"] <= 1 and -1 <= one["fit"] <= 1 for one in found["points"])
    assert all(0 <= one["shown"] <= 1 for one in found["points"])
    assert [one["shown"] for one in found["points"]] == [
        one["judged"]["concept"] for one in found["points"]
    ]
    assert found["sentences"]
    pairs = found["pairs"]
    assert len(pairs) == 2
    assert all(
        desk.home.gallery.get(pair["before"]) and desk.home.gallery.get(pair["after"])
        for pair in pairs
    )
    before, after = (desk.home.gallery.get(pairs[0][which]) for which in ("before", "after"))
    assert before
    assert after
    assert before.request.seed == after.request.seed
    assert before.request.prompt == after.request.prompt
    assert not [use for use in before.request.loras if not use.is_inactive]
    assert after.request.loras[0].unet == 1
    kept = desk.home.runs.read_report(found["run"])
    assert kept["points"] == found["points"]
    assert kept["pairs"] == pairs


@pytest.mark.slow
def test_the_card_lies_beside_the_file(desk: WorkerContext, found: dict[str, Any]) -> None:
    card, picture = map(Path, found["card"])
    shown = found["best"] or max(found["points"], key=lambda one: one["concept"])
    assert card == desk.home.settings.loras / f"{shown['lora']}.md"
    assert card.with_suffix(".safetensors").is_file()
    text = card.read_text("utf-8")
    assert found["sentences"][0] in text
    assert f"![Top: without the LoRA; bottom: with it]({picture.name})" in text
    assert f"<lora:{shown['lora']}:1>" in text
    assert all(f"{k}. {prompt}" in text for k, prompt in enumerate(found["prompts"], 1))
    with Image.open(picture) as image:
        assert image.size == (2 * 192, 2 * 192)


def test_what_is_there_is_not_painted_again(
    desk: WorkerContext, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    monkeypatch.setattr(
        "studio.engine.evaluation.job.run_sweep",
        lambda *asked: made.append(run_sweep(*asked)["made"]),
    )
    again = evaluate_training(desk, {"run": found["run"]}, silent)
    assert made == [0, 0]
    assert again["sweep"] == found["sweep"]
    assert json.dumps(again["points"]) == json.dumps(found["points"])


@pytest.mark.slow
def test_other_models_are_judged_by_a_clip_of_the_home(desk: WorkerContext) -> None:
    shutil.copytree(
        shipped("assets") / "pocket" / "clip", desk.home.settings.home / "models" / "eyes"
    )
    id = add(desk, **ALL | {"model": "tiny", "name": "other"})
    train(desk, {"run": id}, silent)
    found = evaluate_training(desk, {"run": id}, silent)
    assert len(found["points"]) == 2
    assert not found["base"]["judged"]
    assert found["prompts"][0].endswith("in the jungle")
    shutil.rmtree(desk.home.settings.home / "models" / "eyes")


def test_what_cannot_be_judged_says_why(desk: WorkerContext) -> None:
    with refused(StudioError):
        evaluate_training(desk, {"run": "nowhere"}, silent)
    with refused(StudioError):
        evaluate_training(desk, {"run": add(desk, **ALL)}, silent)
    id = add(desk, **ALL | {"model": "tiny"})
    with refused(StudioError):
        evaluate_training(desk, {"run": id}, silent)
    id = add(desk, **ALL | {"dataset": "gone"})
    with refused(StudioError):
        evaluate_training(desk, {"run": id}, silent)
