"""A file in the wrong folder is found, said, and moved to where it belongs; never over another, never out of the home."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from studio.errors import BadFile
from studio.settings import Settings, load
from studio.storage import atomic
from studio.storage.models import loose_files, lora_file
from studio.storage.models.library import Library, LoraInfo, ModelInfo, Unusable
from support.sentences import check_sentence, refused
from support.weights import (
    CROSS,
    SDXL,
    VAE_FILE,
    WHOLE,
    kohya_lora,
    list_own_loras,
    write_gguf,
    write_weights,
)

pytestmark = pytest.mark.smoke
LORA = kohya_lora(CROSS)
LOHA = kohya_lora(CROSS, **{f"hada_w{k}_{side}": [4, 4] for k in (1, 2) for side in "ab"})


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return load(home=tmp_path / "home", device="cpu")


def places(home: Settings) -> dict[str, str]:
    """What can be moved, and where to."""
    library = Library(home)
    items = [*library.scan_models(), *list_own_loras(library)]
    return {item.file: item.move_to for item in items if isinstance(item, Unusable) and item.file}


def tree(home: Settings) -> set[str]:
    folders = (home.models, home.loras)
    return {str(path.relative_to(home.home)) for folder in folders for path in folder.rglob("*")}


def test_what_lies_in_the_wrong_folder(home: Settings) -> None:
    write_weights(home.models / "lora.safetensors", LORA)
    write_weights(home.models / "loha.safetensors", LOHA)
    write_weights(home.models / "right.safetensors", SDXL | WHOLE)
    write_weights(home.models / "vae.safetensors", VAE_FILE)
    write_weights(home.loras / "deep" / "big.safetensors", SDXL | WHOLE)
    write_weights(home.loras / "right.safetensors", LORA)
    write_gguf(home.loras / "flux.gguf", [("joint_blocks.0.x", [8], 1)], "sd3")
    write_weights(home.home / "root.safetensors", LORA)
    write_weights(
        home.embeddings / "up.safetensors",
        {"conv_first.weight": [64, 3, 3, 3], "conv_last.weight": [3]},
    )
    write_weights(home.vaes / "right.safetensors", VAE_FILE)
    (home.loras / "old.pt").write_bytes(b"\x80\x02")
    assert places(home) == {
        "models/vae.safetensors": "vae",
        "embeddings/up.safetensors": "upscalers",
        "models/lora.safetensors": "loras",
        "models/loha.safetensors": "loras",
        "loras/deep/big.safetensors": "models",
        "loras/flux.gguf": "models",
        "root.safetensors": "loras",
    }


def test_it_is_said(home: Settings) -> None:
    write_weights(home.models / "lora.safetensors", LORA)
    write_weights(home.loras / "big.safetensors", SDXL | WHOLE)
    write_weights(home.loras / "vae.safetensors", VAE_FILE)
    library = Library(home)
    for item in (*library.scan_models(), *list_own_loras(library)):
        if isinstance(item, Unusable):
            check_sentence(item.problem)


@pytest.mark.parametrize("file", ["models/moon.safetensors", "moon.safetensors"])
def test_a_moved_lora_can_be_used(home: Settings, file: str) -> None:
    written = write_weights(home.home / file, LORA)
    data = written.read_bytes()
    library = Library(home)
    library.scan_models()  # what was said of it is not remembered
    path = library.move_file(file)
    assert path == home.loras / "moon.safetensors"
    assert path.read_bytes() == data
    assert not written.exists()
    assert library.get_lora("moon").rank == 4
    assert not any(isinstance(item, Unusable) for item in library.scan_models())


def test_a_checkpoint_out_of_a_folder_of_loras(home: Settings) -> None:
    write_weights(home.loras / "deep" / "big.safetensors", SDXL | WHOLE)
    Library(home).move_file("loras/deep/big.safetensors")
    assert tree(home) == {"models/big.safetensors", "loras/deep"}


def test_what_belongs_to_it_goes_along(home: Settings) -> None:
    write_weights(home.loras / "big.safetensors", SDXL | WHOLE)
    for name in ("big.yaml", "big.preview.png", "bigger.txt", "big.v2.safetensors", "notes.txt"):
        (home.loras / name).write_text("x")
    Library(home).move_file("loras/big.safetensors")
    assert tree(home) == {
        "models/big.safetensors",
        "models/big.yaml",
        "models/big.preview.png",
        "loras/bigger.txt",
        "loras/big.v2.safetensors",
        "loras/notes.txt",
    }


def test_the_alpha_of_peft_goes_along(home: Settings) -> None:
    write_weights(home.models / "adapter_model.safetensors", LORA)
    (home.models / "adapter_config.json").write_text('{"lora_alpha": 2, "r": 4}')
    library = Library(home)
    library.move_file("models/adapter_model.safetensors")
    assert library.get_lora("adapter_model").alpha == 2


@pytest.mark.parametrize(
    "taken",
    ["loras/moon.safetensors", "loras/art/Moon.safetensors", "loras/moon.yaml"],
)
def test_nothing_is_written_over(home: Settings, taken: str) -> None:
    write_weights(home.models / "moon.safetensors", LORA)
    (home.models / "moon.yaml").write_text("mine")
    (home.home / taken).parent.mkdir(exist_ok=True)
    (home.home / taken).write_text("theirs")
    before = tree(home)
    with refused(BadFile):
        Library(home).move_file("models/moon.safetensors")
    assert tree(home) == before
    assert (home.home / taken).read_text() == "theirs"


def test_a_link_that_leads_nowhere_has_its_name_too(home: Settings) -> None:
    write_weights(home.loras / "big.safetensors", SDXL | WHOLE)
    (home.models / "big.safetensors").symlink_to(home.home / "nowhere")
    with refused(BadFile):
        Library(home).move_file("loras/big.safetensors")
    assert (home.loras / "big.safetensors").is_file()


@pytest.mark.parametrize(
    "file",
    ["", "/etc/passwd", "../moon.safetensors", "models/../moon.safetensors", "models", "x" * 5000],
)
def test_only_what_is_listed_moves(home: Settings, tmp_path: Path, file: str) -> None:
    outside = write_weights(tmp_path / "moon.safetensors", LORA)
    with refused(BadFile):
        Library(home).move_file(file)
    assert outside.is_file()


def test_a_part_of_a_model_stays(home: Settings) -> None:
    write_weights(home.models / "mine" / "unet" / "lora.safetensors", LORA)
    with refused(BadFile):
        Library(home).move_file("models/mine/unet/lora.safetensors")


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_is_linked_stays(home: Settings, tmp_path: Path, is_folder: bool) -> None:
    outside = write_weights(tmp_path / "away" / "big.safetensors", SDXL | WHOLE)
    if is_folder:
        (home.loras / "away").symlink_to(outside.parent)
    else:
        (home.loras / "away").mkdir()
        (home.loras / "away" / outside.name).symlink_to(outside)
    assert places(home) == {}
    with refused(BadFile):
        Library(home).move_file("loras/away/big.safetensors")
    assert outside.is_file()


def test_a_linked_folder_of_models_is_the_homes_own(home: Settings, tmp_path: Path) -> None:
    home.models.rmdir()
    (tmp_path / "large disk").mkdir()
    home.models.symlink_to(tmp_path / "large disk")
    write_weights(home.models / "moon.safetensors", LORA)
    Library(home).move_file("models/moon.safetensors")
    assert tree(home) == {"loras/moon.safetensors"}


def test_another_disk_is_said(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    write_weights(home.models / "moon.safetensors", LORA)
    (home.models / "moon.yaml").write_text("x")

    def fail(source: Path, target: Path) -> None:
        if target.suffix == ".safetensors":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        os.rename(source, target)

    monkeypatch.setattr(atomic, "move_file", fail)
    with refused(BadFile):
        Library(home).move_file("models/moon.safetensors")
    assert tree(home) == {"models/moon.safetensors", "models/moon.yaml"}


@pytest.mark.parametrize("fault", [None, OSError])
def test_a_rename_never_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[OSError] | None
) -> None:
    """Also where the disk knows no links."""

    def fail(*paths: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    if fault:
        monkeypatch.setattr(os, "link", fail)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("new")
    atomic.move_file(source, target)
    assert (source.exists(), target.read_text()) == (False, "new")
    source.write_text("newer")
    with pytest.raises(FileExistsError):
        atomic.move_file(source, target)
    assert (source.read_text(), target.read_text()) == ("newer", "new")
    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no links"):
        atomic.move_file(source, tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("file", "shapes"),
    [
        (
            "models/control.safetensors",
            {"control_layers.0.x": [4], "control_all_x_embedder.x": [4]},
        ),
        ("vae/vae.safetensors", VAE_FILE),
        ("models/big.safetensors", SDXL | WHOLE),
        ("models/odd.safetensors", {"x": [4, 4]}),
        ("loras/moon.safetensors", LORA),
    ],
)
def test_what_has_no_other_place_stays(home: Settings, file: str, shapes: Any) -> None:
    write_weights(home.home / file, shapes)
    with refused(BadFile):
        Library(home).move_file(file)
    assert (home.home / file).is_file()


def test_a_second_click_is_told_that_it_is_gone(home: Settings) -> None:
    write_weights(home.models / "moon.safetensors", LORA)
    library = Library(home)
    library.move_file("models/moon.safetensors")
    with refused(BadFile):
        library.move_file("models/moon.safetensors")


# ---- one odd file hides no other ----


def test_broken_files_hide_none(home: Settings) -> None:
    for folder in (home.home, home.models, home.loras):
        for name, data in (
            ("empty.safetensors", b""),
            ("page.safetensors", b"<!doctype html>"),
            ("cut.gguf", b"GGUF\3"),
            ("old.ckpt", b"\x80\x04"),
        ):
            (folder / name).write_bytes(data)
        os.mkfifo(folder / "pipe.safetensors")
        (folder / "circle.safetensors").symlink_to(folder / "circle.safetensors")
        (folder / "folder.safetensors").mkdir()
        bad_name = os.fsencode(folder) + b"/\xff\xfe.safetensors"
        with open(bad_name, "wb") as file:
            file.write(b"hello")
    write_weights(home.loras / "moon.safetensors", LORA)
    library = Library(home)
    models, loras = library.scan_models(), list_own_loras(library)
    assert [model.name for model in models if isinstance(model, ModelInfo)] == ["pocket"]
    assert [lora.name for lora in loras if isinstance(lora, LoraInfo)] == ["moon"]
    assert len(models) == 1 + 2 * 7  # all but the folder
    assert len(loras) == 1 + 7
    for item in (*models, *loras):
        item.name.encode()
        if isinstance(item, Unusable):
            item.problem.encode()
            assert item.move_to == ""


def test_a_model_folder_whose_name_is_no_text(home: Settings) -> None:
    folder = os.fsencode(home.models) + b"/\xff"
    os.mkdir(folder)
    with open(folder + b"/model_index.json", "w") as file:
        file.write("{}")
    (unusable,) = [item for item in Library(home).scan_models() if isinstance(item, Unusable)]
    unusable.name.encode()
    check_sentence(unusable.problem)


@pytest.mark.parametrize("reader", ["identify_file", "read_lora_info", "iterdir"])
def test_a_fault_of_ours_hides_none(
    home: Settings, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    write_weights(home.models / "big.safetensors", SDXL | WHOLE)
    write_weights(home.loras / "moon.safetensors", LORA)

    def fail(*args: object, **kwargs: object) -> None:
        raise PermissionError if reader == "iterdir" else TypeError

    owner = {
        "identify_file": loose_files.model_file,
        "read_lora_info": lora_file,
        "iterdir": Path,
    }[reader]
    monkeypatch.setattr(owner, reader, fail)
    library = Library(home)
    assert isinstance(library.scan_models(), list)
    assert [item.name for item in list_own_loras(library)] == ["moon"]
