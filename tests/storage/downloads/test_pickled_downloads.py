"""Downloads of pickles: of embeddings and upscalers alone, and nothing in them is run."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from studio.errors import BadFile
from studio.settings import Settings
from studio.storage.downloads.pickle_names import classify_pickle
from support.downloads import Get, list_home
from support.sentences import refused
from support.sites import (
    OTHER,
    Sites,
)


def zip_pickle(value: Any) -> bytes:
    """A pickle in the form in which PyTorch writes one, without tensors."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, protocol=2))
        archive.writestr("archive/data/0", bytes(100))
    return stream.getvalue()


class Evil:
    def __reduce__(self) -> Any:
        return (open, ("/tmp/studio-was-here", "w"))


@pytest.mark.parametrize(
    ("name", "value", "folder"),
    [
        ("moon.pt", {"string_to_token": {"*": 265}, "string_to_param": {"*": 1}}, "embeddings"),
        ("moon.bin", {"<moon>": 1}, "embeddings"),
        ("moon.pth", {"params_ema": {"conv_first.weight": 1}}, "upscalers"),
        ("moon.pth", {"model.0.weight": 1, "model.1.sub.0.RDB1.conv1.0.weight": 1}, "upscalers"),
    ],
)
def test_pickles_of_embeddings_and_upscalers(
    sites: Sites, get: Get, settings: Settings, name: str, value: Any, folder: str
) -> None:
    url = f"https://{OTHER}/{name}"
    for number, data in enumerate((zip_pickle(value), pickle.dumps(value, protocol=2))):
        sites.put(url, data)
        placed = get(url, name=f"moon{number}")
        assert placed.path == settings.home / folder / f"moon{number}{Path(name).suffix}"


@pytest.mark.parametrize(
    "data",
    [
        zip_pickle({"optimizer": 1}),
        pickle.dumps([1, 2]),
        b"PK\x03\x04" + b"x" * 500,
        b"\x80\x02" + b"\xff" * 500,
    ],
    ids=range(4),
)
def test_other_pickles_are_not_kept(
    sites: Sites, get: Get, settings: Settings, data: bytes
) -> None:
    sites.put(f"https://{OTHER}/moon.pt", data)
    with refused(BadFile):
        get(f"https://{OTHER}/moon.pt")
    assert list_home(settings) == []


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    path.write_bytes(zip_pickle({"string_to_param": Evil()}))
    assert classify_pickle(path) == "embedding"
    assert not Path("/tmp/studio-was-here").exists()
