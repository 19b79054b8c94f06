"""Images, captions and searches between two steps of a training, which does not notice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.core.base import validate
from studio.core.jobs import CAPTION, CLIP_SEARCH, GENERATE, JOB_KINDS, TRAIN
from studio.core.training.config import TrainingConfig
from studio.engine import interleaving
from studio.engine.context import WorkerContext
from studio.engine.interleaving import Interleaver
from studio.engine.worker import _Worker
from studio.settings import load
from studio.storage.jobs import Job, Jobs
from support.benches import open_bench
from support.trainings import QUICK, hasten, make_home, same, trained, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
TRAINING = QUICK | {"steps": 6, "save_precision": "float32"}
LOOK: dict[str, Any] = {"dataset": "other", "dry_run": True, "mode": "replace"}
FIND: dict[str, Any] = {"dataset": "other", "words": "a red boat", "limit": 3}
PAINT: dict[str, Any] = {"model": "tiny", "prompt": "a cat", "steps": 2, "seed": 1}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerContext]:
    bench = open_bench(make_home(tmp_path_factory.mktemp("interleaving") / "home"))
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        yield bench
    bench.home.gallery.close()


@pytest.fixture
def home(bench: WorkerContext, tmp_path: Path) -> Path:
    """A home of its own with the bench's models and datasets."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("models", "datasets"):
        (folder / name).symlink_to(bench.settings.home / name)
    return folder


@pytest.fixture
def jobs(home: Path) -> Iterator[Jobs]:
    table = Jobs(home / "jobs.sqlite")
    yield table
    table.close()


@pytest.mark.slow
def test_captions_and_searches_are_let_in_and_the_weights_are_the_same(
    bench: WorkerContext, home: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interleaving, "PEEK_SECONDS", 0)
    monkeypatch.setattr(interleaving, "MAX_INTERLEAVED_IMAGES", 3)  # the datasets have four
    settings = load(home=home, device="cpu", precision="float32", keep_free=0, preview_every=0)
    worker = _Worker("cpu", jobs, settings)
    own = open_bench(home)
    run_id = own.home.runs.add(validate(TrainingConfig, TRAINING), "ann")
    training = jobs.submit(TRAIN.name, {"run": run_id}, "ann")
    claimed = jobs.claim("cpu")
    assert claimed
    assert claimed.id == training
    some = {"pictures": ["004.png", "005.png"]}
    caption = jobs.submit(CAPTION.name, LOOK | some, "ann")
    search = jobs.submit(CLIP_SEARCH.name, FIND | some, "ann")
    image = jobs.submit(GENERATE.name, PAINT, "ann")
    wrong = jobs.submit(CAPTION.name, LOOK | {"dataset": "nowhere"}, "ann")
    whole = jobs.submit(CAPTION.name, LOOK, "ann")  # four images: too many
    worker.run_job(claimed)
    ended = {
        job_id: jobs.get(job_id) for job_id in (training, caption, search, image, wrong, whole)
    }
    assert {job_id: job.state for job_id, job in ended.items() if job} == {
        training: "done",
        caption: "done",
        search: "done",
        image: "done",
        wrong: "failed",
        whole: "queued",
    }
    for job_id in (caption, search, image, wrong):
        assert ended[job_id].ended < ended[training].ended  # type: ignore[union-attr,operator]
    assert ended[caption].result["made"] == 2  # type: ignore[union-attr]
    assert len(ended[search].result["found"]) == 2  # type: ignore[union-attr]
    lora = ended[training].result["lora"]  # type: ignore[union-attr]
    assert same(weights(own, lora), trained(bench, steps=6))
    own.home.gallery.close()


@pytest.fixture
def taken() -> list[Job]:
    return []


@pytest.fixture
def interleaver(
    bench: WorkerContext, jobs: Jobs, taken: list[Job], monkeypatch: pytest.MonkeyPatch
) -> Interleaver:
    monkeypatch.setattr(interleaving, "PEEK_SECONDS", 0)
    return Interleaver(bench, jobs, "cpu", taken.append)


@pytest.mark.parametrize(
    ("kind", "spec"), [(CAPTION, LOOK), (CLIP_SEARCH, FIND), (GENERATE, PAINT)]
)
def test_what_does_not_fit_into_memory_waits(
    interleaver: Interleaver, jobs: Jobs, taken: list[Job], kind: Any, spec: dict[str, Any]
) -> None:
    jobs.submit(kind.name, spec)
    assert not interleaver.interleave_job(10**16)
    assert not taken
    assert interleaver.interleave_job(0)
    assert [job.kind for job in taken] == [kind.name]
    assert not interleaver.interleave_job(0)


def test_a_kind_is_never_let_into_itself(
    interleaver: Interleaver, jobs: Jobs, taken: list[Job]
) -> None:
    for _ in range(2):
        jobs.submit(CAPTION.name, LOOK)
    with interleaver.hold_open(TRAIN.name):
        with interleaver.hold_open(CAPTION.name):
            assert not interleaver.interleave_job(0)
            jobs.submit(CLIP_SEARCH.name, FIND)
            assert interleaver.interleave_job(0)
        assert interleaver.interleave_job(0)
    assert [job.kind for job in taken] == [CLIP_SEARCH.name, CAPTION.name]


def test_memory_that_outer_works_need_counts_too(
    bench: WorkerContext, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interleaving, "PEEK_SECONDS", 0)
    outcomes = []
    nested: Interleaver

    def caption(job: Job) -> None:
        with nested.hold_open(job.kind):
            outcomes.append(nested.interleave_job(bench.pipelines.free_bytes // 2))

    nested = Interleaver(bench, jobs, "cpu", caption)
    jobs.submit(CAPTION.name, LOOK)
    jobs.submit(GENERATE.name, PAINT)
    with nested.hold_open(TRAIN.name):
        assert nested.interleave_job(int(bench.pipelines.free_bytes * 0.7))
    assert outcomes == [False]  # half and seven tenths are more than there is


def test_only_short_kinds_are_let_in() -> None:
    names = {name for name, kind in JOB_KINDS.items() if kind.is_interleavable}
    assert names == {"generate", "caption", "clip_search"}
