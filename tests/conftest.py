"""What tests share: a home, a bench on the embedded model, and toy models of the other families, saved as real folders."""

from __future__ import annotations

import gc
import os
import sqlite3
import subprocess
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
# Otherwise each page, worker and command that a test starts compiles all of the studio anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # small networks: more threads only wait for each other

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, is_hypothesis_test
from hypothesis import settings as hypothesis_settings

from studio.settings import Settings, load
from support.examples import ALL, QUICK
from support.models import POCKET, make_toy
from support.served import Served, need_port

pytest_plugins = ["support.sentences"]  # the English of errors, and the option --write-sentences

SERVED_FILES = (
    "test_api.py",
    "test_guard.py",
    "test_limits.py",
    "test_open_studio.py",
    "test_privacy.py",
)
# The same examples in every run and no clock, so that what passed passes; `HYPOTHESIS_PROFILE=search` looks for others.
UNTIMED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
SAME: dict[str, Any] = {"derandomize": True, "database": None, **UNTIMED}
hypothesis_settings.register_profile("quick", max_examples=QUICK, **SAME)
hypothesis_settings.register_profile("same", max_examples=ALL, **SAME)
hypothesis_settings.register_profile("search", max_examples=ALL, **UNTIMED)


def pytest_configure(config: pytest.Config) -> None:
    """Properties are tried on few examples, and on all of them where slow tests run."""
    profile = "same" if wants_slow(config) else "quick"
    hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", profile))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With all their examples properties count as slow."""
    if wants_slow(config):
        for item in items:
            if is_hypothesis_test(getattr(item, "obj", None)):
                item.add_marker(pytest.mark.slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process runs all files that ask the open studio, so that only one studio is opened."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "served" if Path(file).name in SERVED_FILES else file

    return Scheduling(config, log)


def pytest_collection_finish() -> None:
    """What is loaded by now stays: no look for garbage need walk through torch, gradio and all tests again."""
    gc.collect()
    gc.freeze()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m smoke` does not import what has no such test."""
    if config.option.markexpr != "smoke" or not collection_path.match("test_*.py"):
        return None
    return "mark.smoke" not in collection_path.read_text() or None


def wants_slow(config: pytest.Config) -> bool:
    """Whether `-m` takes slow tests in."""
    chosen = config.option.markexpr.replace("not slow", "")
    return not config.option.markexpr or "slow" in chosen


@pytest.fixture(scope="session", autouse=True)
def unsynced_disk() -> Iterator[None]:
    """No write is waited for until it is on the disk, which takes ten milliseconds each.

    A kill loses nothing by that, only a power cut would, and no test cuts the power. That the studio calls fsync, and what
    one that fails leaves, is tried with calls that a test puts in its place.
    """
    from studio.storage.database import Database

    open_database, open_tables = sqlite3.connect, Database._connect

    def connect(*given: Any, **named: Any) -> sqlite3.Connection:
        connection = open_database(*given, **named)
        with suppress(sqlite3.Error):  # of a damaged file, which is said by whoever reads it
            connection.execute("PRAGMA synchronous = OFF")
        return connection

    def connect_tables(
        database: Database, migrations: Any, busy_seconds: float, _synchronous: str
    ) -> None:
        open_tables(database, migrations, busy_seconds, "OFF")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which fails as well where nothing is open
        patch.setattr(sqlite3, "connect", connect)
        patch.setattr(Database, "_connect", connect_tables)
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A fresh home on the CPU."""
    return load(
        home=tmp_path / "home", device="cpu", precision="float32", keep_free=0, preview_every=0
    )


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy SD 2.x (v-prediction) and SDXL models: real classes, random weights, the embedded tokenizer."""
    folder = tmp_path_factory.mktemp("toys")
    make_toy(folder / "toy-sd2", "StableDiffusionPipeline")
    make_toy(folder / "toy-sdxl", "StableDiffusionXLPipeline")
    return folder


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory, toys: Path) -> Iterator[Any]:
    """A bench on the CPU in float32 that finds pocket, toy-sd2 and toy-sdxl."""
    from support.benches import open_toy_bench  # torch, which not every test needs

    bench = open_toy_bench(tmp_path_factory.mktemp("home"), toys)
    yield bench
    bench.home.gallery.close()


@pytest.fixture
def paint(bench: Any) -> Callable[..., Any]:
    """`paint(prompt=…, seed=…)` → the picture's pixels as an array, or several of them."""
    import numpy as np
    from PIL import Image

    from studio.engine.generation.job import generate

    def paint(**spec: Any) -> Any:
        made = generate(bench, spec, lambda progress: None)["pictures"]
        arrays = [np.asarray(Image.open(picture["path"])) for picture in made]
        return arrays[0] if len(arrays) == 1 else arrays

    return paint


@pytest.fixture(scope="session")
def open_studio() -> Iterator[Callable[..., Served]]:
    """`open_studio(home, *flags)` opens a page in a process of its own, as a user does. All are closed at the end."""
    need_port()
    processes: list[subprocess.Popen[bytes]] = []
    homes: list[str] = []

    def open_studio(home: Path, *flags: str) -> Served:
        home.mkdir(parents=True, exist_ok=True)
        log = home.with_suffix(".log")
        command = [
            sys.executable,
            "-m",
            "studio",
            "--port",
            "0",
            "--home",
            str(home),
            "--device",
            "cpu",
            *flags,
        ]
        with open(log, "wb") as out:
            processes.append(subprocess.Popen(command, stdout=out, stderr=out))
        homes.append(str(home))
        end = time.monotonic() + 120
        while "The studio is open at " not in (said := log.read_text()):
            assert processes[-1].poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.05)
        port = said.split("The studio is open at ")[1].split()[0].rsplit(":", 1)[1]
        return Served(f"http://127.0.0.1:{port}", home, log)

    yield open_studio
    for process in processes:
        process.kill()
        process.wait()
    for process in psutil.process_iter(
        ["cmdline"]
    ):  # their workers would leave by themselves, but only after a while
        if any(home in (process.info["cmdline"] or ()) for home in homes):
            process.kill()


@pytest.fixture(scope="session")
def served(open_studio: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory) -> Served:
    """One open studio for all tests; it also has the embedded model under the name `other`."""
    home = tmp_path_factory.mktemp("served") / "home"
    (home / "models").mkdir(parents=True)
    (home / "models" / "other").symlink_to(POCKET)
    return open_studio(home)


@pytest.fixture(scope="session")
def open_local_sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Sites on this machine in place of the hub, Civitai and others."""
    from support.sites import open_sites

    with open_sites(tmp_path_factory.mktemp("sites")) as sites:
        yield sites


@pytest.fixture
def sites(open_local_sites: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same, with nothing on them yet; there is no other network, no token, no wish to be offline."""
    open_local_sites.reset()
    monkeypatch.setattr(
        "studio.storage.downloads.safe_http.open_network", lambda: open_local_sites.network
    )
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "CIVITAI_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("studio.storage.downloads.hub.read_hub_token", lambda: "")
    return open_local_sites


@pytest.fixture
def desk(settings: Settings) -> Iterator[Any]:
    """What the tabs work with, on a home of its own; closed afterwards."""
    from studio.services.submission import Services
    from studio.storage.home import Home

    home = Home(settings)
    home.gallery.sync()
    yield Services(home)
    home.close()


@pytest.fixture
def run_command(
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`studio …` in this process, where torch is loaded already."""
    from studio.cli.main import main

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        with pytest.raises(SystemExit) as ended:
            main(words)
        output = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(words, ended.value.code, output.out, output.err)

    return run


@pytest.fixture
def command(
    tmp_path: Path, run_command: Callable[..., subprocess.CompletedProcess[str]]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same on a home of its own and the CPU."""
    where = ("--home", str(tmp_path / "home"), "--device", "cpu")
    return lambda *words: run_command(*words, *where)
