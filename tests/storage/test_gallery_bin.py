"""The bin: nothing is gone at one click, whatever happens on the way; and what is gone stays gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studio.core.base import validate
from studio.core.generation.request import ResolvedRequest
from studio.core.sweeps.spec import SweepSpec, plan_sweep
from studio.errors import DiskError, InvalidSpec
from studio.settings import load
from studio.storage.cleanup import find_leftovers, remove_leftovers, tidy_home
from studio.storage.gallery import GeneratedImage, ImageFilter
from studio.storage.gallery.bin_options import BinOptions
from studio.storage.home import Home
from studio.storage.sweeps import CellResult
from support.sentences import refused

DAY = 24 * 3600.0
Save = Callable[..., GeneratedImage]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(load(home=tmp_path / "home", device="cpu"))
    yield home
    home.close()


@pytest.fixture
def save(home: Home) -> Save:
    def save(owner: str = "ann", seed: int = 7, digest: str = "d" * 64) -> GeneratedImage:
        return home.gallery.save(
            Image.new("RGB", (64, 64), "red"),
            ResolvedRequest(prompt="a boat", width=64, height=64, seed=seed),
            digest=digest,
            content_hashes={},
            seconds=1.0,
            owner=owner,
        )

    return save


@pytest.mark.smoke
def test_a_binned_image_is_out_of_sight_and_whole(home: Home, save: Save) -> None:
    image, kept = save(), save(seed=8)
    before = image.path.read_bytes()
    assert home.gallery.bin.put([image.id]) == [image.id]
    assert home.gallery.search() == [kept]
    assert home.gallery.count() == 1
    assert home.gallery.find_by_digest(image.digest).path == kept.path
    assert home.gallery.find_by_digest(image.digest, is_binned=True).path == image.path
    assert home.gallery.get(image.path).binned == pytest.approx(time.time(), abs=60)
    listed = home.gallery.index.list_page(ImageFilter(is_binned=True), 0, 10)
    assert [entry.id for entry in listed.entries] == [image.id]
    assert image.path.read_bytes() == before
    assert image.thumbnail.is_file()


def test_undo(home: Home, save: Save) -> None:
    images = [save(seed=seed) for seed in range(3)]
    home.gallery.bin.put([image.id for image in images])
    assert home.gallery.bin.restore([images[0].id, images[0].id, 999]) == [images[0].id]
    assert home.gallery.search() == [images[0]]
    assert home.gallery.bin.count() == 2
    assert home.gallery.bin.put([images[1].id]) == []  # it is there already, and keeps its time


def test_a_guest_bins_restores_and_empties_only_their_own(home: Home, save: Save) -> None:
    ann, bob = save("ann"), save("bob")
    assert home.gallery.bin.put([ann.id, bob.id], owner="ann") == [ann.id]
    home.gallery.bin.put([bob.id])
    assert home.gallery.bin.restore([ann.id, bob.id], owner="ann") == [ann.id]
    home.gallery.bin.put([ann.id])
    assert home.gallery.bin.count("ann") == 1
    assert home.gallery.bin.empty("ann") == 1
    assert bob.path.is_file()
    assert not ann.path.exists()


def test_emptied_is_gone_with_thumbnail_and_row(home: Home, save: Save) -> None:
    image, kept = save(), save(seed=8)
    home.gallery.bin.put([image.id])
    assert home.gallery.bin.empty() == 1
    assert not image.path.exists()
    assert not image.thumbnail.exists()
    assert home.gallery.get(image.path) is None
    assert home.gallery.sync() == (0, 0)
    assert home.gallery.search() == [kept]
    assert list(home.gallery.iter_metadata()) == [
        text for text in home.gallery.iter_metadata() if json.loads(text)["request"]["seed"] == 8
    ]


def test_a_file_that_cannot_go_stays_in_the_bin(
    home: Home, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [save(seed=seed) for seed in range(3)]
    home.gallery.bin.put([image.id for image in images])
    unlink = Path.unlink

    def fail(path: Path, missing_ok: bool = False) -> None:
        if path == images[1].path:
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(DiskError, match=r"dddddddd\.png could not be .*Permission denied"):
        home.gallery.bin.empty()
    assert home.gallery.get(images[0].path) is None
    assert set(home.gallery.bin.list_paths()) == {images[1].path, images[2].path}


KILLED = """
import sys
from pathlib import Path
from studio.settings import load
from studio.storage.home import Home
home = Home(load(home=sys.argv[1], device="cpu"))
ids = [image.id for image in home.gallery.search(limit=100)]
print("ready", flush=True)
while True:
    home.gallery.bin.put(ids)
    home.gallery.bin.restore(ids)
    home.gallery.bin.put(ids[:2])
    if sys.argv[2] == "empty":
        home.gallery.bin.empty()
"""


@pytest.mark.parametrize("what", ["undo", "empty"])
@pytest.mark.parametrize(
    "pause", [0.004, *(pytest.param(pause, marks=pytest.mark.slow) for pause in (0.0, 0.02))]
)
def test_kill_9_loses_nothing(home: Home, save: Save, what: str, pause: float) -> None:
    images = [save(seed=seed) for seed in range(12)]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(home.settings.home), what],
        stdout=subprocess.PIPE,
        env=os.environ,
    )
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    home.gallery.sync()
    listed = {image.path for image in home.gallery.search(limit=100)}
    binned = set(home.gallery.bin.list_paths())
    files = {image.path for image in images if image.path.is_file()}
    assert listed | binned == files
    assert not listed & binned
    assert len(files) == 12 if what == "undo" else len(files) >= 10


def test_a_lost_index_brings_the_bin_back(home: Home, save: Save) -> None:
    image = save()
    home.gallery.bin.put([image.id])
    home.close()
    for path in home.settings.home.glob("gallery.sqlite*"):
        path.unlink()
    home.gallery.sync()
    assert [found.path for found in home.gallery.search()] == [image.path]


def test_a_moved_home_keeps_its_bin(home: Home, save: Save, tmp_path: Path) -> None:
    image, kept = save(), save(seed=8)
    home.gallery.bin.put([image.id])
    home.close()
    home.settings.home.rename(tmp_path / "moved")
    moved = Home(load(home=tmp_path / "moved", device="cpu"))
    assert moved.gallery.sync() == (2, 2)
    assert [found.path.name for found in moved.gallery.search()] == [kept.path.name]
    assert [path.name for path in moved.gallery.bin.list_paths()] == [image.path.name]
    assert moved.gallery.sync() == (0, 0)
    moved.close()


def age(home: Home, image: GeneratedImage, days: float) -> None:
    home.gallery.bin.put([image.id])
    home.gallery._database.execute(
        "UPDATE images SET binned = ? WHERE id = ?", time.time() - days * DAY, image.id
    )


def test_the_cleanup_empties_what_is_old(home: Home, save: Save) -> None:
    old, young, kept = save(), save(seed=8), save(seed=9)
    age(home, old, 30.1)
    age(home, young, 29.9)
    assert [found.path for found in find_leftovers(home) if found.kind == "images in the bin"] == [
        old.path
    ]
    tidy_home(home)
    assert not old.path.exists()
    assert young.path.is_file()
    assert kept.path.is_file()
    assert not [found for found in find_leftovers(home) if found.kind == "images in the bin"]


def test_doctor_empties_what_is_old(home: Home, save: Save) -> None:
    old = save()
    age(home, old, 31)
    assert remove_leftovers(home, find_leftovers(home)) == []
    assert not old.path.exists()
    assert home.gallery.bin.count() == 0


def test_days_are_chosen(home: Home, save: Save) -> None:
    options = home.gallery.bin_options
    assert (options.load_days(), options.is_fixed) == (30, False)
    assert options.save_days(2) == 2
    old = save()
    age(home, old, 2.5)
    options.save_days(0)  # until it is emptied
    tidy_home(home)
    assert old.path.is_file()
    options.save_days(2)
    tidy_home(home)
    assert not old.path.exists()
    for days in (-1, 4000, "x", None, 1.5):
        with refused(InvalidSpec, "Keep for (days)"):
            options.save_days(days)
    assert options.load_days() == 2
    fixed = BinOptions(load(home=home.settings.home, bin_days=7))
    assert (fixed.load_days(), fixed.is_fixed) == (7, True)
    (home.settings.home / "bin.json").write_text("[{")
    assert options.load_days() == 30


def test_what_a_binned_image_was_made_from_stays(home: Home, save: Save) -> None:
    image = save()
    home.gallery.bin.put([image.id])
    assert len(list(home.gallery.iter_metadata())) == 1


def sweep_of(home: Home, image: GeneratedImage) -> tuple[str, str]:
    """A sweep whose first cell shows the image; return its id and the cell's key."""
    values: Any = {"base": {"seed": 1}, "axes": [{"field": "steps", "values": [4, 5]}]}
    spec = validate(SweepSpec, values)
    sweep_id = home.sweeps.save(spec, "ann")
    key = plan_sweep(spec).cells[0].key
    home.sweeps.save_cell_result(sweep_id, key, CellResult(image.path, image.digest, 1.0))
    return sweep_id, key


def test_a_sweeps_cell_is_binned(home: Home, save: Save) -> None:
    image = save()
    sweep_id, key = sweep_of(home, image)
    assert home.sweeps.load_cell_results(sweep_id)[key].has_image
    home.gallery.bin.put([image.id])
    result = home.sweeps.load_cell_results(sweep_id)[key]
    assert (result.is_binned, result.has_image, result.path) == (True, False, image.path)
    home.gallery.bin.restore([image.id])
    assert home.sweeps.load_cell_results(sweep_id)[key].has_image
