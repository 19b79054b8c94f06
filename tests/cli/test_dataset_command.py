"""`studio dataset` as a user types it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.settings import shipped
from support.datasets import held, picture
from support.sentences import check_sentence

Studio = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def studio(run_command: Studio) -> Studio:
    """`studio(home, …)` is `studio dataset …` on that home."""
    return lambda home, *words: run_command("dataset", "--home", str(home), *words)


def test_json(tmp_path: Path, studio: Studio) -> None:
    folder = tmp_path / "set"
    shutil.copytree(shipped("assets") / "datasets" / "moon", folder)
    (folder / "000.txt").write_text("moon")
    (folder / "bad.png").write_bytes(b"x")
    shutil.copy(folder / "001.png", folder / "copy.png")
    before = held(folder)
    done = studio(
        tmp_path / "home", str(folder), "--json", "--trigger", "moon", "--resolution", "512"
    )
    assert done.returncode == 0
    assert not done.stderr
    found = json.loads(done.stdout)
    assert {name: found[name] for name in ("pictures", "captioned", "layout", "repeats")} == {
        "pictures": 25,
        "captioned": 24,
        "layout": "sidecar",
        "repeats": {".": 1},
    }
    assert [one["file"] for one in found["broken"]] == ["bad.png"]
    kinds = {(one["kind"], one["file"]) for one in found["lint"]}
    assert {
        ("short", "000.png"),
        ("missing", "copy.png"),
        ("duplicate", "copy.png"),
        ("broken", "bad.png"),
    } <= kinds
    assert sum(kind == "small" for kind, _ in kinds) == 25
    assert not any(kind == "trigger" for kind, _ in kinds)
    assert held(folder) == before
    found = json.loads(
        studio(tmp_path / "home", str(folder), "--json", "--trigger", "mysks").stdout
    )
    assert sum(one["kind"] == "trigger" for one in found["lint"]) == 24
    assert all(
        one["mend"]["trigger"] == "mysks" for one in found["lint"] if one["kind"] == "trigger"
    )


def test_for_people(tmp_path: Path, studio: Studio) -> None:
    picture(tmp_path / "img" / "10_moon rock" / "a.png")
    picture(tmp_path / "img" / "3_sun" / "b.png", colour=2)
    (tmp_path / "img" / "3_sun" / "b.txt").write_text("a sun,  , a sun")
    done = studio(tmp_path / "home", str(tmp_path / "img"))
    assert done.returncode == 0
    assert "img: 2 images, 1 with a caption (kohya)" in done.stdout
    assert "10_moon rock x 10, 3_sun x 3" in done.stdout
    assert "untidy" in done.stdout
    assert "has no caption; the name of its folder, 'moon rock'," in done.stdout
    done = studio(tmp_path / "home", "mysks")
    assert done.returncode == 0
    assert "no problems found" in done.stdout


@pytest.mark.parametrize(
    ("words", "status"),
    [(["nowhere"], 1), (["no/such"], 1), (["{empty}"], 1), (["moon", "--resolution", "x"], 2)],
    ids=["no name", "no folder", "empty", "no number"],
)
def test_what_cannot_be(tmp_path: Path, studio: Studio, words: list[str], status: int) -> None:
    done = studio(tmp_path / "home", *[word.format(empty=tmp_path) for word in words])
    assert done.returncode == status
    assert not done.stdout
    check_sentence(done.stderr)
    assert "Traceback" not in done.stderr


def test_without_a_name_the_usage_is_shown(tmp_path: Path, studio: Studio) -> None:
    done = studio(tmp_path / "home")
    assert done.returncode == 2
    assert not done.stdout
    assert "usage" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_torch_stays_away(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom studio.cli.main import main\n"
        f"try: main(['dataset', 'moon', '--home', {str(tmp_path / 'home')!r}])\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'gradio', 'diffusers', 'transformers', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
