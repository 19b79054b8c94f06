"""Every bench runs to its end at its smallest: a renamed attribute of the engine is found here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
SMALLEST = {
    "picture": ["--runs", "1"],
    "sweeps": ["--cells", "2", "--runs", "1", "--case", "mixed"],
    "bound": ["--case", "DPM2 a"],
    "pictures": ["--runs", "1"],
    "training": ["--steps", "1", "--runs", "1"],
    "captioning": ["--captions", "2", "--runs", "1"],
    "datasets": ["--pictures", "10", "--runs", "1"],
    "demos": [],
    "ladders": ["--runs", "1"],
    "latency": [],
    "page": ["--runs", "1"],
    "weight": ["--runs", "1"],
    "press": ["--runs", "1"],
    "tasks": [],
    "guests": ["--seconds", "3"],
    "gpu": ["--toy"],
    "files": ["--toy", "--runs", "1"],
}


@pytest.mark.parametrize("name", SMALLEST)
def test_a_bench_runs(name: str) -> None:
    command = [sys.executable, "-m", "tests.bench", name, *SMALLEST[name]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout


def test_every_bench_is_run() -> None:
    command = [sys.executable, "-m", "tests.bench", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    choices = [
        sorted(re.sub(r"\s", "", group).split(","))
        for group in re.findall(r"{([^}]*)}", done.stdout)
    ]
    assert sorted(SMALLEST) in choices
