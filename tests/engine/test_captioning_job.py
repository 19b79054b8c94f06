"""Captioning a dataset: which pictures are asked about, what is written, and that nothing is lost or asked twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studio.core.base import validate
from studio.core.captions.spec import CaptionSpec
from studio.core.jobs import CAPTION
from studio.engine import interleaving, worker
from studio.engine.captioning import job as run
from studio.engine.captioning.git import Captioner
from studio.engine.captioning.job import caption_dataset
from studio.engine.context import WorkerContext
from studio.engine.worker import import_object
from studio.errors import Cancelled, DatasetError, InvalidSpec, NotAllowed, StudioError
from studio.settings import load
from studio.storage.home import Home
from studio.storage.jobs import Jobs, Progress
from support import captioner_makers as makers
from support.benches import open_bench
from support.sentences import refused


def caption_in_child(bench: WorkerContext, mode: str, steps: Connection) -> None:
    """Caption in a fork, where the captioner is loaded already; say each step."""
    run.WRITE_INTERVAL_SECONDS = 0.0
    spec = {"dataset": "world", "mode": mode, "trigger": "mysks", "batch": 4}
    own = replace(bench, home=Home(bench.settings))
    caption_dataset(own, spec, lambda progress: steps.send(progress.step))


def silent(progress: Any) -> None:
    """A report that nobody hears."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerContext]:
    """One bench for all, so that the captioner is loaded once."""
    home = tmp_path_factory.mktemp("captioning")
    bench = open_bench(home)
    yield bench
    bench.home.gallery.close()


@pytest.fixture
def bench(place: WorkerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerContext:
    """A fresh home with eight pictures, of which 001 and 005 have captions."""
    fresh = WorkerContext.open(
        load(
            home=tmp_path / "home", device="cpu", precision="float32", keep_free=0, preview_every=0
        )
    )
    folder = fresh.settings.home / "datasets" / "world"
    makers.dataset(folder, 8)
    (folder / "001.txt").write_text("mine\n")
    (folder / "005.txt").write_text("a plush toy, yours\n")
    return replace(fresh, pipelines=place.pipelines)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the captioner was asked about, call by call."""
    calls: list[int] = []
    real = Captioner.caption_images

    def counted(self: Captioner, looks: Any, *others: Any) -> Any:
        calls.append(len(looks))
        return real(self, looks, *others)

    monkeypatch.setattr(Captioner, "caption_images", counted)
    return calls


def texts(bench: WorkerContext) -> dict[str, str]:
    """What stands in the caption files."""
    return {
        path.stem: path.read_text().strip()
        for path in sorted((bench.settings.home / "datasets" / "world").glob("*.txt"))
    }


def caption(bench: WorkerContext, **spec: Any) -> dict[str, Any]:
    return caption_dataset(bench, {"dataset": "world", **spec}, silent)


def test_fill_writes_where_nothing_is_several_at_once_with_time_left(
    bench: WorkerContext, asked: list[int]
) -> None:
    seen: list[Progress] = []
    result = caption_dataset(bench, {"dataset": "world", "batch": 4}, seen.append)
    assert asked == [4, 2]
    assert (
        result["count"],
        result["made"],
        result["taken"],
        result["kept"],
    ) == (8, 6, 0, 2)
    after = {row["file"].removesuffix(".png"): row["after"] for row in result["rows"]}
    assert texts(bench) == after | {"001": "mine", "005": "a plush toy, yours"}
    assert len(set(after.values())) > 3
    steps = [one for one in seen if one.message == "Captioning"]
    assert {one.total for one in steps} == {6}
    assert [one.step for one in steps] == sorted(one.step for one in steps)
    assert all(one.eta_seconds is not None for one in steps if one.step)
    assert steps[-1].step >= 4
    again = caption(bench)
    assert asked == [4, 2]
    assert (again["count"], again["made"], again["kept"], again["step"]) == (
        8,
        0,
        8,
        0,
    )


def test_replace_append_and_what_is_put_around(bench: WorkerContext, asked: list[int]) -> None:
    said = {
        row["file"]: row["after"] for row in caption(bench, dry_run=True, mode="replace")["rows"]
    }
    assert asked == [8]
    dressed = caption(
        bench,
        mode="replace",
        prefix="photo: ",
        suffix=", nice",
        trigger="mysks",
        pictures=["001.png"],
    )
    assert texts(bench)["001"] == f"mysks, photo: {said['001.png']}, nice"
    assert dressed["count"] == 1
    added = caption(bench, mode="append", pictures=["005.png", "001.png"], trigger="plush")
    assert (
        texts(bench)["005"] == f"a plush toy, yours, {said['005.png']}"
    )  # it has the trigger already
    assert texts(bench)["001"].startswith("plush, mysks, photo: ")
    assert added["taken"] == 2
    assert asked == [8]
    before = texts(bench)
    caption(bench, mode="append", pictures=["005.png"], trigger="plush")
    assert texts(bench) == before  # said once, however often it is asked
    assert set(caption(bench, mode="replace", filter='tag:"yours"', dry_run=True)["rows"][0]) == {
        "file",
        "before",
        "after",
    }
    assert [
        row["file"]
        for row in caption(bench, mode="replace", filter="tag:yours", dry_run=True)["rows"]
    ] == ["005.png"]


@pytest.mark.smoke
def test_a_dry_run_writes_nothing_and_is_not_asked_again(
    bench: WorkerContext, asked: list[int]
) -> None:
    before = texts(bench)
    shown = caption(bench, mode="replace", dry_run=True)
    assert texts(bench) == before
    assert shown["step"] == 0
    assert {row["before"] for row in shown["rows"]} == {"", "mine", "a plush toy, yours"}
    done = caption(bench, mode="replace")
    assert done["rows"] == shown["rows"]
    assert done["taken"] == 8
    assert asked == [8]
    caption(bench, mode="replace", anew=True)
    caption(bench, mode="replace", instruction="a painting of")
    assert asked == [8, 8, 8]  # asked otherwise, or on purpose


def test_one_step_to_undo_signed_by_who_wrote_it(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "WRITE_INTERVAL_SECONDS", 0.0)
    before = texts(bench)
    result = caption(bench, mode="replace", batch=2, instruction="a photo of", trigger="mysks")
    album = bench.home.datasets.open("world")
    (step, *older) = album.history()
    assert not older
    assert step.id == result["step"]
    assert step.num_changes == 8
    assert step.writer.by == "model"
    assert step.writer.model.startswith("pocket (")
    assert step.writer.instruction == "a photo of"
    assert "mysks" in step.writer.settings
    album.undo()
    assert texts(bench) == before


def test_a_picture_that_is_there_twice_is_asked_about_once(
    bench: WorkerContext, asked: list[int]
) -> None:
    folder = bench.settings.home / "datasets" / "world"
    (folder / "009.png").write_bytes((folder / "000.png").read_bytes())
    result = caption(bench)
    assert sum(asked) == 6
    assert texts(bench)["009"] == texts(bench)["000"]
    assert len(result["rows"]) == 7


def test_broken_pictures_and_others_edits_are_named_and_left(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bench.settings.home / "datasets" / "world"
    (folder / "000.png").write_bytes((folder / "000.png").read_bytes()[:2000])
    (folder / "002.txt").write_bytes(b"\xff\xfe\xff")
    Image.new("RGB", (20, 20)).save(folder / "tiny.png")

    def report(progress: Progress) -> None:
        if progress.step:
            (folder / "004.txt").write_text("typed meanwhile\n")

    result = caption_dataset(bench, {"dataset": "world", "batch": 2}, report)
    failed = {one["file"]: one["error"] for one in result["failed"]}
    assert set(failed) == {"000.png", "002.png", "004.png", "tiny.png"}, failed
    assert "damaged" in failed["000.png"]
    assert "UTF-" in failed["002.png"]
    assert "20 x 20" in failed["tiny.png"]
    assert texts_of(folder / "004.txt") == "typed meanwhile"
    assert (folder / "002.txt").read_bytes() == b"\xff\xfe\xff"
    assert sorted(row["file"] for row in result["rows"]) == ["003.png", "006.png", "007.png"]


def texts_of(path: Path) -> str:
    return path.read_text().strip()


def test_a_stop_keeps_what_was_said_and_the_rest_is_made_later(
    bench: WorkerContext, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(progress: Progress) -> None:
        if progress.step >= 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        caption_dataset(bench, {"dataset": "world", "batch": 2}, stop)
    kept = texts(bench)
    assert len(kept) == 4
    assert asked == [2]
    result = caption(bench, batch=2)
    assert (result["made"], result["kept"]) == (4, 4)
    assert sum(asked) == 6
    assert texts(bench).items() >= kept.items()

    def at_a_word(progress: Progress) -> None:
        if progress.message == "Captioning" and asked[2:]:
            raise Cancelled

    del asked[:]
    finished: list[int] = []
    real = Captioner.decode_tokens
    monkeypatch.setattr(
        Captioner,
        "decode_tokens",
        lambda self, ids, text: finished.append(len(ids)) or real(self, ids, text),
    )
    with pytest.raises(Cancelled):
        caption_dataset(
            bench, {"dataset": "world", "mode": "replace", "anew": True, "batch": 1}, at_a_word
        )
    assert len(asked) == 3
    assert len(finished) == 2  # stopped in the middle of the third caption


def test_a_short_job_slips_in_between(bench: WorkerContext) -> None:
    needed: list[int] = []
    caption_dataset(
        replace(bench, interleave_job=lambda more: not needed.append(more)),
        {"dataset": "world", "batch": 2},
        silent,
    )
    assert len(needed) == 3
    assert all(more > 1_000_000 for more in needed)  # what the captioner itself takes


@pytest.mark.slow
def test_a_worker_paints_a_picture_in_the_middle_of_it(
    bench: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interleaving, "PEEK_SECONDS", 0.0)
    jobs = Jobs(bench.settings.home / "jobs.sqlite")
    long = jobs.submit("caption", {"dataset": "world", "batch": 2})
    short = jobs.submit(
        "generate", {"prompt": "a boat", "steps": 1, "width": 64, "height": 64, "seed": 1}
    )
    look = jobs.submit("clip_search", {"dataset": "world", "words": "a red boat", "limit": 3})
    serving = worker._Worker("cpu", jobs, bench.settings)
    job = jobs.claim("cpu", long)
    assert job
    serving.run_job(job)
    captioned, painted, found = (jobs.get(id) for id in (long, short, look))
    assert captioned
    assert painted
    assert found
    assert captioned.result["made"] == 6
    assert captioned.state == painted.state == "done"
    assert painted.ended
    assert captioned.ended
    assert painted.ended < captioned.ended
    assert found.ended
    assert found.ended < captioned.ended  # a search is let in, too
    assert len(found.result["found"]) == 3
    assert found.result["clip"] == "pocket"
    jobs.close()


def test_what_is_refused_before_anything_is_loaded(bench: WorkerContext, tmp_path: Path) -> None:
    for spec, kind in (
        ({"dataset": "moon"}, NotAllowed),
        ({"dataset": "wrld"}, DatasetError),
        ({"pictures": ["999.png"]}, DatasetError),
        ({"filter": "tag:nothing"}, DatasetError),
        ({"captioner": "pokket"}, StudioError),
    ):
        with refused(kind):
            caption(bench, **spec)
    assert (
        caption(bench, dataset="moon", mode="replace", dry_run=True)["made"] > 0
    )  # looking is allowed
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError):
        caption_dataset(bench, {"dataset": "empty", "folder": str(tmp_path / "empty")}, silent)
    assert import_object(CAPTION.function) is caption_dataset


def test_every_bad_field_at_once() -> None:
    titles = (
        "Dataset",
        "Existing captions",
        "Prefix",
        "Maximum length",
        "Batch size",
        "Filter",
        "Address",
        "Preview",
        "colour",
    )
    with refused(InvalidSpec) as told:
        validate(
            CaptionSpec,
            {
                "mode": "fil",
                "prefix": "a\nb",
                "tokens": 0,
                "batch": 1000,
                "filter": "(",
                "address": "ftp://x",
                "dry_run": "perhaps",
                "colour": "red",
            },
        )
    assert {fault.split(":")[0] for fault in told.value.faults} == set(titles)
    for given in (
        {"captioner": "endpoint"},
        {"address": "http://x/v1"},
        {"captioner": "endpoint", "model": "m", "address": "https://me:secret@host/v1"},
    ):
        with refused(InvalidSpec) as told:
            validate(CaptionSpec, {"dataset": "world", **given})
        assert "secret" not in str(told.value) or "password" in str(told.value)
    with pytest.raises(NotAllowed):
        validate(
            CaptionSpec,
            {"dataset": "world", "captioner": "endpoint", "model": "m", "address": "http://x/v1"},
        ).check_guest()


CHANGED: dict[str, Any] = {
    "dataset": "moon",
    "captioner": "toy",
    "mode": "append",
    "pictures": ("003.png",),
    "filter": "name:003*",
    "prefix": "x ",
    "suffix": " y",
    "trigger": "mysks",
    "instruction": "a painting of",
    "tokens": 2,
    "batch": 3,
    "address": "http://x/v1",
    "model": "m",
    "anew": True,
    "dry_run": True,
}


@pytest.mark.parametrize(
    "name", [name for name in CaptionSpec.model_fields if name not in ("address", "model")]
)
def test_a_field_changes_something(name: str, bench: WorkerContext, asked: list[int]) -> None:
    """What is said, what is written, or how it is asked; those of endpoints in test_openai_endpoint.py."""
    if name == "captioner":
        makers.git(bench.settings.models / "toy")
        bench = WorkerContext.open(bench.settings)  # with a library of its own
    base = {"dataset": "world", "mode": "replace", "dry_run": name == "dataset"}
    plain = caption_dataset(bench, base, silent)
    before, calls = texts(bench), list(asked)
    if name == "dry_run":
        (bench.settings.home / "datasets" / "world" / "000.txt").write_text("other\n")
        before = texts(bench)
    changed = caption_dataset(bench, {**base, name: CHANGED[name]}, silent)
    if name in ("batch", "anew"):
        extra = {"anew": True} if name == "batch" else {}
        caption_dataset(bench, {**base, **extra, name: CHANGED[name]}, silent)
        assert len(asked) > len(calls)
        assert name == "anew" or 3 in asked[len(calls) :]
    elif name == "dry_run":
        assert texts(bench) == before
        assert changed["rows"] == [
            {**row, "before": row["after"] if row["file"] != "000.png" else "other"}
            for row in plain["rows"]
        ]
    else:
        assert changed["rows"] != plain["rows"] or changed["count"] != plain["count"]


def killed(
    bench: WorkerContext, mode: str, count: int, kills: int, after: Callable[[random.Random], float]
) -> None:
    """Kill it in the middle again and again; at any time every caption is the old or the new one, and all are made in the end."""
    folder, rng = bench.settings.home / "datasets" / "world", random.Random(count)
    said = {
        row["file"]: row["after"]
        for row in caption(bench, mode=mode, trigger="mysks", dry_run=True, anew=True)["rows"]
    }
    answers = next((bench.settings.home / "cache" / "captions").glob("*.jsonl"))
    answers.unlink()  # what it was told now is not to help the others
    old, deaths = texts(bench), 0
    for _ in range(kills):
        steps, ours = get_context("fork").Pipe(duplex=False)
        child = get_context("fork").Process(target=caption_in_child, args=(bench, mode, ours))
        child.start()
        ours.close()
        with suppress(EOFError):  # it was done before
            while not steps.recv():
                pass
        time.sleep(after(rng))
        child.kill()
        child.join()
        deaths += child.exitcode != 0
        steps.close()
        for name, text in texts(bench).items():
            assert text in (old.get(name), said.get(f"{name}.png")), name
    known = len(answers.read_bytes().splitlines()) if answers.exists() else 0
    assert deaths
    assert known
    result = caption(bench, mode=mode, trigger="mysks")
    assert result["made"] <= count - known + 1  # a line may have been cut off
    assert texts(bench) == old | {name.removesuffix(".png"): text for name, text in said.items()}
    assert not [path for path in folder.iterdir() if path.suffix not in (".png", ".txt")]


@pytest.mark.slow
def test_killed_in_the_middle_nothing_is_torn_and_it_goes_on(bench: WorkerContext) -> None:
    makers.dataset(bench.settings.home / "datasets" / "world", 40)
    killed(bench, "fill", 40, 1, lambda rng: 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fill", "replace"])
def test_killed_in_the_middle_of_200(bench: WorkerContext, mode: str) -> None:
    makers.dataset(bench.settings.home / "datasets" / "world", 200)
    killed(bench, mode, 200, 8, lambda rng: rng.uniform(0.0, 0.5))
