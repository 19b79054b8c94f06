"""Errors are matched by class and field, and their English is that of one file, which one option writes."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.errors import BadFile, DatasetError, InvalidSpec
from support import sentences
from support.sentences import FILE, Snapshot, check_sentence, refused

FAULTS = ("Steps: has to be 1 or more.", "Rank: has to be at most 64: that is enough.")


@pytest.fixture
def open_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Snapshot]:
    """`open_snapshot(is_writing)` puts one on a file of its own in place of the real one, at a test's begin."""

    def open_snapshot(is_writing: bool = False) -> Snapshot:
        snapshot = Snapshot(tmp_path / "sentences.toml", is_writing)
        monkeypatch.setattr(sentences, "snapshot", snapshot)
        snapshot.enter("core/test_a.py::test_b[c d]")
        return snapshot

    return open_snapshot


def refuse(*titles: str, faults: tuple[str, ...] = FAULTS) -> None:
    with refused(InvalidSpec, *titles) as caught:
        raise InvalidSpec(faults)
    assert caught.value.faults == faults


@pytest.mark.smoke
def test_what_is_written_is_expected(open_snapshot: Callable[..., Snapshot]) -> None:
    writing = open_snapshot(is_writing=True)
    refuse("Steps", "Rank")
    check_sentence('A "warning" \ud800.')
    writing.write()
    open_snapshot()
    refuse("Steps", "Rank")
    check_sentence('A "warning" \ud800.')


@pytest.mark.smoke
def test_another_class_title_or_sentence_fails(open_snapshot: Callable[..., Snapshot]) -> None:
    writing = open_snapshot(is_writing=True)
    refuse()
    writing.write()
    open_snapshot()
    with pytest.raises(BadFile), refused(DatasetError):
        raise BadFile("x")
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"), refused(DatasetError):
        pass
    for titles in (("Steps",), ("Rank", "Steps"), ("Steps", "Rank", "Batch size")):
        with pytest.raises(AssertionError):
            refuse(*titles)
    command = re.escape("python -m pytest --write-sentences tests/core/test_a.py")
    with pytest.raises(
        pytest.fail.Exception, match=rf"(?s)there: Steps.*1 or more\..*here: .*2\..*{command}"
    ):
        refuse(faults=("Steps: has to be at least 2.", FAULTS[1]))
    with pytest.raises(pytest.fail.Exception, match="there: None"):
        refuse()  # a second sentence, which the file does not have


@pytest.mark.smoke
def test_only_what_is_no_more_is_dropped(open_snapshot: Callable[..., Snapshot]) -> None:
    one_line = lambda test, number: f'"core/{test} {number}" = "old"\n'  # noqa: E731
    writing = open_snapshot(is_writing=True)
    keys = [
        *(("test_a.py::test_b[c d]", number) for number in range(1, 12)),
        ("test_a.py::test_failed", 1),
        ("test_a.py::test_renamed", 1),
        ("test_other.py::test_x", 1),
    ]
    writing.file.write_text("".join(one_line(*key) for key in reversed(keys)))
    writing = open_snapshot(is_writing=True)
    for _ in range(10):
        check_sentence("new")
    writing.passed = {writing.test}
    writing.tests = {writing.test, "core/test_a.py::test_failed"}
    writing.write()
    expected = [(*key, "old") for key in keys]
    expected = [(*key, "new") for key in keys[:10]] + expected[11:12] + expected[13:]
    assert writing.file.read_text() == "".join(
        f'"core/{test} {number}" = "{text}"\n' for test, number, text in expected
    )


A_TEST = """
from support.sentences import check_sentence

def test_a(tmp_path):
    check_sentence(f"There is no folder {tmp_path / 'a'}.")
"""


@pytest.mark.slow
def test_the_option_writes(tmp_path: Path) -> None:
    """In a project of its own, with a copy of the plugin."""
    for folder in ("support", "core"):
        (tmp_path / "tests" / folder).mkdir(parents=True)
    shutil.copy(Path(sentences.__file__), tmp_path / "tests" / "support")
    (tmp_path / "tests" / "core" / "test_a.py").write_text(A_TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = tests\n")
    command = [sys.executable, "-m", "pytest", "-p", "xdist", "-p", "support.sentences", "-n", "1"]
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path / "tests"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    run = functools.partial(subprocess.run, cwd=tmp_path, env=environment, capture_output=True)
    assert run(command).returncode == 1
    assert run([*command, "--write-sentences"]).returncode == 0
    file = tmp_path / "tests" / "support" / "sentences.toml"
    assert file.read_text() == '"core/test_a.py::test_a 1" = "There is no folder <tmp>/a."\n'
    assert run(command).returncode == 0


@pytest.mark.smoke
def test_places_of_this_machine_are_left_out(tmp_path: Path) -> None:
    normalise = sentences.snapshot.normalise
    assert normalise(f"no {tmp_path}/home/a.png, {tmp_path.parent}/toys0.") == (
        "no <tmp>/home/a.png, <tmp>."
    )
    assert normalise(f"{Path.home()}/x {FILE}") == "<home>/x <studio>/tests/support/sentences.toml"
    assert normalise("http://127.0.0.1:7860/v1") == "http://127.0.0.1:<port>/v1"
    assert normalise(f"{'0f' * 32}.png of run {'0f' * 6}") == "<digest>.png of run <digest>"
    assert normalise("needs 3.25 GiB on 1 thread") == "needs <number> GiB on <number> thread"


@pytest.mark.smoke
def test_every_sentence_belongs_to_a_file_of_tests() -> None:
    tests = Path(__file__).parent
    keys = tomllib.loads(FILE.read_text("utf-8"))
    assert {key for key in keys if not (tests / key.partition("::")[0]).is_file()} == set()
