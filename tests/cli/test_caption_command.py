"""`studio caption` as a user types it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from studio.settings import shipped
from support.sentences import check_sentence

Studio = Callable[..., CompletedProcess[str]]


@pytest.fixture
def studio(command: Studio) -> Studio:
    """`studio caption …` on a home of its own."""
    return lambda *words: command("caption", *words, "--keep-free", "0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures anywhere on the disk, one with a caption."""
    made = tmp_path / "some where"
    made.mkdir()
    for name in ("000", "001", "002"):
        shutil.copy(shipped("assets") / "datasets" / "mysks" / f"{name}.png", made)
    (made / "001.txt").write_text("mine\n")
    return made


def test_shown_then_written_then_nothing_to_do(studio: Studio, folder: Path) -> None:
    shown = studio(str(folder), "--dry-run", "--trigger", "mysks", "--mode", "replace")
    assert shown.returncode == 0
    assert len(list(folder.glob("*.txt"))) == 1
    lines = shown.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["000.png", "001.png", "002.png"]
    assert lines[1].startswith("001.png: mine → mysks, a ")
    done = studio(str(folder), "--trigger", "mysks", "--json")
    told = json.loads(done.stdout)
    assert (told["count"], told["made"], told["taken"], told["kept"], told["failed"]) == (
        3,
        0,
        2,
        1,
        [],
    )
    written = {row["file"]: row["after"] for row in told["rows"]}
    assert written == {
        f"{name}.png": (folder / f"{name}.txt").read_text().strip() for name in ("000", "002")
    }
    assert f"000.png: → {written['000.png']}".replace(": →", ":  →") == lines[0]
    assert (folder / "001.txt").read_text() == "mine\n"
    again = studio(str(folder))
    assert again.returncode == 0
    assert again.stdout.splitlines() == [
        "Nothing to do: all 3 images have a caption. Use --mode replace to write all captions again, or --mode append to add to them."
    ]
    assert "the image has a caption" in studio(str(folder), "--picture", "001.png").stdout
    told = json.loads(studio(str(folder), "--json").stdout)
    assert (
        told["count"],
        told["made"],
        told["taken"],
        told["kept"],
        told["rows"],
        told["failed"],
    ) == (3, 0, 0, 3, [], [])


def test_a_dataset_by_name_and_some_of_its_pictures(
    studio: Studio, folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "home" / "datasets" / "plush"
    shutil.copytree(folder, place)
    done = studio(
        "plush",
        "--picture",
        "002.png",
        "--picture",
        "001.png",
        "--prefix",
        "x ",
        "--mode",
        "append",
    )
    assert done.returncode == 0
    assert [line[:12] for line in done.stdout.splitlines()] == [
        "002.png: x a",
        "001.png: min",
    ]
    assert (place / "001.txt").read_text().startswith("mine, x a ")
    assert not (place / "000.txt").exists()


def test_what_fails_is_named_and_the_rest_is_done(studio: Studio, folder: Path) -> None:
    (folder / "000.png").write_bytes((folder / "000.png").read_bytes()[:3000])
    done = studio(str(folder))
    assert done.returncode == 1
    assert done.stdout.startswith("002.png: a ")
    assert "000.png" in done.stderr
    assert "damaged" in done.stderr


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--mode", "fil", "--tokens", "x"], 2),
        (["--captioner", "endpoint"], 2),
        (["--captioner", "pokket"], 1),
        (["--filter", "is:nothing"], 2),
    ],
    ids=["values", "endpoint", "no captioner", "filter"],
)
def test_nonsense_in_plain_words(
    studio: Studio, folder: Path, words: list[str], status: int
) -> None:
    done = studio(str(folder), *words)
    assert done.returncode == status, done.stderr
    check_sentence(done.stderr)
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_folders_that_are_none(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in (str(tmp_path / "gone"), "gone", str(tmp_path / "empty")):
        done = studio(name)
        assert done.returncode == 1
        assert done.stderr
        assert "Traceback" not in done.stderr
    moon = studio("moon", "--mode", "replace")
    assert moon.returncode == 1
    check_sentence(moon.stderr)
