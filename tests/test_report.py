"""Was it worth it, on the embedded model: few pictures, real judges."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from trainings import add, hasten, make_home, open_bench, silent

from studio.core.training import evaluation as rule
from studio.engine.context import Bench
from studio.engine.evaluation.job import report
from studio.engine.sweeps.job import run_sweep
from studio.engine.training.job import train
from studio.errors import StudioError
from studio.settings import shipped

ALL = {
    "model": "pocket",
    "trigger": "moon",
    "checkpoint_every": 2,
    "keep_checkpoints": 0,
    "learning_rate": 1e-3,
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        for name, few in (
            ("SCENES", 2),
            ("CHECKPOINTS", 2),
            ("REFERENCES", 3),
            ("WEIGHTS", (0.0, 1.0)),
        ):
            patch.setattr(rule, name, few)
        patch.setattr(rule, "sweep", lambda *asked, real=rule.sweep: _short(real(*asked)))
        patch.setattr(
            rule,
            "references",
            lambda *asked, real=rule.references: (real(*asked)[0], _short(real(*asked)[1])),
        )
        bench = open_bench(make_home(tmp_path_factory.mktemp("report")))
        yield bench
        bench.gallery.close()


def _short(spec: Any) -> Any:
    """The same sweep in two steps."""
    return spec.model_copy(update={"base": spec.base.model_copy(update={"steps": 2})})


@pytest.fixture(scope="module")
def found(desk: Bench) -> dict[str, Any]:
    id = add(desk, **ALL)
    train(desk, {"run": id}, silent)
    return report(desk, {"run": id}, silent)


def test_base_and_tuned_are_painted_judged_and_weighed(desk: Bench, found: dict[str, Any]) -> None:
    assert [(one["step"], one["weight"]) for one in found["points"]] == [(2, 1.0), (4, 1.0)]
    assert found["base"]["concept"] == 0 and set(found["base"]["judged"]) == {
        "concept",
        "place",
        "style",
    }
    assert (
        all(0 <= one["following"] <= 1 and -1 <= one["fit"] <= 1 for one in found["points"])
        and found["sentences"]
    )
    pairs = found["pairs"]
    assert len(pairs) == 2 and all(
        desk.gallery.get(pair["before"]) and desk.gallery.get(pair["after"]) for pair in pairs
    )
    before, after = (desk.gallery.get(pairs[0][which]) for which in ("before", "after"))
    assert (
        before
        and after
        and before.request.seed == after.request.seed
        and before.request.prompt == after.request.prompt
    )
    assert (
        not [use for use in before.request.loras if not use.off]
        and after.request.loras[0].unet == 1
    )
    kept = desk.runs.report(found["run"])
    assert kept["points"] == found["points"] and kept["pairs"] == pairs


def test_the_card_lies_beside_the_file(desk: Bench, found: dict[str, Any]) -> None:
    card, picture = map(Path, found["card"])
    shown = found["best"] or max(found["points"], key=lambda one: one["concept"])
    assert (
        card == desk.settings.loras / f"{shown['lora']}.md"
        and card.with_suffix(".safetensors").is_file()
    )
    text = card.read_text("utf-8")
    assert (
        found["sentences"][0] in text
        and f"![Above without, below with the LoRA]({picture.name})" in text
    )
    assert f"<lora:{shown['lora']}:1>" in text and all(
        f"{k}. {prompt}" in text for k, prompt in enumerate(found["prompts"], 1)
    )
    with Image.open(picture) as image:
        assert image.size == (2 * 192, 2 * 192)


def test_what_is_there_is_not_painted_again(
    desk: Bench, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    monkeypatch.setattr(
        "studio.engine.evaluation.job.run_sweep",
        lambda *asked: made.append(run_sweep(*asked)["made"]),
    )
    again = report(desk, {"run": found["run"]}, silent)
    assert made == [0, 0] and again["sweep"] == found["sweep"]
    assert json.dumps(again["points"]) == json.dumps(found["points"])


def test_other_models_are_judged_by_a_clip_of_the_home(desk: Bench) -> None:
    shutil.copytree(shipped("assets") / "pocket" / "clip", desk.settings.home / "models" / "eyes")
    id = add(desk, **ALL | {"model": "tiny", "name": "other"})
    train(desk, {"run": id}, silent)
    found = report(desk, {"run": id}, silent)
    assert (
        len(found["points"]) == 2
        and not found["base"]["judged"]
        and found["prompts"][0].endswith("in the jungle")
    )
    shutil.rmtree(desk.settings.home / "models" / "eyes")


def test_what_cannot_be_judged_says_why(desk: Bench) -> None:
    with pytest.raises(StudioError, match="no training run"):
        report(desk, {"run": "nowhere"}, silent)
    with pytest.raises(StudioError, match="no checkpoint yet"):
        report(desk, {"run": add(desk, **ALL)}, silent)
    id = add(desk, **ALL | {"model": "tiny"})
    with pytest.raises(StudioError, match="needs a CLIP model that knows the world of tiny"):
        report(desk, {"run": id}, silent)
    id = add(desk, **ALL | {"dataset": "gone"})
    with pytest.raises(StudioError, match="gone"):
        report(desk, {"run": id}, silent)
