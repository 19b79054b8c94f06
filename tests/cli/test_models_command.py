"""`studio models` as a user types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.sentences import check_sentence
from support.weights import CROSS, VAE_FILE, kohya_lora, write_weights

Studio = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def studio(run_command: Studio, tmp_path: Path) -> Studio:
    """`studio(…)` is `studio models …` on one home."""
    return lambda *words: run_command("models", *words, "--home", str(tmp_path / "home"))


def read(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    assert done.returncode == 0, done.stderr
    return {entry["name"]: entry for entry in json.loads(done.stdout)["models"]}


def test_a_folder_comes_and_goes(tmp_path: Path, studio: Studio) -> None:
    folder = tmp_path / "webui"
    write_weights(folder / "models/Lora/ink.safetensors", kohya_lora(CROSS))
    write_weights(folder / "models/VAE/anime.safetensors", VAE_FILE)
    check_sentence(studio("add-folder", str(folder)).stdout.strip())
    entries = read(studio("--json"))
    assert entries["a1111/ink"]["kind"] == "lora"
    assert entries["a1111/ink"]["location"] == str(folder / "models/Lora/ink.safetensors")
    assert entries["a1111/ink"]["place"] == "a1111: Lora/ink.safetensors"
    assert list(read(studio("--json", "--kind", "vae"))) == ["a1111/anime"]
    assert "a1111/anime" not in read(studio("--json", "--family", "sd1"))
    lines = studio().stdout.splitlines()
    assert any(line.startswith("lora         a1111/ink  ") for line in lines)
    assert lines[-1].startswith("folder       a1111  ")
    again = studio("add-folder", str(folder), "--name", "other")
    assert again.returncode == 1
    check_sentence(again.stderr.strip())
    check_sentence(studio("remove-folder", "a1111").stdout.strip())
    assert "a1111/ink" not in read(studio("--json"))
    gone = studio("remove-folder", "a1111")
    assert gone.returncode == 1
    check_sentence(gone.stderr.strip())


@pytest.mark.parametrize("words", [("--kind", "x"), ("--family", "x")])
def test_a_filter_that_is_none(studio: Studio, words: tuple[str, str]) -> None:
    done = studio(*words)
    assert done.returncode == 2
    check_sentence(done.stderr.strip())
