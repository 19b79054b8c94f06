"""What becomes of the home's path on its way to a guest, and of what a guest has typed."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path

import pytest

from studio.settings import load
from studio.ui.hidden_paths import HiddenPathsMiddleware, RevealedFilesMiddleware


async def nothing(*_: object) -> None:
    """Answer nothing."""


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(load(home=tmp_path / "große home").home)


def hide(home: str, text: str) -> str:
    return HiddenPathsMiddleware(nothing, load(home=home))._hide(text.encode()).decode()


def test_the_home_is_hidden_however_it_is_written(home: str) -> None:
    sentence = f"{home}/a.png is gone; “{home}” too.\n{home}"
    hidden = "/studio-home/a.png is gone; “/studio-home” too.\n/studio-home"
    assert hide(home, sentence) == hidden
    for write in (json.dumps, lambda text: json.dumps(text, ensure_ascii=False)):
        assert json.loads(hide(home, write(sentence))) == hidden
        assert json.loads(json.loads(hide(home, write(write(sentence))))) == hidden
    assert hide(home, f"file={urllib.parse.quote(home)}/a.png") == "file=/studio-home/a.png"


@pytest.mark.parametrize("text", ["a boat/root lake", "tale/roots", "~/root", "/root system"])
def test_what_is_typed_stays(text: str, home: str) -> None:
    assert hide(home, text) == text


def test_a_short_home_is_no_part_of_words(tmp_path: Path) -> None:
    home = str(tmp_path)
    for text in (f"and{home}", f"{home}base", f"{home}-2/x", f"x{home}/y"):
        assert hide(home, text) == text


def test_only_files_are_revealed(home: str) -> None:
    reveal = RevealedFilesMiddleware(nothing, load(home=home))._reveal_files
    typed = {"prompt": "/studio-home/x", "path": 3, "more": ["/studio-home/x", None]}
    assert reveal(typed) == typed
    assert reveal([{"path": "/studio-home/uploads/a.png"}]) == [{"path": f"{home}/uploads/a.png"}]
    assert reveal({"path": "/studio-home-2/a"}) == {"path": "/studio-home-2/a"}
