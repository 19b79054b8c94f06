"""Files of one kind by name: found wherever they lie, told apart by their headers alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.core.generation.request import GenerationRequest
from studio.errors import BadFile, ModelNotFound
from studio.settings import load
from studio.storage.models import shelf as shelf_module
from studio.storage.models.library import Library
from studio.storage.models.shelf import MAX_FILES, walk_weights
from support.sentences import refused
from support.weights import CROSS, VAE, VAE_FILE, kohya_lora, write_weights

pytestmark = pytest.mark.smoke


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(load(home=tmp_path / "home", device="cpu"))


def test_the_header_decides_the_kind(library: Library, tmp_path: Path) -> None:
    vaes = tmp_path / "home" / "vae"
    write_weights(vaes / "anime.safetensors", VAE_FILE)
    write_weights(vaes / "deep" / "flux.safetensors", {VAE: [512, 16, 3, 3]})
    write_weights(vaes / "moon.safetensors", kohya_lora(CROSS))
    assert [file.name for file in library.shelf.list_files("vae")] == ["anime", "deep/flux"]


def test_the_last_part_of_a_name_is_enough(library: Library, tmp_path: Path) -> None:
    write_weights(tmp_path / "home/vae/a/x.safetensors", VAE_FILE)
    assert library.shelf.get_file("vae", "x").name == "a/x"
    write_weights(tmp_path / "home/vae/b/x.safetensors", VAE_FILE)
    with refused(ModelNotFound):
        library.shelf.get_file("vae", "x")
    assert library.shelf.get_file("vae", "b/x").path.parent.name == "b"


def test_what_cannot_be_used_says_why(library: Library, tmp_path: Path) -> None:
    write_weights(tmp_path / "home/vae/big-00001-of-00002.safetensors", VAE_FILE)
    with refused(BadFile):
        library.shelf.get_file("vae", "big-00001-of-00002")


def test_models_in_many_files_and_circles_are_left_out(tmp_path: Path) -> None:
    write_weights(tmp_path / "whole/unet/x.safetensors", {"x": [1]})
    (tmp_path / "whole/model_index.json").write_text("{}")
    write_weights(tmp_path / "deep/y.safetensors", {"x": [1]})
    (tmp_path / "deep/circle").symlink_to(tmp_path)
    assert [path.name for path in walk_weights(tmp_path)] == ["y.safetensors"]
    assert MAX_FILES > 5000


def test_one_look_answers_several_questions(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request asks for a model, LoRAs, a VAE and embeddings: with 5,000 files each look counts."""
    write_weights(tmp_path / "home/vae/a.safetensors", VAE_FILE)
    looks = []
    scan_roots = shelf_module.scan_folder
    monkeypatch.setattr(
        shelf_module, "scan_folder", lambda *a, **k: looks.append(a) or scan_roots(*a, **k)
    )
    library.shelf.scan()
    num_folders = len(looks)
    library.check_request(GenerationRequest(prompt="a <lora:moon:1> boat"))
    assert len(looks) == 2 * num_folders
    write_weights(tmp_path / "home/vae/b.safetensors", VAE_FILE)
    with library.shelf.look_once():
        assert library.shelf.get_file("vae", "b").name == "b"
    (tmp_path / "home/vae/b.safetensors").unlink()
    with refused(ModelNotFound):  # the next question looks again
        library.shelf.get_file("vae", "b")
