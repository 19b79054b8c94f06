"""What killed processes and long use leave in a home goes, what somebody may still need stays."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from studio.cli import doctor
from studio.cli.parser import build_parser
from studio.core.captions.provenance import Writer
from studio.errors import Busy, InvalidSpec
from studio.settings import Settings, load
from studio.storage import atomic, leftovers
from studio.storage.cleanup import find_leftovers, remove_leftovers, tidy_home
from studio.storage.home import Home
from studio.storage.locks import Lock
from support.sentences import refused

DAY = leftovers.DAY_SECONDS
DEAD_PID = 2**22 + 1  # above what Linux gives


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(home=tmp_path / "home", device="cpu")


def leave(path: Path, age_seconds: float, data: bytes = b"x" * 1000) -> Path:
    """Write a file that was last used some time ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (time.time() - age_seconds,) * 2)
    return path


def tidy(settings: Settings) -> int:
    home = Home(settings)
    try:
        return tidy_home(home)
    finally:
        home.close()


def find(settings: Settings) -> dict[str, list[str]]:
    home = Home(settings)
    by_kind: dict[str, list[str]] = {}
    for leftover in find_leftovers(home):
        by_kind.setdefault(leftover.kind, []).append(leftover.path.name)
    home.close()
    return by_kind


@pytest.mark.parametrize(
    "name",
    [
        "outputs/2026-01-01/.a.png.{pid}-140.tmp",
        "loras/.moon.safetensors.{pid}-140.tmp",
        ".rates.json.{pid}-140.tmp",
        "presets/pictures/.x.toml.{pid}-1.tmp",
        "datasets/moon/.a.txt.{pid}-140.tmp",
        "runs/0123456789ab/checkpoints/.step-00000100.{pid}-140.tmp/weights.safetensors",
        "datasets/moon/.incoming-{pid}-01234567/0011",
    ],
)
def test_half_written_files_of_dead_processes_go(settings: Settings, name: str) -> None:
    path = leave(settings.home / name.format(pid=DEAD_PID), 0)
    top = next(
        part
        for part in (path, *path.parents)
        if part.name.startswith(".") and part != settings.home
    )
    os.utime(top, (time.time() - 120,) * 2)
    assert tidy(settings) == 1
    assert not top.exists()


def test_what_a_living_process_writes_stays_for_a_day(settings: Settings) -> None:
    mine = leave(settings.outputs / f".a.png.{os.getpid()}-140.tmp", 3600)
    old = leave(settings.outputs / f".b.png.{os.getpid()}-140.tmp", 2 * DAY)
    fresh = leave(settings.outputs / f".c.png.{DEAD_PID}-140.tmp", 5)  # another machine's, perhaps
    assert tidy(settings) == 1
    assert mine.exists()
    assert not old.exists()
    assert fresh.exists()


@pytest.mark.parametrize("name", [".hidden", "a.123-4.tmp", ".a.tmp", ".a.1-2.tmpx", ".added/x/0"])
def test_other_hidden_files_stay(settings: Settings, name: str) -> None:
    path = leave(settings.home / "datasets" / "moon" / name, 1000 * DAY)
    tidy(settings)
    assert path.exists()


def test_the_only_copy_of_a_replaced_folder_goes_back_to_its_name(settings: Settings) -> None:
    """A kill between the two renames of `replace_folder` leaves the old version alone."""
    folder = settings.runs / "step"
    leave(folder / "weights", 0)
    staging = settings.runs / f".step.{DEAD_PID}-1.tmp"
    leave(staging / "weights", 0, b"new")
    script = """
import os, sys
from pathlib import Path
from studio.storage import atomic
rename = os.rename
def rename_and_die(source, target):
    rename(source, target)
    os._exit(9)
os.rename = rename_and_die
atomic.replace_folder(Path(sys.argv[1]), Path(sys.argv[2]))
"""
    code = subprocess.run([sys.executable, "-c", script, staging, folder], check=False).returncode
    assert code == 9
    assert not folder.exists()
    for path in settings.runs.iterdir():
        os.utime(path, (time.time() - 120,) * 2)
    tidy(settings)
    assert [path.name for path in settings.runs.iterdir()] == ["step"]
    assert (folder / "weights").read_bytes() == b"x" * 1000


def test_a_kill_while_writing_leaves_what_tidying_finds(settings: Settings) -> None:
    """The name is the one that `atomic` gives."""
    path = settings.outputs / "a.png"
    with atomic.open_for_writing(path) as file:
        temporary_path = Path(file.name)
        assert leftovers._TEMPORARY_NAME.fullmatch(temporary_path.name)


def test_links_out_of_the_home_are_not_followed(settings: Settings, tmp_path: Path) -> None:
    path = leave(tmp_path / "other" / f".a.png.{DEAD_PID}-140.tmp", 2 * DAY)
    (settings.models / "other").symlink_to(path.parent)
    tidy(settings)
    assert path.exists()


@pytest.mark.parametrize("name", ["uploads", "thumbs", "cache/training", "cache"])
def test_a_folder_that_is_a_link_is_left_alone(
    settings: Settings, tmp_path: Path, name: str
) -> None:
    """Before: what lay behind the link was deleted at start."""
    kept = [leave(tmp_path / "elsewhere" / part / "a.webp", 400 * DAY) for part in ("", "training")]
    link = settings.home / name
    if link.is_dir():
        link.rmdir()
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere")
    tidy(settings)
    home = Home(settings)
    remove_leftovers(home, list(find_leftovers(home)))
    home.close()
    assert all(path.is_file() for path in kept)


def test_uploads_of_yesterday_and_thumbnails_of_deleted_images_go(settings: Settings) -> None:
    old = leave(settings.home / "uploads" / "abc" / "a.png", 2 * DAY)
    fresh = leave(settings.home / "uploads" / "abc" / "b.png", 3600)
    orphan = leave(settings.thumbs / "2026-01-01" / "gone.webp", 3600)
    kept = leave(settings.thumbs / "2026-01-01" / "there.webp", 3600)
    leave(settings.outputs / "2026-01-01" / "there.png", 0)
    unused = leave(settings.thumbs / "datasets" / "00" / "a.webp", 100 * DAY)
    shown = leave(settings.thumbs / "datasets" / "00" / "b.webp", 10 * DAY)
    assert tidy(settings) == 3
    assert not any(path.exists() for path in (old, orphan, unused))
    assert fresh.exists()
    assert kept.exists()
    assert shown.exists()


def test_a_log_keeps_its_end_while_it_is_written(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "MAX_LOG_BYTES", 1000)
    monkeypatch.setattr(leftovers, "KEPT_LOG_BYTES", 100)
    path = settings.home / "worker-cpu.log"
    with open(path, "ab", buffering=0) as worker:
        for number in range(300):
            worker.write(f"line {number}\n".encode())
        tidy(settings)
        worker.write(b"the next\n")
    lines = path.read_text().splitlines()
    assert lines[-2:] == ["line 299", "the next"]
    assert path.stat().st_size < 120


def test_caches_are_bounded_by_age_and_size(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "MAX_TRAINING_CACHE_BYTES", 2500)
    cache = settings.home / "cache"
    for number in range(4):
        leave(cache / "training" / f"{number}.safetensors", number * DAY)
    leave(cache / "captions" / "old.jsonl", 100 * DAY)
    leave(cache / "captions" / "new.jsonl", 1 * DAY)
    assert find(settings) == {
        "training caches": ["2.safetensors", "3.safetensors"],
        "caption caches": ["old.jsonl"],
    }
    assert tidy(settings) == 0  # these only go when their owner says so


def test_the_history_of_a_deleted_dataset(settings: Settings) -> None:
    home = Home(settings)
    for name in ("moon", "boat"):
        folder = settings.home / "datasets" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(folder / "a.png")
        dataset = home.datasets.open(name)
        dataset.write_captions({"a.png": f"a {name}"}, Writer(by="hand"), mode="fill")
    assert find_leftovers(home) == []
    for path in (settings.home / "datasets" / "moon").iterdir():
        path.unlink()
    (settings.home / "datasets" / "moon").rmdir()
    found = find_leftovers(home)
    assert [leftover.kind for leftover in found] == ["history of edits"]
    assert remove_leftovers(home, found) == []
    assert find_leftovers(home) == []
    assert len(home.datasets.open("boat").history()) == 1
    home.close()


# ---- the command --------------------------------------------------------------------------------


def run_doctor(settings: Settings, *flags: str) -> argparse.Namespace:
    return build_parser().parse_args(["doctor", "--home", str(settings.home), *flags])


def test_the_doctor_says_what_would_go_and_removes_it_when_told_to(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    path = leave(settings.outputs / f".a.png.{DEAD_PID}-140.tmp", 2 * DAY, b"x" * 2_500_000)
    doctor.run(run_doctor(settings, "--clean"))
    out = capsys.readouterr().out
    assert "temporary files          1         2.5" in out
    assert "`studio doctor --clean --yes` removes this" in out
    assert path.exists()
    doctor.run(run_doctor(settings, "--clean", "--yes", "--json"))
    report = json.loads(capsys.readouterr().out)
    assert report["removed"] is True
    assert report["kinds"]["temporary files"] == {"files": 1, "bytes": 2_500_000}
    assert report["remaining"] == []
    assert not path.exists()


@pytest.mark.slow
def test_the_doctor_removes_nothing_beside_an_open_studio(settings: Settings) -> None:
    path = leave(settings.outputs / f".a.png.{DEAD_PID}-140.tmp", 2 * DAY)
    lock = Lock(settings.home, "studio")
    assert lock.acquire()
    with refused(Busy):
        doctor.clean_home(settings, remove=True)
    assert doctor.clean_home(settings, remove=False)["kinds"]["temporary files"]["files"] == 1
    assert path.exists()
    lock.close()


def test_yes_needs_clean(settings: Settings) -> None:
    with refused(InvalidSpec, "--yes"):
        doctor.run(run_doctor(settings, "--yes"))


def test_unfinished_downloads_are_found_but_not_one_that_runs(settings: Settings) -> None:
    """They go only when somebody says so: the next try would go on from there."""
    folder = settings.home / "downloads"
    old = leave(folder / "moon-01234567.part" / "files" / "moon.safetensors.part", 3600)
    os.utime(old.parent.parent, (time.time() - 3600,) * 2)
    leave(folder / "sun-01234567.part" / "files" / "sun.safetensors.part", 5)
    other = leave(folder / "notes.txt", 3600)
    tidy(settings)
    assert old.is_file()
    home = Home(settings)
    found = find_leftovers(home)
    assert [(entry.kind, entry.path.name) for entry in found] == [
        ("partial downloads", "moon-01234567.part")
    ]
    assert found[0].size_bytes == 1000
    remove_leftovers(home, found)
    home.close()
    assert not (folder / "moon-01234567.part").exists()
    assert (folder / "sun-01234567.part").exists()
    assert other.exists()
