"""`studio get` as a user types it, against sites on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from studio.cli import get as get_command
from support.sentences import check_sentence
from support.sites import (
    HUB,
    OTHER,
    Gate,
    Sites,
    add_repository,
    add_version,
    make_large_lora,
)

pytestmark = pytest.mark.smoke
Studio = Callable[..., CompletedProcess[str]]


@pytest.fixture
def get(command: Studio, sites: Sites) -> Studio:
    return lambda *words: command("get", *words)


@pytest.fixture
def lora(tmp_path: Path) -> bytes:
    return make_large_lora(tmp_path)


def test_it_says_what_is_there_and_fetches_it(
    get: Studio, sites: Sites, tmp_path: Path, lora: bytes
) -> None:
    done = get(add_version(sites, lora), "--yes", "--name", "silver")
    assert done.returncode == 0
    for line in done.stdout.splitlines():
        check_sentence(line)
    assert (tmp_path / "home/loras/silver.safetensors").read_bytes() == lora
    again = get(add_version(sites, lora), "--yes", "--name", "silver")
    assert again.stdout.splitlines()[-1] == "silver is already in loras/."


def test_json(get: Studio, sites: Sites, tmp_path: Path, lora: bytes) -> None:
    add_repository(sites, "ann/moon", {"moon.safetensors": lora}, licence="mit")
    done = get("ann/moon", "--yes", "--json")
    result = json.loads(done.stdout)
    assert (result["name"], result["folder"]) == ("moon", "loras")
    assert Path(result["path"]).is_file()
    assert result["plan"]["licence"] == "mit"
    assert result["plan"]["size_bytes"] == len(lora)


def test_nothing_is_fetched_where_nobody_can_answer(
    get: Studio, sites: Sites, tmp_path: Path, lora: bytes
) -> None:
    url = sites.put(f"https://{OTHER}/moon.safetensors", lora)
    done = get(url)
    assert done.returncode == 2
    check_sentence(done.stderr)
    assert sites.log == []


class Terminal:
    """Somebody who answers one question."""

    def __init__(self, answer: str, hear: Callable[[], None] = lambda: None) -> None:
        self.answer, self.hear = answer, hear

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        self.hear()
        return self.answer


def test_a_site_is_asked_for_a_name_after_the_answer(
    get: Studio, sites: Sites, lora: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, num_calls = f"https://{OTHER}/download/7", []
    header = {"Content-Disposition": 'attachment; filename="silver.safetensors"'}
    sites.on(url, lambda asked: asked.answer(200, lora, **header))
    terminal = Terminal("y\n", lambda: num_calls.append(len(sites.log)))
    monkeypatch.setattr(get_command.sys, "stdin", terminal)
    done = get(url)
    assert done.returncode == 0
    assert num_calls == [0]
    assert "silver is now in loras/" in done.stdout


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("\n", 130), ("n\n", 130), ("", 130)])
def test_a_question(
    get: Studio,
    sites: Sites,
    lora: bytes,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    status: int,
) -> None:
    monkeypatch.setattr(get_command.sys, "stdin", Terminal(answer))
    url = sites.put(f"https://{OTHER}/moon.safetensors", lora)
    done = get(url)
    assert done.returncode == status
    assert (len(sites.log) > 0) == (status == 0)
    assert OTHER in done.stderr


def test_ctrl_c_keeps_what_came_and_says_so(
    get: Studio, sites: Sites, tmp_path: Path, lora: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"https://{OTHER}/moon.safetensors"
    gate = Gate(sites, url, lora)

    def interrupt() -> Any:
        def show(num_bytes: int, total: int) -> None:
            if num_bytes > total // 3:
                gate.open()
                raise KeyboardInterrupt

        return show

    with monkeypatch.context() as patch:
        patch.setattr(get_command, "_build_progress_line", interrupt)
        done = get(url, "--yes")
    assert done.returncode == 130
    check_sentence(done.stderr.splitlines()[0])
    assert get(url, "--yes").returncode == 0
    assert "Range" in sites.log[-1].headers


def test_what_goes_wrong_is_one_sentence(
    get: Studio, sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (["moon"], ["ann/missing"], ["ann/x", "--variant", "best"], ["ann/x@main"]):
        done = get(*words, "--yes")
        assert done.returncode in (1, 2)
        check_sentence(done.stderr)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = get("ann/x", "--yes")
    assert done.returncode == 1
    check_sentence(done.stderr)
    assert [call.host for call in sites.log] == [HUB, HUB]
