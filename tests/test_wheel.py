"""The wheel: what is in it, and that it works away from the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
BIN = "Scripts" if os.name == "nt" else "bin"
PICTURE = [
    "generate",
    "--prompt",
    "a red ball",
    "--steps",
    "2",
    "--width",
    "64",
    "--height",
    "64",
    "--device",
    "cpu",
    "--json",
]


def run(*words: object, cwd: Path) -> str:
    """What a command says, far from the checkout: nothing in the environment points there."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "STUDIO_", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as for a release: the wheel from the sdist, the sdist from the checkout."""
    for needed in ("build", "hatchling"):
        pytest.importorskip(needed, reason=f"needs {needed}")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.mark.slow
def test_the_wheel_holds_the_studio_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    folders = (
        "studio",
        "assets/pocket",
        "assets/datasets",
        "assets/fonts",
        "assets/loras",
        "assets/clip-tokenizer",
        "presets",
    )
    shipped = {path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()}
    wanted = {
        path.relative_to(ROOT).as_posix() for path in shipped if "__pycache__" not in path.parts
    }
    assert names == {name if name.startswith("studio/") else f"studio/{name}" for name in wanted}
    assert {
        "studio/ui/static/style.css",
        "studio/assets/pocket/model_index.json",
        "studio/presets/pictures/Quick draft.toml",
    } <= names
    assert wheel.stat().st_size < 100 * 2**20


@pytest.mark.slow
def test_it_paints_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=os.name != "nt")
    python, studio = (tmp_path / "venv" / BIN / name for name in ("python", "studio"))
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=tmp_path,
    )
    packages = Path(
        run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path).strip()
    )
    (packages / "others.pth").write_text(
        "\n".join(site.getsitepackages())
    )  # as paths: their own .pth files are not read
    places = run(
        python,
        "-c",
        "import studio, torch; from studio.settings import shipped; print(studio.__file__); "
        "print(shipped('assets')); print(shipped('presets'))",
        cwd=tmp_path,
    ).split("\n")
    assert all(Path(place).is_relative_to(packages) for place in places[:3])
    made = json.loads(run(studio, *PICTURE, "--home", tmp_path / "home", cwd=tmp_path))
    assert Image.open(made["path"]).size == (64, 64)
    assert Path(made["path"]).is_relative_to(tmp_path / "home")
    told = json.loads(run(studio, "inspect", made["path"], cwd=tmp_path))
    assert told["request"] == made["request"]
    assert made["request"]["prompt"] == "a red ball"


@pytest.mark.slow
def test_the_install_command_of_readme(tmp_path: Path) -> None:
    """On a fresh copy, with everything fetched by pip, as a newcomer does it."""
    readme = (ROOT / "README.md").read_text("utf-8")
    found = re.search(
        r"^\s*(python3 -m venv .*pip install .*?) && (\S*bin/studio)\b", readme, re.MULTILINE
    )
    assert found, "README has the command"
    copy = tmp_path / "studio"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "out", "cache"))
    run("sh", "-c", found[1].replace("python3", sys.executable, 1), cwd=copy)
    made = json.loads(run(copy / found[2], *PICTURE, "--home", tmp_path / "home", cwd=tmp_path))
    assert Image.open(made["path"]).size == (64, 64)
    told = json.loads(
        run(copy / found[2], "doctor", "--json", "--home", tmp_path / "home", cwd=tmp_path)
    )
    assert told["missing"] == []
    assert told["models"]["pocket"] == "sd1"
    assert "cpu" in told["devices"]["there"]
