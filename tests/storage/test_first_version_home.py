"""A home that the first version made opens wholly: nothing in it is lost, made again or called by a name that is gone."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.cli.train import load_config
from studio.core.generation.request import GenerationRequest, ResolvedRequest
from studio.core.sweeps.spec import plan_sweep
from studio.engine.context import WorkerContext
from studio.engine.generation.job import generate
from studio.engine.sweeps.job import run_sweep
from studio.engine.training.job import train
from studio.settings import load
from studio.storage.home import Home
from studio.storage.jobs import Jobs, Progress
from support.old_home import ARCHIVE, DATASET, LORA, PRESET, RUN, SWEEP, unpack


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerContext]:
    """A worker on that home."""
    home = unpack(tmp_path_factory.mktemp("first-version"))
    settings = load(home=home, device="cpu", precision="float32", keep_free=0, preview_every=0)
    context = WorkerContext.open(settings)
    yield context
    context.home.close()


@pytest.fixture
def home(context: WorkerContext) -> Home:
    return context.home


def ignore(progress: Progress) -> None:
    """A report that nobody hears."""


def test_the_gallery_lists_every_image_with_its_settings(home: Home) -> None:
    assert home.gallery.count() == 7
    images = home.gallery.search("red ball")
    assert len(images) == 3
    assert {image.request.seed for image in images} == {7, 8, 9}
    assert {image.request.noise_schedule for image in images} == {"Karras"}
    assert all(image.path.is_file() for image in images)
    assert home.gallery.get_seconds_per_megapixel("pocket")


def test_digests_are_what_they_were(home: Home) -> None:
    for image in home.gallery.search():
        assert image.request.digest(image.content_hashes) == image.digest


def test_files_alone_suffice_for_the_gallery(home: Home, tmp_path: Path) -> None:
    """A moved home: the index names files that are not there, and is made anew from those that are."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    moved = Home(load(home=tmp_path / "studio-home", device="cpu"))
    assert moved.gallery.sync() == (7, 7)
    assert {image.digest for image in moved.gallery.search()} == {
        image.digest for image in home.gallery.search()
    }
    moved.close()


def test_the_sweep_is_read_with_its_cells(home: Home) -> None:
    sweep = home.sweeps.get(SWEEP)
    assert sweep
    results = home.sweeps.load_cell_results(SWEEP)
    plan = plan_sweep(sweep.spec)
    assert len(plan.cells) == 4
    assert {cell.key for cell in plan.cells} == set(results)
    assert all(result.has_image for result in results.values())


def test_the_sweep_is_taken_and_not_made_again(context: WorkerContext) -> None:
    result = run_sweep(context, {"sweep": SWEEP}, ignore)
    assert result["made"] == 0
    assert result["failed"] == 0
    assert result["taken"] == 4


def test_a_verdict_can_be_given_and_read(home: Home) -> None:
    from studio.storage.verdicts import Verdict

    key = next(iter(home.sweeps.load_cell_results(SWEEP)))
    home.sweeps.set_verdict(SWEEP, key, Verdict(4, "old but good", True))
    home.sweeps.set_metric(SWEEP, "fit", {key: 0.5})
    result = home.sweeps.load_cell_results(SWEEP)[key]
    assert result.verdict == Verdict(4, "old but good", True)
    assert result.metrics == {"fit": 0.5}


def test_the_preset_is_read_under_todays_names(home: Home) -> None:
    request = home.presets.load(PRESET)
    assert request.noise_schedule == "Karras"
    assert request.scheduler == "UniPC"


def test_the_dataset_has_its_captions_and_its_history(home: Home) -> None:
    dataset = home.datasets.open(DATASET)
    assert dataset.count_images().images == 4
    (step,) = dataset.history()
    assert step.title == "pocket: fill 1 captions"
    caption = home.settings.home / "datasets" / DATASET / "003.txt"
    written = caption.read_bytes()
    dataset.undo()
    assert not caption.exists()
    dataset.redo()
    assert caption.read_bytes() == written


def test_the_run_is_taken_up_from_its_checkpoint(context: WorkerContext) -> None:
    """Its images and captions have to be those that it was begun with: one was captioned anew since."""
    run = context.home.runs.get(RUN)
    assert run
    assert run.config.train_batch_size == 2
    caption = context.home.settings.home / "datasets" / DATASET / "003.txt"
    caption.write_text("a watercolor painting of a white mysks plush toy in a desert\n")
    before = [checkpoint.content_hash for checkpoint in context.home.runs.list_checkpoints(RUN)]
    reports: list[Progress] = []
    result = train(context, {"run": RUN, "resume": True}, reports.append)
    assert result["lora"]
    assert (reports[-1].step, reports[-1].total) == (4, 4)
    assert "Training" not in {report.message for report in reports}, "steps were taken again"
    after = [checkpoint.content_hash for checkpoint in context.home.runs.list_checkpoints(RUN)]
    assert after == before


def test_the_lora_paints_and_its_settings_are_read(context: WorkerContext) -> None:
    spec = {
        "prompt": "a photo of a mysks plush toy",
        "steps": 2,
        "seed": 3,
        "width": 64,
        "height": 64,
    }
    plain = generate(context, spec, ignore)["pictures"][0]
    tuned = generate(context, spec | {"loras": f"<lora:{LORA}:1>"}, ignore)["pictures"][0]
    assert plain["digest"] != tuned["digest"]
    config, notices = load_config(context.home.settings.loras / f"{LORA}.safetensors", False, [])
    assert config.name == LORA
    assert config.train_batch_size == 2
    assert notices == []


def test_requests_in_former_words_are_the_same_requests() -> None:
    old = {"prompt": "a", "count": 2, "batch": 2, "schedule": "Karras", "seed": 3}
    new = {"prompt": "a", "num_images": 2, "batch_size": 2, "noise_schedule": "Karras", "seed": 3}
    old_request = GenerationRequest.model_validate(old)
    assert old_request == GenerationRequest.model_validate(new)
    resolved = old_request.resolve(128, 0)
    assert isinstance(resolved, ResolvedRequest)
    dumped = json.loads(resolved.model_dump_json())
    assert ResolvedRequest.model_validate(dumped) == resolved


def test_a_queue_of_the_first_version_is_worked_on(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with sqlite3.connect(path) as database:
        database.executescript(
            """
            CREATE TABLE jobs (
                id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, spec TEXT NOT NULL,
                owner TEXT NOT NULL, key TEXT UNIQUE, state TEXT NOT NULL DEFAULT 'queued',
                rank REAL NOT NULL DEFAULT 0, device TEXT, stop INTEGER NOT NULL DEFAULT 0,
                created REAL NOT NULL, started REAL, ended REAL, error TEXT, result TEXT,
                beat INTEGER NOT NULL DEFAULT 0, progress TEXT NOT NULL DEFAULT '{}', preview BLOB
            );
            CREATE TABLE workers (device TEXT PRIMARY KEY, said TEXT NOT NULL, at REAL NOT NULL);
            CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
            INSERT INTO jobs (kind, spec, owner, created, progress) VALUES
                ('see', '{}', 'a', 1.0, '{"step": 1, "total": 2, "note": "n", "left": 3.0,
                 "pictures": [{"path": "p"}], "numbers": {"loss": 0.5}}'),
                ('probe', '{}', 'a', 2.0, '{}'), ('generate', '{}', 'a', 3.0, '{}');
            PRAGMA user_version = 1;
            """
        )
    database.close()
    jobs = Jobs(path)
    kinds = [job.kind for job in jobs.list_open()]
    assert kinds == ["clip_search", "training_dry_run", "generate"]
    job = jobs.claim("cpu")
    assert job
    assert job.progress == Progress(1, 2, "n", 3.0, ({"path": "p"},), None, {"loss": 0.5})
    jobs.close()
