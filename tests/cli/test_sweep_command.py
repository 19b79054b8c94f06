"""`studio sweep` as a user types it: status, words, files on disk. In this process, as importing torch anew takes seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from PIL import Image

from support.sentences import check_sentence

Studio = Callable[..., CompletedProcess[str]]
WORDS = """
title = "Two by two"
[base]
prompt = "a photo of a moon in the night sky"
steps = 2
width = 64
height = 64
schedule = "Model default"
[[axes]]
field = "scheduler"
values = ["DPM++ 2M", "Euler a"]
[[axes]]
field = "guidance"
values = "1-4 (+3)"
"""


@pytest.fixture
def studio(command: Studio) -> Studio:
    """`studio sweep …` on a home of its own."""
    return lambda *words: command("sweep", *words)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.toml"
    path.write_text(WORDS)
    return path


@pytest.mark.smoke
def test_what_is_planned_is_what_is_made(studio: Studio, spec: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    planned = json.loads(studio(str(spec), "--plan").stdout)
    assert [cell["labels"] for cell in planned["cells"]] == [
        ["DPM++ 2M", "CFG scale 1"],
        ["DPM++ 2M", "CFG scale 4"],
        ["Euler a", "CFG scale 1"],
        ["Euler a", "CFG scale 4"],
    ]
    predicted = planned["predicted"]
    assert (predicted["cells"], predicted["rows"], predicted["loads"], predicted["seconds"]) == (
        4,
        2 * (2 + 4),
        1,
        None,
    )
    assert not list((home / "outputs").rglob("*.png"))
    assert not list((home / "sweeps").iterdir())  # made nothing
    made = studio(str(spec), "--output", str(tmp_path / "out"))
    assert made.returncode == 0, made.stderr
    paths = [Path(line) for line in made.stdout.splitlines()]
    for cell, path in zip(planned["cells"], paths):
        with Image.open(path) as image:
            told = json.loads(image.text["studio"])  # type: ignore[attr-defined]
        assert (told["digest"], told["request"]) == (cell["digest"], cell["request"])
    assert [path.name for path in paths[4:]] == [
        "sheet.png",
        "viewer.html",
        "index.json",
        "index.csv",
    ]
    assert all(path.is_file() and path.is_relative_to(tmp_path / "out") for path in paths)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert all(
        (tmp_path / "out" / cell["picture"]).is_file() and ".." not in cell["picture"]
        for cell in index["cells"]
    )
    again = studio(str(spec))
    assert again.returncode == 0
    assert len(list((home / "outputs").rglob("*.png"))) == 4  # taken, not made twice
    assert [Path(line).name for line in again.stdout.splitlines()[:4]] == [
        path.name for path in paths[:4]
    ]
    later = json.loads(studio(str(spec), "--plan").stdout)
    assert later["cells"] == planned["cells"]
    assert later["predicted"]["seconds"] > 0  # measured by now
    fast = json.loads(studio(str(spec), "--plan", "--fast").stdout)["cells"]
    assert all(cell["request"]["batch_size"] == 8 for cell in fast)
    assert fast[0]["digest"] != planned["cells"][0]["digest"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("1-4 (+3)", "1-x"), 2),
        (('"Euler a"', '"Eular"'), 2),
        (("steps = 2", "steps = 0\nwidht = 7"), 2),
        (("[base]", '[base]\nmodel = "nowhere"'), 1),
        (("[[axes]]", "[[axes"), 1),
        (("[base]", '[base]\nloras = ["luna:1"]'), 1),
    ],
    ids=["range", "scheduler", "base", "no model", "no TOML", "no LoRA"],
)
def test_nonsense_in_plain_words(
    studio: Studio, spec: Path, tmp_path: Path, change: tuple[str, str], status: int
) -> None:
    spec.write_text(WORDS.replace(*change, 1))
    for more in ((), ("--plan",)):
        done = studio(str(spec), *more)
        assert done.returncode == status
        check_sentence(done.stderr)
        assert "Traceback" not in done.stderr
        assert not done.stdout
    assert studio(str(tmp_path / "nothing.toml")).returncode == 1


@pytest.mark.slow
def test_failed_cells_are_said_and_the_others_are_there(studio: Studio, spec: Path) -> None:
    spec.write_text(
        WORDS.replace(
            'field = "guidance"\nvalues = "1-4 (+3)"', 'field = "clip_skip"\nvalues = [1, 12]'
        )
    )
    done = studio(str(spec))
    assert done.returncode == 1
    assert "2 of 4 cells" in done.stderr
    assert "Clip skip" in done.stderr
    assert len([line for line in done.stdout.splitlines() if "/outputs/" in line]) == 2
