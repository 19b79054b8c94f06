"""A disk that takes nothing at the n-th write, for every kind of work: said in words, nothing half written, and it works again."""

from __future__ import annotations

import errno
import itertools
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studio.core.base import validate
from studio.core.jobs import JOB_KINDS, SWEEP, TRAIN
from studio.core.sweeps.spec import SweepSpec
from studio.core.training import evaluation
from studio.core.training.config import TrainingConfig
from studio.engine.worker import _Worker
from studio.errors import StudioError
from studio.settings import Settings, load
from studio.storage.home import Home
from studio.storage.jobs import Job, Jobs
from support import captioner_makers, trainings
from support.faulty_disk import FaultyDisk, faulty_disk
from support.sites import OTHER, make_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SMALL: dict[str, Any] = {"prompt": "a boat", "width": 64, "height": 64, "steps": 2}
DOWNLOAD_LINK = f"https://{OTHER}/fetched.safetensors"
LIMIT = 2000  # more writes than any of these works has
RARE_ERRORS = (errno.EIO, errno.EACCES)
RARE_STRIDE = 7  # every seventh write fails for another reason, too
AGAIN_STRIDE = 5  # after every fifth fault the same job is done again, whole
# A work of many seconds is tried with fewer; what it makes on the way, other kinds try write by write.
STRIDES = {"train": 4, "training_evaluation": 19}
BUG = "Something went wrong inside"


@dataclass
class Place:
    """A worker on a home whose disk can be made to fail."""

    settings: Settings
    disk: FaultyDisk
    jobs: Jobs
    worker: _Worker
    seeds: Iterator[int]
    trained_run: str = ""
    done_sweep: str = ""

    @property
    def home(self) -> Home:
        home: Home = self.worker._context.home
        return home

    def do(self, kind: str, spec: dict[str, Any], limit: int = 0, number: int = 0) -> Job:
        """Have the worker do a job, with a fault at the n-th write if there is a limit."""
        job_id = self.jobs.submit(kind, spec)
        if limit:
            self.disk.arm(limit, number or errno.ENOSPC)
        while not (self.worker.run_next_job() or self.worker.run_next_background_job()):
            pass
        self.disk.disarm()
        job = self.jobs.get(job_id)
        assert job
        return job

    def train(self, **values: Any) -> str:
        """Store a training of two steps with a checkpoint after each."""
        few = {"steps": 2, "checkpoint_every": 1, "checkpoints_total_limit": 0, **values}
        config = validate(TrainingConfig, trainings.QUICK | few)
        return self.home.runs.add(config, "ann")

    def get_trained_run(self) -> str:
        """The run of a training that is done."""
        if not self.trained_run:
            run = self.train(model="pocket", trigger="moon")
            assert self.do(TRAIN.name, {"run": run}).state == "done"
            self.trained_run = run
        return self.trained_run

    def save_sweep(self) -> str:
        """Store a sweep of two cells that were never made."""
        axes = [{"field": "guidance", "values": [1, 4]}]
        spec = {"base": SMALL | {"seed": next(self.seeds)}, "axes": axes}
        return self.home.sweeps.save(validate(SweepSpec, spec), "local")

    def get_done_sweep(self) -> str:
        """A sweep that is done."""
        if not self.done_sweep:
            sweep = self.save_sweep()
            assert self.do(SWEEP.name, {"sweep": sweep}).state == "done"
            self.done_sweep = sweep
        return self.done_sweep

    def forget_images(self) -> None:
        """Throw all images away, so that no cell is taken from them."""
        shutil.rmtree(self.settings.outputs)
        self.settings.outputs.mkdir()
        self.home.gallery.sync()

    def forget_answers(self) -> None:
        """Throw away what the captioner has written and what CLIP has seen."""
        self.home.close()  # a table that is open would outlive its file
        shutil.rmtree(self.settings.home / "cache", ignore_errors=True)


# The smallest job of each kind: what it needs is made before the disk fails.
def _generate(place: Place) -> dict[str, Any]:
    return SMALL | {"num_images": 2, "seed": next(place.seeds)}


def _evaluate(place: Place) -> dict[str, Any]:
    run = place.get_trained_run()
    place.forget_images()
    return {"run": run}


def _caption(place: Place) -> dict[str, Any]:
    place.forget_answers()
    return {"dataset": "few", "mode": "replace"}


def _search(place: Place) -> dict[str, Any]:
    place.forget_answers()
    return {"dataset": "few", "question": "search", "words": "a boat"}


def _read_pickles(place: Place) -> dict[str, Any]:
    import torch

    shutil.rmtree(place.settings.home / "cache" / "converted", ignore_errors=True)
    torch.save({"emb_params": torch.ones(1, 768)}, place.settings.embeddings / "style.pt")
    return {}


def _download(place: Place) -> dict[str, Any]:
    for path in place.settings.loras.glob("fetched.*"):
        path.unlink()
    shutil.rmtree(place.settings.home / "downloads", ignore_errors=True)
    return {"link": DOWNLOAD_LINK, "is_host_confirmed": True}


def _upscale(place: Place) -> dict[str, Any]:
    image = place.home.inputs.add(Image.new("RGB", (16, 16), "red"))
    return {"image": image.sha256, "upscaler": "Lanczos", "scale": 2, "request": None}


JOBS: dict[str, Callable[[Place], dict[str, Any]]] = {
    "generate": _generate,
    "denoise_strip": lambda place: {"request": SMALL | {"seed": next(place.seeds)}, "every": 1},
    "sweep": lambda place: {"sweep": place.save_sweep()},
    "sweep_export": lambda place: {"sweep": place.get_done_sweep(), "numbers": ["seconds"]},
    "train": lambda place: {"run": place.train()},
    "training_dry_run": lambda place: {"config": trainings.QUICK},
    "export_checkpoint": lambda place: {"run": place.get_trained_run(), "step": 1},
    "training_evaluation": _evaluate,
    "caption": _caption,
    "clip_search": _search,
    "upscale": _upscale,
    "unload": lambda place: {"models": []},
    "read_pickles": _read_pickles,
    "download": _download,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, open_local_sites: Any) -> Iterator[Place]:
    open_local_sites.put(DOWNLOAD_LINK, make_weights(tmp_path_factory.mktemp("weights")))
    folder = trainings.make_home(tmp_path_factory.mktemp("full") / "home")
    captioner_makers.dataset(folder / "datasets" / "few", 2)
    settings = load(home=folder, device="cpu", precision="float32", keep_free=0, preview_every=1)
    with pytest.MonkeyPatch.context() as patch, faulty_disk(folder) as disk:
        trainings.hasten(patch)
        patch.setattr("studio.engine.worker.lengthen_pause", lambda _seconds: 0.01)
        patch.setattr("studio.engine.worker.MAX_DISK_PAUSE_SECONDS", 0.01)
        patch.setattr(
            "studio.storage.downloads.safe_http.open_network", lambda: open_local_sites.network
        )
        shorten_evaluation(patch)
        jobs = Jobs(folder / "jobs.sqlite")
        worker = _Worker("cpu", jobs, settings)
        yield Place(settings, disk, jobs, worker, itertools.count(1))
        worker._context.home.close()
        jobs.close()


def shorten_evaluation(patch: pytest.MonkeyPatch) -> None:
    """Have the least judged that can be: one scene, one file, images of two steps."""
    for name, few in (("MAX_SCENES", 1), ("MAX_CHECKPOINTS", 1), ("MAX_REFERENCES", 1)):
        patch.setattr(evaluation, name, few)
    patch.setattr(evaluation, "LORA_WEIGHTS", (0.0, 1.0))
    build_sweep, select_references = evaluation.build_sweep, evaluation.select_references

    def shorten(spec: SweepSpec) -> SweepSpec:
        return spec.model_copy(update={"base": spec.base.model_copy(update={"steps": 2})})

    def select(*values: Any) -> Any:
        scenes, spec = select_references(*values)
        return scenes, shorten(spec)

    patch.setattr(evaluation, "build_sweep", lambda *values: shorten(build_sweep(*values)))
    patch.setattr(evaluation, "select_references", select)


def test_every_kind_of_work_is_tried() -> None:
    assert JOBS.keys() == JOB_KINDS.keys()


def check_fault(place: Place, kind: str, limit: int, number: int, again: bool) -> str:
    """Do one job with a fault at its n-th write; return how it ended, "whole" if it has no such write."""
    make_spec = JOBS[kind]
    spec = make_spec(place)
    job = place.do(kind, spec, limit, number)
    where = f"{kind}, write {limit} ({place.disk.failed}): {job.error}"
    assert place.disk.list_halves() == [], where
    assert BUG not in (job.error or ""), where
    home = Home(place.settings)
    home.jobs.list_open()
    home.gallery.sync()
    home.close()
    if not place.disk.failed:
        assert job.state == "done", where
        return "whole"
    if job.state != "done":
        assert job.state == "failed", where
        assert "could not be" in (job.error or "") or "cannot be" in (job.error or ""), where
        if again:
            repeated = place.do(kind, spec)
            assert repeated.state == "done", f"{where}; again: {repeated.error}"
    return job.state


@pytest.mark.parametrize("kind", ["generate", "caption"])
def test_the_first_writes_of_a_work(place: Place, kind: str) -> None:
    limits = (1, 4, 8, 11, 14)
    ends = {check_fault(place, kind, limit, errno.ENOSPC, limit == 8) for limit in limits}
    # Which write is the work's own, and not the queue's, depends on how often it reports.
    for limit in sorted(set(range(1, 25)).difference(limits)):
        if "failed" in ends:
            break
        ends.add(check_fault(place, kind, limit, errno.ENOSPC, again=True))
    assert "failed" in ends


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(JOB_KINDS))
def test_every_write_of_every_work(
    place: Place, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ends: Counter[str] = Counter()
    for limit in range(1, LIMIT, STRIDES.get(kind, 1)):
        end = check_fault(place, kind, limit, errno.ENOSPC, limit % AGAIN_STRIDE == 1)
        if limit % RARE_STRIDE == 3 and kind not in STRIDES:
            number = RARE_ERRORS[limit % 2]
            ends[check_fault(place, kind, limit, number, again=False)] += 1
        ends[end] += 1
        if end == "whole":
            break
    with capsys.disabled():
        print(f"\n{kind}: {ends.total()} runs, {dict(ends)}")


@pytest.mark.slow
def test_every_write_of_an_import(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = place.settings.home / "datasets" / "small"
    archive = tmp_path / "moon.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(source.iterdir()):
            file.write(path, path.name)
    refused = 0
    for limit in range(1, LIMIT):
        home = Home(place.settings)
        name = f"taken-{limit}"
        place.disk.arm(limit)
        sentence = ""
        skipped: list[tuple[str, str]] = []
        try:
            skipped = home.datasets.import_files(name, [(archive, archive.name)]).skipped
        except StudioError as error:
            sentence = str(error)
            refused += 1
        place.disk.disarm()
        where = f"write {limit} ({place.disk.failed}): {sentence} {skipped}"
        assert place.disk.list_halves() == [], where
        if not sentence:  # what is not there is named
            assert home.datasets.open(name).count_images().images >= 4 - len(skipped), where
        if sentence or skipped:
            home.datasets.import_files(name, [(archive, archive.name)])
        assert home.datasets.open(name).count_images().images >= 4, where
        home.close()
        if not place.disk.failed:
            break
    with capsys.disabled():
        print(f"\nimport of a zip: {limit} runs, {refused} refused in words")
