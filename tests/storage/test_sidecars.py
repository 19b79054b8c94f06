"""What other programs wrote beside a file: read, and harmless whatever it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.services.model_catalog import ModelCatalog
from studio.settings import load
from studio.storage.home import Home
from studio.storage.models.library import Library, LoraInfo
from studio.storage.models.sidecars import MAX_NOTES_CHARS, Sidecar, find_preview, read_sidecar
from support.visitors import OWNER
from support.weights import CROSS, kohya_lora, write_weights

pytestmark = pytest.mark.smoke
CIVITAI = {
    "trainedWords": ["ink wash, brush", "ink wash"],
    "baseModel": "Pony",
    "description": "<p>Brush &amp; ink</p>",
    "model": {"name": "Ink Wash"},
}
A1111 = {
    "activation text": "my ink",
    "description": "mine",
    "sd version": "SDXL",
    "preferred weight": 0.8,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "ink.v2.safetensors", kohya_lora(CROSS))


def write(file: Path, ending: str, value: Any) -> None:
    (file.parent / f"ink.v2{ending}").write_text(json.dumps(value))


def test_civitais_and_the_persons_own(file: Path) -> None:
    write(file, ".civitai.info", CIVITAI)
    assert read_sidecar(file) == Sidecar(("ink wash", "brush"), "Pony", "Brush & ink", "Ink Wash")
    write(file, ".json", A1111)
    words = ("my ink", "ink wash", "brush")
    assert read_sidecar(file) == Sidecar(words, "Pony", "mine", "Ink Wash", 0.8)


def test_what_only_a_browser_reads_is_no_description(file: Path) -> None:
    text = "<STYLE>p {}</STYLE>Ink<!-- a --><script>alert('<b>')</script > wash<script>x"
    write(file, ".civitai.info", {"description": text})
    assert read_sidecar(file).notes == "Ink wash"


@pytest.mark.parametrize("value", [0, True, "0.8", None, [1], 4.5, -5, 1e9, float("nan")])
def test_what_is_no_weight_is_none(file: Path, value: Any) -> None:
    write(file, ".json", {"preferred weight": value})
    assert read_sidecar(file).preferred_weight == 0


@pytest.mark.parametrize(
    "value",
    [
        [],
        3,
        None,
        {"trainedWords": "ink", "baseModel": 3, "model": [], "description": {}},
        {"trainedWords": [1, None, {}, "", " , "], "activation text": 7},
        {"model": {"name": ["x"]}, "sd version": "Unknown"},
    ],
)
def test_other_shapes_say_nothing(file: Path, value: Any) -> None:
    for ending in (".civitai.info", ".json"):
        write(file, ending, value)
    assert read_sidecar(file) == Sidecar()


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b" " * (2**20 + 1)])
def test_broken_and_huge_ones_say_nothing(file: Path, data: bytes) -> None:
    (file.parent / "ink.v2.json").write_bytes(data)
    assert read_sidecar(file) == Sidecar()


def test_hostile_text_is_one_short_line(file: Path) -> None:
    write(
        file,
        ".civitai.info",
        {"trainedWords": ["a\n\x00\ud800b" * 1000], "description": "x\n" * 10_000},
    )
    sidecar = read_sidecar(file)
    assert all(word.isprintable() for word in (*sidecar.trigger_words, sidecar.notes))
    assert len(sidecar.notes) <= MAX_NOTES_CHARS


@pytest.mark.parametrize("ending", [".preview.png", ".png", ".jpg", ".preview.webp", ".thumb.jpg"])
def test_previews(file: Path, ending: str) -> None:
    assert find_preview(file) is None
    image = file.parent / f"ink.v2{ending}"
    image.write_bytes(b"x")
    assert find_preview(file) == image


def test_its_words_are_those_of_the_lora_until_they_change(tmp_path: Path) -> None:
    library = Library(load(home=tmp_path / "home", device="cpu"))
    file = write_weights(tmp_path / "home/loras/ink.v2.safetensors", kohya_lora(CROSS))

    def words() -> tuple[str, ...]:
        (lora,) = [item for item in library.list_loras() if item.path == file]
        assert isinstance(lora, LoraInfo)
        assert library.get_lora("ink.v2") == lora
        return lora.trigger_words

    assert words() == ()
    write(file, ".civitai.info", CIVITAI)
    assert words() == ("ink wash", "brush")
    write(file, ".json", A1111)
    assert words() == ("my ink", "ink wash", "brush")
    catalog = ModelCatalog(Home(load(home=tmp_path / "home", device="cpu")))
    (entry,) = [entry for entry in catalog.list_entries(OWNER) if entry.name == "ink.v2"]
    assert "weight 0.8" in entry.facts
