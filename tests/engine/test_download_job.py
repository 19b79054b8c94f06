"""The job that downloads: beside images, stopped, killed, gone on with; for the owner alone."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.core.downloads.plan import DownloadSpec
from studio.engine.downloads.job import describe_progress
from studio.engine.worker import _Worker
from studio.errors import BadFile, DownloadError, NotAllowed
from studio.services.submission import Services
from studio.services.supervisor import worker_command
from studio.settings import Settings
from studio.storage.jobs import Jobs
from support.sentences import refused
from support.sites import OTHER, Gate, Sites, add_version, lead_processes_here, make_large_lora
from support.visitors import ANN, OWNER

LORA = f"https://{OTHER}/files/moon.safetensors"
SPEC: dict[str, Any] = {"link": LORA, "is_host_confirmed": True}
IMAGE: dict[str, Any] = {"prompt": "a boat", "steps": 2, "width": 64, "height": 64, "seed": 1}


@pytest.fixture
def lora(tmp_path: Path) -> bytes:
    return make_large_lora(tmp_path)


@pytest.fixture
def jobs(settings: Settings) -> Iterator[Jobs]:
    table = Jobs(settings.home / "jobs.sqlite")
    yield table
    table.close()


@pytest.fixture
def worker(sites: Sites, settings: Settings, jobs: Jobs) -> Iterator[_Worker]:
    worker = _Worker("cpu", jobs, settings)
    yield worker
    worker.stop_background_jobs()
    worker._context.home.close()


def until(is_true: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_image_is_made_while_a_download_runs(
    sites: Sites, worker: _Worker, jobs: Jobs, settings: Settings, lora: bytes
) -> None:
    gate = Gate(sites, LORA, lora)
    download, image = jobs.submit("download", SPEC), jobs.submit("generate", IMAGE)
    worker.start_background_jobs()
    assert gate.was_reached.wait(30)
    assert worker.has_background_job
    assert worker.run_next_job()
    assert not worker.run_next_job()  # the download is none of this thread's
    done, running = jobs.get(image), jobs.get(download)
    assert done
    assert running
    assert done.state == "done"
    assert Path(done.result["pictures"][0]["path"]).is_file()
    assert running.state == "running"
    until(lambda: jobs.get(download).progress.step >= len(lora) // 3, 5)  # type: ignore[union-attr]
    assert jobs.get(download).progress.total == len(lora)  # type: ignore[union-attr]
    gate.open()
    until(lambda: not jobs.get(download).is_open)  # type: ignore[union-attr]
    job = jobs.get(download)
    assert job
    assert (job.state, job.result["folder"], job.result["name"]) == ("done", "loras", "moon")
    assert (settings.loras / "moon.safetensors").read_bytes() == lora
    until(lambda: not worker.has_background_job)


def test_a_stop_is_heard_and_the_next_one_goes_on(
    sites: Sites, worker: _Worker, jobs: Jobs, settings: Settings, lora: bytes
) -> None:
    gate = Gate(sites, LORA, lora)
    download = jobs.submit("download", SPEC)
    worker.start_background_jobs()
    assert gate.was_reached.wait(30)
    jobs.cancel(download)
    until(lambda: not jobs.get(download).is_open, 5)  # type: ignore[union-attr]
    assert jobs.get(download).state == "cancelled"  # type: ignore[union-attr]
    assert list(settings.loras.iterdir()) == []
    again = jobs.retry(download)
    assert again
    until(lambda: not jobs.get(again).is_open)  # type: ignore[union-attr]
    assert jobs.get(again).state == "done"  # type: ignore[union-attr]
    start = int(sites.log[-1].headers["Range"].removeprefix("bytes=").rstrip("-"))
    assert 0 < start <= len(lora) // 2
    assert (settings.loras / "moon.safetensors").read_bytes() == lora


def test_what_went_wrong_is_said_in_the_job(sites: Sites, worker: _Worker, jobs: Jobs) -> None:
    download = jobs.submit("download", SPEC)
    assert worker.run_next_background_job()
    job = jobs.get(download)
    assert job
    assert job.state == "failed"
    assert "404" in (job.error or "")
    broken = jobs.submit("download", {"link": ""})
    assert worker.run_next_background_job()
    assert jobs.get(broken).state == "failed"  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [401, 403, 404, 410, 418])
def test_what_would_fail_again_is_marked(
    sites: Sites, worker: _Worker, jobs: Jobs, status: int
) -> None:
    sites.on(LORA, lambda asked: asked.answer(status))
    download = jobs.submit("download", SPEC)
    assert worker.run_next_background_job()
    assert jobs.get(download).result == {"is_final": True}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "spec", [{"link": LORA}, {"link": f"https://{OTHER}/a.ckpt"}, {"link": ""}]
)
def test_what_is_never_fetched_is_marked(
    sites: Sites, worker: _Worker, jobs: Jobs, spec: dict[str, Any]
) -> None:
    download = jobs.submit("download", spec)
    assert worker.run_next_background_job()
    assert jobs.get(download).result == {"is_final": True}  # type: ignore[union-attr]


def test_a_page_in_place_of_weights_is_marked(sites: Sites, worker: _Worker, jobs: Jobs) -> None:
    sites.put(LORA, b"<!doctype html><p>Log in first, and then look again for the file.")
    download = jobs.submit("download", SPEC)
    assert worker.run_next_background_job()
    assert jobs.get(download).result == {"is_final": True}  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [429, 500, 503, 520])
def test_what_may_go_better_is_not_marked(
    sites: Sites, worker: _Worker, jobs: Jobs, status: int
) -> None:
    sites.on(LORA, lambda asked: asked.answer(status))
    download = jobs.submit("download", SPEC)
    assert worker.run_next_background_job()
    job = jobs.get(download)
    assert job
    assert job.state == "failed"
    assert job.result is None


def test_a_cut_and_a_full_disk_are_not_marked(
    sites: Sites,
    worker: _Worker,
    jobs: Jobs,
    lora: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sites.on(LORA, lambda asked: asked.start(200, Content_Length=str(len(lora)), ETag='"a"'))
    cut = jobs.submit("download", SPEC)
    assert worker.run_next_background_job()
    assert jobs.get(cut).state == "failed"  # type: ignore[union-attr]
    assert jobs.get(cut).result is None  # type: ignore[union-attr]
    sites.put(LORA, lora)
    monkeypatch.setattr("studio.storage.downloads.part_file.RESERVED_DISK_BYTES", 2**60)
    full = jobs.submit("download", SPEC)
    assert worker.run_next_background_job()
    assert "disk" in (jobs.get(full).error or "")  # type: ignore[union-attr]
    assert jobs.get(full).result is None  # type: ignore[union-attr]


def test_secrets_are_in_no_table(
    sites: Sites,
    worker: _Worker,
    jobs: Jobs,
    settings: Settings,
    lora: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CIVITAI_TOKEN", "civ_secret")
    jobs.submit("download", {"link": add_version(sites, lora)})
    assert worker.run_next_background_job()
    for path in settings.home.rglob("*"):
        assert not path.is_file() or b"civ_secret" not in path.read_bytes(), path


@pytest.mark.slow
def test_after_a_kill_the_same_job_goes_on(
    sites: Sites,
    settings: Settings,
    jobs: Jobs,
    lora: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lead_processes_here(sites, monkeypatch)
    gate = Gate(sites, LORA, lora)
    download = jobs.submit("download", SPEC)
    command = [*worker_command(settings), "--linger", "20"]
    first = subprocess.Popen(command)
    assert gate.was_reached.wait(60)

    def measure_part() -> int:
        parts = (settings.home / "downloads").glob("*.part/files/*.part")
        return sum(path.stat().st_size for path in parts)

    until(lambda: measure_part() >= len(lora) // 3)
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = subprocess.Popen(command)
    until(lambda: jobs.get(download).state == "interrupted")  # type: ignore[union-attr]
    again = jobs.retry(download)
    assert again
    until(lambda: not jobs.get(again).is_open)  # type: ignore[union-attr]
    assert jobs.get(again).state == "done", jobs.get(again)  # type: ignore[union-attr]
    assert "Range" in sites.log[-1].headers
    assert (settings.loras / "moon.safetensors").read_bytes() == lora
    second.kill()
    second.wait()


@pytest.mark.smoke
def test_guests_may_not(desk: Services) -> None:
    spec = DownloadSpec(link=LORA)
    with refused(NotAllowed):
        desk.submit_download(spec, ANN)
    job_id = desk.home.jobs.submit("download", SPEC, owner=ANN.id)
    desk.home.jobs.cancel(job_id)
    job = desk.home.jobs.get(job_id)
    assert job
    with refused(NotAllowed):
        desk.retry_job(job, ANN)


@pytest.mark.smoke
def test_the_owner_may_and_twice_is_once(desk: Services) -> None:
    spec = DownloadSpec(link=LORA, is_host_confirmed=True)
    first = desk.submit_download(spec, OWNER)
    assert desk.submit_download(spec, OWNER) == first
    with refused(BadFile):
        desk.submit_download(DownloadSpec(link="moon"), OWNER)
    with refused(DownloadError):
        desk.submit_download(DownloadSpec(link=LORA), OWNER)
    stored = desk.home.jobs.get(first)
    assert stored
    assert json.loads(spec.model_dump_json()) == stored.spec


@pytest.mark.smoke
def test_progress_in_words() -> None:
    progress = describe_progress(1_200_000_000, 6_940_000_000, 23e6)
    assert progress.message == "1.20 GB of 6.94 GB, 23.0 MB/s"
    assert progress.eta_seconds == pytest.approx(249.6, abs=0.1)
    assert describe_progress(0, 0, 0).eta_seconds is None
