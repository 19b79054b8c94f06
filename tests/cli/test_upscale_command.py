"""`studio upscale` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from PIL import Image

from studio.settings import shipped
from support import upscalers
from support.pickles import read_pickles_here
from support.sentences import check_sentence

Studio = Callable[..., CompletedProcess[str]]


@pytest.fixture
def studio(command: Studio) -> Studio:
    """`studio upscale …` on a home of its own."""
    return lambda *words: command("upscale", *words, "--keep-free", "0")


def test_files_and_folders_and_what_is_no_picture(studio: Studio, tmp_path: Path) -> None:
    folder = tmp_path / "some where"
    folder.mkdir()
    drawing = shipped("assets") / "datasets" / "moon" / "000.png"
    image = Image.open(drawing).convert("RGB")
    image.save(folder / "a.png")
    (folder / "b.png").write_text("no picture")
    out = tmp_path / "out"
    done = studio(
        str(folder), str(drawing), "--upscaler", "lanczos", "--scale", "2",
        "--output", str(out), "--json",
    )  # fmt: skip
    assert done.returncode == 1
    check_sentence(done.stderr)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["source"]).name for line in lines] == ["a.png", "000.png"]
    size = (2 * image.width, 2 * image.height)
    expected = image.resize(size, Image.Resampling.LANCZOS)
    for line in lines:
        assert (line["upscaler"], line["size"]) == ("Lanczos", list(size))
        assert Path(line["path"]).parent == out
        assert np.array_equal(Image.open(line["path"]).convert("RGB"), expected)
    assert lines[0]["digest"] == lines[1]["digest"]


def test_a_wrong_name_is_said_at_once(studio: Studio) -> None:
    done = studio("nothing.png", "--upscaler", "4x-none")
    assert (done.returncode, done.stdout) == (1, "")
    check_sentence(done.stderr)


def test_a_pickle_is_used_at_the_first_time(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_pickles_here(monkeypatch)
    folder = tmp_path / "home" / "upscalers"
    folder.mkdir(parents=True)
    torch.save({"params": upscalers.compact(2)}, folder / "2x_pick.pth")
    Image.new("RGB", (24, 16), "red").save(tmp_path / "a.png")
    done = studio(str(tmp_path / "a.png"), "--scale", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["upscaler"] == "2x_pick"
