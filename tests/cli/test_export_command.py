"""`studio export` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from PIL import Image

from studio.core.generation.request import ResolvedRequest
from studio.settings import load
from studio.storage.gallery import Gallery, read_image_settings
from support.sentences import check_sentence

Command = Callable[..., CompletedProcess[str]]
REQUEST = ResolvedRequest(prompt="a boat", width=64, height=64, seed=7)


def test_files_and_folders(command: Command, tmp_path: Path) -> None:
    settings = load(home=tmp_path / "home", device="cpu")
    gallery = Gallery(settings)
    image = gallery.save(
        Image.new("RGB", (64, 64), "red"),
        REQUEST,
        digest="1" * 64,
        content_hashes={},
        seconds=1,
        owner="ann",
    )
    gallery.close()
    (image.path.parent / "odd.png").write_text("no picture")
    out = tmp_path / "some where"
    words = ("export", str(image.path.parent), "--format", "webp", "--quality", "80", "--json")
    done = command(*words, "--output", str(out))
    assert done.returncode == 1
    check_sentence(done.stderr)
    (line,) = map(json.loads, done.stdout.splitlines())
    assert line == {
        "path": str(out / f"{image.path.stem}.webp"),
        "source": str(image.path),
        "notes": [],
    }
    assert read_image_settings(Path(line["path"])).values == REQUEST.model_dump(mode="json")
    again = command("export", str(image.path), "--format", "webp", "--output", str(out))
    assert again.stdout == f"{out / image.path.stem}-1.webp\n"  # never written over
    text = command("export", str(image.path), "--carry", "text", "--output", str(out))
    data = Path(text.stdout.strip()).read_bytes()
    assert "Steps: 20".encode("utf-16-be") in data
    assert b"digest" not in data


def test_what_cannot_be(command: Command, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (16, 16)).save(picture)
    for words, status in (
        (("nothing.png",), 1),
        ((str(tmp_path / "home"),), 1),
        ((str(picture), "--format", "tiff", "--quality", "101"), 2),
        ((str(picture), "--format", "comfyui"), 1),
        ((str(picture), "--mark-ai", "perhaps"), 2),
    ):
        done = command("export", *words, "--output", str(tmp_path))
        assert (done.returncode, done.stdout) == (status, "")
        check_sentence(done.stderr.replace(str(tmp_path), "HOME"))
