"""Tens of thousands of files: imported with one sync and a report, listed and paged without opening them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from studio.settings import Settings, load
from studio.storage import atomic
from studio.storage.datasets import importer
from studio.storage.datasets.dataset import DatasetStore
from support.limits import count_calls

MAX_ENTRIES = 50_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(home=tmp_path / "home", device="cpu")


def encode_png(number: int = 0) -> bytes:
    buffer = io.BytesIO()
    colour = (number % 256, number // 256 % 256, number // 65_536)
    Image.new("RGB", (64, 64), colour).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def pack_pairs(path: Path, count: int) -> Path:
    """Pack images with a caption each."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            archive.writestr(f"{number:05}.png", encode_png(number))
            archive.writestr(f"{number:05}.txt", f"a boat, number {number}")
    return path


def test_an_upload_is_synced_once_and_not_file_by_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fsync takes the disk ten milliseconds."""
    fsyncs: list[int] = []
    syncs: list[Path] = []
    fsync, sync_disk = os.fsync, atomic.sync_disk
    monkeypatch.setattr(os, "fsync", lambda fd: (fsyncs.append(fd), fsync(fd)))
    monkeypatch.setattr(
        atomic, "sync_disk", lambda folder: (syncs.append(folder), sync_disk(folder))
    )
    archive = pack_pairs(tmp_path / "pairs.zip", 40)
    result = DatasetStore(settings).import_files("new", [(archive, archive.name)])
    assert (result.num_images, result.num_captions) == (40, 40)
    assert len(syncs) == 1
    assert len(fsyncs) < 10  # of folders


def test_files_are_on_the_disk_before_the_journal_names_them(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not take them leaves the dataset as it was."""

    def fail(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(importer.atomic, "sync_disk", fail)
    archive = pack_pairs(tmp_path / "pairs.zip", 3)
    store = DatasetStore(settings)
    with pytest.raises(Exception, match="No space left on device"):
        store.import_files("new", [(archive, archive.name)])
    assert "new" not in store.names()


def test_lone_texts_cost_no_search_each(settings: Settings, tmp_path: Path) -> None:
    """They were looked up in a list, 50,000 times 50,000 names."""
    counts = []
    for number in (200, 400):
        archive = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(archive, "w") as packed:
            for text in range(number):
                packed.writestr(f"{text}.txt", "x")
        store = DatasetStore(settings)
        with count_calls() as count:
            store.import_files("x", [(archive, archive.name)])
        counts.append(count.calls)
    assert counts[1] < 2.5 * counts[0]


@pytest.mark.slow
def test_a_kill_while_importing_adds_all_or_nothing(settings: Settings, tmp_path: Path) -> None:
    archive = pack_pairs(tmp_path / "pairs.zip", 60)
    script = """
import os, sys
from pathlib import Path
from studio.settings import load
from studio.storage import atomic
from studio.storage.datasets.dataset import DatasetStore
if sys.argv[3] == "before":
    atomic.sync_disk = lambda folder: os._exit(9)
else:
    sync = atomic.sync_disk
    import studio.storage.datasets.history as history
    history.file_changes.fsync_parents = lambda *_: os._exit(9)
archive = Path(sys.argv[2])
DatasetStore(load(home=sys.argv[1])).import_files("new", [(archive, archive.name)])
"""
    for moment, count in (("before", 0), ("after", 60)):
        code = subprocess.run(
            [sys.executable, "-c", script, settings.home, archive, moment], check=False
        ).returncode
        assert code == 9
        dataset = DatasetStore(settings).open("new")
        assert [len(dataset.images), sum(bool(image.caption) for image in dataset.images)] == [
            count,
            count,
        ]


@pytest.mark.slow
def test_a_zip_of_fifty_thousand_small_texts(settings: Settings, tmp_path: Path) -> None:
    archive = tmp_path / "texts.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("0.png", encode_png())
        for number in range(MAX_ENTRIES - 1):
            packed.writestr(f"{number}.txt", f"text {number}")
    reports: list[tuple[str, int, int]] = []
    start = time.monotonic()
    result = DatasetStore(settings).import_files(
        "new", [(archive, archive.name)], report=lambda *progress: reports.append(progress)
    )
    seconds = time.monotonic() - start
    print(f"zip of 50,000 small files: {seconds:.0f} s")
    assert (result.num_images, result.num_captions) == (1, 1)
    assert len(result.skipped) == MAX_ENTRIES - 2
    assert len(reports) > 200  # a bar that moves
    assert seconds < 300


@pytest.mark.slow
def test_a_dataset_of_twenty_thousand_images(settings: Settings, tmp_path: Path) -> None:
    folder = settings.home / "datasets" / "many"
    folder.mkdir(parents=True)
    for number in range(20_000):
        (folder / f"{number:05}.png").write_bytes(encode_png(number))
        (folder / f"{number:05}.txt").write_text(f"a boat, number {number}")
    store = DatasetStore(settings)
    seconds = {}
    for name in ("first opening", "second opening"):
        start = time.monotonic()
        dataset = store.open("many")
        seconds[name] = time.monotonic() - start
    start = time.monotonic()
    page = dataset.get_page(offset=10_000, limit=60, filter_query="boat", sort="name")
    seconds["a page"] = time.monotonic() - start
    start = time.monotonic()
    dataset.examine()
    seconds["looking at all"] = time.monotonic() - start
    print(", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()))
    assert len(dataset.images) == 20_000
    assert page.total == 20_000
    assert [image.key for image in page.images[:2]] == ["10000.png", "10001.png"]
    assert dataset.count_images().unexamined == 0
    assert seconds["second opening"] < 20
    assert seconds["a page"] < 2
