"""A home: every store once, and all of them closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.errors import DiskError
from studio.settings import load
from studio.storage.home import Home

TABLES = ("jobs", "gallery", "sweeps", "datasets", "training_sets", "embeddings")


def connections(home: Path) -> set[str]:
    """The database files of a home that this process has open."""
    return {
        path.name
        for entry in Path("/proc/self/fd").iterdir()
        if (path := Path(entry.readlink() if entry.is_symlink() else entry)).is_relative_to(home)
    }


def test_close_closes_every_table_that_was_opened(tmp_path: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    home = Home(load(home=tmp_path, device="cpu"))
    home.close()
    assert not connections(tmp_path)  # nothing was opened
    stores = [getattr(home, name) for name in TABLES]
    assert {name for name in connections(tmp_path) if name.endswith(".sqlite")} == {
        "jobs.sqlite",
        "gallery.sqlite",
        "sweeps.sqlite",
        "captions.sqlite",
        "looks.sqlite",
        "vectors.sqlite",
    }
    home.close()
    assert not connections(tmp_path)
    with pytest.raises(DiskError, match="was closed"):
        stores[0].list_open()
    assert home.jobs.list_open() == []  # opened anew
    home.close()


def test_datasets_share_their_registry(tmp_path: Path) -> None:
    home = Home(load(home=tmp_path, device="cpu"))
    assert home.datasets.registry is home.training_sets
    home.close()
